"""Validation errors as AJV 6 words them: producers, dashboards and alerts read these texts.

A walker over one schema and one event that collects every error, in AJV's order within a schema node: the type first,
or the keywords of the value's own type; then const, enum, not, anyOf, oneOf, allOf, if.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from eventstreams.schemas.formats import Format

Error = dict[str, Any]

IDENTIFIER = re.compile(r"[a-zA-Z_$][a-zA-Z0-9_$]*", re.ASCII)


def errors_text(errors: Sequence[Error]) -> str:
    """Return the errors in one line, as AJV's errorsText with an empty data name."""
    return ", ".join(f"'{error['dataPath']}' {error['message']}" for error in errors)


class Walker:
    """Collects the errors of events against one schema. Formats are given; `$ref` is not followed beyond the schema."""

    def __init__(self, schema: Mapping[str, Any], formats: Mapping[str, Format]) -> None:
        self._schema = schema
        self._formats = formats

    def errors(self, event: object) -> list[Error]:
        """Return all errors, in AJV's order; empty when the event is valid."""
        return list(self._node(self._schema, event, "", "#"))

    def _node(self, schema: Any, data: Any, path: str, where: str) -> Iterator[Error]:
        if schema is True:
            return
        if schema is False:
            yield _error("false schema", path, f"{where}/false schema", {}, "boolean schema is false")
            return
        if "$ref" in schema:
            # draft-07: what stands beside $ref is ignored.
            target, where = self._resolve(schema["$ref"])
            yield from self._node(target, data, path, where)
            return
        wanted = schema.get("type")
        if wanted is not None and not is_type(data, wanted):
            names = ",".join(wanted) if isinstance(wanted, list) else wanted
            yield _error("type", path, f"{where}/type", {"type": names}, f"should be {names}")
        else:
            yield from self._of_type(schema, data, path, where)
        yield from self._of_any_type(schema, data, path, where)

    def _resolve(self, reference: str) -> tuple[Any, str]:
        target: Any = self._schema
        pointer = reference.partition("#")[2]
        for part in filter(None, pointer.split("/")):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        return target, reference if reference.startswith("#") else "#" + pointer

    def _of_type(self, schema: Mapping[str, Any], data: Any, path: str, where: str) -> Iterator[Error]:
        if isinstance(data, str):
            yield from self._string(schema, data, path, where)
        elif is_type(data, "number"):
            yield from _number(schema, data, path, where)
        elif isinstance(data, list):
            yield from self._array(schema, data, path, where)
        elif isinstance(data, dict):
            yield from self._object(schema, data, path, where)

    def _string(self, schema: Mapping[str, Any], data: str, path: str, where: str) -> Iterator[Error]:
        for keyword, word, wrong in (
            ("maxLength", "longer", len(data).__gt__),
            ("minLength", "shorter", len(data).__lt__),
        ):
            limit = schema.get(keyword)
            if limit is not None and wrong(limit):
                message = f"should NOT be {word} than {limit} characters"
                yield _error(keyword, path, f"{where}/{keyword}", {"limit": limit}, message)
        pattern = schema.get("pattern")
        if pattern is not None and not javascript_pattern(pattern).search(data):
            yield _error("pattern", path, f"{where}/pattern", {"pattern": pattern}, f'should match pattern "{pattern}"')
        name = schema.get("format")
        if name is not None and not self._formats[name](data):
            yield _error("format", path, f"{where}/format", {"format": name}, f'should match format "{name}"')

    def _array(self, schema: Mapping[str, Any], data: list[Any], path: str, where: str) -> Iterator[Error]:
        yield from _count(schema, len(data), path, where, "Items", "items")
        items = schema.get("items")
        if isinstance(items, list):
            for i, (item, member) in enumerate(zip(data, items, strict=False)):
                yield from self._node(member, item, f"{path}[{i}]", f"{where}/items/{i}")
            yield from self._additional_items(schema, items, data, path, where)
        elif items is not None:
            for i, item in enumerate(data):
                yield from self._node(items, item, f"{path}[{i}]", f"{where}/items")
        if "contains" in schema:
            yield from self._contains(schema["contains"], data, path, where)
        if schema.get("uniqueItems"):
            yield from _unique(data, path, where)

    def _additional_items(
        self, schema: Mapping[str, Any], items: list[Any], data: list[Any], path: str, where: str
    ) -> Iterator[Error]:
        more = schema.get("additionalItems", True)
        if more is False and len(data) > len(items):
            message = f"should NOT have more than {len(items)} items"
            yield _error("additionalItems", path, f"{where}/additionalItems", {"limit": len(items)}, message)
        elif isinstance(more, dict):
            for i in range(len(items), len(data)):
                yield from self._node(more, data[i], f"{path}[{i}]", f"{where}/additionalItems")

    def _contains(self, member: Any, data: list[Any], path: str, where: str) -> Iterator[Error]:
        tried = [list(self._node(member, item, f"{path}[{i}]", f"{where}/contains")) for i, item in enumerate(data)]
        if all(tried):
            for errors in tried:
                yield from errors
            yield _error("contains", path, f"{where}/contains", {}, "should contain a valid item")

    def _object(self, schema: Mapping[str, Any], data: dict[str, Any], path: str, where: str) -> Iterator[Error]:
        yield from _count(schema, len(data), path, where, "Properties", "properties")
        for name in schema.get("required", ()):
            if name not in data:
                message = f"should have required property '{name}'"
                yield _error("required", path, f"{where}/required", {"missingProperty": name}, message)
        yield from self._dependencies(schema.get("dependencies", {}), data, path, where)
        if "propertyNames" in schema:
            yield from self._names(schema["propertyNames"], data, path, where)
        yield from self._properties(schema, data, path, where)

    def _properties(self, schema: Mapping[str, Any], data: dict[str, Any], path: str, where: str) -> Iterator[Error]:
        properties: Mapping[str, Any] = schema.get("properties", {})
        patterns: Mapping[str, Any] = schema.get("patternProperties", {})
        more = schema.get("additionalProperties", True)
        if more is not True:
            for name, value in data.items():
                if name in properties or any(javascript_pattern(p).search(name) for p in patterns):
                    continue
                if more is False:
                    params, message = {"additionalProperty": name}, "should NOT have additional properties"
                    yield _error("additionalProperties", path, f"{where}/additionalProperties", params, message)
                else:
                    yield from self._node(more, value, f"{path}['{name}']", f"{where}/additionalProperties")
        for name, member in properties.items():
            if name in data:
                yield from self._node(member, data[name], path + _step(name), f"{where}/properties/{_escape(name)}")
        for pattern, member in patterns.items():
            for name, value in data.items():
                if javascript_pattern(pattern).search(name):
                    at = f"{where}/patternProperties/{_escape(pattern)}"
                    yield from self._node(member, value, f"{path}['{name}']", at)

    def _names(self, member: Any, data: dict[str, Any], path: str, where: str) -> Iterator[Error]:
        for name in data:
            inner = list(self._node(member, name, path, f"{where}/propertyNames"))
            if inner:
                yield from ({**error, "propertyName": name} for error in inner)
                message = f"property name '{name}' is invalid"
                yield _error("propertyNames", path, f"{where}/propertyNames", {"propertyName": name}, message)

    def _dependencies(
        self, dependencies: Mapping[str, Any], data: dict[str, Any], path: str, where: str
    ) -> Iterator[Error]:
        for name, needs in dependencies.items():
            if name not in data:
                continue
            if not isinstance(needs, list):
                yield from self._node(needs, data, path, f"{where}/dependencies/{_escape(name)}")
                continue
            names = ", ".join(needs)
            for missing in needs:
                if missing not in data:
                    params = {"property": name, "missingProperty": missing, "depsCount": len(needs), "deps": names}
                    plural = "property" if len(needs) == 1 else "properties"
                    message = f"should have {plural} {names} when property {name} is present"
                    yield _error("dependencies", path, f"{where}/dependencies", params, message)

    def _of_any_type(self, schema: Mapping[str, Any], data: Any, path: str, where: str) -> Iterator[Error]:
        if "const" in schema and not equal(data, schema["const"]):
            params, message = {"allowedValue": schema["const"]}, "should be equal to constant"
            yield _error("const", path, f"{where}/const", params, message)
        if "enum" in schema and not any(equal(data, value) for value in schema["enum"]):
            params, message = {"allowedValues": schema["enum"]}, "should be equal to one of the allowed values"
            yield _error("enum", path, f"{where}/enum", params, message)
        if "not" in schema and not any(True for _ in self._node(schema["not"], data, path, f"{where}/not")):
            yield _error("not", path, f"{where}/not", {}, "should NOT be valid")
        yield from self._combined(schema, data, path, where)
        if "if" in schema:
            yield from self._condition(schema, data, path, where)

    def _combined(self, schema: Mapping[str, Any], data: Any, path: str, where: str) -> Iterator[Error]:
        if "anyOf" in schema:
            tried = self._try(schema["anyOf"], data, path, f"{where}/anyOf")
            if all(tried):
                for errors in tried:
                    yield from errors
                yield _error("anyOf", path, f"{where}/anyOf", {}, "should match some schema in anyOf")
        if "oneOf" in schema:
            tried = self._try(schema["oneOf"], data, path, f"{where}/oneOf")
            passing = [i for i, errors in enumerate(tried) if not errors]
            if len(passing) != 1:
                if not passing:
                    for errors in tried:
                        yield from errors
                params = {"passingSchemas": passing[:2] if passing else None}
                yield _error("oneOf", path, f"{where}/oneOf", params, "should match exactly one schema in oneOf")
        for i, member in enumerate(schema.get("allOf", ())):
            yield from self._node(member, data, path, f"{where}/allOf/{i}")

    def _try(self, members: Sequence[Any], data: Any, path: str, where: str) -> list[list[Error]]:
        return [list(self._node(member, data, path, f"{where}/{i}")) for i, member in enumerate(members)]

    def _condition(self, schema: Mapping[str, Any], data: Any, path: str, where: str) -> Iterator[Error]:
        holds = not any(True for _ in self._node(schema["if"], data, path, f"{where}/if"))
        branch = "then" if holds else "else"
        errors = list(self._node(schema.get(branch, True), data, path, f"{where}/{branch}"))
        if errors:
            yield from errors
            yield _error("if", path, f"{where}/if", {"failingKeyword": branch}, f'should match "{branch}" schema')


