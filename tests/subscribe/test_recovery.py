"""What becomes of open streams when a topic on a real Kafka is deleted, or made anew."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from confluent_kafka.admin import AdminClient

from eventstreams.eventlog.kafka.admin import TopicsAdmin, WantedTopic
from eventstreams.eventlog.kafka.log import KafkaLog, open_kafka
from eventstreams.eventlog.kafka.options import KafkaOptions
from eventstreams.metrics import Metrics
from eventstreams.positions import Edge
from eventstreams.records import NewRecord
from eventstreams.subscribe.engine import Engine
from eventstreams.subscribe.options import EngineOptions
from tests.subscribe.test_engine import Client
from tests.support.kafka import Broker

pytestmark = pytest.mark.kafka


async def make(broker: Broker, *topics: str) -> None:
    for topic in topics:
        await TopicsAdmin(broker.servers, {}).create(WantedTopic(topic, 1, 1, {"retention.ms": "-1"}))


async def delete(broker: Broker, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker.servers})
    await asyncio.wrap_future(admin.delete_topics([topic])[topic])
    # The controller has; until the broker has too, it takes records that go with the topic.
    while admin.list_topics(topic, timeout=10).topics[topic].error is None:
        pass


async def add(log: KafkaLog, topic: str, *numbers: int) -> None:
    async with asyncio.timeout(30):
        left = [NewRecord(topic, b'{"n":%d}' % n, None, 1000 + n) for n in numbers]
        while left:
            outcomes = await log.append(left)
            left = [new for new, outcome in zip(left, outcomes, strict=True) if isinstance(outcome, Exception)]


@asynccontextmanager
async def subscribed(log: KafkaLog, options: EngineOptions, *topics: str) -> AsyncIterator[Client]:
    async with Engine(log, options, Metrics()).open() as engine:
        partitions = [partition for topic in topics for partition in await log.partitions(topic)]
        cursor = await log.resolve(dict.fromkeys(partitions, Edge.EARLIEST))
        client = await Client().connect(engine, cursor)
        yield client
        client.close()


async def test_topic_made_anew_goes_on_in_open_streams_after_a_gap_notice(kafka_broker: Broker) -> None:
    topic, other = f"{uuid.uuid4()}.a", f"{uuid.uuid4()}.b"
    await make(kafka_broker, topic, other)
    async with open_kafka(KafkaOptions(kafka_broker.servers)) as log:
        await add(log, topic, *range(20))
        async with subscribed(log, EngineOptions(), topic, other) as client:
            await client.read(20)
            await delete(kafka_broker, topic)
            await add(log, other, 20)
            await client.read(21)
            await make(kafka_broker, topic)
            await add(log, topic, 21, 22)
            await client.read(23)
            assert [event["n"] for event in client.events] == list(range(23))
            assert client.cursor()[(await log.partitions(topic))[0]].offset == 2
            ((name, body),) = client.named
            assert name == "gap"
            assert body["partitions"][0] == {
                "topic": topic,
                "partition": 0,
                "first_offset": 20,
                "last_offset": None,
                "after_timestamp": 1019,
                "before_timestamp": None,
            }


async def test_stream_of_a_deleted_topic_ends_with_an_error_that_says_so(kafka_broker: Broker) -> None:
    topic = f"{uuid.uuid4()}.a"
    await make(kafka_broker, topic)
    async with open_kafka(KafkaOptions(kafka_broker.servers)) as log:
        await add(log, topic, 0)
        async with subscribed(log, EngineOptions(gone_after=0.5, partition_refresh=0.2), topic) as client:
            await client.read(1)
            await delete(kafka_broker, topic)
            async with asyncio.timeout(60):
                last = await client.rest()
            assert b"event: error\n" in last
            assert f"topic '{topic}' was deleted".encode() in last
