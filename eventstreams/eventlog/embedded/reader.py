"""Reads the embedded log forward over several partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from eventstreams.eventlog.base import Block
from eventstreams.records import Record, TopicPartition

if TYPE_CHECKING:
    from eventstreams.eventlog.embedded.log import EmbeddedLog

READ_BYTES = 4 * 1024 * 1024
"""Bytes of values a read takes from one partition at the most; one larger record comes alone."""

READ_RECORDS = 4096
"""The same for records: no more than the log gives in one fetch."""

FRESH_PARTITIONS, FRESH_RECORDS, FRESH_BYTES = 8, 64, 64 * 1024
"""How much is read without a thread after the end was met: a millisecond's work at the most."""


def _may_go_on(block: Block, stop: int, most_bytes: int) -> bool:
    """Whether the log may hold more than was asked for or than fits a read."""
    return block.next_offset >= stop or sum(len(record.value) for record in block.records) >= most_bytes


class EmbeddedReader:
    """A LogReader: a map of next offsets, read again whenever the log's bell rings."""

    def __init__(self, log: EmbeddedLog) -> None:
        self._log = log
        self._offsets: dict[TopicPartition, int] = {}
        self._ended: asyncio.Future[None] | None = None
        """The bell before which a read met the end everywhere: until it rings there is nothing to look for."""
        self._at_end = False

    async def assign(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Add partitions, each from its offset. Raises: UnknownTopic."""
        await self._log.extents(offsets)
        self._offsets.update(offsets)
        self._ended = None
        self._log.ring()

    async def unassign(self, partitions: Collection[TopicPartition]) -> None:
        """Stop reading these."""
        for partition in partitions:
            self._offsets.pop(partition, None)

    def positions(self) -> Mapping[TopicPartition, int]:
        """Return the next offset of each partition."""
        return dict(self._offsets)

    async def read(self, limit: int, timeout: float) -> Sequence[Record]:
        """Return the next records, at most `limit`; waits up to `timeout` seconds for the first."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            bell = self._log.bell
            records = [] if bell is self._ended else await self._read_now(limit, bell)
            left = deadline - loop.time()
            if records or left <= 0:
                return records
            await asyncio.wait([bell], timeout=left)

    async def _read_now(self, limit: int, bell: asyncio.Future[None]) -> Sequence[Record]:
        records: list[Record] = []
        moved: dict[TopicPartition, int] = {}
        fresh, ended = self._at_end and len(self._offsets) <= FRESH_PARTITIONS, True
        for partition, offset in list(self._offsets.items()):
            room = min(limit - len(records), READ_RECORDS)
            if room <= 0:
                ended = False
                continue
            block, more = await self._fetch(partition, offset, room, fresh=fresh)
            ended = ended and not more
            records.extend(block.records)
            moved[partition] = block.next_offset
        # Moved only now, without an await after: a cancelled read loses nothing.
        for partition, offset in moved.items():
            if partition in self._offsets:
                self._turn(partition, offset)
        self._ended = bell if ended else None
        self._at_end = ended
        return records

    async def _fetch(self, partition: TopicPartition, offset: int, room: int, *, fresh: bool) -> tuple[Block, bool]:
        """Return what comes next in a partition, and whether there may be more of it."""
        if fresh:
            stop = offset + min(room, FRESH_RECORDS)
            held = self._log.fetch_fresh(partition, offset, stop, FRESH_BYTES)
            if held is not None:
                return held, _may_go_on(held, stop, FRESH_BYTES)
        block = await self._log.fetch(partition, offset, offset + room, READ_BYTES)
        return block, _may_go_on(block, offset + room, READ_BYTES)

    def _turn(self, partition: TopicPartition, offset: int) -> None:
        """Set the next offset and put the partition last, so that a busy one does not starve the others."""
        del self._offsets[partition]
        self._offsets[partition] = offset

    async def aclose(self) -> None:
        """Give up the partitions. Idempotent."""
        self._offsets.clear()
