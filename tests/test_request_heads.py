"""A connection that sends no whole head is closed in time; one that is served is left alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from eventstreams import request_heads
from eventstreams.server import beside, listen

WHOLE = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\n\r\n"
SHORT = 0.2


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the body, after a while where the path says so."""
    request = Request(scope, receive)
    body = await request.body()
    if scope["path"] == "/slow":
        await asyncio.sleep(3 * SHORT)
    await PlainTextResponse(body)(scope, receive, send)


@pytest.fixture
async def connected(
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that must send its heads within `SHORT`."""
    monkeypatch.setattr(request_heads, "HEAD_SECONDS", SHORT)
    async with connection() as streams:
        yield streams


@pytest.fixture
async def unhurried() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection whose heads have the time that they have."""
    async with connection() as streams:
        yield streams


@contextlib.asynccontextmanager
async def connection() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    with contextlib.closing(listen("127.0.0.1", 0)) as listener:
        async with beside(echo, listener):
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            async with asyncio.timeout(30):
                yield reader, writer
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


Connected = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"", b""),
        (b"\r\n", b""),
        (b"G", b"HTTP/1.1 408 "),
        (b"GET / HTTP/1.1\r\nHost: he", b"HTTP/1.1 408 "),
        (b"GET / HTTP/1.1\r\nHost: here\r\n", b"HTTP/1.1 408 "),
    ],
)
@pytest.mark.parametrize("served", [False, True])
async def test_head_that_is_not_whole_in_time_ends_the_connection(
    connected: Connected, sent: bytes, answer: bytes, served: bool
) -> None:
    reader, writer = connected
    if served:
        writer.write(WHOLE + b"body")
        assert (await reader.readuntil(b"body")).startswith(b"HTTP/1.1 200 ")
    writer.write(sent)
    assert (await reader.read()).startswith(answer)


async def test_head_that_comes_byte_by_byte_ends_the_connection_all_the_same(connected: Connected) -> None:
    reader, writer = connected

    async def trickle() -> None:
        with contextlib.suppress(ConnectionError):
            for number in range(1000):
                writer.write(b"GET / HTTP/1.1\r\n" if number == 0 else b"X: y\r\n")
                await writer.drain()
                await asyncio.sleep(SHORT / 10)

    trickling = asyncio.create_task(trickle())
    assert (await reader.read(1000)).startswith(b"HTTP/1.1 408 ")
    trickling.cancel()


async def test_slow_answer_and_slow_body_are_left_alone(connected: Connected) -> None:
    reader, writer = connected
    writer.write(WHOLE.replace(b" / ", b" /slow ") + b"body")
    assert (await reader.readuntil(b"body")).startswith(b"HTTP/1.1 200 ")
    writer.write(WHOLE + b"bo")
    await asyncio.sleep(3 * SHORT)
    writer.write(b"dy")
    assert (await reader.readuntil(b"body")).startswith(b"HTTP/1.1 200 ")


OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
"""What Java's HttpClient and `curl --http2` send."""


@pytest.mark.parametrize(
    "offer",
    [
        OFFER,
        b"Upgrade: h2c\r\nConnection: upgrade\r\n",
        b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        b"Connection: Upgrade\r\nUpgrade: TLS/1.2, HTTP/2.0\r\n",
    ],
)
@pytest.mark.parametrize(
    "body",
    [b"Content-Length: 4\r\n\r\nbody", b"Transfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n"],
    ids=["length", "chunked"],
)
@pytest.mark.parametrize("pieces", [1, 2, 1000])
async def test_offer_of_another_protocol_is_passed_over(
    unhurried: Connected, caplog: pytest.LogCaptureFixture, offer: bytes, body: bytes, pieces: int
) -> None:
    reader, writer = unhurried
    request = b"POST / HTTP/1.1\r\nHost: here\r\n" + offer + body
    size = -(-len(request) // pieces)
    for _ in range(2):
        for start in range(0, len(request), size):
            writer.write(request[start : start + size])
            await writer.drain()
            await asyncio.sleep(0)
        answer = await reader.readuntil(b"body")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" not in answer.lower()
    assert not caplog.records


async def test_offer_leaves_the_wish_to_close_and_what_is_pipelined(unhurried: Connected) -> None:
    reader, writer = unhurried
    offered = b"GET / HTTP/1.1\r\nHost: here\r\n" + OFFER + b"\r\n"
    closing = WHOLE.replace(b"Host", b"Connection: close, Upgrade\r\nUpgrade: h2c\r\nHost") + b"body"
    writer.write(offered + WHOLE + b"body" + closing)
    answers = await reader.read()
    assert answers.count(b"HTTP/1.1 200 ") == 3
    assert answers.endswith(b"body")
    assert b"connection: close" in answers.lower()


async def test_many_offers_at_once_are_passed_over_in_time(unhurried: Connected) -> None:
    reader, writer = unhurried
    count = 2000
    writer.write((b"GET / HTTP/1.1\r\nHost: here\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n") * count)
    writer.write(WHOLE.replace(b"Host", b"Connection: close\r\nHost") + b"last")
    answers = await reader.read()
    assert answers.count(b"HTTP/1.1 200 ") == count + 1
