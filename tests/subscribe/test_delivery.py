"""Both ways of delivery keep the same promises on the socket: what a client sees byte by byte, however it behaves."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import uvicorn

from eventstreams.app import build_gateway
from eventstreams.catalog.load import load_catalog
from eventstreams.eventlog.embedded.log import EmbeddedLog, open_embedded
from eventstreams.metrics import Metrics
from eventstreams.records import NewRecord
from eventstreams.subscribe.admission import Admission
from eventstreams.subscribe.endpoints import GatewayOptions, StreamEndpoint
from eventstreams.subscribe.engine import Engine
from eventstreams.subscribe.handover import HandoverProtocol, fits, http_protocol
from eventstreams.subscribe.options import EngineOptions

PATHS: dict[str, type[HandoverProtocol] | str] = {"direct": HandoverProtocol, "portable": "h11"}


class Gateway(NamedTuple):
    path: str
    address: tuple[str, int]
    log: EmbeddedLog
    engine: Engine
    admission: Admission
    metrics: Metrics
    server: uvicorn.Server

    async def add(self, *values: int, size: int = 0) -> None:
        pad = b"x" * size
        await self.log.append(
            [NewRecord("a", b'{"n":%d,"pad":"%b","meta":{"stream":"edits"}}' % (n, pad), None, n) for n in values]
        )

    def dropped(self, reason: str) -> float:
        value = self.metrics.registry.get_sample_value("eventstreams_clients_dropped_total", {"reason": reason})
        return value or 0.0

    def waiting(self) -> int:
        """Return the bytes that clients have not taken yet."""
        return sum(subscription._wire.waiting_bytes() for subscription in self.engine.subscriptions())

    async def behind(self) -> None:
        """Wait until a client is behind because its socket takes no more."""
        await eventually(
            lambda: any(s not in s.group.at_head and s._wire.waiting_bytes() for s in self.engine.subscriptions())
        )

    async def open_streams(self, count: int) -> None:
        """Wait until so many streams are open."""
        await eventually(lambda: self.admission.count == count == len(self.engine.subscriptions()))


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what rings no bell: the kernel's buffers, the other side of a socket."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(
    tmp_path: Path, path: str, options: EngineOptions | None = None, reading: GatewayOptions | None = None
) -> AsyncIterator[Gateway]:
    (tmp_path / "streams.yaml").write_text("streams: {edits: {topics: [a]}}")
    metrics, catalog = Metrics(), load_catalog(str(tmp_path / "streams.yaml"))
    admission = Admission(metrics)
    async with open_embedded(":memory:") as log:
        await log.create_topic("a")
        async with Engine(log, options or EngineOptions(), metrics).open() as engine:
            app = build_gateway(StreamEndpoint(engine, catalog, admission, reading or GatewayOptions()))
            listener = socket.create_server(("127.0.0.1", 0))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
            server = uvicorn.Server(
                uvicorn.Config(app, http=PATHS[path], ws="none", log_config=None, server_header=False, lifespan="off")
            )
            task = asyncio.create_task(server._serve([listener]))
            try:
                yield Gateway(path, listener.getsockname(), log, engine, admission, metrics, server)
            finally:
                await engine.drain(0.2)
                server.should_exit = True
                await task


@pytest.fixture(params=PATHS)
async def gateway(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Gateway]:
    async with serving(tmp_path, request.param) as running:
        yield running


class Client:
    """A raw connection: bytes out, bytes in. A small window, so that it stalls soon."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def head(self) -> bytes:
        return await self.until(b"\r\n\r\n", at_most=1)

    async def until(self, what: bytes, *, at_most: int = 65536) -> bytes:
        """Return what comes up to and with `what`, and what came with it in one read of `at_most` bytes."""
        raw = b""
        async with asyncio.timeout(20):
            while what not in raw[-65536 - len(what) :]:
                piece = await self.reader.read(at_most)
                assert piece, raw[-200:]
                raw += piece
        return raw

    async def rest(self) -> bytes:
        async with asyncio.timeout(20):
            return await self.reader.read()


@asynccontextmanager
async def connected(
    gateway: Gateway, request: str = "GET /v2/stream/edits HTTP/1.1", *headers: str, more: bytes = b""
) -> AsyncIterator[Client]:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, gateway.address)
    reader, writer = await asyncio.open_connection(sock=sock, limit=2**12)
    writer.write("\r\n".join([request, "Host: test", *headers, "", ""]).encode() + more)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


def fields(head: bytes) -> dict[str, str]:
    lines = head.decode().split("\r\n")[1:-2]
    return {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}


