"""Stream configuration: shapes, merging, lookups, and what is wrong with it."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstreams.catalog.load import CatalogOptions, check, load_catalog
from eventstreams.catalog.merge import lay_over
from eventstreams.catalog.streams import StreamCatalog
from eventstreams.errors import ConfigurationError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=10,
)


def written(tmp_path: Path, content: object, name: str = "streams.json") -> str:
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def load(tmp_path: Path, content: object, **options: Any) -> StreamCatalog:
    return load_catalog(written(tmp_path, content), CatalogOptions(**options))


@given(JSON, JSON)
def test_the_upper_layer_wins_wherever_it_says_something(base: Any, over: Any) -> None:
    merged = lay_over(base, over)
    if isinstance(base, dict) and isinstance(over, dict):
        assert set(merged) == base.keys() | over.keys()
        assert all(merged[key] == (lay_over(base[key], over[key]) if key in base else over[key]) for key in over)
    elif isinstance(base, list) and isinstance(over, list):
        assert len(merged) == max(len(base), len(over))
    else:
        assert merged == over


@given(JSON)
def test_laying_a_layer_over_itself_changes_nothing(layer: Any) -> None:
    assert lay_over(layer, layer) == layer


def test_lists_merge_by_index_and_only_null_clears_them() -> None:
    assert lay_over(["a.", "b."], ["c."]) == ["c.", "b."]
    assert lay_over(["a.", "b."], []) == ["a.", "b."]
    assert lay_over({"p": ["a.", "b."]}, {"p": None}) == {"p": None}


@pytest.mark.parametrize(
    "content",
    [
        {"x": {"topics": ["t"]}},
        {"streams": {"x": {"topics": ["t"]}}},
        [{"stream": "x", "topics": ["t"]}],
        {"0": {"stream": "x", "topics": ["t"]}},
        {"wgEventStreams": {"default": {"x": {"topics": ["t"]}}}},
    ],
)
def test_streams_are_found_in_each_shape(tmp_path: Path, content: object) -> None:
    stream = load(tmp_path, content).public("x")
    assert stream is not None
    assert stream.topics == ("t",)


def test_site_defaults_lie_under_each_stream_and_prefixes_make_topics(tmp_path: Path) -> None:
    content = {
        "wgEventStreamsDefaultSettings": {"default": {"topic_prefixes": ["a.", "b."], "canary_events_enabled": True}},
        "wgEventStreams": {
            "default": {"x": {}, "y": {"topic_prefixes": None}, "z": {"topics": ["q"]}},
            "+enwiki": {"x": {"topics": ["never"]}},
        },
    }
    catalog = load(tmp_path, content)
    assert {stream.name: stream.topics for stream in catalog.all()} == {
        "x": ("a.x", "b.x"),
        "y": ("y",),
        "z": ("q",),
    }
    assert catalog.all()[0].settings["canary_events_enabled"] is True


def test_defaults_lie_under_overrides_over_and_add_streams(tmp_path: Path) -> None:
    catalog = load(
        tmp_path,
        {"x": {"description": "theirs"}},
        defaults={"x": {"description": "ours", "stream_aliases": ["old"]}, "only": {"topics": ["o"]}},
        overrides={"x": {"topics": ["t"]}, "absent": {"topics": ["a"]}},
    )
    alias = catalog.public("old")
    assert alias is not None
    assert (alias.topics, alias.alias_of) == (("t",), "x")
    assert alias.description == "theirs\n\n(NOTE: This stream is an alias of x)"
    assert catalog.public_names() == ["absent", "old", "only", "x"]


def test_gateway_serves_allowed_streams_and_their_aliases_only(tmp_path: Path) -> None:
    content = {"x": {"stream_aliases": "old", "topics": ["x"]}, "y": {"topics": ["y"]}, "/^z/": {}}
    catalog = load(tmp_path, content, allowed=["x"])
    assert catalog.public_names() == ["old", "x"]
    assert catalog.public("y") is None
    assert catalog.find("y") is not None


def test_alias_hides_a_stream_of_its_name_at_the_gateway_only(tmp_path: Path) -> None:
    content = {"y": {"topics": ["y"]}, "x": {"topics": ["x"], "stream_aliases": ["y", "z"]}}
    catalog = load(tmp_path, content)
    seen, taken = catalog.public("y"), catalog.find("y")
    assert seen is not None
    assert taken is not None
    assert (seen.topics, seen.alias_of, taken.topics, taken.alias_of) == (("x",), "x", ("y",), None)
    assert catalog.find("z") is None


NAMES = ("x", "streams", "stream", "0", "topics", "stream_aliases", "error", "code", "topic_prefixes", "kafka", "/p/")
PHP_NAMES = ("wgEventStreams", "wgEventStreamsDefaultSettings", "default", "message_key_fields", "description")
KEYS = st.sampled_from([*NAMES, *PHP_NAMES])
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(DOCUMENTS, DOCUMENTS, DOCUMENTS)
def test_any_document_is_a_catalogue_or_a_configuration_error(content: Any, under: Any, over: Any) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(ConfigurationError):
        (Path(folder) / "streams.json").write_text(json.dumps(content))
        layers = [{"x": layer} if isinstance(layer, dict) else {} for layer in (under, over)]
        load_catalog(folder, CatalogOptions(defaults=layers[0], overrides=layers[1]))


def test_gateway_serves_streams_that_say_where_they_are_read_from(tmp_path: Path) -> None:
    catalog = load(tmp_path, {"x": {"topics": ["t"]}, "y": {"topic_prefixes": None}, "z": {"schema_title": "z"}})
    assert catalog.public_names() == ["x", "y"]
    assert catalog.find("z") is not None


def test_events_find_exact_names_before_patterns_in_order_and_no_alias(tmp_path: Path) -> None:
    content = {
        "/^job\\./": {"schema_title": "first"},
        "/^job\\.a/": {"schema_title": "second"},
        "job.exact": {"schema_title": "exact", "stream_aliases": ["other"]},
    }
    catalog = load(tmp_path, content)
    found = {name: catalog.find(name) for name in ("job.exact", "job.abc", "other", "nothing")}
    assert {name: stream and stream.schema_title for name, stream in found.items()} == {
        "job.exact": "exact",
        "job.abc": "first",
        "other": None,
        "nothing": None,
    }
    assert catalog.public("/^job\\./") is None


@pytest.mark.parametrize("allowed", [["x"], ["short"], ["nowhere", "short"]])
def test_allowed_streams_are_named_by_any_of_their_names(tmp_path: Path, allowed: list[str]) -> None:
    content = {"x": {"topics": ["t"], "stream_aliases": ["short", "other"]}, "y": {"topics": ["t"]}}
    assert load(tmp_path, content, allowed=allowed).public_names() == ["other", "short", "x"]


def test_later_sources_win_stream_by_stream(tmp_path: Path) -> None:
    first = written(tmp_path, {"x": {"topics": ["1"]}, "y": {"topics": ["1"]}}, "1.json")
    directory = tmp_path / "more"
    directory.mkdir()
    (directory / "b.yaml").write_text("y: {topics: [b]}\n")
    (directory / "a.yaml").write_text("y: {topics: [a]}\nz: {topics: [a]}\n")
    (directory / "notes.txt").write_text("no: streams")
    catalog = load_catalog([first, str(directory)])
    assert {stream.name: stream.topics for stream in catalog.all()} == {"x": ("1",), "y": ("b",), "z": ("a",)}


def test_object_path_finds_streams_below(tmp_path: Path) -> None:
    assert [s.name for s in load(tmp_path, {"a": {"b": {"x": {}}}}, object_path="a.b").all()] == ["x"]


def test_yaml_words_stay_texts(tmp_path: Path) -> None:
    catalog = load_catalog(written(tmp_path, "x: {description: yes, topics: [on]}\n", "s.yaml"))
    assert catalog.all()[0].description == "yes"


@pytest.mark.parametrize(
    ("settings", "line", "words"),
    [
        ("topics: a", 3, "topics of stream x: expected a list of topic names, found 'a'"),
        ("topics: [a b]", 3, "expected a list of topic names"),
        ("stream_aliases: 3", 3, "expected a name or a list of names, found 3"),
        ("topic_prefixes: [1]", 3, "expected a list of texts or null"),
        ("message_key_fields: {a: 1}", 3, "expected paths of fields by name"),
        ("canary_events_enabled: 1", 3, "expected true or false"),
        ("kafka: {partitions: 0}", 3, "expected partitions and replication_factor"),
        ("kafka: {retention: 5}", 3, "expected partitions and replication_factor"),
    ],
)
def test_wrong_settings_are_told_with_their_line(tmp_path: Path, settings: str, line: int, words: str) -> None:
    path = written(tmp_path, f"streams:\n  x:\n    {settings}\n", "s.yaml")
    with pytest.raises(ConfigurationError) as caught:
        load_catalog(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a b", "its name is no topic's, expected topics"),
        ("a,b", "without commas"),
        ("/a", "between slashes"),
        ("/(/", "regular expression"),
        ("x", "found 5"),
    ],
)
def test_wrong_names_and_entries_are_told_with_their_line(tmp_path: Path, name: str, words: str) -> None:
    path = written(tmp_path, json.dumps({"ok": {}, name: 5 if name == "x" else {}}, indent=1))
    streams, problems = check(path, CatalogOptions())
    assert [stream.name for stream in streams] == ["ok"]
    assert [(problem.line, words in problem.message) for problem in problems] == [(3, True)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: {", ":1 is no YAML or JSON"),
        ("[1", "no YAML or JSON"),
        ("null", "expected streams by name"),
        ("{}", "found none"),
        ('{"error": {"code": "no"}}', "is an error"),
    ],
)
def test_documents_without_streams_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        load_catalog(written(tmp_path, text))


def test_stream_may_be_called_error(tmp_path: Path) -> None:
    assert [stream.name for stream in load(tmp_path, {"error": {"schema_title": "error"}}).all()] == ["error"]


def test_missing_file_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml cannot be read: No such file"):
        load_catalog("nowhere.yaml")
