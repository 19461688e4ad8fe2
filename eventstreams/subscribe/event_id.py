"""`Last-Event-ID`: the shapes that the original takes, and ours with more keys (contract of the streams)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eventstreams.errors import InvalidAssignment
from eventstreams.subscribe import compact_id
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


def parse_last_event_id(text: str, topics: Iterable[str] = ()) -> LastEventId:
    """Parse the header; `topics` are those that a short id may be of. Raises: InvalidAssignment."""
    value = _value(text)
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list) or not items:
        raise bad_shape(value)
    first = items[0] if isinstance(items[0], dict) else {}
    entries: Sequence[TopicEntry | PartitionEntry]
    if len(items) == 1 and isinstance(first.get("cursor"), str):
        entries, marks = _short(text, first["cursor"], topics)
    else:
        entries, marks = [_entry(item, value) for item in items], _marks(items)
    _check_none_twice(entries, value)
    cluster = first.get("cluster")
    return LastEventId(entries, cluster if isinstance(cluster, str) else None, first.get("partial") is True, marks)


def _short(text: str, cursor: str, topics: Iterable[str]) -> tuple[Sequence[PartitionEntry], Mapping[str, str]]:
    try:
        places, marks = compact_id.read(cursor, topics)
    except ValueError as exc:
        raise InvalidAssignment(str(exc), originalName="SyntaxError", last_event_id=text) from exc
    if not places:
        raise bad_shape(text)
    return [PartitionEntry(*partition, min(offset, MAX_INTEGER), time) for partition, (offset, time) in places], marks


def _check_none_twice(entries: Sequence[TopicEntry | PartitionEntry], value: object) -> None:
    seen: set[tuple[str, int]] = set()
    topics = {entry.topic for entry in entries if isinstance(entry, TopicEntry)}
    for entry in entries:
        if not isinstance(entry, PartitionEntry):
            continue
        if (entry.topic, entry.partition) in seen or entry.topic in topics:
            raise _refused(f"partition {entry.partition} of {entry.topic} in Last-Event-ID: it is named twice", value)
        seen.add((entry.topic, entry.partition))


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
