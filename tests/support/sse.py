"""A strict reader of server-sent events: WHATWG HTML 9.2.6 for what an event is, and stricter than it in what it takes.

What the standard ignores (unknown fields, carriage returns, an id with NUL, a retry that is no number) is an error
here, since our wire never sends it; so is an id that falls in a partition.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

Place = tuple[str, int]
"""Topic and partition."""


class BrokenStream(AssertionError):
    """Bytes that a stream of ours must not hold."""


class Message(NamedTuple):
    """One dispatched event; `last_event_id` is the client's at that moment."""

    name: str
    data: str
    last_event_id: str


class SseReader:
    """One connection's bytes to messages. A block that was cut off is dropped with the reader, as the standard says."""

    def __init__(self, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        """The last whole block's id: what a client sends when it comes back."""
        self.retry: int | None = None
        self.comments = 0
        self.blocks_without_data = 0
        self._id = last_event_id
        self._name = ""
        self._data: list[str] = []
        self._rest = b""

    def feed(self, piece: bytes) -> Iterator[Message]:
        """Yield what these bytes complete."""
        if b"\r" in piece:
            raise BrokenStream(f"carriage return in {piece[:200]!r}")
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            if line:
                self._field(line.decode())
            else:
                yield from self._dispatch()

    def _field(self, line: str) -> None:
        name, colon, value = line.partition(":")
        if line.startswith(":"):
            self.comments += 1
            return
        if not colon or not value.startswith(" "):
            raise BrokenStream(f"line {line[:200]!r}: expected a field, a colon, a blank and a value")
        self._set(name, value[1:])

    def _set(self, name: str, value: str) -> None:
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._name = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value)
        else:
            raise BrokenStream(f"field {name!r} with value {value[:200]!r}")

    def _dispatch(self) -> Iterator[Message]:
        self.last_event_id = self._id
        name, data = self._name or "message", self._data
        self._name, self._data = "", []
        if not data:
            self.blocks_without_data += 1
            return
        if len(data) > 1:
            raise BrokenStream(f"{len(data)} data lines in one event")
        yield Message(name, data[0], self.last_event_id)


class Ids:
    """A client's ids over all its connections: they never fall in any partition, and never forget one."""

    def __init__(self) -> None:
        self.offsets: dict[Place, int] = {}
        self.first: dict[Place, int] | None = None
        """The first id's offsets: where the client began."""
        self.fallen = 0

    def see(self, event_id: str) -> dict[Place, int]:
        """Take an id; return its next offset in each partition."""
        entries = json.loads(event_id)
        offsets = {(entry["topic"], entry["partition"]): entry["offset"] for entry in entries}
        if len(offsets) != len(entries):
            raise BrokenStream(f"a partition twice in {event_id}")
        if any(offsets.get(place, -1) < offset for place, offset in self.offsets.items()):
            self.fallen += 1
        self.offsets = offsets
        if self.first is None:
            self.first = offsets
        return offsets


class ChunkedReader:
    """Chunked transfer coding (RFC 9112 section 7.1), strictly: no extensions, no trailers."""

    def __init__(self) -> None:
        self.ended = False
        self._rest = b""
        self._last = False
        self._left = -1  # bytes of the chunk still to come, with its line end; -1: a size line comes next

    def feed(self, piece: bytes) -> bytes:
        """Return the content that these bytes hold."""
        self._rest += piece
        content = []
        while self._rest and not self.ended:
            part = self._size_line() if self._left < 0 else self._content()
            if part is None:
                break
            content.append(part)
        return b"".join(content)

    def _size_line(self) -> bytes | None:
        line, end, rest = self._rest.partition(b"\r\n")
        if not end:
            return None
        self._left = int(line, 16) + 2
        self._last = self._left == 2
        self._rest = rest
        return b""

    def _content(self) -> bytes | None:
        if self._left == 2 or len(self._rest) >= self._left:
            return self._chunk_end()
        keep = min(len(self._rest), self._left - 2)
        part, self._rest = self._rest[:keep], self._rest[keep:]
        self._left -= keep
        return part or None

    def _chunk_end(self) -> bytes | None:
        if len(self._rest) < self._left:
            return None
        part, end = self._rest[: self._left - 2], self._rest[self._left - 2 : self._left]
        if end != b"\r\n":
            raise BrokenStream(f"a chunk ends with {end!r}")
        self._rest = self._rest[self._left :]
        self._left = -1
        self.ended = self._last
        return part
