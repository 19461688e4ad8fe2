"""Errors and defaults as AJV has them: ajv_cases.jsonl was recorded from AJV 6.12.6 with EventGate's options."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from eventstreams.schemas.ajv import MAX_ERRORS
from eventstreams.schemas.formats import formats
from eventstreams.schemas.validation import Validator
from eventstreams.schemas.values import equal

PRODUCTION = formats("production")
LINES = (Path(__file__).parent / "ajv_cases.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
CASES = [json.loads(line) for line in LINES]


def validator(schema: dict[str, Any]) -> Validator:
    return Validator("/t/1.0.0", schema, PRODUCTION, insecure=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{json.dumps(case['schema'])[:60]} {case['event']!r:.40}")
def test_errors_and_defaults_are_those_of_ajv(case: dict[str, Any]) -> None:
    checked = validator(case["schema"])
    event = copy.deepcopy(case["event"])
    checked.fill_defaults(event)
    assert equal(event, case["filled"])
    assert equal(checked.errors(event), case["errors"])
    assert checked.is_valid(event) is not bool(case["errors"])


def test_errors_of_one_event_are_bounded() -> None:
    schema = {"anyOf": [{"items": {"type": "string"}}, {"contains": {"type": "string"}}], "items": {"type": "null"}}
    assert len(validator(schema).errors([1] * 100_000)) == MAX_ERRORS


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(?=(a+)+$)", "(a*)*b\\1", "^(a|a)*$", "(x+x+)+y"])
def test_no_text_can_make_a_pattern_slow(pattern: str) -> None:
    checked = validator({"type": "string", "pattern": pattern})
    text = "a" * 50_000 + "x" * 50_000 + "!"
    assert checked.is_valid(text) is not bool(checked.errors(text))


def test_repeated_items_are_found_in_time_linear_in_their_number() -> None:
    checked = validator({"uniqueItems": True})
    items: list[Any] = [{"a": number} for number in range(20_000)]
    assert checked.errors(items) == []
    assert checked.errors([*items, {"a": 3.0}])[0]["params"] == {"i": 20_000, "j": 3}
