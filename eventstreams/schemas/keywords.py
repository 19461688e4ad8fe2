"""JSON Schema's keywords: what they go for, and where one schema holds others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from eventstreams.schemas.values import escaped

GROUPS: Mapping[str, frozenset[str]] = {
    "number": frozenset({"maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum", "multipleOf", "format"}),
    "string": frozenset({"maxLength", "minLength", "pattern", "format"}),
    "array": frozenset({"maxItems", "minItems", "items", "contains", "uniqueItems"}),
    "object": frozenset(
        {"maxProperties", "minProperties", "required", "dependencies", "propertyNames"}
        | {"properties", "additionalProperties", "patternProperties"}
    ),
}
RULES = frozenset().union(
    *GROUPS.values(), {"type", "$comment", "$ref", "const", "enum", "not", "anyOf", "oneOf", "allOf", "if"}
)


SUBSCHEMAS = ("additionalItems", "additionalProperties", "contains", "else", "if", "not", "propertyNames", "then")
SUBSCHEMA_LISTS = ("allOf", "anyOf", "oneOf")
SUBSCHEMA_MAPS = ("definitions", "dependencies", "patternProperties", "properties")


def has_rules(schema: Any) -> bool:
    """Whether a schema can refuse anything: neither true nor without keywords."""
    return not schema if isinstance(schema, bool) else not RULES.isdisjoint(schema)


def resolve(schema: Any, reference: str) -> Any:
    """Return the node that a reference within the document points to. Raises: LookupError, TypeError."""
    for part in filter(None, reference.partition("#")[2].split("/")):
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        schema = schema[int(name)] if isinstance(schema, list) else schema[name]
    return schema


def refers(schema: Any) -> bool:
    """Whether a schema holds references: AJV then compiles it by itself, and its paths begin anew."""
    members: Iterable[Any] = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    return (isinstance(schema, dict) and "$ref" in schema) or any(map(refers, members))


def tightest(schema: Any, keyword: str, exclusive: str, sign: str) -> tuple[float | None, str, bool]:
    """Return the limit that counts, the keyword it comes from, and whether it is itself excluded."""
    limit, open_end = schema.get(keyword), schema.get(exclusive)
    if isinstance(open_end, bool) or open_end is None:
        return limit, exclusive if open_end else keyword, bool(open_end)
    if limit is None:
        return open_end, exclusive, True
    picked = min(open_end, limit) if sign == "<" else max(open_end, limit)
    return picked, *((exclusive, True) if picked == open_end else (keyword, False))


def nodes(schema: Any, where: str = "#") -> Iterator[tuple[dict[str, Any], str]]:
    """Return every schema node and its place, the root first."""
    if isinstance(schema, list):
        for i, member in enumerate(schema):
            yield from nodes(member, f"{where}/{i}")
    if not isinstance(schema, dict):
        return
    yield schema, where
    for keyword in (*SUBSCHEMAS, *SUBSCHEMA_LISTS, "items"):
        yield from nodes(schema.get(keyword), f"{where}/{keyword}")
    for keyword in SUBSCHEMA_MAPS:
        members = schema.get(keyword)
        if isinstance(members, dict):
            for name, member in members.items():
                if not isinstance(member, list):
                    yield from nodes(member, f"{where}/{keyword}/{escaped(name)}")
