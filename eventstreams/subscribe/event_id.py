"""`Last-Event-ID`: the shapes that the original takes, and ours with more keys (contract of the streams)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eventstreams.errors import InvalidAssignment
from eventstreams.subscribe.javascript_json import as_doubles, integer
from eventstreams.subscribe.verbatim_json import is_deep

BAD_SHAPE = (
    "Must provide either an array topic names, or  an array of objects with topic, partition and offset|timestamp."
)
"""Deliberate: the two blanks are the original's."""

OFFSET_LATEST, OFFSET_EARLIEST = -1, -2
OFFSETS_UNSET = (-1000, -1001)
"""librdkafka's `stored` and `invalid`: nothing is stored for a client, so latest."""

OFFSET_TAIL = -2000
"""From here down: so many records before the end."""

MAX_INTEGER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class TopicEntry:
    """All partitions of a topic, from `since` or the end."""

    topic: str


@dataclass(frozen=True, slots=True)
class PartitionEntry:
    """One partition; `offset` or `timestamp` (ms) is set, ours has both. -1 and -2 are the ends of the log."""

    topic: str
    partition: int
    offset: int | None
    timestamp: int | None


@dataclass(frozen=True, slots=True)
class LastEventId:
    """The entries in their order, and the cluster that numbered the offsets, where the id tells it."""

    entries: Sequence[TopicEntry | PartitionEntry]
    cluster: str | None
    partial: bool = False
    """Whether the partitions that it does not name are not wanted."""
    marks: Mapping[str, str] = field(default_factory=dict)
    """By topic, which one of its name numbered the offsets, where the id tells it; see `positions.mark`."""


def parse_last_event_id(text: str) -> LastEventId:
    """Parse the header. Raises: InvalidAssignment."""
    value = _value(text)
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list) or not items:
        raise bad_shape(value)
    entries = [_entry(item, value) for item in items]
    named = [(entry.topic, entry.partition) for entry in entries if isinstance(entry, PartitionEntry)]
    topics = {entry.topic for entry in entries if isinstance(entry, TopicEntry)}
    for topic, partition in named:
        if named.count((topic, partition)) > 1 or topic in topics:
            raise _refused(f"partition {partition} of {topic} in Last-Event-ID: it is named twice", value)
    first = items[0]
    cluster = first.get("cluster") if isinstance(first, dict) else None
    partial = isinstance(first, dict) and first.get("partial") is True
    return LastEventId(entries, cluster if isinstance(cluster, str) else None, partial, _marks(items))


def _marks(items: Sequence[Any]) -> Mapping[str, str]:
    marked = (item for item in items if isinstance(item, dict) and isinstance(item.get("log"), str))
    return {item["topic"]: item["log"] for item in marked}


def _value(text: str) -> Any:
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_int=integer)
        if is_deep(value):
            raise ValueError("nested too deep")
    except (ValueError, RecursionError) as exc:
        message = "nested too deep" if isinstance(exc, RecursionError) else str(exc)
        raise InvalidAssignment(message, originalName="SyntaxError", last_event_id=text) from exc
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _entry(item: object, value: object) -> TopicEntry | PartitionEntry:
    if isinstance(item, str):
        return TopicEntry(item)
    if not isinstance(item, dict) or not isinstance(item.get("topic"), str):
        raise bad_shape(value)
    partition = _integer(item.get("partition"))
    offset, timestamp = _integer(item.get("offset")), _integer(item.get("timestamp"))
    if partition is None or (offset is None and timestamp is None):
        raise bad_shape(value)
    if partition < 0:
        raise _refused(f"partition {partition} in Last-Event-ID: must be >= 0", value)
    if offset is not None and OFFSET_TAIL < offset < OFFSET_EARLIEST and offset not in OFFSETS_UNSET:
        raise _refused(f"offset {offset} in Last-Event-ID: must be >= 0, -1 (latest) or -2 (earliest)", value)
    return PartitionEntry(item["topic"], partition, offset, timestamp)


def _integer(value: object) -> int | None:
    """Return an integer, also written 3.0 or 3e0, at most what a log can number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not value.is_integer():
        return None
    return max(-MAX_INTEGER, min(int(value), MAX_INTEGER))


def bad_shape(value: object) -> InvalidAssignment:
    """Return the refusal of what names no position to start from."""
    return _refused(BAD_SHAPE, value)


def _refused(message: str, value: object) -> InvalidAssignment:
    return InvalidAssignment(message, originalName="Error", assignments=as_doubles(value))
