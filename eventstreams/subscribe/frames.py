"""The bytes of the wire: SSE frames, JSON lines, ids, HTTP chunks (DESIGN of the wire; WHATWG HTML 9.2.5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import orjson

from eventstreams.errors import EventStreamsError, LogRefused
from eventstreams.positions import Cursor, Next, id_entry_end
from eventstreams.records import TopicPartition

FIRST_BYTES_SSE = b":ok\n\n"
FIRST_BYTES_JSON = b"\n"
HEARTBEAT_SSE = b":\n"
"""Without a blank line: with one, three clients hand their user an empty message."""
HEARTBEAT_JSON = b"\n"
LAST_CHUNK = b"0\r\n\r\n"
MESSAGE = b"event: message\nid: "
DATA = b"\ndata: "
FRAME_END = b"\n\n"
TIMESTAMP = b',"timestamp":'


IDS_BYTES, PLACE_BYTES, MOVED_BYTES = 650, 20, 280
"""What ids cost in memory: in all, for each partition, and for each one more that has moved since they were copied."""


def message_frame(event_id: bytes, data: bytes) -> bytes:
    """Return one event as an SSE frame. `data` must be a single line."""
    return MESSAGE + event_id + DATA + data + FRAME_END


def id_block(event_id: bytes) -> bytes:
    """Return a block without data: it moves the client's cursor and is no event (WHATWG HTML 9.2.6)."""
    return b"id: " + event_id + b"\n\n"


def cursor_frame(event_id: bytes) -> bytes:
    """Return the cursor as an event of its own name, for clients that drop blocks without data."""
    return b"event: cursor\nid: " + event_id + b'\ndata: {"cursor":' + event_id + b"}\n\n"


def named_frame(name: bytes, event_id: bytes | None, body: Mapping[str, object]) -> bytes:
    """Return a frame that is no message: `gap`, `error`."""
    id_line = b"" if event_id is None else b"id: " + event_id + b"\n"
    return b"event: " + name + b"\n" + id_line + b"data: " + orjson.dumps(body) + b"\n\n"


def retry_line(milliseconds: int) -> bytes:
    """Return the field that tells when to come back. Belongs to the block that follows; clients take it at once.

    Deliberate: no block of its own. Clients that hand out blocks without data as messages would hand that out too.
    """
    return b"retry: %d\n" % milliseconds


def http_chunk(body: bytes) -> bytes:
    """Frame a body for chunked transfer coding (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(body), body)


def http_chunk_of(parts: Sequence[bytes], size: int) -> bytes:
    """Frame a body of `size` bytes, given in parts, in one copy."""
    return b"".join((b"%x\r\n" % size, *parts, b"\r\n"))


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


class Run:
    """The ids of a run of events in one partition, in which nothing but that partition's entry moves.

    Deliberate: formatted as text, which is a third quicker than as bytes.
    """

    __slots__ = ("_after", "_before", "_frame_after", "_frame_before")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = before.decode()
        self._after = after.decode()
        self._frame_before = (MESSAGE + before).decode()
        self._frame_after = (after + DATA).decode()

    def id(self, item: Placed) -> bytes:
        """Return the id just after `item`."""
        return f'{self._before}{item.timestamp + 1},"offset":{item.offset + 1}{self._after}'.encode()

    def frame_head(self, item: Placed) -> bytes:
        """Return an SSE frame's bytes before its data; behind the data comes `FRAME_END`."""
        return f'{self._frame_before}{item.timestamp + 1},"offset":{item.offset + 1}{self._frame_after}'.encode()


