"""The list of streams over a log that is slow to tell."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from eventstreams.catalog.streams import StreamCatalog, StreamConfig
from eventstreams.eventlog.base import EventLog
from eventstreams.eventlog.embedded.log import EmbeddedLog, open_embedded
from eventstreams.records import NewRecord, TopicPartition
from eventstreams.subscribe.listing import Listing


class SlowTimes:
    """A log that is slow to tell the times of some topics."""

    def __init__(self, log: EmbeddedLog, *slow: str) -> None:
        self._log = log
        self.slow = set(slow)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def last_timestamp(self, partition: TopicPartition, before: int) -> int | None:
        if partition.topic in self.slow:
            await asyncio.Event().wait()
        return await self._log.last_timestamp(partition, before)


async def test_list_is_given_without_times_that_the_log_is_slow_to_tell_and_filled_later() -> None:
    catalog = StreamCatalog([StreamConfig(topic, (topic,), "", None, {}) for topic in ("a", "b", "c")])
    async with open_embedded(":memory:") as log:
        for topic in ("a", "b", "c"):
            await log.create_topic(topic)
            await log.append([NewRecord(topic, b"{}", None, 1000)])
        slow = SlowTimes(log, "b")
        listing = Listing(catalog, cast(EventLog, slow), max_age=0.0, times_patience=0.2)

        async def latest() -> list[int | None]:
            async with asyncio.timeout(10):
                return [state.latest for state in await listing.streams()]

        assert await latest() == [1000, None, None]
        # The one that is slow has had its turn: it keeps no other from being told.
        assert await latest() == [1000, None, 1000]
        await log.append([NewRecord("a", b"{}", None, 2000)])
        assert await latest() == [2000, None, 1000]
        slow.slow.clear()
        assert await latest() == [2000, 1000, 1000]
        slow.slow.add("a")
        await log.append([NewRecord("a", b"{}", None, 3000)])
        states = await listing.streams()
        assert (states[0].earliest, states[0].latest) == (1000, 2000)
