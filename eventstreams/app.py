"""The gateway as an ASGI app: routes, standard headers, errors."""

from __future__ import annotations

import html
import logging
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, unquote

import orjson
from starlette.datastructures import Headers, QueryParams
from starlette.responses import Response
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
from eventstreams.errors import BadRequest, EventStreamsError
from eventstreams.origins import ANY, with_standard_headers
from eventstreams.public_address import Base, PublicAddress, below, raw_path, server_of
from eventstreams.settings import DEFAULT_CSP
from eventstreams.subscribe.documents import Documents
from eventstreams.subscribe.listing import Listing, StreamState
from eventstreams.subscribe.serving import asyncapi_servers, openapi_servers, with_servers
from eventstreams.web.endpoints import UI, Files, FrontPage, SwaggerUi
from eventstreams.web.pages import streams_page

logger = logging.getLogger(__name__)

STREAM = re.compile(r"/v2/stream/([^/]+)/?", re.IGNORECASE)

URL_SIGNS = ":/%#?=@[]!$&'()*+,;"
"""What a URL may hold beside letters and digits."""

ROBOTS = "User-agent: *\nDisallow: /\n"
HOME = "/?doc"
DESCRIPTION = "Public server-sent event streams over an event log"
JSON = "application/json; charset=utf-8"
HTML = "text/html; charset=utf-8"
TEXT = "text/plain; charset=utf-8"


class Pages:
    """What the gateway has beside the streams: their descriptions and list, files, who it is."""

    def __init__(self, documents: Documents, listing: Listing, *, title: str, ui: bool) -> None:
        self._documents = documents
        self._listing = listing
        self._title = title
        self._ui = Files(UI) if ui else None
        self._front = FrontPage()
        self._doc = SwaggerUi(title)

    async def get(self, path: str, scope: Scope, base: Base) -> Response | None:
        """Return the page at a path (lower case, no slash at its end); None where there is none.

        Raises: NotFound, LogUnavailable.
        """
        if path == "/":
            return await self._root(scope, base)
        if path == "/v2/stream":
            return await self._streams(scope, base)
        if self._ui is None:
            return None
        if path == "/v2/ui" and not scope["path"].endswith("/"):
            return _redirect(base.path("/v2/ui/"), 301, scope)
        name = scope["path"][len("/v2/ui") :] if path == "/v2/ui" or path.startswith("/v2/ui/") else scope["path"]
        if name.endswith("/") and name != "/":
            return None
        name = name.strip("/")
        return self._front.get(scope) if name in ("", FrontPage.NAME) else await self._ui.get(name, scope)

    async def _root(self, scope: Scope, base: Base) -> Response:
        query = QueryParams(scope["query_string"])
        asked = {name.partition("[")[0] for name in query}
        if "spec" in asked:
            document = with_servers(await self._documents.openapi(), openapi_servers(base))
            return Response(document, media_type=JSON)
        if "asyncapi" in asked:
            servers = asyncapi_servers(base, server_of(base, scope))
            return Response(with_servers(await self._documents.asyncapi(), servers), media_type=JSON)
        if "doc" in asked:
            return await self._doc.get(query.get("path"), scope)
        return _redirect(base.path("/?doc" if self._ui is None else "/v2/ui"), 303, scope)

    async def _streams(self, scope: Scope, base: Base) -> Response:
        streams = [self._listed(state, base) for state in await self._listing.streams()]
        headers = {"vary": "Accept", "cache-control": "no-cache"}
        if _prefers_html(scope, "application/json"):
            return Response(streams_page(self._title, streams), headers=headers, media_type=HTML)
        return Response(orjson.dumps({"streams": streams}), headers=headers, media_type=JSON)

    def _listed(self, state: StreamState, base: Base) -> Mapping[str, Any]:
        stream = state.stream
        return {
            "name": stream.name,
            "url": base.link(f"/v2/stream/{quote(stream.name, safe='')}"),
            "description": stream.description,
            "schema_title": stream.schema_title,
            "schema_uri": self._documents.schema_uri(stream),
            "alias_of": stream.alias_of,
            "partitions": state.partitions,
            "earliest": _iso(state.earliest),
            "latest": _iso(state.latest),
            "events_per_second": round(state.rate, 3),
        }


