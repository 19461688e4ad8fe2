"""What librdkafka is given of a partition: one batch, and the next when that is acknowledged."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from eventstreams.eventlog.kafka.admin import TopicsAdmin, WantedTopic
from eventstreams.eventlog.kafka.lanes import BATCH_BYTES, BATCH_RECORDS, JOIN_SECONDS, RECORD_BYTES
from eventstreams.eventlog.kafka.log import KafkaLog, open_kafka
from eventstreams.eventlog.kafka.options import KafkaOptions, record_bytes
from eventstreams.records import NewRecord, Record, TopicPartition
from tests.support.kafka import Broker
from tests.support.oracle_log import values

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]


@pytest.fixture
async def topic(kafka_broker: Broker) -> str:
    name = f"{uuid.uuid4()}.t"
    config = {"max.message.bytes": str(record_bytes(4 * 2**20))}
    await TopicsAdmin(kafka_broker.servers, {}).create(WantedTopic(name, 2, 1, config))
    return name


@pytest.fixture
async def log(kafka_broker: Broker, topic: str) -> AsyncIterator[KafkaLog]:
    async with open_kafka(KafkaOptions(kafka_broker.servers, produce_timeout=60.0)) as log:
        # What follows is of a size that the topic takes for sure.
        for size in (10, 100_000, 400_000):
            outcomes = await log.append([NewRecord(topic, b"0" * size, b"a"), NewRecord(topic, b"0" * size, b"b")])
            assert {type(outcome) for outcome in outcomes} == {Record}
        yield log


def given(log: KafkaLog) -> int:
    """Return how many records librdkafka has."""
    return sum(map(len, log._writer._producers.made))


async def test_next_batch_waits_for_the_first_and_follows_it_in_order(
    kafka_broker: Broker, topic: str, log: KafkaLog
) -> None:
    key = b"a"
    with kafka_broker.paused():
        appends = [asyncio.create_task(log.append([NewRecord(topic, b"first", key)]))]
        await asyncio.wait(appends, timeout=20 * JOIN_SECONDS)
        appends += [asyncio.create_task(log.append([NewRecord(topic, b"%d" % n, key)])) for n in range(100)]
        await asyncio.wait(appends, timeout=0.2)
        assert given(log) == 1
    outcomes = [outcome for (outcome,) in await asyncio.gather(*appends)]
    offsets = [outcome.offset for outcome in outcomes if isinstance(outcome, Record)]
    assert len(offsets) == 101
    assert offsets == sorted(offsets)


async def test_other_partition_does_not_wait(kafka_broker: Broker, topic: str, log: KafkaLog) -> None:
    with kafka_broker.paused():
        keys = [b"a", b"b", b"c", b"d"]
        appends = [asyncio.create_task(log.append([NewRecord(topic, b"1", key)])) for key in keys[:1]]
        await asyncio.wait(appends, timeout=20 * JOIN_SECONDS)
        appends += [asyncio.create_task(log.append([NewRecord(topic, b"1", key) for key in keys]))]
        await asyncio.wait(appends, timeout=0.1)
        assert 1 < given(log) < 5
    taken = [outcome for outcomes in await asyncio.gather(*appends) for outcome in outcomes]
    places = {outcome.partition for outcome in taken if isinstance(outcome, Record)}
    assert places == {0, 1}


@pytest.mark.parametrize(("size", "most"), [(10, BATCH_RECORDS), (300_000, BATCH_BYTES // (300_009 + RECORD_BYTES))])
async def test_batch_is_no_larger_than_goes_in_one_request(
    kafka_broker: Broker, topic: str, log: KafkaLog, size: int, most: int
) -> None:
    count = 2 * most + 1
    with kafka_broker.paused():
        new = [NewRecord(topic, b"%09d" % number + b"x" * size, b"a") for number in range(count)]
        appending = asyncio.create_task(log.append(new))
        await asyncio.wait([appending], timeout=0.2)
        assert given(log) == most
    outcomes = await appending
    place = next(outcome.partition for outcome in outcomes if isinstance(outcome, Record))
    held = [value for _, value in await values(log, TopicPartition(topic, place))]
    assert held[-count:] == [record.value for record in new]
