"""Validators: verdicts, AJV's error texts, defaults, what is refused when a schema is loaded."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstreams.errors import InsecureSchema, InvalidSchema, SchemaNotFound
from eventstreams.schemas import validation
from eventstreams.schemas.ajv import errors_text
from eventstreams.schemas.formats import formats
from eventstreams.schemas.uri import SchemaUri
from eventstreams.schemas.validation import Validator, Validators

STRICT, PRODUCTION = formats("strict"), formats("production")


def validator(schema: Mapping[str, Any], profile: str = "strict") -> Validator:
    return Validator("/t/1.0.0", schema, formats(profile), insecure=True)


def only_error(schema: Mapping[str, Any], event: object) -> tuple[str, str, str, object]:
    checked = validator(schema)
    assert not checked.is_valid(event)
    (error,) = checked.errors(event)
    assert error["message"]
    return error["dataPath"], error["schemaPath"], error["message"], error["params"]


@pytest.mark.parametrize(
    ("schema", "event", "expected"),
    [
        ({"type": "string"}, 1, ("", "#/type", "should be string", {"type": "string"})),
        ({"type": ["string", "null"]}, 1, ("", "#/type", "should be string,null", {"type": "string,null"})),
        (
            {"properties": {"a": {"type": "object", "required": ["b"]}}},
            {"a": {}},
            (".a", "#/properties/a/required", "should have required property 'b'", {"missingProperty": "b"}),
        ),
        (
            {"properties": {"x-y": {"items": {"type": "integer"}}}},
            {"x-y": [1, 1.5]},
            ("['x-y'][1]", "#/properties/x-y/items/type", "should be integer", {"type": "integer"}),
        ),
        (
            {"additionalProperties": {"type": "string"}},
            {"k": 1},
            ("['k']", "#/additionalProperties/type", "should be string", {"type": "string"}),
        ),
        (
            {"additionalProperties": False},
            {"k": 1},
            ("", "#/additionalProperties", "should NOT have additional properties", {"additionalProperty": "k"}),
        ),
        (
            {"minimum": 5},
            4,
            ("", "#/minimum", "should be >= 5", {"comparison": ">=", "limit": 5, "exclusive": False}),
        ),
        ({"maxLength": 1}, "é😀", ("", "#/maxLength", "should NOT be longer than 1 characters", {"limit": 1})),
        (
            {"enum": [1, "a"]},
            True,
            ("", "#/enum", "should be equal to one of the allowed values", {"allowedValues": [1, "a"]}),
        ),
        (
            {"uniqueItems": True, "items": {"type": "number"}},
            [1, 2, 1.0],
            ("", "#/uniqueItems", "should NOT have duplicate items (items ## 2 and 0 are identical)", {"i": 0, "j": 2}),
        ),
        ({"pattern": "^a$"}, "a\n", ("", "#/pattern", 'should match pattern "^a$"', {"pattern": "^a$"})),
        ({"format": "date"}, "2021-02-30", ("", "#/format", 'should match format "date"', {"format": "date"})),
    ],
)
def test_errors_are_worded_as_ajv_words_them(
    schema: Mapping[str, Any], event: object, expected: tuple[str, str, str, object]
) -> None:
    assert only_error(schema, event) == expected


def test_all_errors_come_in_one_line() -> None:
    schema = {"required": ["a", "b"], "properties": {"c": {"type": "string"}}}
    assert errors_text(validator(schema).errors({"c": 1})) == (
        "'' should have required property 'a', '' should have required property 'b', '.c' should be string"
    )


@pytest.mark.parametrize(
    ("name", "text", "strict", "production"),
    [
        ("date-time", "2021-01-01T00:00:00Z", True, True),
        ("date-time", "2021-02-30T25:00:00Z", False, True),
        ("date-time", "2021-01-01 00:00:00+0000", False, True),
        ("date-time", "2021-01-01T00:00:00", False, False),
        ("date", "2021-02-30", False, True),
        ("uri-reference", "https://ru.wikipedia.org/wiki/Путин", False, True),
        ("uri-reference", "a b", False, False),
    ],
)
def test_profiles_of_formats(name: str, text: str, strict: bool, production: bool) -> None:
    assert (STRICT[name](text), PRODUCTION[name](text)) == (strict, production)
    assert validator({"format": name}, "strict").is_valid(text) is strict
    assert validator({"format": name}, "production").is_valid(text) is production


def test_defaults_are_filled_after_what_is_there() -> None:
    schema = {
        "properties": {
            "a": {"default": {"x": []}},
            "b": {"properties": {"c": {"default": 1}}},
            "d": {"items": {"properties": {"e": {"default": 2}}}},
        },
        "anyOf": [{"properties": {"never": {"default": 0}}}],
    }
    event: dict[str, Any] = {"b": {}, "d": [{}, {"e": None}]}
    validator(schema).fill_defaults(event)
    assert event == {"b": {"c": 1}, "d": [{"e": 2}, {"e": None}], "a": {"x": []}}
    assert list(event) == ["b", "d", "a"]


@pytest.mark.parametrize(
    ("schema", "error"),
    [
        ({"$schema": "https://json-schema.org/draft/2020-12/schema"}, InvalidSchema),
        ({"format": "nope", "maxLength": 1}, InvalidSchema),
        ({"pattern": "(", "maxLength": 1}, InvalidSchema),
        ({"type": "nope"}, InvalidSchema),
        ({"$ref": "http://example.org/x"}, InsecureSchema),
        ({"properties": {"a": {"pattern": "x"}}}, InsecureSchema),
        ({"items": {"format": "date"}}, InsecureSchema),
        ({"uniqueItems": True}, InsecureSchema),
        ({"patternProperties": {"x": {}}}, InsecureSchema),
    ],
)
def test_schemas_that_are_refused(schema: Mapping[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Validator("/t/1.0.0", schema, STRICT, insecure=False)


@pytest.mark.parametrize(
    "draft", ["http://json-schema.org/draft-04/schema#", "https://json-schema.org/draft-07/schema#"]
)
def test_dialects_compile_without_a_network(draft: str) -> None:
    assert validator({"$schema": draft, "type": "object"}).is_valid({})


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([1.0, 1.5, "", "a", "ab", "2021-01-01"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
schemas = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["string", "number", "integer", "object", "array", "boolean", "null"]),
            "minimum": st.integers(-2, 2),
            "exclusiveMaximum": st.integers(-2, 2),
            "multipleOf": st.sampled_from([1, 2, 0.5]),
            "minLength": st.integers(0, 2),
            "pattern": st.sampled_from(["^a", "b$", "^[ab]*$"]),
            "format": st.sampled_from(["date", "uri-reference"]),
            "enum": st.lists(values, min_size=1, max_size=3),
            "required": st.lists(st.sampled_from("abc"), unique=True),
            "maxItems": st.integers(0, 2),
            "uniqueItems": st.booleans(),
        },
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
            "additionalProperties": st.booleans() | inner,
            "items": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
            "propertyNames": inner,
        },
    ),
    max_leaves=5,
)


@given(schemas, values)
def test_verdict_and_errors_agree(schema: Mapping[str, Any], event: object) -> None:
    checked = validator(copy.deepcopy(schema))
    assert checked.is_valid(event) is not bool(checked.errors(event))


class Repository:
    def __init__(self, documents: Mapping[str, Mapping[str, Any]]) -> None:
        self.documents = documents
        self.asked: list[str] = []

    async def load(self, uri: SchemaUri) -> Mapping[str, Any]:
        self.asked.append(str(uri))
        await asyncio.sleep(0)
        if str(uri) not in self.documents:
            raise SchemaNotFound(f"no schema {uri}")
        return self.documents[str(uri)]

    async def versions(self, title: str) -> Sequence[str]:
        return []


async def test_cold_schema_is_loaded_once_however_many_ask() -> None:
    repository = Repository({"/a/1.0.0": {"title": "a", "$id": "/a/1.0.0"}})
    validators = Validators(repository, STRICT)
    found = await asyncio.gather(*(validators.get(uri) for uri in ["/a/1.0.0", "a/1.0.0"] * 20))
    assert len(set(map(id, found))) == 1
    assert repository.asked == ["/a/1.0.0"]
    assert validators.ready("/a/1.0.0") is found[0]


async def test_unknown_schema_is_asked_for_once_a_while() -> None:
    repository = Repository({})
    validators = Validators(repository, STRICT)
    for _ in range(5):
        with pytest.raises(SchemaNotFound):
            await validators.get("/b/1.0.0")
    assert repository.asked == ["/b/1.0.0"]


async def test_latest_is_the_newest_version_also_when_that_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = {"title": "a", "$id": "/a/1.0.0"}, {"title": "a", "$id": "/a/1.1.0"}
    repository = Repository({"/a/latest": first})
    validators = Validators(repository, STRICT)
    found = await asyncio.gather(*(validators.get("/a/latest") for _ in range(20)))
    assert set(map(id, found)) == {id(found[0])}
    assert repository.asked == ["/a/latest"]
    monkeypatch.setattr(validation, "LATEST_SECONDS", 0.0)
    assert await validators.get("/a/latest") is found[0]
    repository.documents = {"/a/latest": second}
    assert (await validators.get("a/latest")).schema == second
    # While nobody tells what it is it stays what it was.
    repository.documents = {}
    for _ in range(3):
        assert (await validators.get("/a/latest")).schema == second
    assert len(repository.asked) == 4


async def test_latest_of_another_title_is_not_taken() -> None:
    repository = Repository({"/a/latest": {"title": "b", "$id": "/b/1.0.0"}, "/c/latest": {"title": "c"}})
    validators = Validators(repository, STRICT)
    with pytest.raises(SchemaNotFound, match="calls itself /b/1"):
        await validators.get("/a/latest")
    assert (await validators.get("/c/latest")).title == "c"


@pytest.mark.parametrize(
    "uri",
    [
        None,
        1,
        "",
        "/",
        "/a/current",
        "/latest",
        "/a/1.0",
        "/a/../b/1.0.0",
        "/a/%2e%2e/1.0.0",
        "//a/1.0.0",
        "http://x/a/1.0.0",
        "/a/1.0.0?x=1",
        "/a/1.0.0#/properties",
        "/a/1.0.0\n",
        "/a\0/1.0.0",
        "/./a/1.0.0",
        "/a/" * 200 + "1.0.0",
    ],
)
async def test_uris_that_name_no_schema_never_reach_a_repository(uri: object) -> None:
    repository = Repository({})
    with pytest.raises(SchemaNotFound, match=r"expected /title/X\.Y\.Z"):
        await Validators(repository, STRICT).get(uri)
    assert repository.asked == []
