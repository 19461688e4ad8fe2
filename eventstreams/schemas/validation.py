"""Compiled validators: jsonschema-rs says whether, the AJV walker says why; defaults are filled as AJV does."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import jsonschema
import jsonschema_rs

from eventstreams.errors import InvalidSchema, SchemaError, SchemaNotFound
from eventstreams.schemas import security
from eventstreams.schemas.ajv import Error, Walker
from eventstreams.schemas.defaults import Defaults, has_defaults
from eventstreams.schemas.formats import Format
from eventstreams.schemas.formats import formats as formats_of
from eventstreams.schemas.keywords import SUBSCHEMA_LISTS, SUBSCHEMA_MAPS, SUBSCHEMAS, nodes, tightest
from eventstreams.schemas.patterns import OPTIONS, portable
from eventstreams.schemas.repository import SchemaRepository
from eventstreams.schemas.uri import LATEST, SchemaUri, parse_schema_uri

META_FORMATS = formats_of("production")

logger = logging.getLogger(__name__)

DRAFTS: Mapping[str, Any] = {
    "http://json-schema.org/draft-04/schema": jsonschema.Draft4Validator.META_SCHEMA,
    "http://json-schema.org/draft-06/schema": jsonschema.Draft6Validator.META_SCHEMA,
    "http://json-schema.org/draft-07/schema": jsonschema.Draft7Validator.META_SCHEMA,
}
DEFAULT_DRAFT = "http://json-schema.org/draft-07/schema"
UNREAD = frozenset({"$schema", "$id", "id", "examples", "default", "contentMediaType", "contentEncoding"})
"""Keywords that decide nothing here: without identifiers nothing is looked up elsewhere."""

MAX_VALIDATORS = 5000
MAX_FAILURES = 1000
LATEST_SECONDS = 60.0
FAILURE_SECONDS = 10.0
"""How long a failed look-up is remembered: long enough against a flood, short enough for a schema just published."""


class Validator:
    """One schema, ready to check events. Raises InvalidSchema or InsecureSchema when made."""

    def __init__(self, uri: str, schema: Mapping[str, Any], formats: Mapping[str, Format], *, insecure: bool) -> None:
        self.uri = uri
        self.schema = schema
        title = schema.get("title")
        self.title = title if isinstance(title, str) else None
        _check_draft(schema, uri)
        security.check(schema, uri, formats, insecure=insecure)
        self._walker = Walker(schema, formats)
        self._defaults = Defaults(schema, self._walker) if has_defaults(schema) else None
        self._compiled = None if _is_read_otherwise(schema) else _compile(uri, schema, formats)

    def is_valid(self, event: object) -> bool:
        """Return the verdict; about a microsecond."""
        if self._compiled is None:
            return not self._walker.errors(event, 1)
        try:
            return bool(self._compiled.is_valid(event))
        except (UnicodeEncodeError, ValueError):
            # A lone surrogate, or more levels than it takes: the walker takes both.
            return not self._walker.errors(event, 1)

    def errors(self, event: object) -> list[Error]:
        """Return the errors in AJV's words and order."""
        return self._walker.errors(event)

    def fill_defaults(self, event: dict[str, Any]) -> None:
        """Give absent properties the schema's defaults, in place, after the keys that there are."""
        if self._defaults is not None:
            self._defaults.fill(event)

    def has_field(self, path: tuple[str, ...]) -> bool:
        """Whether the schema declares this field, property by property."""
        return _find(self.schema, path) is not None

    def accepts_entry(self, path: tuple[str, ...]) -> bool:
        """Whether the field's parent is declared an object, so that a map entry may stand there."""
        parent = _find(self.schema, path[:-1])
        return isinstance(parent, dict) and parent.get("type") == "object"


def _check_draft(schema: Mapping[str, Any], uri: str) -> None:
    draft = str(schema.get("$schema", DEFAULT_DRAFT)).rstrip("#").replace("https://", "http://", 1)
    if draft not in DRAFTS:
        raise InvalidSchema(f"schema {uri}: $schema {schema['$schema']!r} is none of {', '.join(DRAFTS)}")
    errors = Walker(DRAFTS[draft], META_FORMATS).errors(schema)
    if errors:
        raise InvalidSchema("schema is invalid: " + ", ".join(f"data{e['dataPath']} {e['message']}" for e in errors))


def _is_read_otherwise(schema: Mapping[str, Any]) -> bool:
    """Whether the compiled validator would read the schema otherwise than AJV: quotients, types beside references."""
    return any("multipleOf" in node or {"$ref", "type"} <= node.keys() for node, _ in nodes(schema))


def _compile(uri: str, schema: Mapping[str, Any], formats: Mapping[str, Format]) -> Any:
    def refuse(reference: str) -> Any:
        raise ValueError(f"reference {reference} is not in the document")

    try:
        return jsonschema_rs.Draft7Validator(
            _plain(schema), formats=dict(formats), validate_formats=True, retriever=refuse, pattern_options=OPTIONS
        )
    except (ValueError, jsonschema_rs.ValidationError) as exc:
        raise InvalidSchema(f"schema {uri} is invalid: {exc}") from exc