def unchunked(raw: bytes) -> tuple[bytes, bool]:
    """Return the body of a chunked message, strictly parsed, and whether its end was seen."""
    body = b""
    while raw:
        size, raw = raw.split(b"\r\n", 1)
        assert re.fullmatch(rb"[0-9a-f]+", size)
        length = int(size, 16)
        if length == 0:
            assert raw == b"\r\n"
            return body, True
        if len(raw) < length + 2:
            break
        assert raw[length : length + 2] == b"\r\n"
        body, raw = body + raw[:length], raw[length + 2 :]
    return body, False


def numbers(body: bytes) -> list[int]:
    return [int(n) for n in re.findall(rb'data: \{"n":(\d+)', body)]


async def test_head_has_the_contract_s_headers_and_a_date(gateway: Gateway) -> None:
    async with connected(gateway) as client:
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 200 ")
        found = fields(head)
        assert found["content-type"] == "text/event-stream"
        assert found["cache-control"] == "no-cache"
        assert found["transfer-encoding"] == "chunked"
        assert "date" in found
        assert found["access-control-allow-origin"] == "*"


async def test_body_is_chunked_and_ends_cleanly_at_a_drain_with_id_and_retry(gateway: Gateway) -> None:
    async with connected(gateway) as client:
        await client.head()
        await gateway.open_streams(1)
        await gateway.add(1, 2)
        first = await client.until(b'"n":2')
        await gateway.engine.drain(5)
        body, ended = unchunked(first + await client.rest())
        assert ended
        assert re.match(rb":ok\n\nretry: \d+\nid: \[", body)
        assert numbers(body) == [1, 2]
        last = re.findall(rb"retry: (\d+)\nid: (.*)\n\n", body)
        assert json.loads(last[-1][1])[0]["offset"] == 2
        await gateway.open_streams(0)


async def test_http_1_0_gets_raw_bytes_until_the_connection_closes(gateway: Gateway) -> None:
    async with connected(gateway, "GET /v2/stream/edits HTTP/1.0") as client:
        head = fields(await client.head())
        assert "transfer-encoding" not in head
        assert head["connection"] == "close"
        await gateway.open_streams(1)
        await gateway.add(7)
        body = await client.until(b'"n":7')
        assert re.match(rb":ok\n\nretry: \d+\nid: ", body)
        await gateway.engine.drain(5)
        assert b"retry: " in await client.rest()


async def test_connection_close_is_answered_and_streams_all_the_same(gateway: Gateway) -> None:
    async with connected(gateway, "GET /v2/stream/edits HTTP/1.1", "Connection: close") as client:
        head = fields(await client.head())
        assert (head["connection"], head["transfer-encoding"]) == ("close", "chunked")
        await gateway.open_streams(1)
        await gateway.add(3)
        assert b"data: " in await client.until(b'"n":3')


async def test_head_request_has_no_body_and_the_connection_serves_on(gateway: Gateway) -> None:
    async with connected(gateway, "HEAD /v2/stream/edits HTTP/1.1") as client:
        assert fields(await client.head())["content-type"] == "text/event-stream"
        client.writer.write(b"GET /v2/stream/edits HTTP/1.1\r\nHost: test\r\n\r\n")
        assert (await client.until(b":ok\n\n")).startswith(b"HTTP/1.1 200")


async def test_a_request_pipelined_before_a_stream_is_answered_first(gateway: Gateway) -> None:
    second = b"GET /v2/stream/edits HTTP/1.1\r\nHost: test\r\n\r\n"
    async with connected(gateway, "GET /robots.txt HTTP/1.1", more=second) as client:
        assert b"User-agent" in await client.until(b"Disallow: /\n")
        await client.head()
        await gateway.open_streams(1)
        await gateway.add(1)
        assert numbers(await client.until(b'"n":1')) == [1]


async def test_requests_pipelined_behind_a_stream_are_never_answered(gateway: Gateway) -> None:
    second = b"GET /robots.txt HTTP/1.1\r\nHost: test\r\n\r\n"
    async with connected(gateway, more=second) as client:
        await client.head()
        await gateway.open_streams(1)
        if gateway.path == "direct":
            client.writer.write(second + b"\x00 no HTTP at all \r\n\r\n")
        await gateway.add(1)
        first = await client.until(b'"n":1')
        await gateway.engine.drain(5)
        rest = first + await client.rest() if gateway.path == "direct" else first
        assert b"User-agent" not in rest
        assert rest.count(b"HTTP/1.1") == 0


async def test_half_close_ends_the_stream_and_frees_its_place(gateway: Gateway) -> None:
    async with connected(gateway) as client:
        await client.head()
        await gateway.open_streams(1)
        client.writer.write_eof()
        await gateway.open_streams(0)
        assert not unchunked(await client.rest())[1]


