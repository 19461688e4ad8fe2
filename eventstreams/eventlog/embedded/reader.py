"""Reads the embedded log forward over several partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from eventstreams.errors import LogError, OffsetOutOfRange, TopicReplaced, UnknownTopic
from eventstreams.eventlog.base import Block
from eventstreams.positions import NO_IDENTITIES
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


class _Place:
    """Where a partition is read on; another one after each assignment."""

    __slots__ = ("identity", "offset", "stopped")

    def __init__(self, offset: int, identity: str) -> None:
        self.offset = offset
        self.identity = identity
        self.stopped = False
        """Whether there is no way on from here."""


class EmbeddedReader:
    """A LogReader: a map of places, read again whenever the log's bell rings."""

    def __init__(self, log: EmbeddedLog) -> None:
        self._log = log
        self._places: dict[TopicPartition, _Place] = {}
        self._errors: dict[TopicPartition, LogError] = {}
        """What is to be raised of partitions that stopped."""
        self._ended: asyncio.Future[None] | None = None
        """The bell before which a read met the end everywhere: until it rings there is nothing to look for."""
        self._at_end = False

    async def assign(
        self, offsets: Mapping[TopicPartition, int], identities: Mapping[str, str] = NO_IDENTITIES
    ) -> None:
        """Add partitions, each from its offset; see `LogReader`. Raises: UnknownTopic."""
        await self._log.extents(offsets)
        for partition, offset in offsets.items():
            self._errors.pop(partition, None)
            self._places[partition] = _Place(offset, identities.get(partition.topic, ""))
        self._ended = None
        self._log.ring()

    async def unassign(self, partitions: Collection[TopicPartition]) -> None:
        """Stop reading these."""
        for partition in partitions:
            self._errors.pop(partition, None)
            self._places.pop(partition, None)

    def positions(self) -> Mapping[TopicPartition, int]:
        """Return the next offset of each partition."""
        return {partition: place.offset for partition, place in self._places.items()}

    async def read(self, limit: int, timeout: float) -> Sequence[Record]:
        """Return the next records, at most `limit`; waits up to `timeout` seconds for the first."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            bell = self._log.bell
            if self._errors:
                raise self._errors.pop(next(iter(self._errors)))
            records = [] if bell is self._ended else await self._read_now(limit, bell)
            left = deadline - loop.time()
            if records or left <= 0:
                return records
            if not self._errors:
                await asyncio.wait([bell], timeout=left)

    async def _read_now(self, limit: int, bell: asyncio.Future[None]) -> Sequence[Record]:
        blocks: list[tuple[TopicPartition, _Place, Block]] = []
        room = limit
        fresh, ended = self._at_end and len(self._places) <= FRESH_PARTITIONS, True
        for partition, place in list(self._places.items()):
            if place.stopped:
                continue
            if room <= 0:
                ended = False
                continue
            try:
                block, more = await self._fetch(partition, place, min(room, READ_RECORDS), fresh=fresh)
            except (OffsetOutOfRange, TopicReplaced, UnknownTopic) as exc:
                self._stop(partition, place, exc)
                continue
            ended = ended and not more
            room -= len(block.records)
            blocks.append((partition, place, block))
        self._ended = bell if ended else None
        self._at_end = ended
        return self._taken(blocks)

    def _taken(self, blocks: Sequence[tuple[TopicPartition, _Place, Block]]) -> Sequence[Record]:
        """Move past what was read; only now, without an await after: a cancelled read loses nothing."""
        records: list[Record] = []
        for partition, place, block in blocks:
            if self._places.get(partition) is place:
                records.extend(block.records)
                place.offset = block.next_offset
                # Last, so that a busy one does not starve the others.
                del self._places[partition]
                self._places[partition] = place
        return records

    async def _fetch(self, partition: TopicPartition, place: _Place, room: int, *, fresh: bool) -> tuple[Block, bool]:
        """Return what comes next in a partition, and whether there may be more of it."""
        offset, identity = place.offset, place.identity
        if fresh:
            stop = offset + min(room, FRESH_RECORDS)
            held = self._log.fetch_fresh(partition, offset, stop, FRESH_BYTES, identity)
            if held is not None:
                return held, _may_go_on(held, stop, FRESH_BYTES)
        block = await self._log.fetch(partition, offset, offset + room, READ_BYTES, identity)
        return block, _may_go_on(block, offset + room, READ_BYTES)

    def _stop(self, partition: TopicPartition, place: _Place, exc: LogError) -> None:
        """Read on without a partition, unless it was moved meanwhile."""
        if self._places.get(partition) is place:
            place.stopped = True
            self._errors[partition] = exc.at(partition)

    async def aclose(self) -> None:
        """Give up the partitions. Idempotent."""
        self._places.clear()
