"""GET /v2/stream/{streams}, on any ASGI server.

Before the first byte an error is a status, after it a frame.
"""

from __future__ import annotations

import anyio
from sse_starlette import EventSourceResponse
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from eventstreams.catalog.streams import StreamCatalog
from eventstreams.subscribe.admission import Admission
from eventstreams.subscribe.engine import Engine, Form
from eventstreams.subscribe.request import find_start, read_request
from eventstreams.subscribe.wire import AsgiWire

SHUTDOWN_GRACE = 30.0
"""Seconds that a response outlives the server's signal: the engine's drain ends it sooner, with a last id."""


class StreamEndpoint:
    """Server-sent events, or JSON lines, until the client goes.

    An ASGI app, not a request -> response function: it awaits its own response, so each `with` below lasts exactly as
    long as the connection, however that ends. Raises what `read_request` and `find_start` raise.
    """

    def __init__(self, engine: Engine, catalog: StreamCatalog, admission: Admission, *, resume_skew: float) -> None:
        self._engine = engine
        self._catalog = catalog
        self._admission = admission
        self._resume_skew = resume_skew

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        wanted = read_request(request, scope["path_params"]["streams"], self._catalog)
        with self._admission.enter(request.client.host if request.client else ""):
            start = await find_start(wanted, self._engine.log, resume_skew=self._resume_skew)
            headers = stream_headers(wanted.form, request.headers.get("accept"))
            if request.method == "HEAD":
                await Response(headers=headers)(scope, receive, send)
                return
            wire = AsgiWire()
            try:
                subscription = await self._engine.subscribe(
                    start.cursor, wire, wanted.form, filter_=wanted.filter, gaps=start.gaps
                )
                wire.on_lost = subscription.close
                response = EventSourceResponse(
                    wire.chunks(),
                    headers=headers,
                    ping=0,
                    sep="\n",
                    shutdown_event=anyio.Event(),
                    shutdown_grace_period=SHUTDOWN_GRACE,
                )
                await response(scope, receive, send)
            finally:
                wire.lost()


def stream_headers(form: Form, accept: str | None) -> dict[str, str]:
    """Return the headers of a stream; the content types are the contract's, to the letter."""
    if form.json_lines:
        content_type = "application/json; charset=utf-8"
    else:
        content_type = "text/event-stream" if accept is None else "text/event-stream; charset=utf-8"
    return {"content-type": content_type, "cache-control": "no-cache"}
