"""What every HTTP service here shares: the one writer of error bodies, headers on every answer, small answers."""

from __future__ import annotations

import html
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from urllib.parse import quote

import orjson
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eventstreams import logs
from eventstreams.addresses import peer_of
from eventstreams.errors import AssignmentError, EventStreamsError, RequestError
from eventstreams.ids import new_id

access = logging.getLogger("eventstreams.access")

UNSAFE = re.compile(r"[^!#-;=?-_a-z|~]|%(?![0-9A-Fa-f]{2})")
"""What a path is not shown with on a page: it is written as an escape."""

MAX_HEAD_BYTES = 16 * 1024
"""Of request line and header fields, as Node bounds them."""

FIELD_OVERHEAD_BYTES = 4
"""Colon, blank and line end."""

BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
"""A header field's name (RFC 9110, 5.6.2)."""

PREFLIGHT_SECONDS = 7200
"""How long a browser need not ask again: what Chromium holds to at most."""

WEIGHT = re.compile(r"[01](\.[0-9]*)?", re.ASCII)

CORS_HEADERS = "accept, x-requested-with, content-type"

REQUEST_ID = re.compile(r"[A-Za-z0-9_.:+/=-]{1,200}", re.ASCII)


def standard_headers(
    cors: str | None = "*", csp: str | None = None, *, methods: str | None = None
) -> Sequence[tuple[str, str]]:
    """Return the headers of every answer; None leaves CORS or the security headers out."""
    headers: list[tuple[str, str]] = []
    if cors is not None:
        headers += [
            ("access-control-allow-origin", cors),
            ("access-control-allow-headers", CORS_HEADERS),
            ("access-control-expose-headers", "etag"),
        ]
        if methods is not None:
            headers.append(("access-control-allow-methods", methods))
    if csp is not None:
        headers += [
            ("x-xss-protection", "1; mode=block"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "SAMEORIGIN"),
            ("content-security-policy", csp),
            ("x-content-security-policy", csp),
            ("x-webkit-csp", csp),
        ]
    return headers


def preflight_headers(scope: Scope, always: str) -> dict[str, str]:
    """Return what lets a page of another origin send the header fields that it asks for, and some that all may.

    Any are allowed: what is served is public, and a field changes nothing but the answer to who sends it. By name,
    since `*` leaves Authorization out, and older browsers know no `*`. Source: Fetch standard, CORS-preflight request.
    """
    asked = [value.decode("latin-1") for name, value in scope["headers"] if name == b"access-control-request-headers"]
    names = (name.strip().lower() for name in ",".join([always, *asked]).split(","))
    return {
        "access-control-allow-headers": ", ".join(dict.fromkeys(name for name in names if TOKEN.fullmatch(name))),
        "access-control-max-age": str(PREFLIGHT_SECONDS),
        "vary": "Access-Control-Request-Headers",
    }


