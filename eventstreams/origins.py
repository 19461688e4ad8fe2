"""CORS for origins that a setting names: they may send credentials, which `*` never allows (Fetch, 3.3.5)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eventstreams.asgi import StandardHeaders, standard_headers

ANY = "*"
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.ASCII)
DEFAULT_PORTS = {"http": ":80", "https": ":443"}

HEADER_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:[ \t]*,[ \t]*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*")
MAX_HEADER_NAMES = 1000
"""Letters of the header fields that a preflight asks for, which are said back."""

Headers = Sequence[tuple[bytes, bytes]]


def named_origins(cors: str | Sequence[str] | None) -> Sequence[str]:
    """Return the origins that a setting names, as browsers write them; none for `*` and for None.

    Raises: ValueError for what is no origin.
    """
    if cors is None:
        return ()
    given = [text.strip() for text in (cors.split(",") if isinstance(cors, str) else cors)]
    if given == [ANY]:
        return ()
    origins = [_as_browsers_write(text.lower()) for text in given]
    if not origins or not all(map(ORIGIN.fullmatch, origins)):
        raise ValueError("expected *, or origins such as https://wiki.example, without a path")
    return origins


def _as_browsers_write(origin: str) -> str:
    return origin.removesuffix(DEFAULT_PORTS.get(origin.partition(":")[0], ""))


class NamedOrigins:
    """Has every answer of the wrapped app name the origin that asks, where it is one of these, and no other."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._origins = frozenset(origin.encode("latin-1") for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_origin(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = self._headers(scope["headers"], message["headers"])
            await send(message)

        await self._app(scope, receive, send_with_origin if scope["type"] == "http" else send)

    def _headers(self, asked: Headers, own: Headers) -> Headers:
        origins = [value for name, value in asked if name == b"origin"]
        headers = [header for header in own if header[0] not in (b"access-control-allow-origin", b"vary")]
        vary = [value for name, value in own if name == b"vary"]
        headers.append((b"vary", b", ".join([*vary, b"Origin"])))
        if len(origins) != 1 or origins[0] not in self._origins:
            return headers
        headers += [(b"access-control-allow-origin", origins[0]), (b"access-control-allow-credentials", b"true")]
        return [_without_wildcard(header, asked) for header in headers]


def _without_wildcard(header: tuple[bytes, bytes], asked: Headers) -> tuple[bytes, bytes]:
    """Return a header of the answer; `*` for all fields becomes those asked for: with credentials it is a name."""
    if header != (b"access-control-allow-headers", b"*"):
        return header
    wanted = next((value for name, value in asked if name == b"access-control-request-headers"), b"")
    is_list = len(wanted) <= MAX_HEADER_NAMES and HEADER_NAMES.fullmatch(wanted)
    return header[0], wanted if is_list else b""


def with_standard_headers(
    app: ASGIApp, cors: str | Sequence[str] | None, csp: str | None, *, methods: str | None = None
) -> ASGIApp:
    """Return the app with the headers of every answer, as its settings for other origins and for security ask.

    Raises: ValueError for what is no origin.
    """
    origins = named_origins(cors)
    whole = StandardHeaders(app, standard_headers(None if cors is None else ANY, csp, methods=methods))
    return NamedOrigins(whole, origins) if origins else whole
