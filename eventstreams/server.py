"""The gateway's process: services opened in order, served by uvicorn, drained on a signal, closed in reverse."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from eventstreams.app import build_gateway
from eventstreams.catalog.load import load_catalog
from eventstreams.errors import ConfigurationError
from eventstreams.eventlog.base import EventLog
from eventstreams.eventlog.embedded.log import EmbeddedOptions
from eventstreams.eventlog.open import open_log
from eventstreams.metrics import Metrics
from eventstreams.settings import Settings
from eventstreams.subscribe.admission import Admission
from eventstreams.subscribe.endpoints import StreamEndpoint
from eventstreams.subscribe.engine import Engine, EngineOptions
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


@asynccontextmanager
async def open_log_of(settings: Settings) -> AsyncIterator[EventLog]:
    """Open the event log that the settings name. Raises: ConfigurationError."""
    options = EmbeddedOptions(settings.embedded.retention_age, settings.embedded.retention_bytes)
    async with open_log(settings.log, embedded=options) as log:
        yield log


async def serve(settings: Settings, log: EventLog, *, ready: Callable[[str], None]) -> None:
    """Serve the gateway until a signal; calls `ready` with its URL. Raises: ConfigurationError."""
    catalog = load_catalog(settings.streams)
    gateway, metrics = settings.gateway, Metrics()
    admission = Admission(metrics, per_client=gateway.connections_per_client, in_all=gateway.connections)
    options = EngineOptions(
        tail_bytes=gateway.tail_bytes,
        block_cache_bytes=gateway.replay_bytes,
        heartbeat=gateway.heartbeat,
        send_timeout=gateway.send_timeout,
    )
    listener = listen(gateway.host, gateway.port)
    async with Engine(log, options, metrics).open() as engine:

        async def drain() -> None:
            admission.draining = True
            await engine.drain(gateway.drain_timeout)

        endpoint = StreamEndpoint(engine, catalog, admission, resume_skew=gateway.resume_skew)
        server = DrainingServer(uvicorn_config(build_gateway(endpoint)), drain)
        host, port = listener.getsockname()[:2]
        ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        await server.serve([listener])


def uvicorn_config(app: ASGIApp) -> uvicorn.Config:
    """Return how uvicorn runs here: no Server header, no lifespan, logs left alone, 16 KiB of headers."""
    return uvicorn.Config(
        app,
        http=http_protocol(),
        loop="asyncio",
        ws="none",
        lifespan="off",
        server_header=False,
        log_level="warning",
        access_log=False,
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises: ConfigurationError, when the port is taken for instance."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as exc:
        reason = os.strerror(exc.errno) if exc.errno else str(exc)
        raise ConfigurationError(f"cannot listen on {host} port {port}: {reason}") from exc
