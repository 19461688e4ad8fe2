"""A gateway with many open streams is told to stop: how each of them ends, and how long all of it takes.

`python -m tests.support.drain --connections 10000 --workers 1` prints one line; exit status 1 when a stream did not end
as it should, or when all of it took longer than ten seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from eventstreams.eventlog.embedded.log import open_embedded
from eventstreams.records import NewRecord
from tests.support.processes import GatewayProcess
from tests.support.sse import ChunkedReader

AT_ONCE = 100
"""Connections that are being made at the same time."""

STALLED = 10
"""Clients among them that take nothing: they hold the drain open to its end."""

LIMIT = 10.0
FIRST_RETRY = re.compile(rb":ok\n\nretry: (\d+)\n")
GOODBYE = re.compile(rb"retry: (\d+)\nid: (\[.*\])\n\n$")
REQUEST = "{} /v2/stream/{} HTTP/1.1\r\nHost: test\r\n{}\r\n"
BROWSER = "Accept: text/event-stream\r\nOrigin: https://wiki.example\r\n"


class Stream(asyncio.Protocol):
    """One client: takes what comes."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[None] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(REQUEST.format("GET", "edits", "").encode())

    def data_received(self, data: bytes) -> None:
        self.received += data
        if b"id: " in self.received and not self.begun.done():
            self.begun.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        for future in (self.begun, self.over):
            if not future.done():
                future.set_result(None)


@dataclass
class Ended:
    """What was seen."""

    connections: int
    seconds: float = 0.0
    status: int | None = None
    unclean: list[bytes] = field(default_factory=list)
    """What streams held that did not end as they should."""
    first_retries: list[int] = field(default_factory=list)
    """What streams were told at their beginning, and at their end."""
    retries: list[int] = field(default_factory=list)
    refused: bytes = b""
    """The answer to a client that came while the gateway was draining."""
    browser: bytes = b""
    """The same to a browser."""

    def note(self, stream: Stream) -> None:
        """Take down how a stream ended."""
        _, _, body = stream.received.partition(b"\r\n\r\n")
        chunks = ChunkedReader()
        content = chunks.feed(body)
        first, goodbye = FIRST_RETRY.match(content), GOODBYE.search(content)
        if first is None or goodbye is None or not chunks.ended:
            self.unclean.append(stream.received[-300:])
            return
        json.loads(goodbye[2])
        self.first_retries.append(int(first[1]))
        self.retries.append(int(goodbye[1]))

    def __str__(self) -> str:
        spread = f"{min(self.retries, default=0)}..{max(self.retries, default=0)} ms"
        return (
            f"connections={self.connections} seconds={self.seconds:.2f} unclean={len(self.unclean)} retry={spread}"
            f" slots={len(set(self.retries))} status={self.status}"
        )


async def drained(folder: Path, connections: int, *settings: str, workers: int = 1) -> Ended:
    """Open so many streams of a gateway of its own, and some that stall, and stop it."""
    (folder / "streams.yaml").write_text("streams: {edits: {topics: [a]}}")
    await fill(folder / "events.db")
    gateway = GatewayProcess(f"embedded:{folder / 'events.db'}", folder / "streams.yaml", *settings, workers=workers)
    async with gateway.running():
        stalled = [await stall(gateway) for _ in range(STALLED)]
        streams = await _open(gateway, connections)
        ended = Ended(connections)
        began = time.monotonic()
        stopping = asyncio.create_task(gateway.end(signal.SIGTERM))
        # All of them: each worker has begun its drain then, and the stalled clients hold it open.
        async with asyncio.timeout(LIMIT):
            await asyncio.gather(*(stream.over for stream in streams))
        ended.refused, ended.browser = await ask(gateway, ""), await ask(gateway, BROWSER)
        ended.status = await stopping
        ended.seconds = time.monotonic() - began
        for one in stalled:
            one.close()
    for stream in streams:
        ended.note(stream)
    return ended


async def fill(path: Path) -> None:
    """Make a log with more in it than all buffers of a connection hold."""
    async with open_embedded(str(path)) as log:
        await log.create_topic("a")
        await log.append([NewRecord("a", orjson.dumps({"pad": "x" * 4000})) for _ in range(1000)])


async def _open(gateway: GatewayProcess, count: int) -> list[Stream]:
    turns = asyncio.Semaphore(AT_ONCE)

    async def one() -> Stream:
        async with turns:
            _, stream = await asyncio.get_running_loop().create_connection(Stream, *gateway.address)
            await stream.begun
            return stream

    return await asyncio.gather(*(one() for _ in range(count)))


async def stall(gateway: GatewayProcess) -> socket.socket:
    """Ask for more than all buffers hold, and take none of it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, gateway.address)
    await loop.sock_sendall(connection, REQUEST.format("GET", "edits?since=1", "").encode())
    await loop.sock_recv(connection, 1)
    return connection


async def ask(gateway: GatewayProcess, headers: str, method: str = "GET") -> bytes:
    """Return the whole answer to a request for a stream, which must have an end."""
    reader, writer = await asyncio.open_connection(*gateway.address)
    writer.write(REQUEST.format(method, "edits", f"Connection: close\r\n{headers}").encode())
    try:
        return await reader.read()
    finally:
        writer.close()


def main() -> None:
    """Run once and say what was seen."""
    parser = argparse.ArgumentParser(description="How a gateway with many open streams ends.")
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="drain-") as folder:
        ended = asyncio.run(drained(Path(folder), given.connections, workers=given.workers))
    print(ended)
    sys.exit(0 if not ended.unclean and ended.seconds <= LIMIT else 1)


if __name__ == "__main__":
    main()
