"""The gateway as an ASGI app: routes, standard headers, errors."""

from __future__ import annotations

import logging
import re

import orjson
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from eventstreams import __version__
from eventstreams.asgi import StandardHeaders, error_response, not_found, standard_headers
from eventstreams.errors import BadRequest, EventStreamsError

logger = logging.getLogger(__name__)

STREAM = re.compile(r"/v2/stream/([^/]+)/?", re.IGNORECASE)
BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")

ROBOTS = "User-agent: *\nDisallow: /\n"
HOME = "https://wikitech.wikimedia.org/wiki/Event_Platform/EventStreams_HTTP_Service"
INFO = {
    "name": "eventstreams",
    "version": __version__,
    "description": "Public server-sent event streams over an event log",
    "home": HOME,
}


class Gateway:
    """Answers by method and path; paths regardless of case and of one slash at the end, as the original."""

    def __init__(self, stream: ASGIApp) -> None:
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(f"scope {scope['type']!r}: this app serves http only")
        try:
            await self._route(scope, receive, send)
        except EventStreamsError as exc:
            await error_response(exc, scope)(scope, receive, send)
        except Exception:
            # The outermost place that can still answer; where the answer has begun the server cuts it.
            logger.exception("a request failed")
            await error_response(EventStreamsError("the request could not be answered"), scope)(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        match = STREAM.fullmatch(path)
        if match is None:
            await _page(path, scope)(scope, receive, send)
        elif scope["method"] in ("GET", "HEAD"):
            if BAD_ESCAPE.search(path.encode("latin-1")):
                raise BadRequest(f"path {path!r}: a percent sign must be followed by two hexadecimal digits")
            await self._stream({**scope, "path_params": {"streams": match[1]}}, receive, send)
        elif scope["method"] == "OPTIONS":
            await _allow(scope, receive, send)
        else:
            await not_found(scope)(scope, receive, send)


_allow = Response("GET,HEAD", headers={"allow": "GET,HEAD"}, media_type="text/html; charset=utf-8")


def _page(path: str, scope: Scope) -> Response:
    page = path.lower()
    if len(page) > 1:
        page = page.removesuffix("/")
    if page.startswith("/_info/") and page[7:] in ("name", "version"):
        answer = _json({page[7:]: INFO[page[7:]]})
    elif page == "/_info":
        answer = _json(INFO)
    elif page == "/robots.txt":
        answer = Response(ROBOTS, media_type="text/plain; charset=utf-8")
    elif page == "/_info/home":
        return RedirectResponse(HOME, 301)
    elif page == "/rc":
        answer = RedirectResponse("/?doc", 301)
    else:
        return not_found(scope)
    if scope["method"] == "OPTIONS":
        return _allow
    return answer if scope["method"] in ("GET", "HEAD") else not_found(scope)


def _json(body: object) -> Response:
    return Response(orjson.dumps(body), media_type="application/json; charset=utf-8")


def build_gateway(stream: ASGIApp) -> ASGIApp:
    """Return the gateway around the endpoint of streams."""
    return StandardHeaders(Gateway(stream), standard_headers())
