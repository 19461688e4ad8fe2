"""A log that can be away, or forget to say that it has stored something: stands before a real one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from eventstreams.errors import AppendTimeout, LogError, LogUnavailable, UnknownTopic
from eventstreams.eventlog.base import EventLog, Extent
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
        self.refuse: Callable[[NewRecord], LogError | None] = lambda _: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def append(self, new: Sequence[NewRecord]) -> Sequence[Record | LogError]:
        if self.away:
            return [LogUnavailable("away")] * len(new)
        if self.lost:
            return [AppendTimeout("lost")] * len(new)
        refused = [self.refuse(record) for record in new]
        stored = iter(await self._log.append([record for record, no in zip(new, refused, strict=True) if no is None]))
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        outcomes: list[Record | LogError] = [next(stored) if no is None else no for no in refused]
        return [AppendTimeout("silent")] * len(new) if self.silent else outcomes

    async def partitions(self, topic: str) -> Sequence[TopicPartition]:
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        if self.away:
            raise LogUnavailable("away")
        return await self._log.partitions(topic)

    async def extents(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Extent]:
        if self.forgets:
            raise UnknownTopic("unknown topic or partition")
        return await self._log.extents(partitions)

    async def check(self, timeout: float) -> None:
        if self.away:
            raise LogUnavailable("away")
        await self._log.check(timeout)
