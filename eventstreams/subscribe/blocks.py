"""Replay: blocks of a partition, read once and shared by every client that replays them; bounded by bytes."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from eventstreams.errors import OffsetOutOfRange
from eventstreams.eventlog.base import EventLog
from eventstreams.metrics import Metrics
from eventstreams.records import TopicPartition
from eventstreams.subscribe.rendering import Item

BLOCK_OFFSETS = 512
"""Offsets a block spans: some 600 KB of ordinary events, a few ms of reading."""

MAX_FETCH_BYTES = 8 * 1024 * 1024
"""What one fetch of a block takes at the most; one larger record comes alone."""


class ItemBlock:
    """Items of one partition from `start` on; the log was looked through up to `next_offset`."""

    __slots__ = ("items", "next_offset", "offsets", "size", "start")

    def __init__(self, start: int, items: Sequence[Item], next_offset: int) -> None:
        self.start = start
        self.items = items
        self.next_offset = next_offset
        self.offsets = [item.record.offset for item in items]
        self.size = sum(item.size for item in items) + ITEMS_OVERHEAD_BYTES


ITEMS_OVERHEAD_BYTES = 1000

_Key = tuple[TopicPartition, int]


class BlockCache:
    """Blocks by partition and number, least recently used out first; one read at a time for each."""

    def __init__(self, log: EventLog, max_bytes: int, metrics: Metrics) -> None:
        self._log = log
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._blocks: OrderedDict[_Key, ItemBlock] = OrderedDict()
        self._reading: dict[_Key, asyncio.Task[ItemBlock]] = {}
        self._stale: set[asyncio.Task[ItemBlock]] = set()
        self.bytes = 0

    async def get(self, partition: TopicPartition, offset: int) -> ItemBlock:
        """Return a block that covers `offset`, or at the end of the log one with `next_offset` == `offset`.

        Raises: OffsetOutOfRange (offset is before the earliest), UnknownTopic, LogUnavailable.
        """
        key = (partition, offset // BLOCK_OFFSETS)
        held = self._blocks.get(key)
        if held is not None and held.start <= offset < held.next_offset:
            self._blocks.move_to_end(key)
            return held
        reading = self._reading.get(key)
        if reading is None:
            reading = asyncio.create_task(self._read(key, offset), name="read block")
            self._reading[key] = reading
            reading.add_done_callback(lambda task: self._settle(key, task))
        # Shielded: the read is everybody's, one client's going must not end it.
        return await asyncio.shield(reading)

    def prefetch(self, partition: TopicPartition, offset: int) -> None:
        """Begin to read the block at `offset` if nobody has."""
        key = (partition, offset // BLOCK_OFFSETS)
        if key not in self._blocks and key not in self._reading:
            task = asyncio.create_task(self._read(key, offset), name="prefetch block")
            self._reading[key] = task
            task.add_done_callback(lambda task: self._settle(key, task))

    def _settle(self, key: _Key, task: asyncio.Task[ItemBlock]) -> None:
        if self._reading.get(key) is not task:
            self._stale.discard(task)
            return
        del self._reading[key]
        if task.cancelled() or task.exception() is not None:
            return
        self._keep(key, task.result())

    def _keep(self, key: _Key, block: ItemBlock) -> None:
        old = self._blocks.pop(key, None)
        self.bytes += block.size - (old.size if old else 0)
        self._blocks[key] = block
        while self.bytes > self._max_bytes and len(self._blocks) > 1:
            _, out = self._blocks.popitem(last=False)
            self.bytes -= out.size

    def forget(self, partition: TopicPartition) -> None:
        """Drop the blocks of a partition: its log was made anew. Reads under way are told to nobody new."""
        for key in [key for key in self._blocks if key[0] == partition]:
            self.bytes -= self._blocks.pop(key).size
        for key in [key for key in self._reading if key[0] == partition]:
            self._stale.add(self._reading.pop(key))

    async def _read(self, key: _Key, offset: int) -> ItemBlock:
        partition, number = key
        stop = (number + 1) * BLOCK_OFFSETS
        start = number * BLOCK_OFFSETS
        try:
            return await self._read_range(partition, start, stop)
        except OffsetOutOfRange as exc:
            if exc.earliest > offset:
                raise OffsetOutOfRange(partition, offset, exc.earliest) from exc
            return await self._read_range(partition, exc.earliest, stop)

    async def _read_range(self, partition: TopicPartition, start: int, stop: int) -> ItemBlock:
        items: list[Item] = []
        at = start
        while at < stop:
            block = await self._log.fetch(partition, at, stop, MAX_FETCH_BYTES)
            items.extend(Item(record, partition) for record in block.records)
            if block.next_offset <= at:
                break
            at = block.next_offset
        self._metrics.block_read(len(items))
        return ItemBlock(start, items, at)

    async def aclose(self) -> None:
        """End the reads that are under way."""
        tasks = [*self._reading.values(), *self._stale]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
