"""What the log's reading threads ask of SQLite, in the log's own terms."""

from __future__ import annotations

import apsw

from eventstreams.errors import OffsetOutOfRange, TopicReplaced, UnknownTopic
from eventstreams.eventlog.base import Block
from eventstreams.eventlog.embedded import storage
from eventstreams.positions import AtOffset, AtTime, Edge, Position
from eventstreams.records import Record, TopicPartition

FETCH_ROWS = 4096
"""Rows one fetch takes at the most, so that read transactions stay short."""


def known(connection: apsw.Connection, partition: TopicPartition) -> storage.PartitionRow:
    """Return the row of a partition. Raises: UnknownTopic."""
    row = storage.partition_row(connection, partition)
    if row is None:
        raise UnknownTopic(f"no partition {partition.partition} of topic {partition.topic!r} in the log").at(partition)
    return row


def fetch(
    connection: apsw.Connection, partition: TopicPartition, start: int, stop: int, max_bytes: int, identity: str
) -> Block:
    """Read a block on this connection; see `EventLog.fetch`. Raises: UnknownTopic, TopicReplaced, OffsetOutOfRange."""
    with connection:
        # One read transaction: what retention removes meanwhile is either all here or out of range, and what is here
        # is of one topic.
        block = _fetch(connection, partition, start, stop, max_bytes, identity)
    return block  # noqa: RET504 - a return within the context is one that mypy takes for swallowed


def _fetch(
    connection: apsw.Connection, partition: TopicPartition, start: int, stop: int, max_bytes: int, identity: str
) -> Block:
    row = known(connection, partition)
    if identity and row.identity != identity:
        raise TopicReplaced(partition.topic).at(partition)
    if start < row.earliest:
        raise OffsetOutOfRange(partition, start, row.earliest)
    topic, number = partition
    records: list[Record] = []
    size, new = 0, tuple.__new__
    for offset, timestamp, value, key in storage.select(connection, row.id, start, stop, FETCH_ROWS):
        # Deliberate: what Record(...) does, without its Python.
        records.append(new(Record, (topic, number, offset, timestamp, value, key)))
        size += len(value)
        if size >= max_bytes:
            return Block(records, offset + 1)
    if len(records) == FETCH_ROWS:
        return Block(records, records[-1].offset + 1)
    return Block(records, max(start, min(stop, row.next)))


def offset_of(connection: apsw.Connection, partition: TopicPartition, position: Position) -> int:
    """Return the next offset at a position. Raises: UnknownTopic."""
    row = known(connection, partition)
    match position:
        case AtOffset(offset):
            return offset
        case AtTime(timestamp):
            found = storage.offset_at_time(connection, row.id, timestamp)
            return row.next if found is None else found
        case Edge.EARLIEST:
            return row.earliest
        case _:
            return row.next
