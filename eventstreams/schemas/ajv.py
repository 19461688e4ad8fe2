"""Validation errors as AJV 6 tells them: producers, dashboards and alerts read these texts.

A walk over one schema and one event that collects every error, in AJV's order: within a schema node the keywords of
numbers, strings, arrays, objects, each only for values of that type, then const, enum, not, anyOf, oneOf, allOf, if.
A wrong type is told where the keywords of the declared type would stand, or first where there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from eventstreams.schemas.formats import Format
from eventstreams.schemas.keywords import GROUPS, has_rules, refers, resolve, tightest
from eventstreams.schemas.patterns import matcher
from eventstreams.schemas.values import duplicates, equal, escaped, is_multiple, is_type, names, number_text, step

Error = dict[str, Any]

MAX_ERRORS = 1000
"""Errors told of one event: its sender must not choose how much memory an answer takes."""

LOOP_REQUIRED = 20
"""From so many names on `required` is told in one go, else each name in its turn among the properties."""


def errors_text(errors: Sequence[Error]) -> str:
    """Return the errors in one line, as AJV's errorsText with an empty data name."""
    return ", ".join(f"'{error['dataPath']}' {error['message']}" for error in errors)


class Walker:
    """Collects the errors of events against one schema. Formats are given; `$ref` is not followed beyond the schema."""

    def __init__(self, schema: Mapping[str, Any], formats: Mapping[str, Format]) -> None:
        self._schema = schema
        self._formats = formats

    def errors(self, event: object, limit: int = MAX_ERRORS) -> list[Error]:
        """Return the errors, `limit` at most, in AJV's order; empty when the event is valid."""
        walk = _Walk(self._schema, self._formats, limit)
        walk.attempt(self._schema, event, "", "#", limit)
        return walk.errors[:limit]

    def accepts(self, node: Any, data: object) -> bool:
        """Whether a value is valid against a node of the schema."""
        return _Walk(self._schema, self._formats, 1).attempt(node, data, "", "#", 1)


class _Enough(Exception):
    """As many errors as are wanted."""


