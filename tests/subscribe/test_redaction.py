"""Redaction: what is hidden of which events, in every form that a client may ask for."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstreams.metrics import Metrics
from eventstreams.records import Record, TopicPartition
from eventstreams.subscribe.redaction import Condition, Redaction, Rule, as_title, page_rules
from eventstreams.subscribe.rendering import Item, Renderer

T = TopicPartition("t", 0)
PAGES: dict[str, list[object]] = {"en.example": ["Hidden page", 42], "de.example": ["Geheim"]}


def event(stream: str, domain: str = "en.example", **fields: Any) -> dict[str, Any]:
    return {"meta": {"stream": stream, "domain": domain}, **fields}


def redacted(rules: Any, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    out = copy.deepcopy(given)
    return Redaction(rules).redact(out), out


@pytest.mark.parametrize("title", ["Hidden page", "hidden_PAGE", "  Hidden   page\u00a0", "Hidden_page"])
def test_titles_are_compared_as_mediawiki_writes_them(title: str) -> None:
    outcome, out = redacted(page_rules(PAGES), event("mediawiki.recentchange", title=title, user="A", comment="c"))
    assert outcome == "redacted"
    assert out == event("mediawiki.recentchange", title=title, comment="c")


@pytest.mark.parametrize("title", ["Hidden", "Hidden  page x", None, ["Hidden page"], "Geheim", True])
def test_other_titles_and_other_domains_keep_everything(title: object) -> None:
    given = event("mediawiki.recentchange", title=title, user="A")
    assert redacted(page_rules(PAGES), given) == ("unchanged", given)


def test_titles_that_are_numbers_match_their_text() -> None:
    assert as_title(42) == as_title("42") == as_title(42.0) == as_title(" 42 ")


def test_page_change_loses_performer_and_editors_but_stays() -> None:
    given = event(
        "mediawiki.page_change.v1",
        page={"page_title": "42", "page_id": 7},
        performer={"user_text": "A"},
        revision={"rev_id": 1, "editor": {"user_text": "A"}},
        prior_state={"revision": {"rev_id": 0, "editor": {"user_text": "B"}}},
    )
    outcome, out = redacted(page_rules(PAGES), given)
    assert outcome == "redacted"
    assert out == event(
        "mediawiki.page_change.v1",
        page={"page_title": "42", "page_id": 7},
        performer={},
        revision={"rev_id": 1},
        prior_state={"revision": {"rev_id": 0}},
    )


def test_page_change_without_revision_on_a_hidden_page_is_withheld() -> None:
    given = event("mediawiki.page_change.v1", page={"page_title": "Hidden page"}, performer={})
    assert redacted(page_rules(PAGES), given)[0] == "withheld"
    given["page"]["page_title"] = "Another"
    assert redacted(page_rules(PAGES), given)[0] == "unchanged"


def test_streams_without_a_rule_of_their_own_lose_the_performer() -> None:
    paged: dict[str, Any] = {"page": {"page_title": "geheim"}}
    shapes: list[dict[str, Any]] = [{"page_title": "Geheim"}, paged, {"page_title": None, **paged}]
    for fields in shapes:
        outcome, out = redacted(page_rules(PAGES), event("other", "de.example", performer=1, user="A", **fields))
        assert (outcome, out) == ("redacted", event("other", "de.example", user="A", **fields))


def test_rules_hold_by_stream_pattern_and_all_conditions_and_end_at_the_last() -> None:
    bots = Condition(["bot"], [True])
    rules = [
        Rule("/^edit/", [bots, Condition(["wiki"], ["a", "b"])], remove=["ip"], last=True),
        Rule(None, [bots], empty=["user", "tags", "name", "id"]),
        Rule("secret", withhold=True),
    ]
    assert redacted(rules, event("edits", bot=True, wiki="a", ip=1, name="n")) == (
        "redacted",
        event("edits", bot=True, wiki="a", name="n"),
    )
    full: dict[str, Any] = {"bot": True, "wiki": "c", "user": {"n": 1}, "tags": ["x"], "name": "n", "id": 5}
    emptied: dict[str, Any] = {"bot": True, "wiki": "c", "user": {}, "tags": [], "name": "", "id": None}
    assert redacted(rules, event("edits", **full)) == ("redacted", event("edits", **emptied))
    # 1 is not true: JSON knows them apart.
    assert redacted(rules, event("edits", bot=1, wiki="a", ip=1))[0] == "unchanged"
    assert redacted(rules, event("secret"))[0] == "withheld"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["page", "page_title", "revision", "editor", "title"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["title", "page", "page_title", "performer", "revision", "user"]), json_values))
def test_rules_take_any_event_and_a_second_time_changes_nothing(fields: dict[str, Any]) -> None:
    for stream in ("mediawiki.page_change.v1", "mediawiki.recentchange", "x"):
        given = event(stream, **fields)
        rules = page_rules({"en.example": ["a", "", 0]})
        outcome, out = redacted(rules, given)
        assert outcome != "unchanged" or out == given
        if outcome != "withheld":
            assert redacted(rules, out)[1] == out


def test_hidden_fields_reach_neither_line_nor_filters_and_withheld_records_are_skipped() -> None:
    metrics = Metrics()
    renderer = Renderer(Redaction([Rule(None, remove=["user"]), Rule("gone", withhold=True)]), metrics)
    value = json.dumps(event("edits", user="A", n=1), separators=(",", ":")).encode()
    line, held = renderer.render(Item(Record("t", 0, 0, 0, value), T))
    assert b"user" not in line
    assert held is not None
    assert "user" not in held
    assert renderer.render(Item(Record("t", 0, 1, 0, b'{"meta":{"stream":"gone"}}'), T)) == (b"", None)
    text = metrics.exposition().decode()
    assert "eventstreams_events_redacted_total 1.0" in text
    assert 'eventstreams_records_skipped_total{reason="withheld"} 1.0' in text