def _error(keyword: str, path: str, where: str, params: Mapping[str, Any], message: str) -> Error:
    return {"keyword": keyword, "dataPath": path, "schemaPath": where, "params": params, "message": message}


def _number(schema: Mapping[str, Any], data: float, path: str, where: str) -> Iterator[Error]:
    checks: tuple[tuple[str, str, Callable[[float, float], bool]], ...] = (
        ("maximum", "<=", lambda value, limit: value <= limit),
        ("exclusiveMaximum", "<", lambda value, limit: value < limit),
        ("minimum", ">=", lambda value, limit: value >= limit),
        ("exclusiveMinimum", ">", lambda value, limit: value > limit),
    )
    for keyword, comparison, holds in checks:
        limit = schema.get(keyword)
        if isinstance(limit, int | float) and not isinstance(limit, bool) and not holds(data, limit):
            params = {"comparison": comparison, "limit": limit, "exclusive": keyword.startswith("exclusive")}
            yield _error(keyword, path, f"{where}/{keyword}", params, f"should be {comparison} {limit}")
    factor = schema.get("multipleOf")
    if factor is not None and not float(data / factor).is_integer():
        yield _error(
            "multipleOf", path, f"{where}/multipleOf", {"multipleOf": factor}, f"should be multiple of {factor}"
        )


