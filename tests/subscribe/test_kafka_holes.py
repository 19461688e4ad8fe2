"""Offsets without a record on a real Kafka: marks of transactions, aborted records, what compaction removed."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from confluent_kafka import Producer

from eventstreams.eventlog.kafka.admin import TopicsAdmin, WantedTopic
from eventstreams.eventlog.kafka.log import KafkaLog, open_kafka
from eventstreams.eventlog.kafka.options import KafkaOptions
from eventstreams.metrics import Metrics
from eventstreams.positions import Cursor, Edge, Next
from eventstreams.records import NewRecord, TopicPartition
from eventstreams.subscribe.engine import Engine
from eventstreams.subscribe.options import EngineOptions
from tests.subscribe.test_engine import Client
from tests.support.kafka import Broker

pytestmark = pytest.mark.kafka

COMPACTED = {
    "cleanup.policy": "compact",
    "segment.ms": "100",
    "min.cleanable.dirty.ratio": "0.01",
    "retention.ms": "-1",
}


@asynccontextmanager
async def topic_with(broker: Broker, config: Mapping[str, str]) -> AsyncIterator[tuple[KafkaLog, TopicPartition]]:
    partition = TopicPartition(f"{uuid.uuid4()}.t", 0)
    await TopicsAdmin(broker.servers, {}).create(WantedTopic(partition.topic, 1, 1, dict(config)))
    async with open_kafka(KafkaOptions(broker.servers)) as log:
        yield log, partition


@asynccontextmanager
async def engine_on(log: KafkaLog) -> AsyncIterator[Engine]:
    async with Engine(log, EngineOptions(), Metrics()).open() as engine:
        yield engine


async def numbers(engine: Engine, start: Cursor, count: int) -> tuple[list[int], Cursor]:
    """Read so many events from there; return them and where a client goes on."""
    client = await Client().connect(engine, start)
    await client.read(count)
    client.close()
    assert client.named == []
    return [event["n"] for event in client.events], client.cursor()


def in_transactions(broker: Broker, topic: str, first: int, count: int) -> None:
    """Write events in a transaction each; every third is aborted."""
    producer = Producer({"bootstrap.servers": broker.servers, "transactional.id": f"{topic}{first}"})
    producer.init_transactions(30)
    for n in range(first, first + count):
        producer.begin_transaction()
        producer.produce(topic, b'{"n":%d,"meta":{}}' % n)
        if n % 3 == 2:
            producer.flush(30)
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)


async def test_marks_and_aborted_records_are_passed_by_old_and_live_clients(kafka_broker: Broker) -> None:
    async with topic_with(kafka_broker, {"retention.ms": "-1"}) as (log, partition), engine_on(log) as engine:
        await asyncio.to_thread(in_transactions, kafka_broker, partition.topic, 0, 9)
        live = await Client().connect(engine, await log.resolve({partition: Edge.LATEST}))
        reading = asyncio.create_task(live.read(6))
        await asyncio.to_thread(in_transactions, kafka_broker, partition.topic, 9, 9)
        await reading
        live.close()
        assert [event["n"] for event in live.events] == [9, 10, 12, 13, 15, 16]
        # From every offset that an id could name: an event's, its mark's, an aborted record's.
        kept = [n for n in range(18) if n % 3 != 2]
        for offset in range(2 * kept[-1] + 1):
            left = [n for n in kept if 2 * n >= offset]
            assert (await numbers(engine, Cursor([(partition, Next(offset))]), len(left)))[0] == left
        # The last id is the cursor just after its event; the log's end is further: marks, an aborted record.
        _, at = await numbers(engine, await log.resolve({partition: Edge.EARLIEST}), len(kept))
        assert at[partition].offset == 2 * kept[-1] + 1 < (await log.extents([partition]))[partition].end
        again = asyncio.create_task(numbers(engine, at, 1))
        await log.append([NewRecord(partition.topic, b'{"n":18,"meta":{}}')])
        assert (await again)[0] == [18]


async def test_cursors_into_what_compaction_removed_go_on_without_a_gap_notice(kafka_broker: Broker) -> None:
    async with topic_with(kafka_broker, COMPACTED) as (log, partition):
        last = await compacted(log, partition)
        async with engine_on(log) as engine:
            found = await until(engine, partition, 0, last)
            assert len(found) < last / 2
            for offset in range(0, last, max(1, last // 20)):
                # The cleaner may go on meanwhile: never more than before, never out of order.
                now = await until(engine, partition, offset, last)
                assert now == sorted(set(now))
                assert set(now) <= {n for n in found if n >= offset}


async def until(engine: Engine, partition: TopicPartition, offset: int, last: int) -> list[int]:
    """Read from there until the last event; return the numbers, which are the offsets."""
    client = await Client().connect(engine, Cursor([(partition, Next(offset))]))
    while not client.events or client.events[-1]["n"] != last:
        await client.read(len(client.events) + 1)
    client.close()
    assert client.named == []
    assert all(event["n"] == event["meta"]["offset"] for event in client.events)
    assert client.cursor()[partition].offset == last + 1
    return [event["n"] for event in client.events]


async def compacted(log: KafkaLog, partition: TopicPartition) -> int:
    """Write events with few keys until most of them are gone; return the last one's number, its offset."""
    n = 0
    async with asyncio.timeout(60):
        while True:
            keyed = [(b'{"n":%d,"meta":{}}' % (n + i), b"%d" % (i % 3)) for i in range(20)]
            await log.append([NewRecord(partition.topic, value, key) for value, key in keyed])
            n += 20
            block = await log.fetch(partition, 0, n, 1 << 20)
            if len(block.records) < n / 2:
                return n - 1
            await asyncio.sleep(0.15)  # a segment's time, after which the next one is begun