def _plain(schema: Any) -> Any:
    """Return the schema in draft-07, with portable patterns and without what decides nothing."""
    if isinstance(schema, list):
        return [_plain(member) for member in schema]
    if not isinstance(schema, dict):
        return schema
    out = {name: value for name, value in schema.items() if name not in UNREAD}
    for keyword in (*SUBSCHEMAS, *SUBSCHEMA_LISTS, "items"):
        if keyword in out:
            out[keyword] = _plain(out[keyword])
    for keyword in SUBSCHEMA_MAPS:
        if isinstance(out.get(keyword), dict):
            out[keyword] = {
                portable(name) if keyword == "patternProperties" else name: member
                if keyword == "dependencies" and isinstance(member, list)
                else _plain(member)
                for name, member in out[keyword].items()
            }
    if "pattern" in out:
        out["pattern"] = portable(out["pattern"])
    for limit, exclusive, sign in (("maximum", "exclusiveMaximum", "<"), ("minimum", "exclusiveMinimum", ">")):
        value, keyword, _ = tightest(
            {limit: out.pop(limit, None), exclusive: out.pop(exclusive, None)}, limit, exclusive, sign
        )
        if value is not None:
            out[keyword] = value
    return out


def _find(schema: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        properties = schema.get("properties") if isinstance(schema, dict) else None
        schema = properties.get(name) if isinstance(properties, dict) else None
    return schema


class Validators:
    """Compiled validators by URI. A cold schema is loaded once however many ask; failures are remembered a while.

    Versions are kept for good. What `latest` is, is asked for anew after `LATEST_SECONDS`; while that cannot be told it
    is what it was.
    """

    def __init__(self, repository: SchemaRepository, formats: Mapping[str, Format], *, insecure: bool = False) -> None:
        self._repository = repository
        self._formats = formats
        self._insecure = insecure
        self._ready: OrderedDict[str, Validator] = OrderedDict()
        self._latest: OrderedDict[str, tuple[float, Validator]] = OrderedDict()
        self._failed: OrderedDict[str, tuple[float, SchemaError]] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Validator]] = {}

    def ready(self, uri: object) -> Validator | None:
        """Return a validator that is loaded, without waiting."""
        return self._ready.get(uri) if isinstance(uri, str) else None

    async def get(self, uri: object) -> Validator:
        """Return the validator of a schema URI.

        Raises: SchemaNotFound, SchemaUnavailable, InsecureSchema, InvalidSchema.
        """
        parsed = str(parse_schema_uri(uri))
        held = self._held(parsed)
        if held is not None:
            return held
        failed = self._failed.get(parsed)
        if failed is not None and time.monotonic() - failed[0] < FAILURE_SECONDS:
            if parsed in self._latest:
                return self._latest[parsed][1]
            raise failed[1]
        loading = self._loading.get(parsed)
        if loading is None:
            loading = self._loading[parsed] = asyncio.create_task(self._load(parsed), name="load schema")
            loading.add_done_callback(lambda task: self._settle(parsed, task))
        try:
            return await asyncio.shield(loading)
        except SchemaError:
            if parsed in self._latest:
                return self._latest[parsed][1]
            raise

    def _held(self, uri: str) -> Validator | None:
        held = self._ready.get(uri)
        if held is not None:
            self._ready.move_to_end(uri)
            return held
        asked, latest = self._latest.get(uri, (0.0, None))
        return latest if time.monotonic() - asked < LATEST_SECONDS else None

    async def _load(self, text: str) -> Validator:
        uri = parse_schema_uri(text)
        schema = await self._repository.load(uri)
        identity = schema.get("$id", schema.get("id"))
        if isinstance(identity, str) and not _names(identity, uri):
            raise SchemaNotFound(f"schema {uri}: the document there calls itself {identity}")
        _, held = self._latest.get(text, (0.0, None))
        if held is not None and held.schema == schema:
            return held
        return Validator(text, schema, self._formats, insecure=self._insecure)

    def _settle(self, uri: str, task: asyncio.Task[Validator]) -> None:
        del self._loading[uri]
        if task.cancelled():
            return
        exc = task.exception()
        if exc is None:
            self._failed.pop(uri, None)
            self._keep(uri, task.result())
        elif isinstance(exc, SchemaError):
            # Once for each time that the failure is remembered: clients cannot flood the logs with it.
            logger.warning("schema was not loaded", extra={"uri": uri, "cause": exc.message[:500]})
            self._failed[uri] = (time.monotonic(), exc)
            self._failed.move_to_end(uri)
            while len(self._failed) > MAX_FAILURES:
                self._failed.popitem(last=False)

    def _keep(self, uri: str, validator: Validator) -> None:
        if uri.endswith(f"/{LATEST}"):
            self._latest[uri] = (time.monotonic(), validator)
            self._latest.move_to_end(uri)
        else:
            self._ready[uri] = validator
        for held in (self._ready, self._latest):
            while len(held) > MAX_VALIDATORS:
                held.popitem(last=False)


def _names(identity: str, uri: SchemaUri) -> bool:
    """Whether a document that calls itself so may be what stands at this URI; `latest` may be any version."""
    if uri.version == LATEST:
        identity, wanted = identity.rstrip("#").rpartition("/")[0], f"/{uri.title}"
    else:
        wanted = str(uri)
    return f"/{identity}".endswith(wanted) or wanted.endswith(f"/{identity.lstrip('/')}")
