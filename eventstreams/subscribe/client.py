"""Who a client is, by setting; and what one is told that may not come in."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Literal

import orjson
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

from eventstreams.addresses import Networks, client_ip, forwarded_client, is_trusted, peer_of, read_address
from eventstreams.asgi import error_response
from eventstreams.errors import EventStreamsError, MissingClientAddress

AddressMode = Literal["peer", "forwarded", "x-client-ip"]

MAX_LOGGED = 100
"""Letters of an X-Client-IP, which may hold anything, in a line of the log."""

BROWSER_RETRY = (20.0, 60.0)
"""Seconds, at random between the two: refused browsers do not come back together."""


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
    """Whether a request is an EventSource's in a browser, which never comes back from anything but 200."""
    wants_events = headers.get("accept", "").startswith("text/event-stream")
    return wants_events and ("origin" in headers or any(name.startswith("sec-fetch-") for name in headers))


def refusal(exc: EventStreamsError, scope: Scope, headers: Mapping[str, str], *, browsers_come_back: bool) -> Response:
    """Return the answer to a client that is to come back later: its status, or for a browser a stream that ends."""
    if not browsers_come_back or not is_browser(headers):
        return error_response(exc, scope)
    milliseconds = round(1000 * max(random.uniform(*BROWSER_RETRY), exc.retry_after or 0.0))
    data = orjson.dumps({"status": exc.status, "type": exc.code, "detail": exc.message}).decode()
    body = f":ok\n\nretry: {milliseconds}\n\nevent: error\ndata: {data}\n\n"
    return Response(body, 200, {"cache-control": "no-cache"}, "text/event-stream")
