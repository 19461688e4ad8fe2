"""The bytes of the wire: SSE frames, JSON lines, ids, HTTP chunks (DESIGN of the wire; WHATWG HTML 9.2.5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from eventstreams.errors import EventStreamsError, LogRefused
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
