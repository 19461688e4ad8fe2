"""Cursors: what an SSE frame's id says."""

from __future__ import annotations

from eventstreams.positions import Cursor, Next
from eventstreams.records import Record, TopicPartition


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
