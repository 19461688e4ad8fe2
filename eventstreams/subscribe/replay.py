"""Reading in steps: from a cursor to ready bytes and the cursor after them; from the log once for all who stand there.

Clients that replay the same span walk through the same cursors, so the second one finds each step done: the log is read
once and each frame built once.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from eventstreams.positions import Next
from eventstreams.records import TopicPartition
from eventstreams.subscribe import frames
from eventstreams.subscribe.blocks import BlockCache, ItemBlock
from eventstreams.subscribe.event_ids import MOVED_BYTES, EventIds
from eventstreams.subscribe.group import Group, Shape
from eventstreams.subscribe.rendering import Item
from eventstreams.subscribe.tail import Tail

STEP_BYTES = 128 * 1024
"""A step ends past this: one step is what a connection holds at the most, beside one large event."""

STEP_OVERHEAD_BYTES = 500
"""What a step costs beside its letters and its ids: the objects around them, its key and its place among the others."""


class Step(NamedTuple):
    """Ready bytes (in the shape's transfer coding) and the cursor after them. Not to be changed: it is shared."""

    body: bytes
    ids: EventIds
    last_id: bytes | None
    moved: bool

    @property
    def size(self) -> int:
        """Return the bytes of memory that it takes, each of its partitions having moved."""
        ids = self.ids.size + MOVED_BYTES * len(self.ids.partitions) + len(self.last_id or b"")
        return len(self.body) + STEP_OVERHEAD_BYTES + ids


_Key = tuple[Shape, tuple[Next, ...]]


class Replay:
    """Steps by shape and cursor, kept while they are in use, bounded by bytes."""

    def __init__(self, blocks: BlockCache, tail: Tail, max_bytes: int) -> None:
        self._blocks = blocks
        self._tail = tail
        self._max_bytes = max_bytes
        self._steps: OrderedDict[_Key, Step] = OrderedDict()
        self._running: dict[_Key, asyncio.Task[Step]] = {}
        self._stale: set[asyncio.Task[Step]] = set()
        self.bytes = 0

    async def step(self, group: Group, ids: EventIds) -> Step:
        """Return the next step from `ids`, over the partitions that the tail does not cover.

        `moved` False: the log has nothing further yet.

        Raises: OffsetOutOfRange, UnknownTopic, TopicReplaced, LogUnavailable.
        """
        key = (group.shape, ids.key())
        held = self._steps.get(key)
        if held is not None:
            self._steps.move_to_end(key)
            return held
        running = self._running.get(key)
        if running is None:
            running = asyncio.create_task(self._compute(group, ids), name="replay step")
            self._running[key] = running
            running.add_done_callback(lambda task: self._settle(key, task))
        return await asyncio.shield(running)

    def _settle(self, key: _Key, task: asyncio.Task[Step]) -> None:
        if self._running.get(key) is not task:
            self._stale.discard(task)
            return
        del self._running[key]
        if task.cancelled() or task.exception() is not None or not task.result().moved:
            return
        step = task.result()
        self._steps[key] = step
        self.bytes += step.size
        while self.bytes > self._max_bytes and len(self._steps) > 1:
            _, out = self._steps.popitem(last=False)
            self.bytes -= out.size

    def forget(self, topic: str) -> None:
        """Drop the steps over a topic: it was made anew."""
        for key in [key for key in self._steps if _is_over(key, topic)]:
            self.bytes -= self._steps.pop(key).size
        for key in [key for key in self._running if _is_over(key, topic)]:
            self._stale.add(self._running.pop(key))

    async def _compute(self, group: Group, ids: EventIds) -> Step:
        behind = [p for p in ids.partitions if not self._tail.covers(p, ids.offset(p))]
        if len(behind) == 1:
            blocks = [await self._blocks.get(behind[0], ids.offset(behind[0]))]
        else:
            blocks = await asyncio.gather(*(self._blocks.get(p, ids.offset(p)) for p in behind))
        walk = _Walk(group, ids.copy())
        walk.merge([_Lane(p, block, ids.offset(p)) for p, block in zip(behind, blocks, strict=True)])
        for partition, block in zip(behind, blocks, strict=True):
            self._look_ahead(partition, block)
        return walk.step()

    def _look_ahead(self, partition: TopicPartition, block: ItemBlock) -> None:
        held = self._tail.partitions.get(partition)
        if held is None:
            return
        if held.end >= block.start and block.next_offset > held.end:
            # The log was looked through past the arrival's end and held nothing: control records, compaction.
            if not block.offsets or block.offsets[-1] < held.end:
                self._tail.skip_to(partition, block.next_offset)
        elif block.items and block.next_offset < held.start:
            self._blocks.prefetch(partition, block.next_offset)

    async def aclose(self) -> None:
        """End the steps that are under way."""
        tasks = [*self._running.values(), *self._stale]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _is_over(key: _Key, topic: str) -> bool:
    return any(partition.topic == topic for partition in key[0].partitions)


class _Lane:
    """One partition's items of a block, from an offset on."""

    __slots__ = ("at", "block", "items", "partition")

    def __init__(self, partition: TopicPartition, block: ItemBlock, offset: int) -> None:
        self.partition = partition
        self.block = block
        self.items: Sequence[Item] = block.items
        self.at = bisect_left(block.offsets, offset)

    @property
    def ended(self) -> bool:
        return self.at >= len(self.items)

    @property
    def timestamp(self) -> int:
        return self.items[self.at].timestamp


class _Walk:
    """Moves ids over items, collecting frames."""

    def __init__(self, group: Group, ids: EventIds) -> None:
        self._group = group
        self._ids = ids
        self._parts: list[bytes] = []
        self._size = 0
        self._last: bytes | None = None
        self._moved = False

    def merge(self, lanes: list[_Lane]) -> None:
        """Take items, oldest first over the lanes, until the step is full or a lane needs its next block."""
        open_lanes = list(lanes)
        while open_lanes and not self.full:
            for lane in [lane for lane in open_lanes if lane.ended]:
                open_lanes.remove(lane)
                if self._end(lane):
                    return
            if not open_lanes:
                return
            if len(open_lanes) == 1:
                self._take_while_room(open_lanes[0])
            else:
                lane = min(open_lanes, key=lambda lane: lane.timestamp)
                self.take(lane.items[lane.at])
                lane.at += 1

    def _take_while_room(self, lane: _Lane) -> None:
        """Take the items of the only lane; what replay of one partition costs is what this loop costs."""
        group, parts, size = self._group, self._parts, self._size
        json_lines, renderer = group.shape.json_lines, group.sees_all
        run = self._ids.run(lane.partition)
        seen: Item | None = None
        item: Item | None = None
        for at in range(lane.at, len(lane.items)):
            if size >= STEP_BYTES:
                break
            item = lane.items[at]
            data = group.data(item) if renderer is None else item.data(renderer)
            item.forget()
            if not data:
                continue
            head, end = (b"", b"\n") if json_lines else (run.frame_head(item), frames.FRAME_END)
            parts += (head, data, end)
            size += len(head) + len(data) + len(end)
            seen = item
        else:
            at = len(lane.items)
        lane.at, self._size = at, size
        if item is not None:
            self._moved = True
            self._ids.advance(item)
        if seen is not None and not json_lines:
            self._last = run.id(seen)

    def _end(self, lane: _Lane) -> bool:
        """Move past a lane's block; return whether there may be more of it in the log."""
        before = self._ids[lane.partition]
        if lane.block.next_offset > before.offset:
            self._ids.move(lane.partition, Next(lane.block.next_offset, before.timestamp))
            self._moved = True
        return bool(lane.items) and self._moved

    @property
    def full(self) -> bool:
        """Whether the step is to end."""
        return self._size >= STEP_BYTES

    def take(self, item: Item) -> None:
        """Move past an item."""
        self._moved = True
        self._ids.advance(item)
        event_id = self._ids.id() if not self._group.shape.json_lines else b""
        frame = self._group.frame(item, event_id)
        item.forget()
        if frame:
            self._parts.append(frame)
            self._size += len(frame)
            self._last = event_id

    def step(self) -> Step:
        """Return what was collected, and the ids after it."""
        body = self._group.envelope_of(self._parts, self._size) if self._parts else b""
        return Step(body, self._ids, self._last, self._moved)


def tail_step(tail: Tail, group: Group, ids: EventIds) -> Step:
    """Return the next step from `ids`, over what the tail has: it covers them all. `moved` False: that is nothing."""
    first, _ = tail.seam(zip(ids.partitions, (next_.offset for next_ in ids.next), strict=True))
    here = ids.copy()
    walk = _Walk(group, here)
    for item in tail.slice(first, tail.next_seq):
        if item.partition in here and item.offset >= here.offset(item.partition):
            walk.take(item)
            if walk.full:
                break
    return walk.step()
