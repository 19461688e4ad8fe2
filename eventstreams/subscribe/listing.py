"""What streams there are and how they do: partitions, times, rate; asked of the log now and then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from eventstreams.catalog.streams import StreamCatalog, StreamConfig
from eventstreams.errors import LogUnavailable, OffsetOutOfRange, UnknownTopic
from eventstreams.eventlog.base import EventLog, Extent
from eventstreams.positions import AtTime
from eventstreams.records import TopicPartition

MAX_AGE = 10.0
"""Seconds for which an answer is given again."""

LOG_PATIENCE = 30.0
"""Seconds in which the log must say all of it: many topics, each asked for its ends and times."""

RATE_WINDOW = 300.0
"""Seconds over which the rate is told."""

LOOKS = 8
"""Fetches in search of a partition's first record: compaction and transactions leave offsets without one."""


class StreamState(NamedTuple):
    """A stream as the log has it. Times are ms since the epoch, None without events; the rate is events a second."""

    stream: StreamConfig
    partitions: int
    earliest: int | None
    latest: int | None
    rate: float


class _Partition(NamedTuple):
    earliest: int | None
    latest: int | None
    recent: int


class Listing:
    """The public streams with their state."""

    def __init__(
        self, catalog: StreamCatalog, log: EventLog, *, clock: Callable[[], float] = time.time, max_age: float = MAX_AGE
    ) -> None:
        self._catalog = catalog
        self._log = log
        self._clock = clock
        self._max_age = max_age
        self._held: tuple[int, float, Sequence[StreamState]] | None = None
        self._asking = asyncio.Lock()

    async def streams(self) -> Sequence[StreamState]:
        """Return all names and aliases, sorted, as of the last seconds. Raises: LogUnavailable."""
        async with self._asking:
            now, version = self._clock(), self._catalog.version
            if self._held is None or self._held[0] != version or not 0 <= now - self._held[1] < self._max_age:
                self._held = version, now, await self._ask_soon(now)
            return self._held[2]

    async def _ask_soon(self, now: float) -> Sequence[StreamState]:
        try:
            async with asyncio.timeout(LOG_PATIENCE):
                return await self._ask(now)
        except TimeoutError as exc:
            raise LogUnavailable(f"the event log did not answer within {LOG_PATIENCE:g} s") from exc

    async def _ask(self, now: float) -> Sequence[StreamState]:
        streams = [s for name in self._catalog.public_names() if (s := self._catalog.public(name)) is not None]
        topics = sorted({topic for stream in streams for topic in stream.topics})
        found = dict(zip(topics, await asyncio.gather(*(self._topic(topic, now) for topic in topics)), strict=True))
        return [_state(stream, [p for topic in stream.topics for p in found[topic]]) for stream in streams]

    async def _topic(self, topic: str, now: float) -> Sequence[_Partition]:
        try:
            partitions = await self._log.partitions(topic)
            if not partitions:
                return []
            extents = await self._log.extents(partitions)
            window = AtTime(int((now - RATE_WINDOW) * 1000))
            cursor = await self._log.resolve(dict.fromkeys(partitions, window))
            recent: Mapping[TopicPartition, int] = {p: extents[p].end - cursor[p].offset for p in partitions}
            return await asyncio.gather(*(self._partition(p, extents[p], max(0, recent[p])) for p in partitions))
        except UnknownTopic:
            return []

    async def _partition(self, partition: TopicPartition, extent: Extent, recent: int) -> _Partition:
        earliest = await self._first_timestamp(partition, extent)
        latest = None if earliest is None else await self._log.last_timestamp(partition, extent.end)
        return _Partition(earliest, latest, recent)

    async def _first_timestamp(self, partition: TopicPartition, extent: Extent) -> int | None:
        at = extent.earliest
        for _ in range(LOOKS):
            if at >= extent.end:
                break
            try:
                block = await self._log.fetch(partition, at, extent.end, 1)
            except OffsetOutOfRange as exc:
                at = exc.earliest
                continue
            if block.records:
                return block.records[0].timestamp
            at = max(at + 1, block.next_offset)
        return None


def _state(stream: StreamConfig, partitions: Sequence[_Partition]) -> StreamState:
    return StreamState(
        stream,
        len(partitions),
        min((p.earliest for p in partitions if p.earliest is not None), default=None),
        max((p.latest for p in partitions if p.latest is not None), default=None),
        sum(p.recent for p in partitions) / RATE_WINDOW,
    )
