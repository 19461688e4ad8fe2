"""A log that can be away, or forget to say that it has stored something: stands before a real one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from eventstreams.errors import AppendTimeout, LogError, LogUnavailable, UnknownTopic
from eventstreams.eventlog.base import EventLog, Extent, TopicDescription
from eventstreams.records import NewRecord, Record, TopicPartition


class AwayLog:
    """Passes everything on, unless told otherwise."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.away = False
        self.silent = False
        """Whether appends are stored and told as timeouts."""
        self.lost = False
        """Whether appends are told as timeouts, and not stored."""
        self.hangs = False
        """Whether appends are stored and never answered, nor is who asks for partitions."""
        self.forgets = False
        """Whether partitions that it has named are unknown when asked about, as with a broker that just started."""
        self.late = False
        """Whether appends are told as timeouts whose fate is told by `decide`."""
        self.checks = 0
        """How often it was asked whether it is there."""
        self.open: list[tuple[NewRecord, asyncio.Future[Record | LogError]]] = []
        """The records whose fate is open."""
        self.stale = 0
        """How often partitions are still told to end at their beginning, as by a broker that has stood still."""
        self.refuse: Callable[[NewRecord], LogError | None] = lambda _: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def append(self, new: Sequence[NewRecord]) -> Sequence[Record | LogError]:
        if self.away:
            return [LogUnavailable("away")] * len(new)
        if self.lost:
            return [AppendTimeout("lost")] * len(new)
        if self.late:
            return [self._undecided(record) for record in new]
        refused = [self.refuse(record) for record in new]
        stored = iter(await self._log.append([record for record, no in zip(new, refused, strict=True) if no is None]))
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        outcomes: list[Record | LogError] = [next(stored) if no is None else no for no in refused]
        return [AppendTimeout("silent")] * len(new) if self.silent else outcomes

    def _undecided(self, record: NewRecord) -> AppendTimeout:
        fate: asyncio.Future[Record | LogError] = asyncio.get_running_loop().create_future()
        self.open.append((record, fate))
        return AppendTimeout("late", fate)

    async def decide(self, how: str) -> None:
        """Tell what became of all that is open: `stored`, `refused` (not stored), `unknown` (stored, and not told)."""
        decided, self.open = self.open, []
        for record, fate in decided:
            outcome: Record | LogError = LogUnavailable("refused")
            if how != "refused":
                (outcome,) = await self._log.append([record])
            fate.set_result(AppendTimeout("unknown") if how == "unknown" else outcome)

    async def describe(self, topics: Collection[str]) -> Mapping[str, TopicDescription]:
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        if self.away:
            raise LogUnavailable("away")
        return await self._log.describe(topics)

    async def partitions(self, topic: str) -> Sequence[TopicPartition]:
        found = (await self.describe([topic])).get(topic)
        return found.partitions if found else []

    async def extents(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Extent]:
        if self.forgets:
            raise UnknownTopic("unknown topic or partition")
        found = await self._log.extents(partitions)
        if not self.stale:
            return found
        self.stale -= 1
        return {partition: Extent(extent.earliest, extent.earliest) for partition, extent in found.items()}

    async def check(self, timeout: float, topics: Collection[str] | None = None, *, writing: bool = False) -> None:
        self.checks += 1
        if self.away:
            raise LogUnavailable("away")
        await self._log.check(timeout, topics, writing=writing)
