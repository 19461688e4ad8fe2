"""The bytes of the wire: SSE frames, JSON lines, ids, HTTP chunks (DESIGN of the wire; WHATWG HTML 9.2.5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from eventstreams.positions import Cursor, Next, id_entry
from eventstreams.records import Record, TopicPartition

FIRST_BYTES_SSE = b":ok\n\n"
FIRST_BYTES_JSON = b"\n"
HEARTBEAT_SSE = b":\n"
"""Without a blank line: with one, three clients hand their user an empty message."""
HEARTBEAT_JSON = b"\n"
LAST_CHUNK = b"0\r\n\r\n"


def message_frame(event_id: bytes, data: bytes) -> bytes:
    """Return one event as an SSE frame. `data` must be a single line."""
    return b"event: message\nid: " + event_id + b"\ndata: " + data + b"\n\n"


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


def http_chunk(body: bytes) -> bytes:
    """Frame a body for chunked transfer coding (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(body), body)


class EventIds:
    """The id of the frame just sent, over a fixed list of partitions: only what moved is written anew."""

    __slots__ = ("_heads", "_index", "_segments", "_tails", "cluster", "next", "partial", "partitions")

    def __init__(self, cursor: Cursor) -> None:
        self.partitions: tuple[TopicPartition, ...] = tuple(cursor)
        self.cluster = cursor.cluster
        self.partial = cursor.partial
        self._index = {partition: i for i, partition in enumerate(self.partitions)}
        self.next: list[Next] = list(cursor.values())
        self._heads = [_entry_head(partition) for partition in self.partitions]
        self._tails = [b"}"] * len(self.partitions)
        if self.partitions:
            cluster = b"" if cursor.cluster is None else b',"cluster":' + orjson.dumps(cursor.cluster)
            self._tails[0] = cluster + (b',"partial":true}' if cursor.partial else b"}")
        self._segments = [self._entry(i, next_) for i, next_ in enumerate(self.next)]

    def copy(self) -> EventIds:
        """Return ids that move on their own from here."""
        twin = object.__new__(EventIds)
        twin.partitions, twin.cluster, twin._index = self.partitions, self.cluster, self._index
        twin.partial = self.partial
        twin._heads, twin._tails = self._heads, self._tails
        twin.next, twin._segments = self.next.copy(), self._segments.copy()
        return twin

    def advance(self, partition: TopicPartition, record: Record) -> None:
        """Move just after `record`."""
        i = self._index[partition]
        timestamp, offset = record.timestamp + 1, record.offset + 1
        self.next[i] = Next(offset, timestamp)
        self._segments[i] = b'%b%d,"offset":%d%b' % (self._heads[i], timestamp, offset, self._tails[i])

    def move(self, partition: TopicPartition, next_: Next) -> None:
        """Set where a partition goes on, where no record stands between."""
        i = self._index[partition]
        self.next[i] = next_
        self._segments[i] = self._entry(i, next_)

    def _entry(self, i: int, next_: Next) -> bytes:
        cluster = self.cluster if i == 0 else None
        return id_entry(self.partitions[i], next_, cluster, partial=i == 0 and self.partial)

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

    def key(self) -> tuple[Next, ...]:
        """Return what tells two cursors over the same partitions apart."""
        return tuple(self.next)

    def cursor(self) -> Cursor:
        """Return the position as a cursor of its own."""
        return Cursor(zip(self.partitions, self.next, strict=True), cluster=self.cluster, partial=self.partial)


def _entry_head(partition: TopicPartition) -> bytes:
    return b'{"topic":%b,"partition":%d,"timestamp":' % (orjson.dumps(partition.topic), partition.partition)


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
