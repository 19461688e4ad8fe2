"""Compiled validators: jsonschema-rs says whether, the AJV walker says why; defaults are filled as AJV does."""

from __future__ import annotations

import asyncio
import copy
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jsonschema_rs

from eventstreams.errors import InsecureSchema, InvalidSchema, SchemaError, SchemaNotFound
from eventstreams.schemas.ajv import Error, Walker, javascript_pattern
from eventstreams.schemas.formats import Format
from eventstreams.schemas.repository import SchemaRepository
from eventstreams.schemas.uri import parse_schema_uri

logger = logging.getLogger(__name__)

DIALECTS: Mapping[str, Callable[..., Any]] = {
    "http://json-schema.org/draft-04/schema": jsonschema_rs.Draft4Validator,
    "http://json-schema.org/draft-06/schema": jsonschema_rs.Draft6Validator,
    "http://json-schema.org/draft-07/schema": jsonschema_rs.Draft7Validator,
}
DEFAULT_DIALECT = "http://json-schema.org/draft-07/schema"

MAX_VALIDATORS = 5000
MAX_FAILURES = 1000
FAILURE_SECONDS = 10.0
"""How long a failed look-up is remembered: long enough against a flood, short enough for a schema just published."""

SUBSCHEMAS = ("additionalItems", "additionalProperties", "contains", "else", "if", "not", "propertyNames", "then")
SUBSCHEMA_LISTS = ("allOf", "anyOf", "oneOf")
SUBSCHEMA_MAPS = ("definitions", "dependencies", "patternProperties", "properties")


class Validator:
    """One schema, ready to check events. Raises InvalidSchema or InsecureSchema when made."""

    def __init__(self, uri: str, schema: Mapping[str, Any], formats: Mapping[str, Format], *, insecure: bool) -> None:
        self.uri = uri
        self.schema = schema
        title = schema.get("title")
        self.title = title if isinstance(title, str) else None
        dialect = str(schema.get("$schema", DEFAULT_DIALECT)).rstrip("#").replace("https://", "http://", 1)
        if dialect not in DIALECTS:
            raise InvalidSchema(f"schema {uri}: $schema {schema['$schema']!r} is none of {', '.join(DIALECTS)}")
        _check(schema, uri, formats, insecure=insecure)
        self._defaults = _has_defaults(schema)
        self._walker = Walker(schema, formats)
        self._compiled = _compile(uri, _stripped(schema), DIALECTS[dialect], formats)

    def is_valid(self, event: object) -> bool:
        """Return the verdict; about a microsecond."""
        return bool(self._compiled.is_valid(event))

    def errors(self, event: object) -> list[Error]:
        """Return all errors in AJV's words and order."""
        return self._walker.errors(event)

    def fill_defaults(self, event: dict[str, Any]) -> None:
        """Give absent properties the schema's defaults, in place, after the keys that there are."""
        if self._defaults:
            _fill(self.schema, event)

    def has_field(self, path: tuple[str, ...]) -> bool:
        """Whether the schema declares this field, property by property."""
        return _find(self.schema, path) is not None

    def accepts_entry(self, path: tuple[str, ...]) -> bool:
        """Whether the field's parent is declared an object, so that a map entry may stand there."""
        parent = _find(self.schema, path[:-1])
        return isinstance(parent, dict) and parent.get("type") == "object"


def _compile(uri: str, schema: Any, make: Callable[..., Any], formats: Mapping[str, Format]) -> Any:
    def refuse(reference: str) -> Any:
        raise ValueError(f"reference {reference} is not in the document")

    try:
        return make(schema, formats=dict(formats), validate_formats=True, retriever=refuse)
    except (ValueError, jsonschema_rs.ValidationError) as exc:
        raise InvalidSchema(f"schema {uri} is invalid: {exc}") from exc