def _count(schema: Mapping[str, Any], count: int, path: str, where: str, noun: str, word: str) -> Iterator[Error]:
    for keyword, comparison, wrong in ((f"max{noun}", "more", count.__gt__), (f"min{noun}", "fewer", count.__lt__)):
        limit = schema.get(keyword)
        if limit is not None and wrong(limit):
            message = f"should NOT have {comparison} than {limit} {word}"
            yield _error(keyword, path, f"{where}/{keyword}", {"limit": limit}, message)


def _unique(data: list[Any], path: str, where: str) -> Iterator[Error]:
    # AJV looks from the end: the first pair it meets is told.
    for i in range(len(data) - 1, 0, -1):
        for j in range(i - 1, -1, -1):
            if equal(data[i], data[j]):
                message = f"should NOT have duplicate items (items ## {j} and {i} are identical)"
                yield _error("uniqueItems", path, f"{where}/uniqueItems", {"i": i, "j": j}, message)
                return


def is_type(data: object, wanted: str | Sequence[str]) -> bool:
    """Whether a JSON value is of this type, or of one of these; 1.0 is an integer, true is no number."""
    if not isinstance(wanted, str):
        return any(is_type(data, name) for name in wanted)
    match wanted:
        case "object":
            return isinstance(data, dict)
        case "array":
            return isinstance(data, list)
        case "string":
            return isinstance(data, str)
        case "boolean":
            return isinstance(data, bool)
        case "null":
            return data is None
        case "number":
            return isinstance(data, int | float) and not isinstance(data, bool)
        case "integer":
            return is_type(data, "number") and float(data).is_integer()  # type: ignore[arg-type]
    return False


def equal(one: object, other: object) -> bool:
    """Whether two JSON values are equal: 1 is 1.0 and is not true."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


@lru_cache(maxsize=1024)
def javascript_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a JavaScript pattern: `\\d` and `\\w` are ASCII, `$` is the very end. Raises: re.error."""
    return re.compile(
        re.sub(r"\\.|\[(?:\\.|[^\]\\])*\]|\$", lambda m: r"\Z" if m[0] == "$" else m[0], pattern), re.ASCII
    )


def _step(name: str) -> str:
    return f".{name}" if IDENTIFIER.fullmatch(name) else f"['{name}']"


def _escape(name: str) -> str:
    return quote(name.replace("~", "~0").replace("/", "~1"), safe="~!*'()$-_.")
