"""Replay: blocks of a partition, read once and shared by every client that replays them; bounded by bytes."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable, Sequence

from eventstreams.errors import OffsetOutOfRange, UnknownTopic
from eventstreams.eventlog.base import EventLog
from eventstreams.metrics import Metrics
from eventstreams.records import TopicPartition
from eventstreams.subscribe.rendering import Account, Item

BLOCK_OFFSETS = 512
"""Offsets a block spans at the most: some 600 KB of ordinary events, a few ms of reading."""

BLOCK_BYTES = 4 * 1024 * 1024
"""A block of large events is cut past this; one fetch takes no more, one larger record comes alone."""


class BlockAccount:
    """The bytes of one block, counted in the whole while that holds it.

    Deliberate: it does not know the block, whose items know it. A circle would stay until the collector comes.
    """

    __slots__ = ("bytes", "whole")

    def __init__(self, size: int) -> None:
        self.bytes = size
        self.whole: Account | None = None

    def grow(self, size: int) -> None:
        """Count so many bytes more, or less."""
        self.bytes += size
        if self.whole is not None:
            self.whole.grow(size)


class ItemBlock:
    """Items of one partition from `start` on; the log was looked through up to `next_offset`.

    `size` are the bytes of memory that it takes. `cut`: it ended there because of its size, not because its span or
    the log did.
    """

    __slots__ = ("account", "cut", "items", "next_offset", "offsets", "start")

    def __init__(self, start: int, items: Sequence[Item], next_offset: int, size: int, *, cut: bool) -> None:
        self.start = start
        self.items = items
        self.next_offset = next_offset
        self.cut = cut
        self.offsets = [item.offset for item in items]
        self.account = BlockAccount(size + ITEMS_OVERHEAD_BYTES)
        for item in items:
            item.account = self.account

    @property
    def size(self) -> int:
        """Return its bytes now: rendering changes them."""
        return self.account.bytes


ITEMS_OVERHEAD_BYTES = 1000

_Key = tuple[TopicPartition, int]


class BlockCache:
    """Blocks by partition and start, least recently used out first; one read at a time for each.

    Blocks begin at multiples of `BLOCK_OFFSETS`, so that all who replay a span share them; and where one was cut.
    """

    def __init__(
        self, log: EventLog, max_bytes: int, metrics: Metrics, identity: Callable[[str], str] = lambda _: ""
    ) -> None:
        """Hold at most `max_bytes`; `identity` tells which topic of a name the blocks are of."""
        self._log = log
        self._identity = identity
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._blocks: OrderedDict[_Key, ItemBlock] = OrderedDict()
        self._starts: dict[_Key, list[int]] = {}  # of the blocks held, by partition and number of the span
        self._reading: dict[_Key, asyncio.Task[ItemBlock]] = {}
        self._stale: set[asyncio.Task[ItemBlock]] = set()
        self.bytes = 0

    async def get(self, partition: TopicPartition, offset: int) -> ItemBlock:
        """Return a block that covers `offset`, or at the end of the log one with `next_offset` == `offset`.

        Raises: OffsetOutOfRange (offset is before the earliest), UnknownTopic, TopicReplaced, LogUnavailable.
        """
        held = self._before(partition, offset)
        if held is not None and offset < held.next_offset:
            self._blocks.move_to_end((partition, held.start))
            return held
        start = self._start(held, offset)
        # Shielded: the read is everybody's, one client's going must not end it.
        block = await asyncio.shield(self._read(partition, start))
        if block.cut and block.next_offset <= offset:
            start = offset
            block = await asyncio.shield(self._read(partition, start))
        if block.start > offset:
            raise OffsetOutOfRange(partition, offset, block.start)
        return block

    def prefetch(self, partition: TopicPartition, offset: int) -> None:
        """Begin to read the block at `offset` if nobody has."""
        held = self._before(partition, offset)
        if held is None or offset >= held.next_offset:
            self._read(partition, self._start(held, offset))

    def _before(self, partition: TopicPartition, offset: int) -> ItemBlock | None:
        """Return the held block of the span of `offset` that begins last at or before it."""
        starts = self._starts.get((partition, offset // BLOCK_OFFSETS), ())
        at = bisect_right(starts, offset)
        return self._blocks[partition, starts[at - 1]] if at else None

    @staticmethod
    def _start(before: ItemBlock | None, offset: int) -> int:
        """Return where to read from to have a block that covers `offset`, given the one before it."""
        if before is None:
            return offset // BLOCK_OFFSETS * BLOCK_OFFSETS
        return offset if before.cut else before.start

    def _read(self, partition: TopicPartition, start: int) -> asyncio.Task[ItemBlock]:
        key = (partition, start)
        reading = self._reading.get(key)
        if reading is None:
            reading = asyncio.create_task(self._read_from(partition, start), name="read block")
            self._reading[key] = reading
            reading.add_done_callback(lambda task: self._settle(key, task))
        return reading

    def _settle(self, key: _Key, task: asyncio.Task[ItemBlock]) -> None:
        if self._reading.get(key) is not task:
            self._stale.discard(task)
            return
        del self._reading[key]
        if task.cancelled() or task.exception() is not None:
            return
        self._keep(key[0], task.result())

    def _keep(self, partition: TopicPartition, block: ItemBlock) -> None:
        key = (partition, block.start)
        if key in self._blocks:
            self._drop(key)
        self._blocks[key] = block
        insort(self._starts.setdefault((partition, block.start // BLOCK_OFFSETS), []), block.start)
        block.account.whole = self
        self.grow(block.size)

    def grow(self, size: int) -> None:
        """Count what came or what a block grew by; the oldest go where that is too much."""
        self.bytes += size
        while self.bytes > self._max_bytes and len(self._blocks) > 1:
            self._drop(next(iter(self._blocks)))

    def _drop(self, key: _Key) -> None:
        partition, start = key
        out = self._blocks.pop(key).account
        out.whole = None
        self.bytes -= out.bytes
        span = (partition, start // BLOCK_OFFSETS)
        self._starts[span].remove(start)
        if not self._starts[span]:
            del self._starts[span]

    async def time_of(self, partition: TopicPartition, offset: int) -> int | None:
        """Return the time (ms) of the record at an offset; None where there is none. Raises: LogUnavailable."""
        try:
            block = await self.get(partition, offset)
        except (OffsetOutOfRange, UnknownTopic):
            return None
        index = bisect_left(block.offsets, offset)
        found = index < len(block.offsets) and block.offsets[index] == offset
        return block.items[index].timestamp if found else None

    def forget(self, topic: str) -> None:
        """Drop the blocks of a topic: it was made anew. Reads under way are told to nobody new."""
        for key in [key for key in self._blocks if key[0].topic == topic]:
            self._drop(key)
        for key in [key for key in self._reading if key[0].topic == topic]:
            self._stale.add(self._reading.pop(key))

    async def _read_from(self, partition: TopicPartition, start: int) -> ItemBlock:
        stop = (start // BLOCK_OFFSETS + 1) * BLOCK_OFFSETS
        try:
            return await self._read_range(partition, start, stop)
        except OffsetOutOfRange as exc:
            # What the block would begin with is gone: the one who asked may want what comes after.
            return await self._read_range(partition, exc.earliest, stop)

    async def _read_range(self, partition: TopicPartition, start: int, stop: int) -> ItemBlock:
        items: list[Item] = []
        at, size = start, 0
        identity = self._identity(partition.topic)
        while at < stop and size < BLOCK_BYTES:
            block = await self._log.fetch(partition, at, stop, BLOCK_BYTES, identity)
            found = [Item(record, partition) for record in block.records]
            items += found
            size += sum([item.size for item in found])
            if block.next_offset <= at:
                break
            at = block.next_offset
        self._metrics.block_read(len(items))
        return ItemBlock(start, items, at, size, cut=size >= BLOCK_BYTES and at < stop)

    async def aclose(self) -> None:
        """End the reads that are under way."""
        tasks = [*self._reading.values(), *self._stale]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
