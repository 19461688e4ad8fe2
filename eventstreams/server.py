"""Servers: a listening socket, uvicorn on it, and an order in which they end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from math import ceil
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from eventstreams.errors import ConfigurationError, ServiceUnavailable
from eventstreams.subscribe.handover import http_protocol

BACKLOG = 4096
"""Connections that wait to be accepted; the kernel takes no more than net.core.somaxconn."""

EXIT_INTERRUPTED = 130

SEND_BUFFER = 128 * 1024
"""Bytes that the kernel takes for one connection (it counts double, for its own): left alone it takes up to 4 MB for
each client that reads slowly, which no limit of ours would see."""

KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))
"""Seconds of silence, seconds between probes, probes: a peer that vanished while idle goes in two minutes."""

STOP_TIMEOUT = 2.0
"""Seconds for requests under way at the end, where nobody says otherwise."""

PATIENCE = 120.0
"""Seconds for which sent bytes may stay unacknowledged, or a closed window may stay closed."""


STOPPING = "this process is stopping: another one answers"


class Stopping:
    """Whether a process has begun to end. Balancers are told before anything is refused."""

    def __init__(self) -> None:
        self.begun = False

    def begin(self) -> None:
        """Say that it has. Safe in a signal's handler."""
        self.begun = True

    def check(self) -> None:
        """Return as long as it has not. Raises: ServiceUnavailable."""
        if self.begun:
            raise ServiceUnavailable(STOPPING, retry_after=1.0)


class DrainingServer(uvicorn.Server):
    """Ends its streams while the listener is still open; a second signal ends it at once."""

    def __init__(self, config: uvicorn.Config, drain: Callable[[], Awaitable[None]], stopping: Stopping) -> None:
        super().__init__(config)
        self._drain = drain
        self._stopping = stopping
        self._draining: asyncio.Task[None] | None = None
        self.exit_status = 0
        """130 once Ctrl-C was what ended it."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note a signal; the second one gives the drain up."""
        if sig == signal.SIGINT:
            self.exit_status = EXIT_INTERRUPTED
        if self.should_exit:
            self.force_exit = True
            if self._draining is not None:
                self._draining.cancel()
        self.stop()

    def stop(self) -> None:
        """Begin to end, within a tenth of a second."""
        self._stopping.begin()
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
async def beside(app: ASGIApp, *listeners: socket.socket) -> AsyncIterator[None]:
    """Serve while the context lasts; requests under way are answered before it ends."""
    server = SideServer(uvicorn_config(app))
    serving = asyncio.create_task(server.serve(list(listeners)), name="side server")
    try:
        yield
    finally:
        server.should_exit = True
        await serving


def uvicorn_config(app: ASGIApp, *, stop_timeout: float = STOP_TIMEOUT) -> uvicorn.Config:
    """Return how uvicorn runs here: no Server header, no lifespan, logs left alone, 16 KiB of headers.

    X-Forwarded-For is left to `trusted_proxies`: uvicorn would believe it from loopback unasked.

    Requests that are not answered `stop_timeout` seconds after the drain are cancelled: a log that is away would else
    hold the end up.
    """
    return uvicorn.Config(
        app,
        http=http_protocol(),
        loop="asyncio",
        ws="none",
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        log_config=None,
        access_log=False,
        # Its own is smaller, and counts: it has asyncio listen once more.
        backlog=BACKLOG,
        timeout_graceful_shutdown=ceil(stop_timeout),
    )


def listen(host: str, port: int, *, patience: float = PATIENCE, dualstack: bool = False) -> socket.socket:
    """Return a socket that listens on an address, with `dualstack` one of IPv6 on IPv4 too.

    Raises: ConfigurationError, when the port is taken for instance.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = dualstack and socket.has_dualstack_ipv6()
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except OSError as exc:
        reason = os.strerror(exc.errno) if exc.errno and exc.errno > 0 else exc.strerror or str(exc)
        raise ConfigurationError(f"cannot listen on {host} port {port}: {reason}") from exc
    bound_connections(listener, patience)
    return listener


def bound_connections(listener: socket.socket, patience: float) -> None:
    """Have the kernel bound what a connection costs: accepted sockets inherit what is set here.

    `patience` also ends what the portable path has aborted: its server closes a connection only once the peer took the
    rest, and a client that takes nothing never does.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    if listener.family == socket.AF_UNIX:
        return
    # An event goes out at once, not when the one before is acknowledged (40 ms on). asyncio sets it only on sockets
    # that name their protocol, which those that `socket.create_server` made do not.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE:
        listener.setsockopt(socket.IPPROTO_TCP, option, value)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(patience * 1000))