class EventIds:
    """The id of the frame just sent, over a fixed list of partitions: only what moved is written anew."""

    __slots__ = ("_heads", "_index", "_segments", "_tails", "cluster", "identities", "next", "partial", "partitions")

    def __init__(self, cursor: Cursor) -> None:
        self.partitions: tuple[TopicPartition, ...] = tuple(cursor)
        self.cluster = cursor.cluster
        self.identities = cursor.identities
        self.partial = cursor.partial
        self._index = {partition: i for i, partition in enumerate(self.partitions)}
        self.next: list[Next] = list(cursor.values())
        self._heads = [_entry_head(partition) for partition in self.partitions]
        self._tails = self._ends()
        self._segments = [self._entry(i, next_) for i, next_ in enumerate(self.next)]

    def _ends(self) -> list[bytes]:
        """Return how each entry ends: the first of all tells the cluster, the first of each topic which one it is."""
        ends: list[bytes] = []
        seen: set[str] = set()
        for i, (topic, _) in enumerate(self.partitions):
            identity = "" if topic in seen else self.identities.get(topic, "")
            seen.add(topic)
            cluster = self.cluster if i == 0 else None
            ends.append(id_entry_end(cluster, partial=i == 0 and self.partial, identity=identity))
        return ends

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
        twin.identities, twin.partial = self.identities, self.partial
        twin._heads, twin._tails = self._heads, self._tails
        twin.next, twin._segments = self.next.copy(), self._segments.copy()
        return twin

    @property
    def size(self) -> int:
        """Return the bytes of memory that a copy takes of which one partition has moved since."""
        return IDS_BYTES + PLACE_BYTES * len(self.next)

    def advance(self, item: Placed) -> None:
        """Move just after `item`."""
        i = self._index[item.partition]
        timestamp, offset = item.timestamp + 1, item.offset + 1
        self.next[i] = Next(offset, timestamp)
        self._segments[i] = b'%b%d,"offset":%d%b' % (self._heads[i], timestamp, offset, self._tails[i])

    def move(self, partition: TopicPartition, next_: Next) -> None:
        """Set where a partition goes on, where no record stands between."""
        i = self._index[partition]
        self.next[i] = next_
        self._segments[i] = self._entry(i, next_)

    def _entry(self, i: int, next_: Next) -> bytes:
        if next_.timestamp is None:
            return b'%b,"offset":%d%b' % (self._heads[i][: -len(TIMESTAMP)], next_.offset, self._tails[i])
        return b'%b%d,"offset":%d%b' % (self._heads[i], next_.timestamp, next_.offset, self._tails[i])

    def offset(self, partition: TopicPartition) -> int:
        """Return the next offset of a partition."""
        return self.next[self._index[partition]].offset

    def __getitem__(self, partition: TopicPartition) -> Next:
        return self.next[self._index[partition]]

    def __contains__(self, partition: TopicPartition) -> bool:
        return partition in self._index

    def id(self) -> bytes:
        """Return the JSON array for an `id:` line."""
        return b"[" + b",".join(self._segments) + b"]"

    def run(self, partition: TopicPartition) -> Run:
        """Return the ids for as long as only this partition moves."""
        i = self._index[partition]
        before = b"[" + b"".join(segment + b"," for segment in self._segments[:i]) + self._heads[i]
        return Run(before, self._tails[i] + b"".join(b"," + segment for segment in self._segments[i + 1 :]) + b"]")

    def key(self) -> tuple[Next, ...]:
        """Return what tells two cursors over the same partitions apart."""
        return tuple(self.next)

    def cursor(self) -> Cursor:
        """Return the position as a cursor of its own."""
        entries = zip(self.partitions, self.next, strict=True)
        return Cursor(entries, cluster=self.cluster, identities=self.identities, partial=self.partial)


def _entry_head(partition: TopicPartition) -> bytes:
    return b'{"topic":%b,"partition":%d%b' % (orjson.dumps(partition.topic), partition.partition, TIMESTAMP)


def error_body(exc: EventStreamsError) -> dict[str, object]:
    """Return the body of `event: error`: the original's shape for errors of the log."""
    if isinstance(exc, LogRefused):
        return {"message": exc.words, "code": exc.errno, "errno": exc.errno, "origin": "local"}
    return {"message": exc.message, "code": exc.code, "origin": "eventstreams"}


def gap_body(gaps: Sequence[Gap]) -> dict[str, object]:
    """Return the body of `event: gap`."""
    return {"partitions": [gap.body() for gap in gaps]}


class Gap:
    """Offsets of a partition that cannot be delivered any more; `last` None: the log was made anew before them."""

    __slots__ = ("after", "before", "first", "last", "partition")

    def __init__(
        self,
        partition: TopicPartition,
        first: int,
        last: int | None,
        after: int | None = None,
        before: int | None = None,
    ) -> None:
        self.partition = partition
        self.first = first
        self.last = last
        self.after = after
        self.before = before

    @property
    def offsets(self) -> int:
        """How many there are; 0 where that is not known."""
        return 0 if self.last is None else self.last - self.first + 1

    def body(self) -> dict[str, object]:
        """Return the gap as JSON: offsets inclusive, times in ms where known."""
        return {
            "topic": self.partition.topic,
            "partition": self.partition.partition,
            "first_offset": self.first,
            "last_offset": self.last,
            "after_timestamp": self.after,
            "before_timestamp": self.before,
        }
