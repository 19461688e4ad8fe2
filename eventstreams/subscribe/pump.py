"""The one reader of the log per process: it fills the tail for all partitions that somebody is subscribed to."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Sequence
from typing import Protocol

from eventstreams.errors import LogError, LogUnavailable, OffsetOutOfRange, UnknownTopic
from eventstreams.eventlog.base import EventLog, Extent, LogReader
from eventstreams.metrics import Metrics
from eventstreams.positions import AtTime, Edge
from eventstreams.records import Record, TopicPartition
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

RETAKE_DELAY = 1.0
"""Seconds between attempts to read a topic on that was not there: a broker that just started may not know it yet."""


class Listener(Protocol):
    """Whom the pump tells what it finds."""

    def deliver(self, items: Sequence[Item]) -> float:
        """Deliver the items of a batch to all at the head; return the seconds to gather before the next."""
        ...

    def begun_anew(self, partition: TopicPartition, *, forget: bool) -> None:
        """A partition's tail was begun anew elsewhere; `forget`: what was read of it before is of another log."""
        ...

    def gone(self, exc: UnknownTopic, partition: TopicPartition) -> None:
        """A partition's topic was deleted."""
        ...


class Pump:
    """Watches partitions for subscribers, by count; reads while there is any."""

    def __init__(
        self, log: EventLog, tail: Tail, metrics: Metrics, listener: Listener, *, grace: float, gone_after: float
    ) -> None:
        self._log = log
        self._tail = tail
        self._metrics = metrics
        self._grace = grace
        self._gone_after = gone_after
        self._listener = listener
        self._watchers: dict[TopicPartition, int] = {}
        self._leaving: dict[TopicPartition, asyncio.TimerHandle] = {}
        self._starting: dict[TopicPartition, asyncio.Future[None]] = {}
        self._early: list[Record] = []
        """Records of partitions that are just being started: read before the word that they are."""
        self._reader: LogReader | None = None
        self._wanted = asyncio.Event()
        self._aside: dict[TopicPartition, float] = {}
        """Partitions that are not there just now, by the time since when."""
        self._retake_at = 0.0
        self.broken: LogError | None = None
        """Why the log cannot be read just now; None when it can."""

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
        others = [self._starting[p] for p in missing if p in self._starting]
        if mine:
            started = asyncio.get_running_loop().create_future()
            self._starting.update(dict.fromkeys(mine, started))
            try:
                await self._assign(mine)
            except BaseException as exc:
                # Who was first may have lost patience with the log, or gone: the others may come again.
                cancelled = LogUnavailable("reading the log was not begun: who asked first has gone")
                started.set_exception(exc if isinstance(exc, Exception) else cancelled)
                started.exception()  # Deliberate: retrieved here, so that no waiter is no warning.
                raise
            else:
                started.set_result(None)
            finally:
                for partition in mine:
                    del self._starting[partition]
                self._early = [record for record in self._early if (record.topic, record.partition) in self._starting]
        for other in others:
            await asyncio.shield(other)

    async def _assign(self, partitions: Sequence[TopicPartition]) -> None:
        extents = await self._log.extents(partitions)
        ends = {partition: extents[partition].end for partition in partitions}
        times = await asyncio.gather(*(self._log.last_timestamp(p, end) for p, end in ends.items()))
        if self._reader is None:
            self._reader = await self._log.open_reader(ends)
        else:
            await self._reader.assign(ends)
        for (partition, end), timestamp in zip(ends.items(), times, strict=True):
            self._tail.watch(partition, end, None if timestamp is None else timestamp + 1)
        self._wanted.set()
        # Nobody is here yet who could be told, but the tail must have them.
        self._tail.extend([record for record in self._early if (record.topic, record.partition) in ends])

    def unwatch(self, partitions: Collection[TopicPartition]) -> None:
        """Count a subscriber out; after the grace period a partition without any is not read any more."""
        for partition in partitions:
            left = self._watchers[partition] - 1
            if left:
                self._watchers[partition] = left
                continue
            del self._watchers[partition]
            loop = asyncio.get_running_loop()
            self._leaving[partition] = loop.call_later(self._grace, self._drop, partition)

    def _drop(self, partition: TopicPartition) -> None:
        self._leaving.pop(partition, None)
        self._tail.unwatch(partition)
        self._wanted.set()

    def missing(self, partitions: Collection[TopicPartition]) -> None:
        """Look whether these come back: the log says that they are not there, and a reader may not notice for long."""
        for partition in partitions:
            if partition in self._tail.partitions:
                self._aside.setdefault(partition, time.monotonic())

    async def run(self) -> None:
        """Read and deliver until cancelled; survives every error of the log."""
        delay = RETRY_DELAY
        try:
            while True:
                try:
                    await self._turn()
                    delay, self.broken = RETRY_DELAY, None
                except LogError as exc:
                    self.broken = exc
                    self._metrics.pump_failed(exc.code)
                    logger.warning("reading the log failed: %s", exc, extra={"code": exc.code})
                    await asyncio.sleep(delay)
                    delay = min(2 * delay, RETRY_DELAY_MAX)
        finally:
            if self._reader is not None:
                await self._reader.aclose()

    async def _turn(self) -> None:
        if self._reader is None or not self._tail.partitions:
            self._wanted.clear()
            await self._wanted.wait()
        reader = self._reader
        assert reader is not None
        if self._aside and time.monotonic() >= self._retake_at:
            await self._retake(reader)
        gone = [p for p in reader.positions() if p not in self._tail.partitions and p not in self._starting]
        if gone:
            await reader.unassign(gone)
        try:
            records = await reader.read(READ_LIMIT, READ_TIMEOUT)
        except OffsetOutOfRange as exc:
            await self._out_of_range(reader, exc)
            return
        except UnknownTopic:
            await self._set_aside(reader)
            raise
        if self._starting:
            self._early += [record for record in records if (record.topic, record.partition) in self._starting]
        items = self._tail.extend(records)
        if items:
            gather = self._listener.deliver(items)
            if gather > 0:
                await asyncio.sleep(gather)

    async def _out_of_range(self, reader: LogReader, exc: OffsetOutOfRange) -> None:
        logger.warning("the pump's place is not in the log: %s", exc)
        # The reader has stopped there: should the next lines fail, it is to be tried again.
        self._aside.setdefault(exc.partition, time.monotonic())
        self._retake_at = 0.0
        await self._retake(reader)

    async def _take_up(self, reader: LogReader, partition: TopicPartition, extent: Extent) -> None:
        """Read a partition on: where it was, or anew where the log does not hold that place."""
        held = self._tail.partitions[partition]
        if held.end < extent.earliest:
            # Retention overtook the pump: its subscribers find out by themselves, and are told of the gap.
            start, forget = extent.earliest, False
        elif held.end > extent.end:
            # The log was made anew. What came first in it at the time of the last record is what comes next.
            position = Edge.EARLIEST if held.timestamp is None else AtTime(held.timestamp)
            start, forget = (await self._log.resolve({partition: position}))[partition].offset, True
        else:
            await reader.assign({partition: held.end})
            return
        await reader.assign({partition: start})
        if self._tail.partitions.get(partition) is held:
            self._tail.begin_anew(partition, start, forget=forget)
            self._listener.begun_anew(partition, forget=forget)

    async def _set_aside(self, reader: LogReader) -> None:
        """A topic is not there: read on without it, and look for it again."""
        for partition in list(reader.positions()):
            if partition not in await self._log.partitions(partition.topic):
                await reader.unassign([partition])
                self._aside.setdefault(partition, time.monotonic())

    async def _retake(self, reader: LogReader) -> None:
        """Read on what has come back; give up what has been away for long."""
        self._retake_at = time.monotonic() + RETAKE_DELAY
        for partition, since in list(self._aside.items()):
            if partition not in self._tail.partitions:
                del self._aside[partition]
            elif partition in await self._log.partitions(partition.topic):
                await self._take_up(reader, partition, (await self._log.extents([partition]))[partition])
                self._aside.pop(partition, None)
            elif time.monotonic() - since >= self._gone_after:
                del self._aside[partition]
                self._tail.unwatch(partition)
                self._listener.gone(UnknownTopic(f"topic {partition.topic!r} was deleted"), partition)
