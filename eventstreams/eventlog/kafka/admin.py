"""Making topics: a plan first, then what it says. Nothing is ever removed or made smaller."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from eventstreams.errors import LogError
from eventstreams.eventlog.kafka.contact import Contact
from eventstreams.eventlog.kafka.errors import REFUSED, refusal
from eventstreams.eventlog.kafka.options import BASE, properties, refused_properties
from eventstreams.eventlog.kafka.reasons import Reasons

REACH_TIMEOUT = 6.0
"""Seconds in which a broker must answer at all."""

TIMEOUT = 30.0
VISIBILITY_PAUSE = 0.02


@dataclass(frozen=True, slots=True)
class WantedTopic:
    """A topic as configuration wants it; None is the cluster's default."""

    name: str
    partitions: int | None = None
    replication_factor: int | None = None
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done: topics to make, partitions to add; and what is left as it is, with the reason."""

    create: Sequence[WantedTopic]
    grow: Mapping[str, int]
    notes: Sequence[str]


class TopicsAdmin:
    """Sees and makes topics of one cluster."""

    def __init__(self, servers: str, given: Mapping[str, Any]) -> None:
        """Prepare. Raises: ConfigurationError for properties that librdkafka refuses."""
        self._reasons = Reasons(servers)
        self._properties = properties(servers, given, BASE, {"error_cb": self._reasons.note})
        with refused_properties():
            self._admin = AdminClient(self._properties)

    async def topics(self) -> Mapping[str, int]:
        """Return the topics there are, with the number of their partitions.

        Raises: LogUnavailable, LogRefused, both with the reason.
        """
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "kafka topics") as threads:
            contact = Contact(self._properties, self._reasons, threads)
            contact.start()
            try:
                await contact.wait(REACH_TIMEOUT)
            finally:
                await contact.aclose()
        try:
            metadata = await loop.run_in_executor(None, lambda: self._admin.list_topics(timeout=TIMEOUT))
        except KafkaException as exc:
            self._admin.poll(0)
            raise self._reasons.explain(exc) from exc
        return {name: len(topic.partitions) for name, topic in metadata.topics.items()}

    async def create(self, topic: WantedTopic) -> None:
        """Make a topic; returns when the cluster shows it. Raises: LogError with the broker's words."""
        new = NewTopic(
            topic.name,
            num_partitions=topic.partitions or -1,
            replication_factor=topic.replication_factor or -1,
            config=dict(topic.config),
        )
        await self._settle(self._admin.create_topics([new], operation_timeout=TIMEOUT), topic.name, "CREATE")
        await asyncio.get_running_loop().run_in_executor(None, self._wait_for, topic.name, topic.partitions or 1)

    def _wait_for(self, name: str, partitions: int) -> None:
        """Return when the cluster shows a topic with so many partitions at least. Blocks."""
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            found = self._admin.list_topics(name, timeout=TIMEOUT).topics.get(name)
            if found is not None and found.error is None and len(found.partitions) >= partitions:
                return
            time.sleep(VISIBILITY_PAUSE)
        raise LogError(f"topic {name} with {partitions} partitions was made and is not shown after {TIMEOUT:g} s")

    async def grow(self, name: str, partitions: int) -> None:
        """Add partitions up to this many; returns when the cluster shows them. Raises: LogError with its words."""
        await self._settle(
            self._admin.create_partitions([NewPartitions(name, partitions)], operation_timeout=TIMEOUT), name, "ALTER"
        )
        await asyncio.get_running_loop().run_in_executor(None, self._wait_for, name, partitions)

    async def _settle(self, futures: Mapping[str, Any], name: str, right: str) -> None:
        try:
            await asyncio.wrap_future(futures[name])
        except KafkaException as exc:
            error = exc.args[0]
            words = refusal(error.code(), name, right) if error.code() in REFUSED else error.str()
            # Without its frames, which hold the client: librdkafka's own thread may be the last to let go of the error,
            # and ends the process where that ends the client.
            raise LogError(f"topic {name}: {words}") from exc.with_traceback(None)


def plan(wanted: Sequence[WantedTopic], present: Mapping[str, int]) -> Plan:
    """Return what would make the cluster as wanted, without removing anything."""
    notes = [
        f"{topic.name} has {present[topic.name]} partitions, more than {topic.partitions}: left as it is"
        for topic in wanted
        if topic.partitions is not None and present.get(topic.name, 0) > topic.partitions
    ]
    grow = {
        topic.name: topic.partitions
        for topic in wanted
        if topic.partitions is not None and 0 < present.get(topic.name, 0) < topic.partitions
    }
    return Plan([topic for topic in wanted if topic.name not in present], grow, notes)
