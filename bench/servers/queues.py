"""A gateway without an engine: a queue and an `EventSourceResponse` for each client, fed by one reader of the log."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import uvicorn
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from bench.events import TOPIC
from eventstreams.eventlog.base import EventLog
from eventstreams.eventlog.open import open_log
from eventstreams.server import BACKLOG

QUEUE_EVENTS = 1000


class Fan:
    """Puts every new event into every client's queue."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._queues: set[asyncio.Queue[Mapping[str, str]]] = set()

    async def run(self) -> None:
        """Read until cancelled."""
        extents = await self._log.extents(await self._log.partitions(TOPIC))
        reader = await self._log.open_reader({partition: extent.end for partition, extent in extents.items()})
        while True:
            for record in await reader.read(500, 1.0):
                message = {"event": "message", "id": str(record.offset), "data": record.value.decode()}
                for queue in self._queues:
                    queue.put_nowait(message)

    async def messages(self) -> AsyncIterator[Mapping[str, str]]:
        """Yield what comes from now on."""
        queue: asyncio.Queue[Mapping[str, str]] = asyncio.Queue(QUEUE_EVENTS)
        self._queues.add(queue)
        try:
            yield {"comment": "ok"}
            while True:
                yield await queue.get()
        finally:
            self._queues.discard(queue)


async def main(url: str) -> None:
    """Serve until killed; says `port N`."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    async with open_log(url, writable=False) as log:
        fan = Fan(log)

        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(fan.run())
                print("port", listener.getsockname()[1], flush=True)
                yield

        async def stream(_: Request) -> EventSourceResponse:
            return EventSourceResponse(fan.messages(), sep="\n")

        app = Starlette(routes=[Route("/", stream)], lifespan=lifespan)
        config = uvicorn.Config(app, log_config=None, access_log=False, loop="asyncio", http="httptools")
        await uvicorn.Server(config).serve([listener])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
