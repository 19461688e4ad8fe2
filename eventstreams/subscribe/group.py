"""Subscriptions that are sent the same bytes: each batch is rendered once for all of them.

A head is a list of partitions with its cursor in arrival order; groups over the same partitions share its ids. A
group's recent chunks are kept, bounded by bytes: members that fall a little behind are sent the same bytes too.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from errno import EIO
from typing import TYPE_CHECKING, NamedTuple

from eventstreams.filters.compile import Filter
from eventstreams.records import TopicPartition
from eventstreams.subscribe import frames
from eventstreams.subscribe.event_ids import EventIds
from eventstreams.subscribe.rendering import Item, Renderer
from eventstreams.subscribe.wire import Lane

if TYPE_CHECKING:
    from eventstreams.subscribe.subscription import Subscription

RECENT_BYTES = 1024 * 1024
"""Chunks that a group keeps for members a little behind."""

CHUNK_BYTES = 200
"""What a chunk costs beside its letters and its ids."""


class Shape(NamedTuple):
    """What two subscriptions must have in common to be sent the same bytes; `filter_key` None is no filter."""

    partitions: tuple[TopicPartition, ...]
    filter_key: str | None
    canary: bool
    json_lines: bool
    positions: str
    chunked: bool
    partial: bool = False
    streams: tuple[str, ...] = ()
    """Whose partitions these are: unless they are partial the subscription grows with these streams."""

    @property
    def head(self) -> tuple[tuple[TopicPartition, ...], bool]:
        """What two subscriptions must have in common to be given the same ids."""
        return self.partitions, self.partial


class Chunk(NamedTuple):
    """Ready bytes, and where the cursor stands after them."""

    body: bytes
    seq: int
    ids: EventIds

    @property
    def size(self) -> int:
        """Return the bytes of memory that it takes."""
        return len(self.body) + CHUNK_BYTES + self.ids.size


class Group:
    """The subscriptions of one shape, and the bytes that they share."""

    def __init__(self, shape: Shape, filter_: Filter | None, renderer: Renderer) -> None:
        self.shape = shape
        self.filter = filter_
        self.members: set[Subscription] = set()
        self.at_head: set[Subscription] = set()
        self.lane: Lane = {}
        """Of those at the head, who can be written to without asking."""
        self.lagging = 0
        self.recent: deque[Chunk] = deque()
        self.first_recent = 0
        self.recent_bytes = 0
        self.last_write = 0.0
        self.id_sent: bytes | None = None
        self._renderer = renderer

    @property
    def sees_all(self) -> Renderer | None:
        """Return what its events are rendered by if it is to see them all, else None: then ask `data` for each."""
        return self._renderer if self.filter is None and self.shape.canary else None

    @property
    def end_recent(self) -> int:
        """Return the number of the chunk that comes next."""
        return self.first_recent + len(self.recent)

    def frame(self, item: Item, event_id: bytes) -> bytes:
        """Return the frame of one item, empty when this group is not to see it."""
        data = self.data(item)
        if not data:
            return b""
        return data + b"\n" if self.shape.json_lines else frames.message_frame(event_id, data)

    def data(self, item: Item) -> bytes:
        """Return an item as one line of JSON, empty when this group is not to see it."""
        data = item.data(self._renderer)
        if not data or (not self.shape.canary and item.is_canary()):
            return b""
        if self.filter is not None:
            view = item.view()
            if view is None or not self.filter.matches(view):
                return b""
        return data

    def envelope(self, body: bytes) -> bytes:
        """Put ready frames into the transfer coding of the group."""
        return frames.http_chunk(body) if self.shape.chunked else body

    def envelope_of(self, parts: Sequence[bytes], size: int) -> bytes:
        """Put frames of `size` bytes, given in parts, into the transfer coding of the group."""
        return frames.http_chunk_of(parts, size) if self.shape.chunked else b"".join(parts)

    def heartbeat(self, ids: EventIds, last_id: bytes | None) -> tuple[bytes, bytes | None]:
        """Return what keeps an idle connection alive and tells how far it has come, and the id it tells."""
        if self.shape.json_lines:
            return frames.HEARTBEAT_JSON, None
        event_id = ids.id()
        if self.shape.positions == "off" or event_id == last_id:
            return frames.HEARTBEAT_SSE, last_id
        return self.position_block(event_id), event_id

    def position_block(self, event_id: bytes) -> bytes:
        """Return the block that tells a client where it stands, in the form that it asked for."""
        if self.shape.json_lines or self.shape.positions == "off":
            return b""
        return frames.cursor_frame(event_id) if self.shape.positions == "event" else frames.id_block(event_id)

    def goodbye(self, retry: int, ids: EventIds) -> bytes:
        """Return what a member is told at the end: when to come back (ms), and where it stands."""
        return b"" if self.shape.json_lines else frames.retry_line(retry) + self.position_block(ids.id())

    def render(self, entries: Sequence[tuple[Item, bytes]]) -> tuple[bytes, bytes | None]:
        """Return the frames of the items that this group sees, and the id of the last one."""
        parts: list[bytes] = []
        last: bytes | None = None
        for item, event_id in entries:
            frame = self.frame(item, event_id)
            if frame:
                parts.append(frame)
                last = event_id
        return b"".join(parts), last

    def write(self, body: bytes) -> list[tuple[Subscription, int]]:
        """Write to the whole lane; return who did not take all: with the bytes taken, minus the errno of a broken one.

        Deliberate: nothing but the system call for each member, whose objects are not even looked at: after the
        kernel's work none of them is in a cache. What a delivery costs is what this loop costs.
        """
        size, write = len(body), os.write
        short: list[tuple[Subscription, int]] = []
        for descriptor in self.lane:
            try:
                sent = write(descriptor, body)
            except BlockingIOError:
                sent = 0
            except OSError as exc:
                sent = -(exc.errno or EIO)
            if sent != size:
                short.append((self.lane[descriptor], sent))
        return short

    def keep(self, chunk: Chunk) -> None:
        """Remember a chunk for members a little behind; the oldest go first."""
        self.recent.append(chunk)
        self.recent_bytes += chunk.size
        while self.recent_bytes > RECENT_BYTES and len(self.recent) > 1:
            self.recent_bytes -= self.recent.popleft().size
            self.first_recent += 1

    def forget_recent(self) -> None:
        """Drop the chunks: nobody follows them."""
        self.first_recent = self.end_recent
        self.recent.clear()
        self.recent_bytes = 0


class Head:
    """Where arrival stands for one list of partitions, and the groups that are there."""

    def __init__(self, ids: EventIds, seq: int) -> None:
        self.ids = ids
        self.seq = seq
        self.groups: set[Group] = set()

    def advance(self, items: Sequence[Item], seq: int) -> list[tuple[Item, bytes]]:
        """Move past a batch; return its items of these partitions, each with the id just after it."""
        ids = self.ids
        entries: list[tuple[Item, bytes]] = []
        for item in items:
            if item.partition in ids:
                ids.advance(item)
                entries.append((item, ids.id()))
        self.seq = seq
        return entries
