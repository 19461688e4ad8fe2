"""Filters: what they mean, what is refused, and that nothing in text or event can harm the process."""

from __future__ import annotations

import contextlib
import gc
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstreams.errors import FilterError
from eventstreams.filters import compile as compiling
from eventstreams.filters.compile import compile_filters
from eventstreams.filters.limits import FilterLimits
from eventstreams.filters.view import EventView


def matches(text: str, event: dict[str, Any]) -> bool:
    return compile_filters([text]).matches(EventView(event))


SAMPLE = {"y": 1, "n": None, "l": [{}, {"v": 1}], "m": [{}, {"v": 2}], "empty": [], "t": ["q"], "d": 1.0, "s": "q"}

RULE = [
    ('event.x == "a"', False),
    ('event.x != "a"', False),
    ('!(event.x == "a")', False),
    ("!event.x", False),
    ('event.x == "a" || event.y == 1', True),
    ('event.x == "a" && event.y == 1', False),
    ('!(event.x == "a" && event.y == 2)', True),
    ('!(event.x == "a" || event.y == 2)', False),
    ("has(event.x)", False),
    ("!has(event.x)", True),
    ("has(event.x.z)", False),
    ("!has(event.x.z)", False),
    ("!has(event.x) || !has(event.x.z)", True),
    ("event.l.exists(i, i.v == 1)", True),
    ("event.l.all(i, i.v == 1)", False),
    ("!event.m.exists(i, i.v == 1)", False),
    ("event.empty.all(i, i.v == 1)", True),
    ("event.n == null", True),
    ("event.x == null", False),
    ('event.n != "a"', True),
    ("event.n > 1", False),
    ("!(event.n > 1)", False),
    ('event.y == "1"', False),
    ('event.y != "1"', True),
    ('event.x in ["a"]', False),
    ('!(event.x in ["a"])', False),
    ("event.x ? true : true", False),
    ("event.y == 1 ? true : event.x", True),
    ("event.x - event.y > 10", False),
    ("event.x == event.x", False),
    ("event.y / 0 == 1 || true", True),
    ("event.d == 1", True),
    ("event.y == true", False),
    ("event.n", False),
    ("event.y", False),
    ("event", False),
    ("true", True),
    ("1", False),
    ('"q" in event.t', True),
    ("event.t.filter(t, t.startsWith('q')).size() == 1", True),
    ('event["s"] == "q"', True),
    ("event.s.matches('^Q$') // no", False),
    ("event.s.matches('(?i)^Q$')", True),
]


@pytest.mark.parametrize(("text", "expected"), RULE)
def test_event_matches_when_the_expression_is_exactly_true(text: str, expected: bool) -> None:
    assert matches(text, SAMPLE) is expected


@pytest.mark.parametrize(("text", "expected"), RULE)
def test_filters_are_anded(text: str, expected: bool) -> None:
    view = EventView(SAMPLE)
    assert compile_filters([text, "event.y == 1"]).matches(view) is expected
    assert compile_filters(["event.y == 2", text]).matches(view) is False


DEEP = "event.a" + ".a" * 40


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "found nothing"),
        ("event.wiki ==", "line 1, column 14: Syntax error"),
        ("event.a\n == nope", r"line 2, column 5: undeclared reference to 'nope'"),
        ("a) || (b", "Syntax error"),
        ("1 == 'a'", "line 1, column 3: found no matching overload"),
        ("event.a == '" + "x" * 5000 + "'", "filter of 5013 characters: at most 4096 are taken"),
        ("||".join(["event.a"] * 400), "nodes, at most 500 are taken"),
        ("event.a in [" + ",".join(["1"] * 1001) + "]", "a list of 1001 elements, at most 1000 are taken"),
        ("event.t.map(t, t + t).map(t, t + t).size() > 1", "a macro goes over a path of event only"),
        ("event.t.map(t, t + t).size() > 1", "line 1, column 12: map is not taken"),
        ("event.t.map(t, t > 'a', t + t).size() > 1", "map is not taken"),
        ("[1].exists(i, i == 1)", "a macro goes over a path of event only"),
        ("event.t.filter(t, true).exists(t, true)", "a macro goes over a path of event only"),
        ("event.t.exists(t, t == event.wiki)", "within a macro only its own variable t may be used, not event"),
        ("event.a.exists(x, x.b.exists(y, y == x))", "within a macro only its own variable y"),
        ("event.a.exists(x, x.b.exists(y, y.c.exists(z, z)))", "macros are nested 3 times"),
        ("event.a.matches(event.b)", "line 1, column 22: the pattern of matches must be a literal"),
        ("event.a.matches('(')", "no regular expression as RE2 takes them"),
        ("event.a.matches('" + "a" * 257 + "')", "a pattern of 257 characters, at most 256"),
        ("event.a.matches('(((((x?)?)?)?)?){900}y')", "instructions, at most 300 are taken"),
        (" || ".join(f"event.a.matches('{c}{{250}}')" for c in "abcde"), "instructions, at most 1000"),
        ("event.a == 'x\\u0000y'", "U\\+0000 cannot be compared"),
        ("event.a == '\0'", "U\\+0000 is not taken"),
        ("event.a == '\ud800'", "lone surrogate"),
        ("type(event.a) == int", "int is no value"),
        ("google.protobuf.Value{} == event.a", "literals are not taken"),
        (DEEP, "recursion depth of 32"),
        ("(" + "+".join(["event.a"] * 20) + ") + (" + "+".join(["event.a"] * 20) + ") == 'x'", "additions, at most 30"),
    ],
)
def test_text_over_a_limit_is_refused_with_value_and_place(text: str, words: str) -> None:
    with pytest.raises(FilterError, match=words):
        compile_filters([text])