def _iso(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    try:
        moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _prefers_html(scope: Scope, other: str) -> bool:
    """Whether HTML is rather taken than the other type, which goes to who does not care."""
    return prefers("text/html", other, ", ".join(Headers(scope=scope).getlist("accept")))


def _redirect(place: str, status: int, scope: Scope) -> Response:
    headers = {"location": place, "vary": "Accept"}
    words = f"{HTTPStatus(status).phrase}. Redirecting to "
    if _prefers_html(scope, "text/plain"):
        shown = html.escape(place)
        return Response(f'<p>{words}<a href="{shown}">{shown}</a></p>', status, headers, HTML)
    return Response(words + place, status, headers, TEXT)


class Gateway:
    """Answers by method and path; paths regardless of case and of one slash at the end, as the original."""

    def __init__(
        self, stream: ASGIApp, pages: Pages | None, *, preflight: bool, home: str, address: PublicAddress
    ) -> None:
        self._stream = stream
        self._pages = pages
        self._preflight = preflight
        self._address = address
        self._info = {"name": "eventstreams", "version": __version__, "description": DESCRIPTION, "home": home}

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
        path = raw_path(scope)
        match = STREAM.fullmatch(path)
        if match is None:
            base = self._address.base(scope)
            inner = below(scope, base.prefix)
            if inner is not None and STREAM.fullmatch(raw_path(inner)):
                await self._route(inner, receive, send)
                return
            answer = await self._page(scope, base) or (inner and await self._page(inner, base)) or not_found(scope)
            await answer(scope, receive, send)
        elif scope["method"] in ("GET", "HEAD"):
            if BAD_ESCAPE.search(path.encode("latin-1")):
                raise BadRequest(f"path {path!r}: a percent sign must be followed by two hexadecimal digits")
            await self._stream({**scope, "path_params": {"streams": match[1]}}, receive, send)
        elif scope["method"] == "OPTIONS":
            await self._options(scope)(scope, receive, send)
        else:
            await not_found(scope)(scope, receive, send)

    async def _page(self, scope: Scope, base: Base) -> Response | None:
        page = unquote(raw_path(scope)).lower()
        if len(page) > 1:
            page = page.removesuffix("/")
        if page == "/_info/home":
            home = quote(self._info["home"], safe=URL_SIGNS)
            return _redirect(base.path(home) if home.startswith("/") else home, 301, scope)
        method = scope["method"]
        as_get = {**scope, "method": "GET"} if method == "OPTIONS" else scope
        answer = None
        if method in ("GET", "HEAD", "OPTIONS"):
            answer = _info(page, as_get, base, self._info)
            if answer is None and self._pages is not None:
                answer = await self._pages.get(page, as_get, base)
        return self._options(scope) if method == "OPTIONS" and answer is not None else answer

    def _options(self, scope: Scope) -> Response:
        headers = preflight_headers(scope, PREFLIGHT) if self._preflight else {}
        return Response("GET,HEAD", headers={"allow": "GET,HEAD", **headers}, media_type=HTML)


PREFLIGHT = f"{CORS_HEADERS}, last-event-id"
"""What pages of other origins may send without asking; Last-Event-ID by who reads streams without EventSource."""


def _info(page: str, scope: Scope, base: Base, info: Mapping[str, str]) -> Response | None:
    if page.startswith("/_info/") and page[7:] in ("name", "version"):
        return Response(orjson.dumps({page[7:]: info[page[7:]]}), media_type=JSON)
    if page == "/_info":
        return Response(orjson.dumps(info), media_type=JSON)
    if page == "/robots.txt":
        return Response(ROBOTS, media_type=TEXT)
    return _redirect(base.path("/?doc"), 301, scope) if page == "/rc" else None


def build_gateway(
    stream: ASGIApp,
    pages: Pages | None = None,
    *,
    cors: str | Sequence[str] | None = ANY,
    csp: str | None = DEFAULT_CSP,
    home: str = HOME,
    address: PublicAddress | None = None,
) -> ASGIApp:
    """Return the gateway around the endpoint of streams; without `pages` it has only streams and who it is."""
    address = address or PublicAddress()
    gateway = Gateway(stream, pages, preflight=cors is not None, home=home, address=address)
    return with_standard_headers(gateway, cors, csp)
