"""The ids of frames over a fixed list of partitions: of each only what moved is written anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import orjson

from eventstreams.asgi import FIELD_OVERHEAD_BYTES, MAX_HEAD_BYTES
from eventstreams.compact_json import compact
from eventstreams.errors import BadRequest
from eventstreams.positions import Cursor, Next, mark
from eventstreams.records import TopicPartition
from eventstreams.subscribe import compact_id
from eventstreams.subscribe.frames import DATA, MESSAGE

TIMESTAMP = b',"timestamp":'

FIELD_BYTES = len("last-event-id") + FIELD_OVERHEAD_BYTES

MAX_JSON_BYTES = 4096
"""Ids that would be longer are written short: proxies take header fields of some 8,000 bytes, we heads of 16,384."""

NUMBERS_BYTES = 23
"""Digits of an entry's time and offset, as they mostly are."""

OFFSET_LETTERS, TIME_LETTERS = 6, 7
"""Letters that a short id is given room for: offsets to 2^30, or one more than now; times half a year from its base."""

IDS_BYTES, PLACE_BYTES, MOVED_BYTES = 650, 20, 280
"""What ids cost in memory: in all, for each partition, and for each one more that has moved since they were copied."""


class Placed(Protocol):
    """What stands at an offset of a partition: a record, or what was made of it."""

    @property
    def partition(self) -> TopicPartition:
        """Where it stands."""
        ...

    @property
    def offset(self) -> int:
        """Its number there."""
        ...

    @property
    def timestamp(self) -> int:
        """Its time in ms."""
        ...


class Run(Protocol):
    """The ids of a run of events in one partition, in which nothing but that partition's entry moves."""

    def id(self, item: Placed) -> bytes:
        """Return the id just after `item`."""
        ...

    def frame_head(self, item: Placed) -> bytes:
        """Return an SSE frame's bytes before its data; behind the data comes `FRAME_END`."""
        ...


class Entries(Protocol):
    """How an id is written: `before`, an entry for each partition with `between` in the middle, `after`."""

    before: bytes
    between: bytes
    after: bytes

    def entry(self, i: int, next_: Next) -> bytes:
        """Return the entry of a partition, by its place in the list."""
        ...

    def run(self, i: int, before: bytes, after: bytes) -> Run:
        """Return the ids with these bytes around a partition's entry."""
        ...

    def longest(self, places: Sequence[Next]) -> int:
        """Return how many bytes an id may come to have that is at these places now."""
        ...


class JsonEntries:
    """An object for each partition."""

    before, between, after = b"[", b",", b"]"

    def __init__(self, cursor: Cursor) -> None:
        self._heads = [_head(partition) for partition in cursor]
        self._tails = list(_tails(cursor))

    def entry(self, i: int, next_: Next) -> bytes:
        """See `Entries`."""
        if next_.timestamp is None:
            return b'%b,"offset":%d%b' % (self._heads[i][: -len(TIMESTAMP)], next_.offset, self._tails[i])
        return b'%b%d,"offset":%d%b' % (self._heads[i], next_.timestamp, next_.offset, self._tails[i])

    def run(self, i: int, before: bytes, after: bytes) -> Run:
        """See `Entries`."""
        return _JsonRun(before + self._heads[i], self._tails[i] + after)

    def longest(self, places: Sequence[Next]) -> int:
        """See `Entries`."""
        around = sum(map(len, self._heads)) + sum(map(len, self._tails)) + (2 + len(',"offset":')) * len(places)
        return around + sum(max(NUMBERS_BYTES, len(str(place.offset)) + len("1700000000000") + 1) for place in places)


def _head(partition: TopicPartition) -> bytes:
    return b'{"topic":%b,"partition":%d%b' % (orjson.dumps(partition.topic), partition.partition, TIMESTAMP)


def _tails(cursor: Cursor) -> Sequence[bytes]:
    """Return how each entry ends: the first of all tells the cluster, the first of each topic which one it is."""
    tails: list[bytes] = []
    seen: set[str] = set()
    for topic, _ in cursor:
        more = {} if tails else _around(cursor)
        identity = "" if topic in seen else cursor.identities.get(topic, "")
        seen.add(topic)
        if identity:
            more["log"] = mark(identity)
        tails.append(b"," + compact(more)[1:] if more else b"}")
    return tails


def _around(cursor: Cursor) -> dict[str, str | bool]:
    """Return what an id's first entry says of all."""
    told: dict[str, str | bool] = {}
    if cursor.cluster is not None:
        told["cluster"] = cursor.cluster
    if cursor.partial:
        told["partial"] = True
    return told


class _JsonRun:
    """Deliberate: formatted as text, which is a third quicker than as bytes."""

    __slots__ = ("_after", "_before", "_frame_after", "_frame_before")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = before.decode()
        self._after = after.decode()
        self._frame_before = (MESSAGE + before).decode()
        self._frame_after = (after + DATA).decode()

    def id(self, item: Placed) -> bytes:
        return f'{self._before}{item.timestamp + 1},"offset":{item.offset + 1}{self._after}'.encode()

    def frame_head(self, item: Placed) -> bytes:
        return f'{self._frame_before}{item.timestamp + 1},"offset":{item.offset + 1}{self._frame_after}'.encode()


