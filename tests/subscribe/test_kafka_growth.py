"""Partitions added to a topic of a real Kafka while the gateway runs: read within two seconds, from their beginning."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from eventstreams.catalog.streams import StreamCatalog, StreamConfig
from eventstreams.eventlog.kafka.admin import TopicsAdmin, WantedTopic
from eventstreams.eventlog.kafka.log import KafkaLog, open_kafka
from eventstreams.eventlog.kafka.options import KafkaOptions
from eventstreams.metrics import Metrics
from eventstreams.positions import Edge
from eventstreams.records import NewRecord, TopicPartition
from eventstreams.subscribe.endpoints import LOG_PATIENCE
from eventstreams.subscribe.engine import Engine
from eventstreams.subscribe.event_id import parse_last_event_id
from eventstreams.subscribe.options import EngineOptions, Form
from eventstreams.subscribe.request import StreamRequest
from eventstreams.subscribe.start import find_start
from tests.subscribe.test_engine import Client, seen
from tests.support.kafka import Broker

pytestmark = pytest.mark.kafka

GUARD = 15.0
"""Seconds in which an added partition is read though the machine has other things to do; two where it has none."""


@dataclass
class Rig:
    """A topic with two partitions, read by an engine that has been at work on it."""

    broker: Broker
    topic: str
    log: KafkaLog
    engine: Engine

    def add(self, partition: int, *numbers: int) -> None:
        """Write where it is told: our own producer chooses by key."""
        producer = Producer({"bootstrap.servers": self.broker.servers})
        errors: list[object] = []
        for n in numbers:
            value = json.dumps({"n": n, "meta": {}})
            producer.produce(
                self.topic,
                value,
                partition=partition,
                timestamp=1000 + n,
                on_delivery=lambda error, _: errors.append(error),
            )
        assert producer.flush(30) == 0
        assert errors == [None] * len(numbers)

    async def grow(self, partitions: int) -> None:
        await TopicsAdmin(self.broker.servers, {}).grow(self.topic, partitions)

    async def connect(self, last_id: str | None = None) -> Client:
        given = None if last_id is None else parse_last_event_id(last_id)
        request = StreamRequest((self.topic,), (), Edge.EARLIEST, given, Form(), None, ("s",))
        start = await find_start(request, self.log, self.engine, resume_skew=1.0)
        client = Client()
        client.subscription = await self.engine.subscribe(
            start.cursor, client.wire, Form(), gaps=start.gaps, streams=start.streams
        )
        client.wire.on_lost = client.subscription.close
        return client


@asynccontextmanager
async def running(broker: Broker) -> AsyncIterator[Rig]:
    topic = f"{uuid.uuid4()}.t"
    await TopicsAdmin(broker.servers, {}).create(WantedTopic(topic, 2, 1, {"retention.ms": "-1"}))
    catalog = StreamCatalog([StreamConfig("s", (topic,), "", None, {})])

    def topics(name: str) -> tuple[str, ...]:
        config = catalog.public(name)
        return config.topics if config else ()

    async with (
        open_kafka(KafkaOptions(broker.servers)) as log,
        Engine(log, EngineOptions(), Metrics(), topics=topics).open() as engine,
    ):
        yield Rig(broker, topic, log, engine)


async def test_partitions_that_are_added_are_read_at_once_by_all_and_nothing_of_them_is_skipped(
    kafka_broker: Broker,
) -> None:
    async with running(kafka_broker) as rig:
        rig.add(0, 0, 1)
        rig.add(1, 2)
        live = await rig.connect()
        left = await rig.connect()
        await live.read(3)
        await left.read(3)
        left.close()
        # Whatever librdkafka's clients know of the topic, they know by now.
        await rig.log.extents([TopicPartition(rig.topic, 0), TopicPartition(rig.topic, 1)])
        await rig.grow(5)
        rig.add(4, 3, 4)
        began = time.monotonic()
        new = await rig.connect()
        again = await rig.connect(json.dumps(left.last_id))
        assert time.monotonic() - began < GUARD
        async with asyncio.timeout(GUARD):
            await live.read(5)
            await new.read(5)
            await again.read(2)
        rig.add(2, 5)
        rig.add(3, 6)
        for client, count in ((live, 7), (new, 7), (again, 4)):
            await client.read(count)
            assert sorted(event["n"] for event in client.events) == list(range(7))[7 - count :]
            assert client.named == []
            assert [entry["partition"] for entry in client.last_id] == [0, 1, 2, 3, 4]
        assert seen(live.events)[rig.topic, 4] == [0, 1]
        for client in (live, new, again):
            client.close()


async def test_replay_and_times_of_added_partitions_work_at_once(kafka_broker: Broker) -> None:
    async with running(kafka_broker) as rig:
        rig.add(0, *range(10))
        client = await rig.connect()
        await client.read(10)
        await rig.grow(3)
        added = TopicPartition(rig.topic, 2)
        rig.add(2, 10, 11)
        async with asyncio.timeout(GUARD):
            assert (await rig.log.extents([added]))[added] == (0, 2)
            assert [r.offset for r in (await rig.log.fetch(added, 0, 10, 2**20)).records] == [0, 1]
            assert await rig.log.last_timestamp(added, 2) == 1011
            assert (await rig.log.resolve({added: Edge.LATEST}))[added].offset == 2
        client.close()


async def test_stream_over_many_topics_starts_in_a_process_that_has_read_none_of_them(kafka_broker: Broker) -> None:
    count, prefix = 150, uuid.uuid4()
    topics = tuple(f"{prefix}.{n}" for n in range(count))
    admin = AdminClient({"bootstrap.servers": kafka_broker.servers})
    made = admin.create_topics([NewTopic(topic, 1, 1) for topic in topics], operation_timeout=30)
    await asyncio.gather(*map(asyncio.wrap_future, made.values()))
    async with open_kafka(KafkaOptions(kafka_broker.servers)) as log:
        outcomes = await log.append([NewRecord(topic, b'{"n":1,"meta":{}}') for topic in topics])
        assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        async with Engine(log, EngineOptions(), Metrics()).open() as engine:
            request = StreamRequest(topics, (), Edge.EARLIEST, None, Form(), None, ("s",))
            start = await find_start(request, log, engine, resume_skew=1.0)
            # Each that comes has the patience of a request: it is the same start that goes on.
            async with asyncio.timeout(30):
                while True:
                    try:
                        async with asyncio.timeout(LOG_PATIENCE):
                            client = await Client().connect(engine, start.cursor)
                        break
                    except TimeoutError:
                        continue
                await client.read(count)
            assert {event["meta"]["topic"] for event in client.events} == set(topics)
            client.close()
