"""Cursors: what an SSE frame's id says."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from eventstreams.positions import Cursor, Next
from eventstreams.records import Record, TopicPartition

partitions = st.builds(TopicPartition, st.text(min_size=1), st.integers(0, 1000))
nexts = st.builds(Next, st.integers(0, 2**63 - 1), st.none() | st.integers(0, 2**53))


def test_cursor_advances_just_past_a_record() -> None:
    partition = TopicPartition("t", 0)
    cursor = Cursor([(partition, Next(7))], cluster="c")
    cursor.advance(Record("t", 0, 9, 1700000000000, b"{}"))
    assert cursor[partition] == Next(10, 1700000000001)


def test_copy_moves_on_its_own() -> None:
    partition = TopicPartition("t", 0)
    cursor = Cursor([(partition, Next(7))])
    cursor.copy().move(partition, Next(8))
    assert cursor[partition].offset == 7


@given(st.dictionaries(partitions, nexts, max_size=5), st.text(min_size=1))
def test_event_id_lists_every_partition_in_order_and_the_cluster_once(
    entries: dict[TopicPartition, Next], cluster: str
) -> None:
    event_id = Cursor(entries.items(), cluster=cluster).to_event_id()
    parsed = json.loads(event_id)
    assert b"\n" not in event_id
    assert [(e["topic"], e["partition"]) for e in parsed] == [tuple(p) for p in entries]
    assert [(e["offset"], e.get("timestamp")) for e in parsed] == [tuple(n) for n in entries.values()]
    assert [e["cluster"] for e in parsed if "cluster" in e] == [cluster][: len(entries)]