class CompactEntries:
    """One text for all partitions; see `compact_id`."""

    between = b""

    def __init__(self, cursor: Cursor) -> None:
        self._base = max((place.timestamp or 0 for place in cursor.values()), default=0)
        self._heads = compact_id.heads(tuple(cursor), cursor.identities)
        self.before = b'[{"cursor":"' + compact_id.number(self._base)
        told = _around(cursor)
        self.after = b'",' + compact(told)[1:] + b"]" if told else b'"}]'

    def entry(self, i: int, next_: Next) -> bytes:
        """See `Entries`."""
        return self._heads[i] + compact_id.number(next_.offset) + compact_id.time(next_.timestamp, self._base)

    def run(self, i: int, before: bytes, after: bytes) -> Run:
        """See `Entries`."""
        return _CompactRun(self, i, before, after)

    def longest(self, places: Sequence[Next]) -> int:
        """See `Entries`."""
        heads = len(self.before) + len(self.after) + sum(map(len, self._heads))
        offsets = sum(max(OFFSET_LETTERS, len(compact_id.number(place.offset)) + 1) for place in places)
        times = sum(max(TIME_LETTERS, len(compact_id.time(place.timestamp, self._base))) for place in places)
        return heads + offsets + times


class _CompactRun:
    __slots__ = ("_after", "_before", "_entries", "_i")

    def __init__(self, entries: CompactEntries, i: int, before: bytes, after: bytes) -> None:
        self._entries, self._i = entries, i
        self._before, self._after = before, after

    def id(self, item: Placed) -> bytes:
        entry = self._entries.entry(self._i, Next(item.offset + 1, item.timestamp + 1))
        return b"%b%b%b" % (self._before, entry, self._after)

    def frame_head(self, item: Placed) -> bytes:
        return b"%b%b%b" % (MESSAGE, self.id(item), DATA)


def entries_of(cursor: Cursor) -> Entries:
    """Return how ids over these partitions are written: by which they are alone, so that all processes do the same."""
    readable = JsonEntries(cursor)
    if readable.longest([Next(0)] * len(cursor)) > MAX_JSON_BYTES and compact_id.can_write(cursor, cursor.identities):
        return CompactEntries(cursor)
    return readable


class EventIds:
    """The id of the frame just sent: only what moved is written anew."""

    __slots__ = ("_entries", "_index", "_segments", "cluster", "identities", "next", "partial", "partitions")

    def __init__(self, cursor: Cursor) -> None:
        self.partitions: tuple[TopicPartition, ...] = tuple(cursor)
        self.cluster = cursor.cluster
        self.identities = cursor.identities
        self.partial = cursor.partial
        self._index = {partition: i for i, partition in enumerate(self.partitions)}
        self._entries = entries_of(cursor)
        self.next: list[Next] = list(cursor.values())
        self._segments = [self._entries.entry(i, next_) for i, next_ in enumerate(self.next)]

    def moved(self, places: Mapping[TopicPartition, Next], identities: Mapping[str, str]) -> EventIds:
        """Return the ids at other places, of other topics under the same names."""
        cursor = self.cursor()
        for partition, next_ in places.items():
            cursor.move(partition, next_)
        cursor.identities = identities
        return EventIds(cursor)

    def copy(self) -> EventIds:
        """Return ids that move on their own from here."""
        twin = object.__new__(EventIds)
        twin.partitions, twin.cluster, twin._index = self.partitions, self.cluster, self._index
        twin.identities, twin.partial, twin._entries = self.identities, self.partial, self._entries
        twin.next, twin._segments = self.next.copy(), self._segments.copy()
        return twin

    @property
    def size(self) -> int:
        """Return the bytes of memory that a copy takes of which one partition has moved since."""
        return IDS_BYTES + PLACE_BYTES * len(self.next)

    def check_fit(self, taken: int) -> None:
        """Check that an id can be sent back beside `taken` bytes of a request's head. Raises: BadRequest."""
        longest = self._entries.longest(self.next)
        if longest + taken + FIELD_BYTES > MAX_HEAD_BYTES:
            raise BadRequest(
                f"a subscription to {len(self.next)} partitions: its event ids may take {longest} bytes, and a request"
                f" that sends one back {MAX_HEAD_BYTES} in all, of which this one uses {taken}: name fewer streams"
            )

    def advance(self, item: Placed) -> None:
        """Move just after `item`."""
        self.move(item.partition, Next(item.offset + 1, item.timestamp + 1))

    def move(self, partition: TopicPartition, next_: Next) -> None:
        """Set where a partition goes on, where no record stands between."""
        i = self._index[partition]
        self.next[i] = next_
        self._segments[i] = self._entries.entry(i, next_)

    def offset(self, partition: TopicPartition) -> int:
        """Return the next offset of a partition."""
        return self.next[self._index[partition]].offset

    def __getitem__(self, partition: TopicPartition) -> Next:
        return self.next[self._index[partition]]

    def __contains__(self, partition: TopicPartition) -> bool:
        return partition in self._index

    def id(self) -> bytes:
        """Return the JSON array for an `id:` line."""
        entries = self._entries
        return b"%b%b%b" % (entries.before, entries.between.join(self._segments), entries.after)

    def run(self, partition: TopicPartition) -> Run:
        """Return the ids for as long as only this partition moves."""
        i = self._index[partition]
        entries, segments = self._entries, self._segments
        before = b"".join([segment + entries.between for segment in segments[:i]])
        after = b"".join([entries.between + segment for segment in segments[i + 1 :]])
        return entries.run(i, entries.before + before, after + entries.after)

    def key(self) -> tuple[Next, ...]:
        """Return what tells two cursors over the same partitions apart."""
        return tuple(self.next)

    def cursor(self) -> Cursor:
        """Return the position as a cursor of its own."""
        entries = zip(self.partitions, self.next, strict=True)
        return Cursor(entries, cluster=self.cluster, identities=self.identities, partial=self.partial)
