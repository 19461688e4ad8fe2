"""Servers: a listening socket, uvicorn on it, and an order in which they end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from eventstreams.errors import ConfigurationError
from eventstreams.subscribe.handover import http_protocol

BACKLOG = 4096


class DrainingServer(uvicorn.Server):
    """Ends its streams while the listener is still open; a second signal ends it at once."""

    def __init__(self, config: uvicorn.Config, drain: Callable[[], Awaitable[None]]) -> None:
        super().__init__(config)
        self._drain = drain
        self._draining: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note a signal; the second one gives the drain up."""
        if self.should_exit:
            self.force_exit = True
            if self._draining is not None:
                self._draining.cancel()
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then stop."""
        self._draining = asyncio.ensure_future(self._run_drain())
        await asyncio.wait([self._draining])
        await super().shutdown(sockets)

    async def _run_drain(self) -> None:
        await self._drain()


class SideServer(uvicorn.Server):
    """A server beside the one that owns the process's signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the main server."""
        yield


@contextlib.asynccontextmanager
async def beside(app: ASGIApp, listener: socket.socket) -> AsyncIterator[None]:
    """Serve while the context lasts; requests under way are answered before it ends."""
    server = SideServer(uvicorn_config(app))
    serving = asyncio.create_task(server.serve([listener]), name="side server")
    try:
        yield
    finally:
        server.should_exit = True
        await serving


def uvicorn_config(app: ASGIApp) -> uvicorn.Config:
    """Return how uvicorn runs here: no Server header, no lifespan, logs left alone, 16 KiB of headers."""
    return uvicorn.Config(
        app,
        http=http_protocol(),
        loop="asyncio",
        ws="none",
        lifespan="off",
        server_header=False,
        log_config=None,
        access_log=False,
    )


def url_of(listener: socket.socket) -> str:
    """Return the URL at which a listening socket is reached."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises: ConfigurationError, when the port is taken for instance."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as exc:
        reason = os.strerror(exc.errno) if exc.errno else str(exc)
        raise ConfigurationError(f"cannot listen on {host} port {port}: {reason}") from exc
