"""A topic that is made anew after its leaders had changed: its leaders count their epochs from nought again.

librdkafka takes what it is told of them for outdated and goes by the old ones, without an error and for ever (its issue
4898). So none of our clients may go on with what it knows of the old topic.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from eventstreams.errors import LogError, LogUnavailable
from eventstreams.eventlog.base import LogReader
from eventstreams.eventlog.kafka.admin import TopicsAdmin, WantedTopic
from eventstreams.eventlog.kafka.log import KafkaLog, open_kafka
from eventstreams.eventlog.kafka.options import KafkaOptions
from eventstreams.eventlog.kafka.reader import KafkaReader
from eventstreams.records import NewRecord, Record, TopicPartition
from tests.support.cluster import Cluster

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

PARTITIONS = 3
GUARD = 60.0


class Remade:
    """A topic of three partitions, each led by another broker, that can be made anew."""

    def __init__(self, cluster: Cluster, log: KafkaLog) -> None:
        self.log = log
        self.topic = f"{uuid.uuid4()}.t"
        self.places = [TopicPartition(self.topic, number) for number in range(PARTITIONS)]
        self._cluster = cluster
        self._admin = AdminClient({"bootstrap.servers": cluster.servers, "log_level": 0})

    async def make(self) -> str:
        await TopicsAdmin(self._cluster.servers, {}).create(WantedTopic(self.topic, PARTITIONS))
        return await self.identity()

    async def identity(self) -> str:
        while not (found := await self.log.describe([self.topic])):
            pass
        return found[self.topic].identity

    async def make_anew(self) -> str:
        """Have the leaders change, then make the topic anew, each partition led by another broker than before."""
        cluster = self._cluster
        dead = await asyncio.to_thread(cluster.leader, self.topic, 0)
        await asyncio.to_thread(dead.kill)
        await self.append(b"in another epoch")
        await asyncio.to_thread(cluster.start)
        await asyncio.to_thread(cluster.wait_whole)
        leaders = [await asyncio.to_thread(cluster.leader, self.topic, number) for number in range(PARTITIONS)]
        await asyncio.wrap_future(self._admin.delete_topics([self.topic])[self.topic])
        while await self.log.describe([self.topic]):
            pass
        places = [(cluster.nodes.index(leader) + 1) % len(cluster.nodes) for leader in leaders]
        replicas = [[(first + step) % len(cluster.nodes) + 1 for step in range(3)] for first in places]
        await asyncio.wrap_future(
            self._admin.create_topics([NewTopic(self.topic, PARTITIONS, replica_assignment=replicas)])[self.topic]
        )
        return await self.identity()

    async def append(self, word: bytes) -> Sequence[Record]:
        """Append one record to each partition, again and again until it is taken."""
        taken: dict[int, Record] = {}
        deadline = time.monotonic() + GUARD
        while len(taken) < PARTITIONS:
            assert time.monotonic() < deadline, f"only {sorted(taken)} take records"
            keys = [b"%d" % number for number in range(20)]
            for outcome in await self.log.append([NewRecord(self.topic, word, key) for key in keys]):
                if isinstance(outcome, Record):
                    taken[outcome.partition] = outcome
        return list(taken.values())


@pytest.fixture
async def remade(kafka_cluster: Cluster) -> AsyncIterator[Remade]:
    await asyncio.to_thread(kafka_cluster.wait_whole)
    async with open_kafka(KafkaOptions(kafka_cluster.servers, produce_timeout=8.0)) as log:
        yield Remade(kafka_cluster, log)
    await asyncio.to_thread(kafka_cluster.start)
    await asyncio.to_thread(kafka_cluster.wait_whole)


async def read_from_each(reader: LogReader) -> set[int]:
    """Return when something came of each partition; the numbers of these."""
    seen: set[int] = set()
    async with asyncio.timeout(GUARD):
        while len(seen) < PARTITIONS:
            try:
                seen.update(record.partition for record in await reader.read(500, 1.0))
            except LogError:
                # Of the epoch before: a partition out of range, a topic that is another one.
                await asyncio.sleep(0)
    return seen


async def test_topic_made_anew_with_other_leaders_is_written_read_and_replayed(remade: Remade) -> None:
    identity = await remade.make()
    log, start = remade.log, dict.fromkeys(remade.places, 0)
    reader = await log.open_reader(start, {remade.topic: identity})
    try:
        await remade.append(b"old")
        await read_from_each(reader)
        for place in remade.places:
            assert (await log.fetch(place, 0, 1, 1000)).records[0].value == b"old"
        again = await remade.make_anew()
        assert again != identity
        await remade.append(b"new")
        await reader.assign(start, {remade.topic: again})
        assert await read_from_each(reader) == {0, 1, 2}
        deadline = time.monotonic() + GUARD
        for place in remade.places:
            while True:
                try:
                    block = await log.fetch(place, 0, 1, 1000, again)
                    break
                except LogUnavailable:
                    assert time.monotonic() < deadline
            assert block.records[0].value == b"new"
    finally:
        await reader.aclose()


async def test_consumer_that_stands_still_unknowingly_is_replaced(remade: Remade) -> None:
    await remade.make()
    log, start = remade.log, dict.fromkeys(remade.places, 0)
    reader = KafkaReader(log._consuming, log._topics, log._offsets.earliest, log._offsets.ends, look_seconds=0.5)
    # Which topic it is, it is not told.
    await reader.open(start)
    try:
        await remade.append(b"old")
        await read_from_each(reader)
        await remade.make_anew()
        await remade.append(b"new")
        await reader.assign(start)
        assert await read_from_each(reader) == {0, 1, 2}
    finally:
        await reader.aclose()