async def test_disconnects_of_many_leave_nothing_behind_and_no_neighbour_misses_anything(gateway: Gateway) -> None:
    async with connected(gateway) as stays:
        await stays.head()
        for round_ in range(5):
            leaving = [connected(gateway) for _ in range(10)]
            clients = [await one.__aenter__() for one in leaving]
            for client in clients:
                await client.until(b":ok\n\n")
            for one, client in zip(leaving, clients, strict=True):
                if round_ % 2:
                    client.writer.transport.abort()
                await one.__aexit__(None, None, None)
            await gateway.add(round_)
        await gateway.open_streams(1)
        assert numbers(await stays.until(b'"n":4')) == [0, 1, 2, 3, 4]


async def test_stalled_reader_holds_nobody_up_and_gets_everything_when_it_reads_on(gateway: Gateway) -> None:
    async with connected(gateway) as slow, connected(gateway) as live:
        await live.head()
        await slow.head()
        await gateway.open_streams(2)
        for n in range(60):
            await gateway.add(n, size=8000)
            await live.until(b'"n":%d,' % n)
        assert gateway.waiting() > 0
        raw = await slow.until(b'"n":59,')
        assert numbers(unchunked(raw[: raw.rindex(b'"n":59,')])[0]) == list(range(59))


async def test_slow_reader_loses_nothing_across_full_buffers(gateway: Gateway) -> None:
    async with connected(gateway) as client:
        await client.head()
        await gateway.open_streams(1)
        for n in range(80):
            await gateway.add(n, size=8000)
        await gateway.behind()
        raw = await client.until(b'"n":79,', at_most=3000)
        await gateway.engine.drain(5)
        body, ended = unchunked(raw + await client.rest())
        assert ended
        assert numbers(body) == list(range(80))


async def test_stream_that_ends_while_bytes_wait_is_sent_whole_and_ends_once(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(gateway) as client:
        await client.head()
        await gateway.open_streams(1)
        for n in range(60):
            await gateway.add(n, size=8000)
        await gateway.behind()
        draining = asyncio.create_task(gateway.engine.drain(10))
        body, ended = unchunked(await client.rest())
        assert ended
        seen = numbers(body)
        assert seen == list(range(len(seen)))
        await draining
        await gateway.open_streams(0)
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]


async def test_frames_larger_than_every_buffer_arrive_whole(gateway: Gateway) -> None:
    async with connected(gateway) as client:
        await client.head()
        await gateway.open_streams(1)
        await gateway.add(1, size=2_000_000)
        await gateway.add(2)
        raw = await client.until(b'"n":2,')
        await gateway.engine.drain(5)
        assert numbers(unchunked(raw + await client.rest())[0]) == [1, 2]


@pytest.mark.parametrize("path", PATHS)
async def test_client_that_takes_nothing_is_closed_and_counted(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path, path, EngineOptions(send_timeout=0.3)) as gateway, connected(gateway) as client:
        await client.head()
        await gateway.open_streams(1)
        for n in range(40):
            await gateway.add(n, size=100_000)
        await gateway.open_streams(0)
        assert gateway.dropped("stalled") == 1


async def test_client_that_takes_a_little_at_a_time_is_never_dropped(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, "direct", EngineOptions(send_timeout=0.25)) as gateway,
        connected(gateway) as client,
    ):
        await client.head()
        await gateway.open_streams(1)
        for n in range(12):
            await gateway.add(n, size=30_000)
        raw = b""
        while b'"n":11,' not in raw:
            raw += await client.reader.read(3000)
            await asyncio.sleep(0.01)  # the client's own pace: 300 KB/s, a tenth of which a timeout would forgive
        assert gateway.dropped("stalled") == 0


async def test_access_log_has_one_line_a_stream(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "uvicorn.access"):
        async with connected(gateway, "GET /v2/stream/edits?since=5 HTTP/1.1") as client:
            await client.head()
    lines = [record.getMessage() for record in caplog.records if record.name == "uvicorn.access"]
    assert len(lines) == 1
    assert '"GET /v2/stream/edits?since=5 HTTP/1.1" 200' in lines[0]


async def test_direct_path_leaves_uvicorn_with_neither_connection_nor_task(tmp_path: Path) -> None:
    async with serving(tmp_path, "direct") as gateway, connected(gateway) as client:
        await client.until(b":ok\n\n")
        await gateway.open_streams(1)
        assert not gateway.server.server_state.connections
        assert not gateway.server.server_state.tasks


def test_hand_over_is_only_for_the_uvicorn_it_was_written_against() -> None:
    assert http_protocol() is HandoverProtocol
    assert fits("0.54.3")
    assert not fits("0.55.0")