class _Walk:
    """One walk. `path` is where the value stands in the event, `where` where the node stands in the schema."""

    def __init__(self, schema: Any, formats: Mapping[str, Format], limit: int) -> None:
        self.errors: list[Error] = []
        self._schema = schema
        self._formats = formats
        self._limit = limit
        self._groups: Mapping[str, Callable[[Any, Any, str, str], None]] = {
            "number": self._number,
            "string": self._string,
            "array": self._array,
            "object": self._object,
        }

    def attempt(self, schema: Any, data: Any, path: str, where: str, limit: int = MAX_ERRORS) -> bool:
        """Walk a node by itself; return whether the value is valid. At most `limit` errors are added."""
        begun, before = len(self.errors), self._limit
        self._limit = begun + limit
        with suppress(_Enough):
            self._node(schema, data, path, where)
        self._limit = before
        return len(self.errors) == begun

    def _holds(self, schema: Any, data: Any) -> bool:
        """Whether the value is valid; tells no errors."""
        begun = len(self.errors)
        holds = self.attempt(schema, data, "", "", 1)
        del self.errors[begun:]
        return holds

    def _add(self, keyword: str, path: str, where: str, params: Mapping[str, Any], message: str) -> None:
        error = {"keyword": keyword, "dataPath": path, "schemaPath": where, "params": params, "message": message}
        self.errors.append(error)
        if len(self.errors) >= self._limit:
            raise _Enough

    def _node(self, schema: Any, data: Any, path: str, where: str) -> None:
        if not has_rules(schema):
            return
        if isinstance(schema, bool):
            self._add("false schema", path, f"{where}/false schema", {}, "boolean schema is false")
            return
        wanted = schema.get("type")
        if isinstance(wanted, list) and len(wanted) == 1:
            wanted = wanted[0]
        in_turn = isinstance(wanted, str) and wanted in GROUPS and not GROUPS[wanted].isdisjoint(schema)
        if wanted is not None and not in_turn and not is_type(data, wanted):
            self._type(wanted, path, where)
        if "$ref" in schema:
            # draft-07: what stands beside $ref is ignored.
            self._reference(schema["$ref"], data, path)
            return
        for name, keywords in GROUPS.items():
            if not keywords.isdisjoint(schema):
                if is_type(data, name):
                    self._groups[name](schema, data, path, where)
                elif name == wanted:
                    self._type(wanted, path, where)
        self._any_type(schema, data, path, where)

    def _type(self, wanted: Any, path: str, where: str) -> None:
        text = ",".join(wanted) if isinstance(wanted, list) else wanted
        self._add("type", path, f"{where}/type", {"type": text}, f"should be {text}")

    def _reference(self, reference: str, data: Any, path: str) -> None:
        target = resolve(self._schema, reference)
        where = "#" if refers(target) else reference
        self._node(target, data, path, where)

    # -- numbers and strings

    def _number(self, schema: Any, data: float, path: str, where: str) -> None:
        self._limit_of(schema, "maximum", "exclusiveMaximum", "<", data, path, where)
        self._limit_of(schema, "minimum", "exclusiveMinimum", ">", data, path, where)
        factor = schema.get("multipleOf")
        if factor is not None and not is_multiple(data, factor):
            message = f"should be multiple of {number_text(factor)}"
            self._add("multipleOf", path, f"{where}/multipleOf", {"multipleOf": factor}, message)

    def _limit_of(
        self, schema: Any, keyword: str, exclusive: str, sign: str, data: float, path: str, where: str
    ) -> None:
        limit, keyword, open_end = tightest(schema, keyword, exclusive, sign)
        if limit is None:
            return
        below = data < limit if sign == "<" else data > limit
        if not (below or (data == limit and not open_end)):
            comparison = sign if open_end else f"{sign}="
            params = {"comparison": comparison, "limit": limit, "exclusive": open_end}
            self._add(keyword, path, f"{where}/{keyword}", params, f"should be {comparison} {number_text(limit)}")

    def _string(self, schema: Any, data: str, path: str, where: str) -> None:
        for keyword, word in (("maxLength", "longer"), ("minLength", "shorter")):
            limit = schema.get(keyword)
            if limit is not None and (len(data) > limit if word == "longer" else len(data) < limit):
                message = f"should NOT be {word} than {number_text(limit)} characters"
                self._add(keyword, path, f"{where}/{keyword}", {"limit": limit}, message)
        pattern = schema.get("pattern")
        if pattern is not None and not matcher(pattern)(data):
            message = f'should match pattern "{pattern}"'
            self._add("pattern", path, f"{where}/pattern", {"pattern": pattern}, message)
        name = schema.get("format")
        if name is not None and not self._formats[name](data):
            self._add("format", path, f"{where}/format", {"format": name}, f'should match format "{name}"')

    # -- arrays

    def _array(self, schema: Any, data: list[Any], path: str, where: str) -> None:
        self._count(schema, len(data), path, where, "Items")
        items = schema.get("items")
        if isinstance(items, list):
            self._tuple(schema, items, data, path, where)
        elif items is not None and has_rules(items):
            for i, item in enumerate(data):
                self._node(items, item, f"{path}[{i}]", f"{where}/items")
        if "contains" in schema:
            self._contains(schema["contains"], data, path, where)
        if schema.get("uniqueItems"):
            self._unique(items, data, path, where)

    def _tuple(self, schema: Any, items: list[Any], data: list[Any], path: str, where: str) -> None:
        more = schema.get("additionalItems", True)
        if more is False and len(data) > len(items):
            message = f"should NOT have more than {len(items)} items"
            self._add("additionalItems", path, f"{where}/additionalItems", {"limit": len(items)}, message)
        for i, (item, member) in enumerate(zip(data, items, strict=False)):
            self._node(member, item, f"{path}[{i}]", f"{where}/items/{i}")
        if isinstance(more, dict):
            for i in range(len(items), len(data)):
                self._node(more, data[i], f"{path}[{i}]", f"{where}/additionalItems")

    def _contains(self, member: Any, data: list[Any], path: str, where: str) -> None:
        begun = len(self.errors)
        for i, item in enumerate(data):
            if self.attempt(member, item, f"{path}[{i}]", f"{where}/contains"):
                del self.errors[begun:]
                return
        self._add("contains", path, f"{where}/contains", {}, "should contain a valid item")

    def _unique(self, items: Any, data: list[Any], path: str, where: str) -> None:
        pair = duplicates(data, items.get("type") if isinstance(items, dict) else None)
        if pair is not None:
            i, j = pair
            message = f"should NOT have duplicate items (items ## {j} and {i} are identical)"
            self._add("uniqueItems", path, f"{where}/uniqueItems", {"i": i, "j": j}, message)

    # -- objects

    def _object(self, schema: Any, data: dict[str, Any], path: str, where: str) -> None:
        self._count(schema, len(data), path, where, "Properties")
        required, properties = schema.get("required", ()), schema.get("properties", {})
        in_turn = bool(properties) and len(required) < LOOP_REQUIRED
        for name in required:
            # A property that is never valid is told twice, here and in its turn: so does AJV.
            if name not in data and not (in_turn and properties.get(name) and has_rules(properties[name])):
                self._required(name, path, where)
        self._dependencies(schema.get("dependencies", {}), data, path, where)
        if has_rules(schema.get("propertyNames", True)):
            self._names(schema["propertyNames"], data, path, where)
        self._additional(schema, data, path, where)
        for name in names(properties):
            if name in data:
                at = f"{where}/properties/{escaped(name)}"
                self._node(properties[name], data[name], path + step(name), at)
            elif in_turn and name in required and has_rules(properties[name]):
                self._required(name, path, where)
        self._patterns(schema.get("patternProperties", {}), data, path, where)

    def _required(self, name: str, path: str, where: str) -> None:
        message = f"should have required property '{name}'"
        self._add("required", path, f"{where}/required", {"missingProperty": name}, message)

    def _additional(self, schema: Any, data: dict[str, Any], path: str, where: str) -> None:
        more = schema.get("additionalProperties", True)
        if more is True:
            return
        properties: Mapping[str, Any] = schema.get("properties", {})
        patterns = [matcher(pattern) for pattern in schema.get("patternProperties", {})]
        at = f"{where}/additionalProperties"
        for name in names(data):
            if name in properties or any(matches(name) for matches in patterns):
                continue
            if more is False:
                message = "should NOT have additional properties"
                self._add("additionalProperties", path, at, {"additionalProperty": name}, message)
            else:
                self._node(more, data[name], f"{path}['{name}']", at)

    def _patterns(self, patterns: Mapping[str, Any], data: dict[str, Any], path: str, where: str) -> None:
        for pattern in names(patterns):
            matches, at = matcher(pattern), f"{where}/patternProperties/{escaped(pattern)}"
            for name in names(data):
                if matches(name):
                    self._node(patterns[pattern], data[name], f"{path}['{name}']", at)

    def _names(self, member: Any, data: dict[str, Any], path: str, where: str) -> None:
        for name in names(data):
            begun = len(self.errors)
            if not self.attempt(member, name, path, f"{where}/propertyNames"):
                for error in self.errors[begun:]:
                    error["propertyName"] = name
                message = f"property name '{name}' is invalid"
                self._add("propertyNames", path, f"{where}/propertyNames", {"propertyName": name}, message)

    def _dependencies(self, dependencies: Mapping[str, Any], data: dict[str, Any], path: str, where: str) -> None:
        present = [name for name in names(dependencies) if name in data]
        for name in present:
            if isinstance(dependencies[name], list):
                self._dependency(name, dependencies[name], data, path, where)
        for name in present:
            if not isinstance(dependencies[name], list):
                self._node(dependencies[name], data, path, f"{where}/dependencies/{escaped(name)}")

    def _dependency(self, name: str, needs: Sequence[str], data: Any, path: str, where: str) -> None:
        needed = ", ".join(needs)
        word = "property" if len(needs) == 1 else "properties"
        for missing in needs:
            if missing not in data:
                params = {"property": name, "missingProperty": missing, "depsCount": len(needs), "deps": needed}
                message = f"should have {word} {needed} when property {name} is present"
                self._add("dependencies", path, f"{where}/dependencies", params, message)

    def _count(self, schema: Any, count: int, path: str, where: str, noun: str) -> None:
        for keyword, word in ((f"max{noun}", "more"), (f"min{noun}", "fewer")):
            limit = schema.get(keyword)
            if limit is not None and (count > limit if word == "more" else count < limit):
                message = f"should NOT have {word} than {number_text(limit)} {noun.lower()}"
                self._add(keyword, path, f"{where}/{keyword}", {"limit": limit}, message)

    # -- values of any type

    def _any_type(self, schema: Any, data: Any, path: str, where: str) -> None:
        if "const" in schema and not equal(data, schema["const"]):
            params = {"allowedValue": schema["const"]}
            self._add("const", path, f"{where}/const", params, "should be equal to constant")
        if "enum" in schema and not any(equal(data, value) for value in schema["enum"]):
            params = {"allowedValues": schema["enum"]}
            self._add("enum", path, f"{where}/enum", params, "should be equal to one of the allowed values")
        if "not" in schema and self._holds(schema["not"], data):
            self._add("not", path, f"{where}/not", {}, "should NOT be valid")
        if "anyOf" in schema and all(map(has_rules, schema["anyOf"])):
            self._any_of(schema["anyOf"], data, path, where)
        if "oneOf" in schema:
            self._one_of(schema["oneOf"], data, path, where)
        for i, member in enumerate(schema.get("allOf", ())):
            self._node(member, data, path, f"{where}/allOf/{i}")
        if "if" in schema:
            self._condition(schema, data, path, where)

    def _any_of(self, members: Sequence[Any], data: Any, path: str, where: str) -> None:
        begun = len(self.errors)
        for i, member in enumerate(members):
            if self.attempt(member, data, path, f"{where}/anyOf/{i}"):
                del self.errors[begun:]
                return
        self._add("anyOf", path, f"{where}/anyOf", {}, "should match some schema in anyOf")

    def _one_of(self, members: Sequence[Any], data: Any, path: str, where: str) -> None:
        begun, passing = len(self.errors), []
        for i, member in enumerate(members):
            if self.attempt(member, data, path, f"{where}/oneOf/{i}"):
                passing.append(i)
                if len(passing) == 2:
                    break
        if len(passing) == 1:
            del self.errors[begun:]
            return
        params = {"passingSchemas": passing or None}
        self._add("oneOf", path, f"{where}/oneOf", params, "should match exactly one schema in oneOf")

    def _condition(self, schema: Any, data: Any, path: str, where: str) -> None:
        if not (has_rules(schema.get("then", True)) or has_rules(schema.get("else", True))):
            return
        branch = "then" if self._holds(schema["if"], data) else "else"
        begun = len(self.errors)
        self._node(schema.get(branch, True), data, path, f"{where}/{branch}")
        if len(self.errors) > begun:
            message = f'should match "{branch}" schema'
            self._add("if", path, f"{where}/if", {"failingKeyword": branch}, message)