class StandardHeaders:
    """Adds headers to every answer of the wrapped app that does not set them itself. Pure ASGI: streams pass."""

    def __init__(self, app: ASGIApp, headers: Sequence[tuple[str, str]]) -> None:
        self._app = app
        self._headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        self._names = frozenset(name for name, _ in self._headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = message["headers"]
                names = self._names.intersection(name for name, _ in own)
                ours = [header for header in self._headers if header[0] not in names] if names else self._headers
                message["headers"] = [*own, *ours]
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


class RequestLog:
    """Gives each request an id (its own X-Request-Id where that is one) and writes a line when its answer is over.

    `client` tells whom the line names.
    """

    def __init__(self, app: ASGIApp, client: Callable[[Scope], str] = peer_of) -> None:
        self._app = app
        self._client = client

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status = 0

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        token = logs.request_id.set(_request_id(scope))
        try:
            await self._app(scope, receive, note_status)
        finally:
            if access.isEnabledFor(logging.INFO):
                fields = _access_fields(scope, status, time.monotonic() - began)
                access.info("request", extra=fields | {"client": self._client(scope) or None})
            logs.request_id.reset(token)


def _access_fields(scope: Scope, status: int, seconds: float) -> dict[str, object]:
    return {
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "seconds": round(seconds, 4),
    }


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text: str = value.decode("latin-1")
            if REQUEST_ID.fullmatch(text):
                return text
    return new_id()


def uri_as_sent(scope: Scope) -> str:
    """Return path and query as the client wrote them, not decoded."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    return (path + (b"?" + query if query else b"")).decode("latin-1")


def error_response(exc: EventStreamsError, scope: Scope) -> Response:
    """Return the answer for an error raised before the first byte."""
    if isinstance(exc, AssignmentError):
        body: dict[str, object] = {
            "message": exc.message,
            "origin": "KafkaSSE",
            "name": exc.name,
            **exc.fields,
            "statusCode": exc.status,
        }
        return Response(_json(body) + b"\n", exc.status, media_type="application/json")
    title = exc.title if isinstance(exc, RequestError) else HTTPStatus(exc.status).phrase
    body = {
        "status": exc.status,
        "type": exc.code,
        "title": title,
        "detail": exc.message,
        "method": scope["method"],
        "uri": uri_as_sent(scope),
    }
    response = Response(_json(body), exc.status, media_type="application/json; charset=utf-8")
    if exc.retry_after is not None:
        response.headers["retry-after"] = str(max(1, round(exc.retry_after)))
    return response


def _json(body: object) -> bytes:
    """Serialise what may quote a client: lone surrogates become U+FFFD."""
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:
        return json.dumps(body, separators=(",", ":")).encode()


def prefers(wanted: str, other: str, accept: str) -> bool:
    """Whether a client that says `Accept: accept` rather takes one type of content than another.

    By weight, then by how exactly it names each, then by which it names first (RFC 9110 section 12.5.1).
    """
    return _preference(wanted, accept) > _preference(other, accept)


def quality(kind: str, accept: str) -> float:
    """Return the weight that `Accept: accept` gives a type of content, 0 to 1: of the range that names it closest."""
    return _preference(kind, accept)[0]


def weight(media_range: str) -> float:
    """Return the weight of one range of an Accept header; 0 also for one that is none."""
    parameters = (part.strip().lower() for part in media_range.split(";")[1:])
    text = next((text.removeprefix("q=") for text in parameters if text.startswith("q=")), "1")
    return min(float(text), 1.0) if WEIGHT.fullmatch(text) else 0.0


def _preference(kind: str, accept: str) -> tuple[float, int, int]:
    best = (0.0, 0, 0)
    names = {"*/*": 1, kind.partition("/")[0] + "/*": 2, kind: 3}
    exactness = 0
    for place, given in enumerate(accept.split(",")):
        name = given.partition(";")[0].strip().lower()
        if names.get(name, 0) > exactness:
            exactness = names[name]
            best = (weight(given), exactness, -place)
    return best if best[0] else (0.0, 0, 0)


def not_found(scope: Scope) -> Response:
    """Return the HTML page for a path that there is not."""
    path = UNSAFE.sub(lambda match: quote(match[0], encoding="latin-1"), uri_as_sent(scope).partition("?")[0])
    words = html.escape(f"Cannot {scope['method']} {path}")
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>Error</title>\n</head>\n'
        f"<body>\n<pre>{words}</pre>\n</body>\n</html>\n"
    )
    return Response(page, 404, {"content-security-policy": "default-src 'none'"}, "text/html; charset=utf-8")


class AdminApp:
    """`/metrics` in Prometheus' format, `/healthz` (the process answers), `/readyz` (so does the log)."""

    def __init__(self, exposition: Callable[[], Awaitable[bytes]], ready: Callable[[], Awaitable[None]]) -> None:
        self._exposition = exposition
        self._ready = ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["method"] in ("GET", "HEAD") else ""
        if path == "/metrics":
            answer = Response(await self._exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")
        elif path == "/healthz":
            answer = Response(_json({"status": "ok"}), media_type="application/json")
        elif path == "/readyz":
            answer = await self._readiness()
        else:
            answer = not_found(scope)
        await answer(scope, receive, send)

    async def _readiness(self) -> Response:
        try:
            await self._ready()
        except EventStreamsError as exc:
            body = {"status": "unavailable", "code": exc.code, "detail": exc.message}
            return Response(_json(body), 503, media_type="application/json")
        return Response(_json({"status": "ok"}), media_type="application/json")
