"""Who a client is, by setting; and what one is told that may not come in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import orjson
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

from eventstreams.addresses import Networks, client_ip, forwarded_client, is_trusted, peer_of, read_address
from eventstreams.asgi import error_response
from eventstreams.errors import EventStreamsError, MissingClientAddress
from eventstreams.subscribe.retries import Retries

RawHeaders = list[tuple[bytes, bytes]]
"""As ASGI has them."""

CACHE_CONTROL: RawHeaders = [(b"cache-control", b"no-cache, no-transform"), (b"cache-control", b"no-cache")]
"""Of every stream. A proxy that compresses keeps the end of what it has until more comes: each client's last event.

Deliberate: two lines. The second is the original's, for who compares the whole of it and takes the last line.
"""

AddressMode = Literal["peer", "forwarded", "x-client-ip"]

MAX_LOGGED = 100
"""Letters of an X-Client-IP, which may hold anything, in a line of the log."""

REFUSED = Retries(20.0, 40.0)
"""When browsers come back that were refused."""


def client_address(headers: Mapping[str, str], peer: str, mode: AddressMode, trusted: Networks) -> str:
    """Return what counts as the client: its connection, what trusted proxies say, or the header X-Client-IP.

    Raises: MissingClientAddress where X-Client-IP is required and absent.
    """
    if mode == "peer":
        return client_ip({}, peer, ())
    if mode == "forwarded":
        return client_ip(headers, peer, trusted)
    address = headers.get("x-client-ip", "").strip()
    if not address:
        raise MissingClientAddress("X-Client-IP is a required request header")
    # Deliberate: without trusted proxies the header is believed from all, and whatever it holds counts, as the original
    # does.
    if trusted and not is_trusted(peer, trusted):
        return client_ip({}, peer, ())
    return read_address(address) or address


def logged_client(scope: Scope, mode: AddressMode, trusted: Networks) -> str:
    """Return whom the log names: who counts as the client, but for `peer` too whom trusted proxies name."""
    headers = Headers(scope=scope)
    if mode == "x-client-ip" and headers.get("x-client-ip", "").strip():
        return client_address(headers, peer_of(scope), mode, trusted)[:MAX_LOGGED]
    return forwarded_client(scope, trusted)


def is_browser(headers: Mapping[str, str]) -> bool:
    """Whether a request is an EventSource's in a browser, which never comes back from anything but 200.

    By its name too: on plain HTTP, from a page of the same origin, browsers send neither Origin nor Sec-Fetch-*.
    """
    wants_events = headers.get("accept", "").startswith("text/event-stream")
    named = headers.get("user-agent", "").startswith("Mozilla/") or "origin" in headers
    return wants_events and (named or any(name.startswith("sec-fetch-") for name in headers))


def refusal(exc: EventStreamsError, scope: Scope, headers: Mapping[str, str], retries: Retries | None) -> Response:
    """Return the answer to a client that is to come back later: its status, or for a browser a stream that ends.

    `retries`: when those come back whose streams end, which refused browsers do no sooner; None has no such streams.
    """
    if retries is None or not is_browser(headers):
        return error_response(exc, scope)
    milliseconds = max(REFUSED.draw(), retries.draw(), round(1000 * (exc.retry_after or 0.0)))
    data = orjson.dumps({"status": exc.status, "type": exc.code, "detail": exc.message}).decode()
    body = f":ok\n\nretry: {milliseconds}\n\nevent: error\ndata: {data}\n\n"
    response = Response(body, 200, media_type="text/event-stream")
    response.raw_headers += CACHE_CONTROL
    return response
