"""Intake's HTTP with nothing behind it: bodies are read, and taken."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import uvicorn
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from eventstreams.asgi import RequestLog
from eventstreams.metrics import Metrics
from eventstreams.runtime import LOOPS, collect_less
from eventstreams.server import listen, uvicorn_config
from intake.app import build_intake
from intake.body import Deadline, read_body
from intake.endpoints import EventsEndpoint, read_headers


class _Taking:
    """Answers 201 to whatever comes, in the way of the endpoint proper."""

    def __init__(self) -> None:
        self._metrics = Metrics()
        self._loop = asyncio.get_running_loop()

    async def post(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.monotonic()
        headers = read_headers(scope)
        await read_body(receive, headers, max_bytes=10**8, deadline=Deadline(self._loop, 60.0), grow=_ignore)
        response = Response(status_code=201)
        self._metrics.request_answered(response.status_code, time.monotonic() - began)
        await response(scope, receive, send)


def _ignore(size: int) -> None:
    pass


async def main() -> None:
    """Serve until killed; says `port N`."""
    endpoint: Any = _Taking()
    app = build_intake(cast(EventsEndpoint, endpoint), None, service="bench")
    listener = listen("127.0.0.1", 0)
    print("port", listener.getsockname()[1], flush=True)
    collect_less()
    await uvicorn.Server(uvicorn_config(RequestLog(app))).serve([listener])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=LOOPS["intake"]) as runner:
        runner.run(main())
