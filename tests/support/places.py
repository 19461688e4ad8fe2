"""Where the rig's log is: a file of the embedded log, or a real Kafka whose broker is killed as well."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from eventstreams.eventlog.embedded.log import open_embedded
from eventstreams.eventlog.kafka.admin import TopicsAdmin, WantedTopic
from tests.support.cluster import Cluster
from tests.support.kafka import Broker


class LogPlace(Protocol):
    """A log for one run."""

    @property
    def url(self) -> str:
        """What the setting `log` is to be."""
        ...

    @property
    def has_broker(self) -> bool:
        """Whether there is a broker to kill; else the process that writes is what stands for it."""
        ...

    @asynccontextmanager
    def running(self, topics: Mapping[str, int]) -> AsyncIterator[None]:
        """Have the log up, with these topics and so many partitions each, while the context lasts."""
        ...

    async def kill(self) -> None:
        """End the broker as a crash does."""
        ...

    async def start(self) -> None:
        """Start it again; returns when its port answers."""
        ...


class EmbeddedPlace:
    """A database in a folder."""

    has_broker = False

    def __init__(self, folder: Path) -> None:
        self._path = folder / "events.db"
        self.url = f"embedded:{self._path}"

    @asynccontextmanager
    async def running(self, topics: Mapping[str, int]) -> AsyncIterator[None]:
        """Make the topics."""
        async with open_embedded(str(self._path)) as log:
            for topic, partitions in topics.items():
                await log.create_topic(topic, partitions)
        yield

    async def kill(self) -> None:
        """Do nothing: there is no broker."""

    async def start(self) -> None:
        """Do nothing: there is no broker."""


class KafkaPlace:
    """One broker of its own, in a folder."""

    has_broker = True

    def __init__(self, folder: Path) -> None:
        self._broker: Broker | Cluster = self._made(folder / "kafka")
        self.url = f"kafka://{self._broker.servers}"

    def _made(self, folder: Path) -> Broker | Cluster:
        return Broker(folder)

    @asynccontextmanager
    async def running(self, topics: Mapping[str, int]) -> AsyncIterator[None]:
        """Start the broker and make the topics."""
        try:
            await self.start()
            admin = TopicsAdmin(self._broker.servers, {})
            for topic, partitions in topics.items():
                await admin.create(WantedTopic(topic, partitions))
            yield
        finally:
            await asyncio.to_thread(self._broker.kill)

    async def kill(self) -> None:
        """End the broker as a crash does."""
        await asyncio.to_thread(self._broker.kill)

    async def start(self) -> None:
        """Start it on the same port and data."""
        await asyncio.to_thread(self._broker.start)


class ClusterPlace(KafkaPlace):
    """Three brokers, of which one is killed at a time."""

    def _made(self, folder: Path) -> Broker | Cluster:
        self._cluster = Cluster(folder, session_timeout=6.0)
        self._turn = itertools.cycle(self._cluster.nodes)
        return self._cluster

    async def kill(self) -> None:
        """End the next one as a crash does."""
        await asyncio.to_thread(next(self._turn).kill)

    async def start(self) -> None:
        """Start what is down, and return when all are in sync."""
        await super().start()
        await asyncio.to_thread(self._cluster.wait_whole)
