"""Descriptions of the streams, made when they are asked for and the catalogue or the schemas may have changed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from eventstreams.catalog.streams import StreamCatalog, StreamConfig
from eventstreams.errors import SchemaError
from eventstreams.schemas.repository import SchemaRepository
from eventstreams.schemas.uri import parse_schema_uri
from eventstreams.subscribe.asyncapi import asyncapi
from eventstreams.subscribe.openapi import About, Described, Schema, openapi

logger = logging.getLogger(__name__)

MAX_AGE = 300.0
"""Seconds after which schemas are asked for again: `latest` may have moved, a repository may be back."""

AT_ONCE = 4
"""Schemas that are loaded at the same time: each thread that parses one delays the event loop by some ms."""


class _Made(NamedTuple):
    openapi: bytes
    asyncapi: bytes
    version: int
    at: float


class Documents:
    """The OpenAPI and AsyncAPI documents of the catalogue as it is now. A schema that cannot be had is left out."""

    def __init__(
        self,
        catalog: StreamCatalog,
        repository: SchemaRepository,
        about: About,
        *,
        schema_version: str = "latest",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalog = catalog
        self._repository = repository
        self._about = about
        self._schema_version = schema_version
        self._clock = clock
        self._made: _Made | None = None
        self._making = asyncio.Lock()

    async def openapi(self) -> bytes:
        """Return the OpenAPI document as JSON."""
        return (await self._current()).openapi

    async def asyncapi(self) -> bytes:
        """Return the AsyncAPI document as JSON."""
        return (await self._current()).asyncapi

    async def _current(self) -> _Made:
        async with self._making:
            made = self._made
            if made is None or made.version != self._catalog.version or self._clock() - made.at > MAX_AGE:
                made = self._made = await self._make()
            return made

    async def _make(self) -> _Made:
        version, now = self._catalog.version, self._clock()
        streams = [s for name in self._catalog.public_names() if (s := self._catalog.public(name)) is not None]
        described = await self._described(streams)
        # Megabytes where there are hundreds of streams: in a thread, or open streams would wait.
        return _Made(*await asyncio.to_thread(_written, self._about, described), version, now)

    async def _described(self, streams: Sequence[StreamConfig]) -> list[Described]:
        wanted = {stream.name: self.schema_uri(stream) for stream in streams}
        room = asyncio.Semaphore(AT_ONCE)

        async def load(uri: str) -> tuple[str, Schema | None]:
            async with room:
                return uri, await self._load(uri)

        loaded = dict(await asyncio.gather(*(load(uri) for uri in set(filter(None, wanted.values())))))
        return [Described(stream, _inline(stream) or loaded.get(wanted[stream.name] or "")) for stream in streams]

    def schema_uri(self, stream: StreamConfig) -> str | None:
        """Return the URI of the schema by which a stream is described, in the repositories; None where none is told."""
        given = stream.settings.get("$schema")
        if isinstance(given, str):
            return given
        return f"/{stream.schema_title}/{self._schema_version}" if stream.schema_title else None

    async def _load(self, text: str) -> Schema | None:
        try:
            return await self._repository.load(parse_schema_uri(text))
        except SchemaError as exc:
            logger.warning("a stream is described without its schema", extra={"cause": exc.message[:500]})
            return None


def _written(about: About, described: Sequence[Described]) -> tuple[bytes, bytes]:
    return _json(openapi(about, described)), _json(asyncapi(about, described))


def _json(document: Mapping[str, Any]) -> bytes:
    # Schemas from YAML may have numbers and dates as names.
    try:
        return orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError:
        return orjson.dumps(_large_integers(document), option=orjson.OPT_NON_STR_KEYS)


def _large_integers(value: Any) -> Any:
    """Write out integers of more than 64 bits, which limits in schemas have."""
    if isinstance(value, Mapping):
        return {key: _large_integers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_large_integers(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return orjson.Fragment(str(value))
    return value


def _inline(stream: StreamConfig) -> Mapping[str, Any] | None:
    schema = stream.settings.get("schema")
    return schema if isinstance(schema, Mapping) else None
