"""Last-Event-ID: accepted shapes, refusals, and our own ids."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eventstreams.errors import BadRequest, InvalidAssignment
from eventstreams.positions import Cursor, Next, mark
from eventstreams.records import Record, TopicPartition
from eventstreams.subscribe.event_id import PartitionEntry, TopicEntry, parse_last_event_id
from eventstreams.subscribe.event_ids import EventIds
from eventstreams.subscribe.rendering import Item


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


texts = st.text(st.characters(exclude_categories=["Cs"]))
partitions = st.builds(TopicPartition, texts, st.integers(0, 99))
places = st.builds(Next, st.integers(0, 2**62), st.none() | st.integers(0, 2**53))
marks = st.text("abcXYZ019-_", min_size=6, max_size=22)


@st.composite
def cursors(draw: st.DrawFn) -> Cursor:
    """Of some partitions, and of so many more that their ids are written short."""
    few = draw(st.dictionaries(partitions, places, min_size=1, max_size=8))
    many = draw(st.integers(0, 1) | st.integers(50, 90))
    topic = "a.topic.with.a.long.name"
    entries = few | {TopicPartition(topic, n): Next(n, 1_700_000_000_000 + n) for n in range(many)}
    topics = sorted({partition.topic for partition in entries})
    identities = draw(st.dictionaries(st.sampled_from(topics), marks))
    shuffled = draw(st.permutations(list(entries.items()))) if draw(st.booleans()) else entries.items()
    cluster = draw(st.none() | texts)
    return Cursor(shuffled, cluster=cluster, identities=identities, partial=draw(st.booleans()))


@settings(deadline=None)
@given(cursors(), st.data())
def test_our_own_ids_come_back_whole(cursor: Cursor, data: st.DataObject) -> None:
    ids = EventIds(cursor)
    topics = [partition.topic for partition in cursor]
    parsed = parse_last_event_id(ids.id().decode(), topics)
    assert list(parsed.entries) == [PartitionEntry(*p, *n) for p, n in cursor.items()]
    assert (parsed.cluster, parsed.partial) == (cursor.cluster, cursor.partial)
    assert parsed.marks == {topic: mark(identity) for topic, identity in cursor.identities.items()}
    item = Item(Record("", 0, 2**62, data.draw(st.integers(0, 2**53)), b""), data.draw(st.sampled_from(list(cursor))))
    run = ids.run(item.partition)
    ids.advance(item)
    assert run.id(item) == ids.id()
    assert run.frame_head(item) == b"event: message\nid: %b\ndata: " % ids.id()
    assert ids.cursor() == {**cursor, item.partition: Next(2**62 + 1, item.timestamp + 1)}


def many(topics: int, partitions: int) -> Cursor:
    """Return a cursor as a busy service has it."""
    entries = {
        TopicPartition(f"eqiad.mediawiki.a-stream-of-changes-{topic}", partition): Next(
            123_456_789 + 1000 * topic + partition, 1_795_821_551_000 - topic * 7919 - partition * 104_729
        )
        for topic in range(topics)
        for partition in range(partitions)
    }
    identities = dict.fromkeys((p.topic for p in entries), "Zk3x9QbvT5uJr1mPq8sWAg")
    return Cursor(entries.items(), cluster="MkU3OEVBNTcwNTJENDM2Qg", identities=identities)


@pytest.mark.parametrize(("topics", "partitions"), [(1, 1), (20, 1), (40, 1), (240, 1), (1, 1000), (4, 250), (100, 5)])
def test_id_of_many_partitions_is_short_enough_to_be_sent_back(topics: int, partitions: int) -> None:
    ids = EventIds(many(topics, partitions))
    text = ids.id()
    ids.check_fit(400)
    limit = 8000 if topics * partitions < 500 else 15_000
    assert len(text) < limit
    assert (b"cursor" in text) == (topics * partitions > 30)
    for partition in ids.partitions:
        # As after half a year.
        ids.move(partition, Next(ids[partition].offset * 30, ids[partition].timestamp or 0 + 180 * 86_400_000))
    assert len(ids.id()) < limit + 1000


def test_subscription_whose_ids_could_not_be_sent_back_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"1500 partitions: its event ids may take 2[0-9]{4} bytes.* uses 300:"):
        EventIds(many(3, 500)).check_fit(300)
    EventIds(many(1, 900)).check_fit(300)
    with pytest.raises(BadRequest, match="may take"):
        EventIds(many(1, 900)).check_fit(8000)


def test_short_id_names_topics_that_are_not_known_by_their_hash() -> None:
    text = EventIds(many(60, 1)).id().decode()
    known = "eqiad.mediawiki.a-stream-of-changes-7"
    parsed = parse_last_event_id(text, [known, "another"])
    names = [entry.topic for entry in parsed.entries]
    assert names[7] == known
    assert all(name.startswith("#") for name in [*names[:7], *names[8:]])
    assert len(set(names)) == 60


@given(st.text("AZaz09-_ghi!é", max_size=60))
@example("A")
@example("Aabcdef" + "_" * 14)
@example("Aabcdef" + "_" * 11 + "f")
def test_short_id_that_was_tampered_with_is_refused_or_taken(cursor: str) -> None:
    """In no more time and memory than its length says."""
    try:
        parsed = parse_last_event_id(json.dumps([{"cursor": cursor}]))
    except InvalidAssignment:
        return
    assert 0 < len(parsed.entries) <= len(cursor)


def test_many_topics_that_would_be_told_apart_by_nothing_keep_their_names() -> None:
    cursor = many(60, 1)
    cursor.identities = {next(iter(cursor)).topic: "not+letters"}
    assert b"cursor" not in EventIds(cursor).id()
