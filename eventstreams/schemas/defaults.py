"""Defaults of a schema, filled into events as AJV fills them: in place, before what is required is checked."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from eventstreams.schemas.ajv import Walker
from eventstreams.schemas.keywords import nodes, resolve
from eventstreams.schemas.patterns import matcher
from eventstreams.schemas.values import names


def has_defaults(schema: Mapping[str, Any]) -> bool:
    """Whether there is anything to fill."""
    return any("default" in node for node, _ in nodes(schema))


class Defaults:
    """Fills events; not below anyOf, oneOf, not, contains and propertyNames, which only try."""

    def __init__(self, schema: Mapping[str, Any], walker: Walker) -> None:
        self._schema = schema
        self._walker = walker

    def fill(self, event: Any) -> None:
        """Give absent properties their defaults, after the keys that there are."""
        self._fill(self._schema, event)

    def _fill(self, schema: Any, data: Any) -> None:
        if not isinstance(schema, dict):
            return
        if "$ref" in schema:
            self._fill(resolve(self._schema, schema["$ref"]), data)
            return
        if isinstance(data, dict):
            self._object(schema, data)
        elif isinstance(data, list):
            self._array(schema, data)
        for member in schema.get("allOf", ()):
            self._fill(member, data)
        if "if" in schema and ("then" in schema or "else" in schema):
            self._fill(schema.get("then" if self._walker.accepts(schema["if"], data) else "else"), data)

    def _object(self, schema: Mapping[str, Any], data: dict[str, Any]) -> None:
        properties: Mapping[str, Any] = schema.get("properties", {})
        for name in names(properties):
            if name not in data and isinstance(properties[name], dict) and "default" in properties[name]:
                data[name] = copy.deepcopy(properties[name]["default"])
        for name, member in schema.get("dependencies", {}).items():
            if name in data:
                self._fill(member, data)
        patterns = [(matcher(pattern), member) for pattern, member in schema.get("patternProperties", {}).items()]
        for name in list(data):
            members = [properties[name]] if name in properties else []
            members += [member for matches, member in patterns if matches(name)]
            for member in members or [schema.get("additionalProperties")]:
                self._fill(member, data[name])

    def _array(self, schema: Mapping[str, Any], data: list[Any]) -> None:
        items = schema.get("items")
        if not isinstance(items, list):
            for value in data:
                self._fill(items, value)
            return
        for i, member in enumerate(items):
            if i >= len(data) and isinstance(member, dict) and "default" in member:
                data += [None] * (i - len(data)) + [copy.deepcopy(member["default"])]
        for i, value in enumerate(data):
            self._fill(items[i] if i < len(items) else schema.get("additionalItems"), value)
