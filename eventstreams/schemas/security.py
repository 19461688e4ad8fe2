"""What is refused of a schema before it is used: what it cannot mean, and what events could turn against the server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eventstreams.errors import InsecureSchema, InvalidSchema
from eventstreams.schemas.formats import Format
from eventstreams.schemas.keywords import nodes, resolve
from eventstreams.schemas.patterns import matcher

MAX_NODES = 50_000
"""Nodes of a schema: those of production have at most some hundreds."""


def check(schema: Mapping[str, Any], uri: str, formats: Mapping[str, Format], *, insecure: bool) -> None:
    """Look at every node. Raises: InvalidSchema; and, unless `insecure`, InsecureSchema by AJV's rules."""
    for count, (node, where) in enumerate(nodes(schema)):
        if count > MAX_NODES:
            raise InsecureSchema(f"schema {uri}: more than {MAX_NODES} nodes")
        name = node.get("format")
        if isinstance(name, str) and name not in formats:
            raise InvalidSchema(f'unknown format "{name}" is used in schema at path "{where}"')
        _check_reference(schema, node.get("$ref"), uri)
        for pattern in [node.get("pattern"), *node.get("patternProperties", {})]:
            if pattern is not None:
                matcher(pattern)
        if not insecure:
            _check_bounds(node, uri, where)


def _check_reference(schema: Mapping[str, Any], reference: object, uri: str) -> None:
    seen: set[str] = set()
    while isinstance(reference, str):
        if not reference.startswith("#"):
            raise InsecureSchema(f"schema {uri}: reference {reference} leaves the document")
        if reference in seen:
            raise InvalidSchema(f"schema {uri}: reference {reference} leads to itself")
        seen.add(reference)
        try:
            target = resolve(schema, reference)
        except (LookupError, TypeError, ValueError) as exc:
            raise InvalidSchema(f"can't resolve reference {reference} from id {uri}") from exc
        reference = target.get("$ref") if isinstance(target, dict) else None


def _check_bounds(node: Mapping[str, Any], uri: str, where: str) -> None:
    """AJV's rules for schemas that events cannot turn against the server."""
    place = f"schema {uri} at {where}"
    for keyword in ("pattern", "format"):
        if keyword in node and "maxLength" not in node:
            raise InsecureSchema(f"{place}: {keyword} {node[keyword]!r} stands without maxLength")
    if node.get("uniqueItems") is True and "maxItems" not in node and _holds_structures(node.get("items")):
        raise InsecureSchema(f"{place}: uniqueItems over objects or arrays stands without maxItems")
    if "patternProperties" in node:
        names = node.get("propertyNames")
        if names is None or (isinstance(names, dict) and "maxLength" not in names):
            raise InsecureSchema(f"{place}: patternProperties stands without a maxLength of propertyNames")


def _holds_structures(items: Any) -> bool:
    types = items.get("type") if isinstance(items, dict) else None
    return types is None or bool({"object", "array"} & set([types] if isinstance(types, str) else types))
