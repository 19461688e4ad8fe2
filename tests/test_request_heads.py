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
    monkeypatch.setattr(request_heads, "HEAD_SECONDS", SHORT)
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
