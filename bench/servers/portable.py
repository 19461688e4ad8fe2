"""Our gateway on the path that any ASGI server takes: no hand-over of the socket."""

from __future__ import annotations

import asyncio
import sys

import uvicorn

from bench.events import TOPIC
from eventstreams.app import build_gateway
from eventstreams.catalog.load import load_catalog
from eventstreams.eventlog.open import open_log
from eventstreams.metrics import Metrics
from eventstreams.server import listen
from eventstreams.subscribe.admission import Admission
from eventstreams.subscribe.endpoints import GatewayOptions, StreamEndpoint
from eventstreams.subscribe.engine import Engine
from eventstreams.subscribe.options import EngineOptions


async def main(url: str, streams: str) -> None:
    """Serve until killed; says `port N`."""
    metrics = Metrics()
    async with (
        open_log(url, writable=False) as log,
        Engine(log, EngineOptions(), metrics).open() as engine,
    ):
        await log.extents(await log.partitions(TOPIC))
        app = build_gateway(StreamEndpoint(engine, load_catalog(streams), Admission(metrics), GatewayOptions()))
        listener = listen("127.0.0.1", 0)
        print("port", listener.getsockname()[1], flush=True)
        config = uvicorn.Config(
            app, log_config=None, access_log=False, loop="asyncio", http="httptools", lifespan="off", ws="none"
        )
        await uvicorn.Server(config).serve([listener])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
