"""What streams there are and how they do: partitions, times, rate; asked of the log now and then."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from eventstreams.catalog.streams import StreamCatalog, StreamConfig
from eventstreams.errors import LogUnavailable, OffsetOutOfRange, UnknownTopic
from eventstreams.eventlog.base import EventLog, Extent
from eventstreams.positions import AtTime
from eventstreams.records import TopicPartition

logger = logging.getLogger(__name__)

MAX_AGE = 10.0
"""Seconds for which an answer is given again."""

LOG_PATIENCE = 15.0
"""Seconds in which the log must say what there is."""

TIMES_PATIENCE = 5.0
"""Seconds in which times are looked up: hundreds of cold partitions take longer on Kafka."""

RATE_WINDOW = 300.0
"""Seconds over which the rate is told."""

LOOKS = 8
"""Fetches in search of a partition's first record: compaction and transactions leave offsets without one."""


class StreamState(NamedTuple):
    """A stream as the log has it: times in ms since the epoch, the rate in events a second.

    A time is None where there are no events, and where the log was too slow to tell it yet.
    """

    stream: StreamConfig
    partitions: int
    earliest: int | None
    latest: int | None
    rate: float


class _Look(NamedTuple):
    """A partition as it stands, and how many records of it are recent."""

    partition: TopicPartition
    extent: Extent
    recent: int


class _Times(NamedTuple):
    """Times of a partition's first and last record, and of which extent they were told."""

    extent: Extent
    earliest: int | None
    latest: int | None


class Listing:
    """The public streams with their state."""

    def __init__(
        self,
        catalog: StreamCatalog,
        log: EventLog,
        *,
        clock: Callable[[], float] = time.time,
        max_age: float = MAX_AGE,
        times_patience: float = TIMES_PATIENCE,
    ) -> None:
        self._catalog = catalog
        self._log = log
        self._clock = clock
        self._max_age = max_age
        self._times_patience = times_patience
        self._held: tuple[int, float, Sequence[StreamState]] | None = None
        self._asking = asyncio.Lock()
        self._times: dict[TopicPartition, _Times] = {}
        self._turns: dict[TopicPartition, int] = {}
        """When each partition was last looked at, counted: those that had to wait come first."""

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
        await self._learn([look for looks in found.values() for look in looks])
        return [self._state(stream, [look for topic in stream.topics for look in found[topic]]) for stream in streams]

    async def _topic(self, topic: str, now: float) -> Sequence[_Look]:
        try:
            partitions = await self._log.partitions(topic)
            if not partitions:
                return []
            extents = await self._log.extents(partitions)
            window = AtTime(int((now - RATE_WINDOW) * 1000))
            cursor = await self._log.resolve(dict.fromkeys(partitions, window))
            return [_Look(p, extents[p], max(0, extents[p].end - cursor[p].offset)) for p in partitions]
        except UnknownTopic:
            return []

    async def _learn(self, looks: Sequence[_Look]) -> None:
        """Look up the times that are not known; what takes too long is left for the next time."""
        self._times = {look.partition: self._times[look.partition] for look in looks if look.partition in self._times}
        self._turns = {look.partition: self._turns.get(look.partition, 0) for look in looks}
        try:
            async with asyncio.timeout(self._times_patience):
                # One after the other: all at once would take every reader from those who replay.
                for look in sorted(looks, key=lambda look: self._turns[look.partition]):
                    self._turns[look.partition] = max(self._turns.values()) + 1
                    await self._look_up(look)
        except (TimeoutError, LogUnavailable):
            logger.info("the list of streams lacks times that the log was slow to tell")

    async def _look_up(self, look: _Look) -> None:
        partition, extent = look.partition, look.extent
        known = self._times.get(partition)
        if known is not None and known.extent == extent:
            return
        try:
            if known is not None and known.extent.earliest == extent.earliest and known.earliest is not None:
                earliest: int | None = known.earliest
            else:
                earliest = await self._first_timestamp(partition, extent)
            latest = None if earliest is None else await self._log.last_timestamp(partition, extent.end)
        except UnknownTopic:
            return
        self._times[partition] = _Times(extent, earliest, latest)

    def _state(self, stream: StreamConfig, looks: Sequence[_Look]) -> StreamState:
        times = [self._times[look.partition] for look in looks if look.partition in self._times]
        return StreamState(
            stream,
            len(looks),
            min((t.earliest for t in times if t.earliest is not None), default=None),
            max((t.latest for t in times if t.latest is not None), default=None),
            sum(look.recent for look in looks) / RATE_WINDOW,
        )

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
