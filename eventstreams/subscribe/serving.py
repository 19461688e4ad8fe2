"""Where the described streams are served: the servers that OpenAPI and AsyncAPI documents name, by request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from eventstreams.public_address import Base


def openapi_servers(base: Base) -> Sequence[Mapping[str, Any]]:
    """Return OpenAPI's `servers`: without a known host relative to the document's own."""
    return [{"url": base.link("") or "/"}]


def asyncapi_servers(base: Base, host: str) -> Mapping[str, Any]:
    """Return AsyncAPI's `servers`, which must name a host."""
    path = {"pathname": base.prefix} if base.prefix else {}
    return {"public": {"host": host, "protocol": base.scheme, **path}}


def with_servers(document: bytes, servers: object) -> bytes:
    """Return a document, a JSON object that has members, with its servers: it is made once for all addresses."""
    return b'{"servers":%b,%b' % (orjson.dumps(servers), document[1:])
