"""Partitions that cannot be read on from where they are: overtaken by retention, deleted, or of a topic made anew.

Each topic is brought back by a task of its own, so that one that does not come back holds up no other. What the process
holds in memory is of the topics whose identities are noted here; when one is made anew, all of the old one is forgotten
in one go, and its subscribers are told.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from eventstreams.errors import LogError, UnknownTopic
from eventstreams.eventlog.base import EventLog, Extent, LogReader, TopicDescription
from eventstreams.metrics import Metrics
from eventstreams.positions import AtTime, Edge
from eventstreams.records import TopicPartition
from eventstreams.subscribe.tail import PartitionTail, Tail

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 0.25
"""Until a topic is looked at again that could not be read on; doubled each time up to `LONGEST_AGAIN_SECONDS`.

A broker that just started may not know it yet.
"""

LONGEST_AGAIN_SECONDS = 2.0

CERTAIN_SECONDS = 3.0
"""For which the log must tell of an end that is before what was read. A broker that has stood still tells for a moment
of a partition as it was then, or of an older topic of its name, before it knows that others lead.
"""


class Anew(NamedTuple):
    """Where a partition is begun. `replaced`: what was read of it before is of another log."""

    offset: int
    replaced: bool


class Subscribers(Protocol):
    """Whom the recovery tells what becomes of partitions."""

    def forget(self, topic: str) -> None:
        """All that is held in memory of a topic is of one that is no more."""
        ...

    def begun_anew(self, places: Mapping[TopicPartition, Anew]) -> None:
        """The tails of partitions of a topic were begun anew elsewhere."""
        ...

    def gone(self, exc: UnknownTopic, partition: TopicPartition) -> None:
        """A partition's topic was deleted."""
        ...


