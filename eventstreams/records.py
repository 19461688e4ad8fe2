"""What the event log holds: topics, partitions and records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

Event = Mapping[str, Any]
"""An event as parsed from JSON: an object."""


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


class Record(NamedTuple):
    """One event as the log stores it.

    `timestamp` is in ms since the epoch, UTC; `value` is the producer's bytes (any bytes: foreign
    producers write to Kafka too), empty for a tombstone.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    value: bytes
    key: bytes | None = None


class NewRecord(NamedTuple):
    """A record to append: the log gives it partition and offset; without `timestamp` it gives the time too."""

    topic: str
    value: bytes
    key: bytes | None = None
    timestamp: int | None = None
