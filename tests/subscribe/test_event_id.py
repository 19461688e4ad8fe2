"""Last-Event-ID: accepted shapes, refusals, and our own ids."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstreams.errors import InvalidAssignment
from eventstreams.positions import Cursor, Next
from eventstreams.records import TopicPartition
from eventstreams.subscribe.event_id import PartitionEntry, TopicEntry, parse_last_event_id


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ('[{"topic":"t","partition":0,"offset":3}]', PartitionEntry("t", 0, 3, None)),
        ('[{"topic":"t","partition":0,"offset":3.0,"junk":1}]', PartitionEntry("t", 0, 3, None)),
        ('[{"topic":"t","partition":0,"timestamp":5}]', PartitionEntry("t", 0, None, 5)),
        ('[{"topic":"t","partition":0,"timestamp":null,"offset":4}]', PartitionEntry("t", 0, 4, None)),
        ('[{"topic":"t","partition":0,"offset":-2}]', PartitionEntry("t", 0, -2, None)),
        ('[{"topic":"t","partition":0,"offset":1e30}]', PartitionEntry("t", 0, 2**63 - 1, None)),
        ('[{"topic":"t","partition":0,"timestamp":99999999999999999999}]', PartitionEntry("t", 0, None, 2**63 - 1)),
        ('["t"]', TopicEntry("t")),
        ('"t"', TopicEntry("t")),
        ('""', TopicEntry("")),
    ],
)
def test_accepted_shapes(text: str, entry: PartitionEntry | TopicEntry) -> None:
    assert list(parse_last_event_id(text).entries) == [entry]


def test_string_names_several_topics() -> None:
    assert list(parse_last_event_id('"a,b"').entries) == [TopicEntry("a"), TopicEntry("b")]


@pytest.mark.parametrize(
    "value",
    [
        {},
        None,
        1,
        True,
        [],
        [[]],
        [None],
        [1],
        [{}],
        [{"topic": "t", "partition": "0", "offset": 1}],
        [{"topic": "t", "partition": 0, "offset": "1"}],
        [{"topic": "t", "partition": 0, "offset": 1.5}],
        [{"topic": "t", "partition": 0.5, "offset": 1}],
        [{"topic": "t", "partition": True, "offset": 1}],
        [{"topic": 1, "partition": 1, "offset": 1}],
        ["t", 1],
        [{"topic": "t", "partition": -1, "timestamp": 1}],
        [{"topic": "t", "partition": 0, "offset": -7}],
        [{"topic": "t", "partition": 0, "offset": 1}, {"topic": "t", "partition": 0, "timestamp": 1}],
        [{"topic": "t", "partition": 0, "offset": 1}, "t"],
        ["t", "u", {"topic": "t", "partition": 3, "timestamp": 1}],
    ],
)
def test_other_shapes_are_refused_and_shown(value: object) -> None:
    with pytest.raises(InvalidAssignment) as caught:
        parse_last_event_id(json.dumps(value))
    assert caught.value.fields == {"originalName": "Error", "assignments": value}
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "text",
    [
        "",
        "abc",
        "{",
        "eqiad.mediawiki.recentchange",
        "[NaN]",
        "[1,]",
        "[" * 9000,
        "[" * 400 + "]" * 400,
        "[" * 990 + "]" * 990,
    ],
)
def test_what_is_no_json_is_refused_and_shown(text: str) -> None:
    with pytest.raises(InvalidAssignment) as caught:
        parse_last_event_id(text)
    assert caught.value.fields == {"originalName": "SyntaxError", "last_event_id": text}


def test_refused_numbers_are_shown_as_the_original_shows_them() -> None:
    with pytest.raises(InvalidAssignment) as caught:
        parse_last_event_id("[12345678901234567890, 1e999, %s, -9007199254740993]" % ("7" * 5000))
    assert caught.value.fields["assignments"] == [12345678901234567000, None, None, -(2**53)]


def test_offset_beyond_all_doubles_is_no_offset() -> None:
    with pytest.raises(InvalidAssignment):
        parse_last_event_id('[{"topic":"t","partition":0,"offset":%s}]' % ("7" * 5000))


@given(
    st.dictionaries(
        st.builds(TopicPartition, st.text(), st.integers(0, 99)),
        st.builds(Next, st.integers(0, 2**62), st.none() | st.integers(0, 2**53)),
        min_size=1,
    ),
    st.text(),
)
def test_our_own_ids_come_back_whole(entries: dict[TopicPartition, Next], cluster: str) -> None:
    parsed = parse_last_event_id(Cursor(entries.items(), cluster=cluster).to_event_id().decode())
    assert parsed.cluster == cluster
    assert list(parsed.entries) == [PartitionEntry(*p, *n) for p, n in entries.items()]
