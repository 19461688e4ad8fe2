"""What a check tells beyond what keeps a service from starting: spelling, types, titles, names."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstreams.catalog.load import CHECKS, CatalogOptions, gather, judged
from eventstreams.catalog.review import NAMES, TYPES, review, titles_without_schema, unknown_names
from eventstreams.catalog.streams import StreamCatalog, topics_to_make
from eventstreams.schemas.repository import DirectoryRepository

SCHEMAS = Path(__file__).parents[2] / "config" / "schemas"


@pytest.mark.parametrize(
    ("settings", "meant"),
    [
        ({"schema_titel": "x"}, "schema_title"),
        ({"schemaTitle": "x"}, "schema_title"),
        ({"schema-title": "x"}, "schema_title"),
        ({"title": "x"}, "schema_title"),
        ({"topic": []}, "topics"),
        ({"topic_prefix": []}, "topic_prefixes"),
        ({"stream_alias": "x"}, "stream_aliases"),
        ({"aliases": "x"}, "stream_aliases"),
        ({"canary_event_enabled": True}, "canary_events_enabled"),
        ({"mesage_key_fields": {}}, "message_key_fields"),
        ({"producer": {}}, "producers"),
        ({"producers": {"eventgat": {}}}, "eventgate"),
        ({"producers": {"eventgate": {"deduplication_windw": 1}}}, "deduplication_window"),
    ],
)
def test_settings_that_look_misspelt_are_told_with_the_nearest(settings: dict[str, Any], meant: str) -> None:
    ((_, words),) = review("x", settings)
    assert words.endswith(f"there is no such setting; the nearest is {meant}")


def test_settings_of_production_and_ones_of_somebody_else_are_nothing_wrong() -> None:
    settings = {
        "stream": "x",
        "schema_title": "a/b",
        "destination_event_service": "eventgate-main",
        "topic_prefixes": ["eqiad.", "codfw."],
        "topics": ["eqiad.x", "codfw.x"],
        "canary_events_enabled": True,
        "message_key_fields": {"wiki_id": "wiki_id"},
        "sample": {"rate": 0.5, "unit": "device"},
        "consumers": {
            "analytics_hadoop_ingestion": {"job_name": "j", "enabled": True},
            "analytics_hive_ingestion": {"enabled": True, "spark_job_ingestion_scale": "small"},
        },
        "producers": {
            "eventgate": {
                "enrich_fields_from_http_headers": {"meta.request_id": "x-request-id", "a.user-agent": False},
                "use_edge_uniques": True,
            },
            "mediawiki_eventbus": {"enabled": False, "event_service_name": "e"},
            "metrics_platform_client": {"provide_values": ["page_id"]},
            "test_kitchen": {"is_test_kitchen_stream": True},
        },
        "owner": "somebody",
        "x-team": 5,
    }
    assert list(review("x", settings)) == []


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
PATHS = [*((key,) for key in CHECKS), *TYPES]


@settings(deadline=None)
@given(st.sampled_from(["x", "/x/", "a b"]), st.sampled_from(PATHS), VALUES, st.sampled_from(["own", "under", "over"]))
def test_every_setting_of_a_wrong_type_gets_a_sentence(
    name: str, path: tuple[str, ...], value: Any, layer: str
) -> None:
    settings: Any = value
    for step in reversed(path):
        settings = {step: settings}
    layers = {name: settings}
    options = CatalogOptions(defaults=layers if layer == "under" else {}, overrides=layers if layer == "over" else {})
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"streams": {name: settings if layer == "own" else {}}}, file)
        file.flush()
        found, problems = judged(gather(file.name, options), options, review)
    StreamCatalog(found)
    topics_to_make(found, "p.")
    is_right, _ = TYPES.get(path) or CHECKS[path[0]]
    of_it = [problem for problem in problems if f"{'.'.join(path)} of stream {name}: expected" in problem.message]
    is_exempt = value is None or (name == "/x/" and path == ("topics",))
    assert (of_it == []) == (is_exempt or is_right(value))
    assert all("\n" not in str(problem) for problem in problems)


def test_no_name_that_is_known_looks_misspelt() -> None:
    for path, names in NAMES.items():
        settings: Any = dict.fromkeys(names)
        for step in reversed(path):
            settings = {step: settings}
        assert [words for _, words in review("x", settings) if "no such setting" in words] == []


async def test_titles_that_no_repository_has_are_told() -> None:
    titles = ["test/event", "no/such", "../test/event", "", "a b"]
    missing = await titles_without_schema(titles, DirectoryRepository(SCHEMAS))
    assert list(missing) == titles[1:]
    assert set(missing.values()) == {"no schema repository has a schema of this title"}


def test_allowed_names_that_no_stream_has_are_told() -> None:
    assert list(unknown_names(["recentchange", "recentchnge", "q"], ["recentchange"])) == [
        "setting allowed_streams: there is no stream recentchnge; the nearest is recentchange",
        "setting allowed_streams: there is no stream q",
    ]
    assert list(unknown_names(None, [])) == []
