"""The compiled validator, the walker that words errors, and jsonschema agree on events as producers send them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstreams.schemas.formats import formats
from eventstreams.schemas.validation import Validator

META = {
    "type": "object",
    "required": ["stream"],
    "properties": {
        "stream": {"type": "string", "minLength": 1},
        "dt": {"type": "string", "format": "date-time", "maxLength": 128},
        "uri": {"type": "string", "format": "uri-reference", "maxLength": 8192},
        "id": {"type": "string", "pattern": "^[0-9a-f]{4}(-[0-9a-f]{2})+$", "maxLength": 20},
    },
}
PAGE = {
    "title": "page/change",
    "type": "object",
    "additionalProperties": False,
    "required": ["$schema", "meta", "kind"],
    "properties": {
        "$schema": {"type": "string"},
        "meta": META,
        "kind": {"type": "string", "enum": ["create", "edit", "delete"]},
        "page_id": {"type": "integer", "minimum": 1, "maximum": 9007199254740991},
        "score": {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
        "day": {"type": "string", "format": "date", "maxLength": 10},
        "tags": {"type": "array", "items": {"type": "string", "minLength": 1}, "uniqueItems": True, "maxItems": 3},
        "flags": {"type": ["boolean", "null"]},
        "map": {
            "type": "object",
            "additionalProperties": {"type": "number"},
            "propertyNames": {"pattern": "^[$a-z]+[a-z0-9_]*$", "maxLength": 8},
            "minProperties": 1,
            "maxProperties": 2,
        },
        "anything": {
            "anyOf": [{"type": "string", "maxLength": 2}, {"const": 1}, {"not": {"type": ["object", "array"]}}]
        },
        "either": {
            "if": {"type": "string"},
            "then": {"minLength": 2},
            "else": {"oneOf": [{"minimum": 0}, {"type": "null"}]},
        },
    },
    "dependencies": {"score": ["page_id"], "day": {"required": ["flags"]}},
}
EVENT: dict[str, Any] = {
    "$schema": "/page/change/1.0.0",
    "meta": {"stream": "s", "dt": "2021-01-01T00:00:00Z", "uri": "https://x.example/w?a=b#c", "id": "00ff-a0"},
    "kind": "edit",
    "page_id": 7,
    "score": 0.5,
    "day": "2021-02-03",
    "tags": ["a", "b"],
    "flags": None,
    "map": {"a": 1.5},
    "anything": "ab",
    "either": 1,
}
TEXTS = (
    "", "a", "edit", "ab", "9", "2021-02-30", "2021-01-01 00:00:00+0000", "2021-13-01T25:00:00Z",
    "2021-01-01T23:59:60Z", "2021-01-01T00:00:00.5+01:00", "https://ru.example/wiki/Путин",
    "a b", "#a#b", "{id}", "00ff-a0\n", "𝄞", "\u2028",
)  # fmt: skip
PATHS = [(name,) for name in EVENT] + [("meta", name) for name in EVENT["meta"]] + [("map", "a"), ("map", "B"), ("x",)]
scalars = (
    st.none() | st.booleans() | st.sampled_from(TEXTS) | st.text(max_size=4) | st.integers(-2, 2) | st.just(2**53)
    | st.sampled_from([0.0, 1.0, 0.5, -0.1, 1e20]) | st.floats(allow_nan=False, allow_infinity=False)
)  # fmt: skip
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("ab$1"), inner, max_size=3)
)
REMOVED = object()
mutations = st.lists(st.tuples(st.sampled_from(PATHS), st.just(REMOVED) | values), max_size=3)


def mutant(changes: list[tuple[tuple[str, ...], object]]) -> dict[str, Any]:
    event = copy.deepcopy(EVENT)
    for path, value in changes:
        at: Any = event
        for name in path[:-1]:
            at = at.get(name) if isinstance(at, dict) else None
        if isinstance(at, dict) and value is REMOVED:
            at.pop(path[-1], None)
        elif isinstance(at, dict):
            at[path[-1]] = value
    return event


def referee(schema: Mapping[str, Any], profile: str) -> jsonschema.Draft7Validator:
    checker = jsonschema.FormatChecker(formats=())
    for name, check in formats(profile).items():
        checker.checks(name)(lambda value, check=check: not isinstance(value, str) or check(value))
    return jsonschema.Draft7Validator(schema, format_checker=checker)


COMPILED = {
    name: Validator("/page/change/1.0.0", PAGE, formats(name), insecure=True) for name in ("production", "strict")
}
REFEREES = {name: referee(PAGE, name) for name in COMPILED}


@pytest.mark.parametrize("profile", list(COMPILED))
@given(changes=mutations)
def test_verdicts_agree_on_mutants_of_an_event(profile: str, changes: list[tuple[tuple[str, ...], object]]) -> None:
    event = mutant(changes)
    verdict = COMPILED[profile].is_valid(event)
    assert verdict is not bool(COMPILED[profile].errors(event))
    if "\n" not in str(event):
        # Python's $ also stands before a last line feed.
        assert verdict is REFEREES[profile].is_valid(event)


def test_the_event_itself_is_valid() -> None:
    assert all(checked.is_valid(EVENT) for checked in COMPILED.values())