def _stripped(schema: Any, *, root: bool = True) -> Any:
    """Return the schema without `$schema` and identifiers: nothing in it is then looked up elsewhere."""
    if isinstance(schema, list):
        return [_stripped(member, root=False) for member in schema]
    if not isinstance(schema, dict):
        return schema
    out = {k: v for k, v in schema.items() if k not in ("$schema", "$id", "id", "examples", "default")}
    for keyword in (*SUBSCHEMAS, *SUBSCHEMA_LISTS, "items"):
        if keyword in out:
            out[keyword] = _stripped(out[keyword], root=False)
    for keyword in SUBSCHEMA_MAPS:
        if isinstance(out.get(keyword), dict):
            out[keyword] = {
                name: member
                if keyword == "dependencies" and isinstance(member, list)
                else _stripped(member, root=False)
                for name, member in out[keyword].items()
            }
    return out


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Return every schema node, the root first."""
    if isinstance(schema, list):
        for member in schema:
            yield from _nodes(member)
    if not isinstance(schema, dict):
        return
    yield schema
    for keyword in (*SUBSCHEMAS, *SUBSCHEMA_LISTS, "items"):
        yield from _nodes(schema.get(keyword))
    for keyword in SUBSCHEMA_MAPS:
        members = schema.get(keyword)
        if isinstance(members, dict):
            for member in members.values():
                if not isinstance(member, list):
                    yield from _nodes(member)


def _check(schema: Mapping[str, Any], uri: str, formats: Mapping[str, Format], *, insecure: bool) -> None:
    for node in _nodes(schema):
        name = node.get("format")
        if isinstance(name, str) and name not in formats:
            raise InvalidSchema(f'unknown format "{name}" is used in schema at path "#"')
        reference = node.get("$ref")
        if isinstance(reference, str) and not reference.startswith("#"):
            raise InsecureSchema(f"schema {uri}: reference {reference} leaves the document")
        for pattern in [node.get("pattern"), *node.get("patternProperties", {})]:
            _check_pattern(pattern, uri)
        if not insecure:
            _check_bounds(node, uri)


def _check_pattern(pattern: object, uri: str) -> None:
    if isinstance(pattern, str):
        try:
            javascript_pattern(pattern)
        except re.error as exc:
            raise InvalidSchema(f"schema {uri}: pattern {pattern!r}: {exc}") from exc


def _check_bounds(node: Mapping[str, Any], uri: str) -> None:
    """AJV's rules for schemas that events cannot turn against the server."""
    for keyword in ("pattern", "format"):
        if keyword in node and "maxLength" not in node:
            raise InsecureSchema(f"schema {uri}: {keyword} {node[keyword]!r} stands without maxLength")
    items = node.get("items")
    simple = isinstance(items, dict) and items.get("type") in ("string", "number", "integer", "boolean", "null")
    if node.get("uniqueItems") is True and not simple and "maxItems" not in node:
        raise InsecureSchema(f"schema {uri}: uniqueItems over objects or arrays stands without maxItems")
    names = node.get("propertyNames")
    if "patternProperties" in node and not (isinstance(names, dict) and "maxLength" in names):
        raise InsecureSchema(f"schema {uri}: patternProperties stands without a maxLength of propertyNames")


def _has_defaults(schema: Mapping[str, Any]) -> bool:
    return any("default" in node for node in _nodes(schema))


def _fill(schema: Any, data: Any) -> None:
    if not isinstance(schema, dict):
        return
    if isinstance(data, dict):
        properties = schema.get("properties", {})
        for name, member in properties.items():
            if name not in data and isinstance(member, dict) and "default" in member:
                data[name] = copy.deepcopy(member["default"])
        for name, value in data.items():
            _fill(properties.get(name, schema.get("additionalProperties")), value)
    elif isinstance(data, list):
        items = schema.get("items")
        for i, value in enumerate(data):
            _fill(items[i] if isinstance(items, list) and i < len(items) else items, value)
    for member in schema.get("allOf", ()):
        _fill(member, data)


def _find(schema: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        properties = schema.get("properties") if isinstance(schema, dict) else None
        schema = properties.get(name) if isinstance(properties, dict) else None
    return schema


class Validators:
    """Compiled validators by URI. A cold schema is loaded once however many ask; failures are remembered a while."""

    def __init__(self, repository: SchemaRepository, formats: Mapping[str, Format], *, insecure: bool = False) -> None:
        self._repository = repository
        self._formats = formats
        self._insecure = insecure
        self._ready: OrderedDict[str, Validator] = OrderedDict()
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
        held = self._ready.get(parsed)
        if held is not None:
            self._ready.move_to_end(parsed)
            return held
        failed = self._failed.get(parsed)
        if failed is not None and time.monotonic() - failed[0] < FAILURE_SECONDS:
            raise failed[1]
        loading = self._loading.get(parsed)
        if loading is None:
            loading = self._loading[parsed] = asyncio.create_task(self._load(parsed), name="load schema")
            loading.add_done_callback(lambda task: self._settle(parsed, task))
        return await asyncio.shield(loading)

    async def _load(self, uri: str) -> Validator:
        schema = await self._repository.load(parse_schema_uri(uri))
        identity = schema.get("$id", schema.get("id"))
        if (
            isinstance(identity, str)
            and not f"/{identity}".endswith(uri)
            and not uri.endswith(f"/{identity.lstrip('/')}")
        ):
            raise SchemaNotFound(f"schema {uri}: the document there calls itself {identity}")
        return Validator(uri, schema, self._formats, insecure=self._insecure)

    def _settle(self, uri: str, task: asyncio.Task[Validator]) -> None:
        del self._loading[uri]
        if task.cancelled():
            return
        exc = task.exception()
        if exc is None:
            self._failed.pop(uri, None)
            self._ready[uri] = task.result()
            while len(self._ready) > MAX_VALIDATORS:
                self._ready.popitem(last=False)
        elif isinstance(exc, SchemaError):
            # Once for each time that the failure is remembered: clients cannot flood the logs with it.
            logger.warning("schema was not loaded", extra={"uri": uri, "cause": exc.message[:500]})
            self._failed[uri] = (time.monotonic(), exc)
            self._failed.move_to_end(uri)
            while len(self._failed) > MAX_FAILURES:
                self._failed.popitem(last=False)
