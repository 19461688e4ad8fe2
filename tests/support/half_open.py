"""A gateway and a client in a network of their own, and a client that goes: with and without a word.

`unshare -rn python -m tests.support.half_open HOW` prints how often clients counted as vanished. In a network of
its own it may close a socket without telling the other side, and answer as routers do.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from eventstreams.app import build_gateway
from eventstreams.catalog.load import load_catalog
from eventstreams.eventlog.embedded.log import open_embedded
from eventstreams.metrics import Metrics
from eventstreams.records import NewRecord
from eventstreams.server import beside, listen
from eventstreams.subscribe.admission import Admission
from eventstreams.subscribe.endpoints import GatewayOptions, StreamEndpoint
from eventstreams.subscribe.engine import Engine
from eventstreams.subscribe.options import EngineOptions

SERVER = "127.0.0.1"
CLIENT = "127.0.0.9"
PATIENCE = 1.5
"""Seconds, in place of two minutes: how long the kernel sends in vain."""

TCP_REPAIR = 19
SO_ATTACH_FILTER = 26
ETH_P_IP = 0x0800


def _closed_without_a_word(client: socket.socket) -> None:
    client.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    client.close()


def _silent(client: socket.socket) -> None:
    """Have the client's kernel drop all that comes, as if the way there were cut: a filter that takes nothing."""
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    program = struct.pack("HL", 1, ctypes.addressof(instruction))
    client.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def _unreachable(code: int) -> Callable[[socket.socket], None]:
    """Cut the way, and have a router answer what is sent with ICMP's "destination unreachable" and this code."""

    def cut(client: socket.socket) -> None:
        _silent(client)
        seen = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
        seen.bind(("lo", ETH_P_IP))
        seen.setblocking(False)
        router = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        asyncio.get_running_loop().add_reader(seen, answer, seen, router)

    def answer(seen: socket.socket, router: socket.socket) -> None:
        packet = seen.recv(65536)
        if packet[9] == socket.IPPROTO_TCP and packet[16:20] == socket.inet_aton(CLIENT):
            body = struct.pack("!BBHI", 3, code, 0, 0) + packet[:28]
            router.sendto(body[:2] + struct.pack("!H", _checksum(body)) + body[4:], (SERVER, 0))

    return cut


def _checksum(data: bytes) -> int:
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


HOWS: Mapping[str, Callable[[socket.socket], None]] = {
    "answered by a reset": _closed_without_a_word,
    "silent": _silent,
    "host unreachable": _unreachable(1),
    "network unreachable": _unreachable(0),
    "prohibited": _unreachable(13),
    "reset by itself": _reset,
    "closed": lambda client: client.close(),
}


async def gone(how: str, folder: Path) -> float:
    """Open a stream, have its client go, add an event; return the count of vanished clients."""
    (folder / "streams.yaml").write_text("streams: {edits: {topics: [a]}}")
    metrics, catalog = Metrics(), load_catalog(str(folder / "streams.yaml"))
    admission = Admission(metrics)
    async with open_embedded(":memory:") as log, Engine(log, EngineOptions(), metrics).open() as engine:
        await log.create_topic("a")
        app = build_gateway(StreamEndpoint(engine, catalog, admission, GatewayOptions()))
        with contextlib.closing(listen(SERVER, 0, patience=PATIENCE)) as listener:
            async with beside(app, listener):
                client = await _opened(listener.getsockname())
                # For longer than a client that lives takes to acknowledge what it is sent.
                await asyncio.sleep(1.2)
                HOWS[how](client)
                await log.append([NewRecord("a", b'{"n":1}')])
                await _until(lambda: admission.count == 0)
    return metrics.registry.get_sample_value("eventstreams_clients_dropped_total", {"reason": "vanished"}) or 0.0


async def _opened(address: tuple[str, int]) -> socket.socket:
    loop = asyncio.get_running_loop()
    client = socket.socket()
    client.setblocking(False)
    client.bind((CLIENT, 0))
    await loop.sock_connect(client, address)
    await loop.sock_sendall(client, b"GET /v2/stream/edits HTTP/1.1\r\nHost: here\r\n\r\n")
    received = b""
    while b"\nid: " not in received:
        received += await loop.sock_recv(client, 65536)
    return client


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - the kernel rings no bell
            await asyncio.sleep(0.01)


def main() -> None:
    """Run one way to go and print what was seen."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory(prefix="half-open-") as folder:
        print(int(asyncio.run(gone(sys.argv[1], Path(folder)))))


if __name__ == "__main__":
    main()