class Recovery:
    """Knows which topics are read, and takes up again what cannot be read on. `run` it before use."""

    def __init__(
        self, log: EventLog, tail: Tail, subscribers: Subscribers, metrics: Metrics, *, gone_after: float
    ) -> None:
        self._log = log
        self._tail = tail
        self._subscribers = subscribers
        self._metrics = metrics
        self._gone_after = gone_after
        self._identities: dict[str, str] = {}
        self._aside: dict[TopicPartition, float] = {}
        """Partitions that are not read just now, by the time since when."""
        self._short: dict[TopicPartition, float] = {}
        """Partitions whose log ends before what was read of them, by the time since when that is told."""
        self._running: dict[str, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._reader: LogReader | None = None
        self._changed = asyncio.Event()
        self._away: dict[str, float] = {}
        """Topics that were there and are not just now, by the time since when that is known."""

    async def run(self) -> None:
        """Take up what is set aside until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            await asyncio.get_running_loop().create_future()

    def use(self, reader: LogReader) -> None:
        """Have partitions taken up by this reader."""
        self._reader = reader

    # -- which topics these are

    def identity(self, topic: str) -> str:
        """Return which topic of this name is read; empty where that is not known."""
        return self._identities.get(topic, "")

    def identities(self, partitions: Iterable[TopicPartition]) -> Mapping[str, str]:
        """Return by topic which ones are read, of those that are known."""
        known = self._identities
        return {topic: known[topic] for topic in dict.fromkeys(p.topic for p in partitions) if topic in known}

    def note(self, described: Mapping[str, TopicDescription]) -> Sequence[str]:
        """Take note of which topics there are; return those that were made anew and are being taken up."""
        changing: list[str] = []
        for topic, found in described.items():
            self._away.pop(topic, None)
            known = self._identities.get(topic)
            if not found.identity or known == found.identity:
                continue
            if known is not None and self._watched(topic):
                changing.append(topic)
                self.set_aside(self._watched(topic))
            else:
                self._identities[topic] = found.identity
                if known is not None:
                    self._subscribers.forget(topic)
        return changing

    async def know(self, described: Mapping[str, TopicDescription]) -> None:
        """Take note of which topics there are; return when nothing is held of others."""
        before = dict(self._identities)
        for topic in self.note(described):
            while topic in self._running and self._identities[topic] == before[topic]:
                self._changed.clear()
                await self._changed.wait()

    def is_away(self, topic: str) -> bool:
        """Whether a topic that is not there was there lately: it may be about to be made anew."""
        if topic not in self._identities:
            return False
        now = time.monotonic()
        if now - self._away.setdefault(topic, now) < self._gone_after:
            return True
        del self._away[topic], self._identities[topic]
        self._subscribers.forget(topic)
        return False

    # -- setting aside

    def set_aside(self, partitions: Collection[TopicPartition]) -> None:
        """Take these up again as soon as the log says where."""
        for partition in partitions:
            if partition in self._tail.partitions:
                self._aside.setdefault(partition, time.monotonic())
                self._begin(partition.topic)

    def doubt(self, topic: str) -> None:
        """Look at once whether a topic that is read is still the same."""
        self.set_aside(self._watched(topic))

    def _watched(self, topic: str) -> dict[TopicPartition, PartitionTail]:
        return {partition: held for partition, held in self._tail.partitions.items() if partition.topic == topic}

    def _begin(self, topic: str) -> None:
        if topic not in self._running and self._tasks is not None:
            self._running[topic] = self._tasks.create_task(self._recover(topic), name="recovery")

    async def _recover(self, topic: str) -> None:
        """Take up what is set aside of a topic, until nothing is."""
        pause = AGAIN_SECONDS
        try:
            while True:
                try:
                    await self._take_up(topic)
                except LogError as exc:
                    self._metrics.pump_failed(exc.code)
                    logger.warning("a topic cannot be read on: %s", exc, extra={"code": exc.code, "topic": topic})
                self._aside = {p: since for p, since in self._aside.items() if p in self._tail.partitions}
                self._short = {p: since for p, since in self._short.items() if p in self._aside}
                if not any(partition.topic == topic for partition in self._aside):
                    return
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_AGAIN_SECONDS)
        finally:
            del self._running[topic]
            self._changed.set()

    # -- taking up

    async def _take_up(self, topic: str) -> None:
        """Read on what is there of a topic; give up what has been away for long. Raises: LogError."""
        found = (await self._log.describe([topic])).get(topic)
        watched = self._watched(topic)
        there = [] if found is None else [partition for partition in watched if partition in found.partitions]
        await self._miss([partition for partition in watched if partition not in there])
        replaced = found is not None and self._identities.get(topic, found.identity) != found.identity
        wanted = there if replaced else [partition for partition in there if partition in self._aside]
        if found is None or not wanted:
            return
        extents = await self._log.extents(wanted)
        if not replaced:
            wanted = [partition for partition in wanted if self._is_certain(partition, watched[partition], extents)]
        places = {p: anew for p in wanted if (anew := await self._place(p, watched[p], extents[p], replaced=replaced))}
        # What the reader holds of them is not to come between.
        await self._unassign(wanted)
        if any(watched.get(partition) is not held for partition, held in self._watched(topic).items()):
            return  # Some were begun meanwhile, of which topic is not known: once more.
        self._begin_anew(topic, found.identity, {p: places[p] for p in places if p in self._tail.partitions})
        left = {p: self._tail.partitions[p].end for p in wanted if p in self._tail.partitions}
        # Now, not after: what is found out about the new assignment while it is made sets it aside again.
        since = {partition: self._aside.pop(partition) for partition in wanted if partition in self._aside}
        try:
            if self._reader is not None:
                await self._reader.assign(left, self.identities(left))
        except BaseException:
            self._aside = since | self._aside
            raise

    def _is_certain(
        self, partition: TopicPartition, held: PartitionTail, extents: Mapping[TopicPartition, Extent]
    ) -> bool:
        """Whether an end of the log that is before what was read has been told for long enough to be believed."""
        if held.end <= extents[partition].end:
            self._short.pop(partition, None)
            return True
        now = time.monotonic()
        return now - self._short.setdefault(partition, now) >= CERTAIN_SECONDS

    async def _unassign(self, partitions: Collection[TopicPartition]) -> None:
        if self._reader is not None:
            await self._reader.unassign(partitions)

    async def _place(
        self, partition: TopicPartition, held: PartitionTail, extent: Extent, *, replaced: bool
    ) -> Anew | None:
        """Return where a partition is begun anew; None where it goes on at its place."""
        if replaced:
            return Anew(extent.earliest, replaced=True)
        if held.end < extent.earliest:
            # Retention overtook us: its subscribers find out by themselves, and are told of the gap.
            return Anew(extent.earliest, replaced=False)
        if held.end > extent.end:
            # The log has lost its end. What came first in it at the time of the last record is what comes next.
            position = Edge.EARLIEST if held.timestamp is None else AtTime(held.timestamp)
            return Anew((await self._log.resolve({partition: position}))[partition].offset, replaced=True)
        return None

    def _begin_anew(self, topic: str, identity: str, places: Mapping[TopicPartition, Anew]) -> None:
        """Begin partitions elsewhere, without an await between: nobody sees some of it."""
        if identity:
            self._identities[topic] = identity
        if any(anew.replaced for anew in places.values()):
            logger.warning("a topic was made anew, or has lost its end", extra={"topic": topic})
            self._subscribers.forget(topic)
        for partition, anew in places.items():
            self._tail.begin_anew(partition, anew.offset, forget=anew.replaced)
        if places:
            self._subscribers.begun_anew(places)
        self._changed.set()

    async def _miss(self, partitions: Collection[TopicPartition]) -> None:
        """Note that partitions are not there; give up those that have been away for long."""
        now = time.monotonic()
        await self._unassign(partitions)
        for partition in partitions:
            if now - self._aside.setdefault(partition, now) >= self._gone_after:
                del self._aside[partition]
                self._tail.unwatch(partition)
                self._subscribers.gone(UnknownTopic(f"topic {partition.topic!r} was deleted"), partition)