def test_limits_hold_for_all_filters_of_a_request_together() -> None:
    limits = FilterLimits(characters=30)
    compile_filters(["event.a == 11"], limits)
    with pytest.raises(FilterError, match="filter of 39 characters: at most 30"):
        compile_filters(["event.a == 12", "event.a == 13", "event.a == 14"], limits)


def test_equal_filters_are_one_object_and_go_when_nobody_holds_them() -> None:
    first = compile_filters(["event.once == 'a' && event.b"])
    assert compile_filters(["event.once=='a'&&event.b"]) is first
    assert compile_filters(["event.once == 'a'", "event.b"]).key == first.key
    assert compile_filters(["event.once == 'b' && event.b"]) is not first
    assert compile_filters(["event.once == 1"]).key != compile_filters(["event.once == 1u"]).key
    key = first.key
    del first
    gc.collect()
    assert key not in compiling._by_key


def test_event_is_brought_in_once_with_the_fields_that_filters_read() -> None:
    first, second = compile_filters(["event.one == 1"]), compile_filters(["event.two == 2"])
    view = EventView({"one": 1, "two": 2, "three": 3}, b"{}")
    assert first.matches(view)
    activation = view._activation
    assert second.matches(view)
    assert view._activation is activation
    whole = compile_filters(["event == event && event.three == 3"])
    assert whole.matches(view)
    assert view._activation is not activation
    assert first.matches(view)


@pytest.mark.parametrize(
    ("event", "text"),
    [
        ({"a": "x\0y", "b": 1}, 'event.b == 1 && event.a != "x"'),
        ({"a": "\ud800", "b": 1}, "event.b == 1"),
        ({"a": [10**30], "b": 1}, "event.b == 1 && event.a[0] > 1e29"),
        ({"a": -(10**400), "b": 1}, "event.b == 1"),
        ({"\ud800\0": 1, "b": 1}, "event.b == 1 && event == event"),
    ],
)
def test_odd_values_do_not_make_the_rest_of_an_event_undefined(event: dict[str, Any], text: str) -> None:
    assert matches(text, event)
    compile_filters(["event == event"]).matches(EventView(event))


def test_null_results_do_not_end_the_process() -> None:
    code = (
        "from eventstreams.filters.compile import compile_filters as c\n"
        "from eventstreams.filters.view import EventView\n"
        "f = c(['event.n']); v = EventView({'n': None})\n"
        "print(sum(f.matches(v) for _ in range(30000)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "0\n"


def test_loops_over_the_librarys_budget_are_no_match() -> None:
    event = {"l": [{"m": [1] * 1000}] * 1000}
    assert not matches("event.l.all(x, x.m.all(y, y == 1))", event)


def test_filter_that_takes_more_than_its_share_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = compile_filters(["event.slow == 'budget'"])
    monkeypatch.setattr(compiling, "SHARE", 1e-9)
    view = EventView({"slow": "x"})
    found.matches(view)
    assert found.over_budget


TERMS = st.sampled_from(
    [
        "event.a == 1", "event.b", "!event.a", "has(event.a.b)", "event.a > event.b", "event.a in ['x', 1]",
        "event.a.exists(i, i == 1)", "event.b.matches('a+')", "size(event.a) > 1", "event.a + event.b == 'xy'",
        "event['b'][0] == null", "timestamp(event.b) > timestamp('2020-01-01T00:00:00Z')", "event.a / event.b == 0",
    ]
)  # fmt: skip
TEXTS = st.recursive(
    TERMS,
    lambda inner: (
        st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})")
        | inner.map(lambda t: f"!({t})")
        | st.tuples(inner, inner, inner).map(lambda t: f"({t[0]} ? {t[1]} : {t[2]})")
    ),
    max_leaves=6,
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=()), max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abx"), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(TEXTS, st.dictionaries(st.sampled_from(["a", "b", "\0"]), VALUES, max_size=3))
def test_no_event_makes_a_filter_raise_and_negation_never_turns_undefined_into_a_match(
    text: str, event: dict[str, Any]
) -> None:
    plain, negated = matches(text, event), matches(f"!({text})", event)
    assert not (plain and negated)
    both = compile_filters([text, f"!({text})"])
    assert not both.matches(EventView(event, json.dumps(event).encode()))


@settings(deadline=None)
@given(st.text(max_size=40) | st.text("event.ab()[]{}'\"!&|?:=<>+-*/ 01,\\un", max_size=60))
def test_any_text_compiles_or_is_refused(text: str) -> None:
    with contextlib.suppress(FilterError):
        compile_filters([text]).matches(EventView({"a": 1, "b": "x"}))
