"""The one reader of the log per process: it fills the tail for all partitions that somebody is subscribed to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from functools import partial
from typing import Protocol

from eventstreams.errors import LogError, LogRefused, OffsetOutOfRange, TopicReplaced, UnknownTopic
from eventstreams.eventlog.base import EventLog, Extent, LogReader
from eventstreams.metrics import Metrics
from eventstreams.records import Record, TopicPartition
from eventstreams.subscribe.recovery import Recovery
from eventstreams.subscribe.rendering import Item
from eventstreams.subscribe.tail import Tail

logger = logging.getLogger(__name__)

READ_LIMIT = 500
"""Records a read: a few ms of rendering, so that heartbeats and new clients are not held up."""

READ_TIMEOUT = 1.0
"""Seconds a read waits; only bounds how long a dead reader goes unnoticed."""

RETRY_DELAY = 0.25
"""Seconds between attempts while the log is away; first and doubled up to RETRY_DELAY_MAX."""

RETRY_DELAY_MAX = 5.0


class Listener(Protocol):
    """Whom the pump tells what it finds."""

    def deliver(self, items: Sequence[Item]) -> float:
        """Deliver the items of a batch to all at the head; return the seconds to gather before the next."""
        ...

    def refused(self, exc: LogRefused) -> None:
        """The log refuses a topic for good."""
        ...


class Pump:
    """Watches partitions for subscribers, by count; reads while there is any."""

    def __init__(
        self, log: EventLog, tail: Tail, metrics: Metrics, listener: Listener, recovery: Recovery, *, grace: float
    ) -> None:
        self._log = log
        self._tail = tail
        self._metrics = metrics
        self._grace = grace
        self._listener = listener
        self._recovery = recovery
        self._watchers: dict[TopicPartition, int] = {}
        self._leaving: dict[TopicPartition, asyncio.TimerHandle] = {}
        self._starting: dict[TopicPartition, asyncio.Task[None]] = {}
        self._unsure: set[TopicPartition] = set()
        """Partitions that are just being started, and cannot be read on already."""
        self._early: list[Record] = []
        """Records of partitions that are just being started: read before the word that they are."""
        self._reader: LogReader | None = None
        self._wanted = asyncio.Event()
        self._opening = asyncio.Lock()

    async def watch(self, partitions: Collection[TopicPartition]) -> None:
        """Count a subscriber in; returns when the tail covers each partition from its end of this moment on.

        Raises: UnknownTopic, LogUnavailable; then nothing was counted.
        """
        for partition in partitions:
            self._watchers[partition] = self._watchers.get(partition, 0) + 1
            leaving = self._leaving.pop(partition, None)
            if leaving is not None:
                leaving.cancel()
        try:
            await self._start([p for p in partitions if p not in self._tail.partitions])
        except BaseException:
            self.unwatch(partitions)
            raise

    async def _start(self, missing: Sequence[TopicPartition]) -> None:
        mine = [p for p in missing if p not in self._starting]
        if mine:
            starting = asyncio.create_task(self._assign(mine), name="start reading")
            self._starting.update(dict.fromkeys(mine, starting))
            starting.add_done_callback(partial(self._started, mine))
        for starting in {self._starting[p] for p in missing}:
            # Shielded: it is everybody's. Who asked first may lose patience with the log; who comes again finds it
            # further, or done.
            await asyncio.shield(starting)

    def _started(self, mine: Sequence[TopicPartition], starting: asyncio.Task[None]) -> None:
        for partition in mine:
            del self._starting[partition]
            self._unsure.discard(partition)
            if partition in self._tail.partitions and partition not in self._watchers:
                self._leave_soon(partition)
        self._early = [record for record in self._early if (record.topic, record.partition) in self._starting]
        if not starting.cancelled():
            starting.exception()  # Deliberate: retrieved here, so that no waiter is no warning.

    async def _assign(self, partitions: Sequence[TopicPartition]) -> None:
        recovery = self._recovery
        unknown = {partition.topic for partition in partitions if not recovery.identity(partition.topic)}
        if unknown:
            await recovery.know(await self._log.describe(unknown))
        identities = recovery.identities(partitions)
        extents = await self._log.extents(partitions)
        ends = {partition: extents[partition].end for partition in partitions}
        times = await asyncio.gather(*(self._last_time(p, extents[p]) for p in partitions))
        async with self._opening:
            if self._reader is None:
                self._reader = await self._log.open_reader(ends, identities)
                recovery.use(self._reader)
            else:
                await self._reader.assign(ends, identities)
        for partition, timestamp in zip(partitions, times, strict=True):
            self._tail.watch(partition, ends[partition], None if timestamp is None else timestamp + 1)
        self._wanted.set()
        # Nobody is here yet who could be told, but the tail must have them.
        self._tail.extend([record for record in self._early if (record.topic, record.partition) in ends])
        recovery.set_aside(self._unsure.intersection(partitions))
        for topic, identity in identities.items():
            if recovery.identity(topic) != identity:
                # It was made anew meanwhile, and this was not yet known to be read.
                recovery.doubt(topic)

    async def _last_time(self, partition: TopicPartition, extent: Extent) -> int | None:
        if extent.earliest == extent.end:
            return None
        return await self._log.last_timestamp(partition, extent.end)

    def unwatch(self, partitions: Collection[TopicPartition]) -> None:
        """Count a subscriber out; after the grace period a partition without any is not read any more."""
        for partition in partitions:
            left = self._watchers[partition] - 1
            if left:
                self._watchers[partition] = left
                continue
            del self._watchers[partition]
            self._leave_soon(partition)

    def _leave_soon(self, partition: TopicPartition) -> None:
        leaving = self._leaving.pop(partition, None)
        if leaving is not None:
            leaving.cancel()
        loop = asyncio.get_running_loop()
        self._leaving[partition] = loop.call_later(self._grace, self._drop, partition)

    def _drop(self, partition: TopicPartition) -> None:
        self._leaving.pop(partition, None)
        self._tail.unwatch(partition)
        self._wanted.set()

    async def run(self) -> None:
        """Read and deliver until cancelled; survives every error of the log."""
        delay = RETRY_DELAY
        try:
            while True:
                try:
                    await self._turn()
                    delay = RETRY_DELAY
                except LogError as exc:
                    self._metrics.pump_failed(exc.code)
                    logger.warning("reading the log failed: %s", exc, extra={"code": exc.code})
                    if exc.partition is None:
                        await asyncio.sleep(delay)
                        delay = min(2 * delay, RETRY_DELAY_MAX)
        finally:
            for starting in set(self._starting.values()):
                starting.cancel()
            await asyncio.gather(*self._starting.values(), return_exceptions=True)
            if self._reader is not None:
                await self._reader.aclose()

    async def _turn(self) -> None:
        if self._reader is None or not self._tail.partitions:
            self._wanted.clear()
            await self._wanted.wait()
        reader = self._reader
        assert reader is not None
        gone = [p for p in reader.positions() if p not in self._tail.partitions and p not in self._starting]
        if gone:
            await reader.unassign(gone)
        try:
            records = await reader.read(READ_LIMIT, READ_TIMEOUT)
        except (OffsetOutOfRange, TopicReplaced, UnknownTopic) as exc:
            self._set_aside(exc)
            return
        except LogRefused as exc:
            self._listener.refused(exc)
            raise
        if self._starting:
            self._early += [record for record in records if (record.topic, record.partition) in self._starting]
        items = self._tail.extend(records)
        if items:
            gather = self._listener.deliver(items)
            if gather > 0:
                await asyncio.sleep(gather)

    def _set_aside(self, exc: LogError) -> None:
        """Read on without a partition; the recovery takes it up again."""
        self._metrics.pump_failed(exc.code)
        logger.warning("a place cannot be read on: %s", exc, extra={"code": exc.code})
        if isinstance(exc, TopicReplaced):
            self._unsure.update(partition for partition in self._starting if partition.topic == exc.topic)
            self._recovery.doubt(exc.topic)
        elif exc.partition in self._starting:
            self._unsure.add(exc.partition)
        elif exc.partition is not None:
            self._recovery.set_aside([exc.partition])
        else:
            self._recovery.set_aside(list(self._tail.partitions))
