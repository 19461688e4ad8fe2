"""Intake as an ASGI app: routes regardless of case and of one slash at the end, headers on every answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from starlette.datastructures import Headers, QueryParams
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from eventstreams import __version__
from eventstreams.asgi import (
    BAD_ESCAPE,
    CORS_HEADERS,
    error_response,
    not_found,
    prefers,
    preflight_headers,
)
from eventstreams.catalog.streams import StreamCatalog
from eventstreams.errors import BadRequest, NotFound
from eventstreams.origins import ANY, with_standard_headers
from eventstreams.public_address import Base, PublicAddress, below, raw_path
from intake.endpoints import EventsEndpoint, json_response
from intake.spec import openapi

ROBOTS = "User-agent: *\nDisallow: /\n"
CSP = (
    "default-src 'self'; object-src 'none'; media-src 'none'; img-src 'none'; style-src 'none'; base-uri 'self';"
    " frame-ancestors 'self'"
)
HOME = "/?doc"
STREAM_CONFIGS = "/v1/stream-configs"

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


class IntakeApp:
    """Answers by method and path."""

    def __init__(
        self,
        events: EventsEndpoint,
        catalog: StreamCatalog | None,
        *,
        service: str,
        test_events: bool,
        preflight: bool,
        home: str,
        address: PublicAddress,
    ) -> None:
        self._events = events
        self._address = address
        self._catalog = catalog
        self._info = {
            "name": service,
            "version": __version__,
            "description": "Takes events for an event log, validated against their schemas",
            "home": home,
        }
        self._has_test_events = test_events
        self._preflight = preflight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(f"scope {scope['type']!r}: this app serves http only")
        if scope["path"] == "/v1/events" and scope["method"] == "POST":
            # What nearly all requests are; the rest finds its way by case and slashes.
            await self._events.post(scope, receive, send)
            return
        if BAD_ESCAPE.search(scope.get("raw_path") or b""):
            refused = BadRequest("path: a percent sign must be followed by two hexadecimal digits")
            await error_response(refused, scope)(scope, receive, send)
            return
        base = self._address.base(scope)
        routes = self._routes(scope, base)
        inner = None if routes else below(scope, base.prefix)
        if inner is not None:
            routes = self._routes(inner, base)
        method = "GET" if scope["method"] == "HEAD" and "GET" in routes else scope["method"]
        handler = routes.get(method)
        if handler is None and routes and method == "OPTIONS":
            handler = _options(routes, preflight_headers(scope, CORS_HEADERS) if self._preflight else {})
        await (handler or not_found(scope))(scope, receive, send)

    def _routes(self, scope: Scope, base: Base) -> dict[str, Handler]:
        path = raw_path(scope)
        page = path.lower()
        if page.endswith("/") and page != "/":
            page = page[:-1]
        if page == "/v1/events":
            return {"POST": self._events.post}
        if page == "/v1/_test/events" and self._has_test_events:
            return {"GET": self._events.test_events}
        answer = self._page(page, path, scope, base)
        return {} if answer is None else {"GET": answer}

    def _page(self, page: str, path: str, scope: Scope, base: Base) -> Response | None:
        if page == "/robots.txt":
            return Response(ROBOTS, media_type="text/plain; charset=utf-8")
        if page == "/_info":
            return json_response(self._info)
        if page == "/_info/home":
            home = self._info["home"]
            return RedirectResponse(base.path(home) if home.startswith("/") else home, 301)
        if page in ("/_info/name", "/_info/version"):
            return json_response({page[7:]: self._info[page[7:]]})
        if page == STREAM_CONFIGS or page.startswith(STREAM_CONFIGS + "/"):
            return self._stream_configs(unquote(path[len(STREAM_CONFIGS) :]).strip("/"))
        if page == "/":
            query = scope["query_string"].decode("latin-1")
            names = {part.partition("=")[0] for part in query.split("&")}
            if "spec" in names:
                return json_response({**openapi(self._info), "servers": [{"url": base.link("") or "/"}]})
            file = QueryParams(query).get("path")
            if "doc" in names and file:
                return error_response(NotFound(f"{file} could not be found."), scope)
            if "doc" in names:
                return Response(_DOC, media_type="text/html; charset=utf-8")
            return _root(scope)
        return None

    def _stream_configs(self, names: str) -> Response | None:
        if self._catalog is None:
            return None
        configs: dict[str, Any] = {s.name: s.settings for s in self._catalog.all() if s.alias_of is None}
        if names:
            wanted = names.replace("|", ",").split(",")
            found = ((name, self._catalog.find(name)) for name in wanted)
            configs = {name: stream.settings for name, stream in found if stream is not None}
        return json_response(configs)


def _options(routes: dict[str, Handler], preflight: Mapping[str, str]) -> Response:
    allow = "POST" if "POST" in routes else "GET,HEAD"
    return Response(allow, headers={"allow": allow, **preflight}, media_type="text/html; charset=utf-8")


def _root(scope: Scope) -> Response:
    """Return the page at `/`.

    Deliberate: 200 only for who asks for HTML, as browsers do. The original has no such page: who checks it by that
    gets the 404 and its words, with the same way on.
    """
    accept = ", ".join(Headers(scope=scope).getlist("accept"))
    status, words = (
        (200, "") if prefers("text/html", "application/json", accept) else (404, "<pre>Cannot GET /</pre>\n")
    )
    return Response(_HOME.format(words=words), status, {"vary": "Accept"}, "text/html; charset=utf-8")


_HOME = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Event intake</title>
</head>
<body>
{words}<h1>Event intake</h1>
<p>This server takes events: <a href="?doc">how to send them</a>.</p>
</body>
</html>
"""

_DOC = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Event intake</title></head>
<body><h1>Event intake</h1>
<p>POST one event or a list of them as JSON to <code>/v1/events</code>.
The <a href="?spec">OpenAPI description</a> tells parameters and answers.</p></body></html>
"""


def build_intake(
    events: EventsEndpoint,
    catalog: StreamCatalog | None,
    *,
    service: str,
    test_events: bool = False,
    cors: str | Sequence[str] | None = ANY,
    csp: str | None = CSP,
    home: str = HOME,
    address: PublicAddress | None = None,
) -> ASGIApp:
    """Return intake around its endpoint; None leaves CORS or the security headers out."""
    app = IntakeApp(
        events,
        catalog,
        service=service,
        test_events=test_events,
        preflight=cors is not None,
        home=home,
        address=address or PublicAddress(),
    )
    return with_standard_headers(app, cors, csp, methods="post")
