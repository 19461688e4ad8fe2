"""The log on Kafka while leaders die: what one broker cannot show."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import pytest

from eventstreams.errors import LogError, RecordTooLarge
from eventstreams.eventlog.kafka.admin import TopicsAdmin, WantedTopic
from eventstreams.eventlog.kafka.lanes import STALL_SECONDS
from eventstreams.eventlog.kafka.log import KafkaLog, open_kafka
from eventstreams.eventlog.kafka.options import KafkaOptions
from eventstreams.records import NewRecord, Record, TopicPartition
from tests.support.cluster import Cluster
from tests.support.oracle_log import values

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

PARTITIONS = 6


@pytest.fixture
async def topic(kafka_cluster: Cluster) -> AsyncIterator[str]:
    name = f"{uuid.uuid4()}.t"
    await asyncio.to_thread(kafka_cluster.wait_whole)
    await TopicsAdmin(kafka_cluster.servers, {}).create(WantedTopic(name, PARTITIONS))
    yield name
    await asyncio.to_thread(kafka_cluster.start)
    await asyncio.to_thread(kafka_cluster.wait_whole)


async def stored(log: KafkaLog, topic: str) -> Counter[bytes]:
    held = [await values(log, TopicPartition(topic, number)) for number in range(PARTITIONS)]
    return Counter(value for partition in held for _, value in partition)


async def test_records_without_a_key_pass_by_a_leader_that_does_not_answer(kafka_cluster: Cluster) -> None:
    # One replica each: with three on three brokers every acknowledgement waits for the broker to be out.
    topic = f"{uuid.uuid4()}.alone"
    wanted = WantedTopic(topic, PARTITIONS, 1, {"min.insync.replicas": "1"})
    await TopicsAdmin(kafka_cluster.servers, {}).create(wanted)
    async with open_kafka(KafkaOptions(kafka_cluster.servers)) as log:
        leader = await asyncio.to_thread(kafka_cluster.leader, topic, 0)
        led = {n for n in range(PARTITIONS) if await asyncio.to_thread(kafka_cluster.leader, topic, n) is leader}
        assert 0 < len(led) < PARTITIONS
        # Both of its producers are at work: the first records of a topic go by one, the others by the other.
        for part in (b"first", b"other"):
            outcomes = await log.append([NewRecord(topic, b"%s %d" % (part, n), b"%d" % n) for n in range(50)])
            assert {type(outcome) for outcome in outcomes} == {Record}
        with leader.paused():
            keyed = [asyncio.create_task(log.append([NewRecord(topic, b"%d" % n, b"%d" % n)])) for n in range(50)]
            await asyncio.wait(keyed, timeout=STALL_SECONDS + 0.5)
            waiting = [task for task in keyed if not task.done()]
            assert 0 < len(waiting) < 50
            free = [await log.append([NewRecord(topic, b"free %d" % n)]) for n in range(30)]
            assert not any(task.done() for task in waiting)
        places = {outcome.partition for (outcome,) in free if isinstance(outcome, Record)}
        assert {type(outcome) for (outcome,) in free} == {Record}
        assert not places & led
        # Those with a key wait, and are stored once.
        assert {type(outcome) for task in keyed for outcome in await task} == {Record}
        found = await stored(log, topic)
        assert (len(found), found.total()) == (180, 180)
    await asyncio.to_thread(kafka_cluster.wait_whole)


async def test_topic_that_was_not_seen_before_is_found_in_an_election(kafka_cluster: Cluster, topic: str) -> None:
    async with open_kafka(KafkaOptions(kafka_cluster.servers)) as log:
        leader = await asyncio.to_thread(kafka_cluster.leader, topic, 0)
        await asyncio.to_thread(leader.kill)
        outcomes = await log.append([NewRecord(topic, b"%d" % n, b"%d" % n) for n in range(50)])
        assert {type(outcome) for outcome in outcomes} == {Record}
        found = await stored(log, topic)
        assert (len(found), found.total()) == (50, 50)


async def test_what_a_topic_refuses_in_an_election_has_nothing_stored_twice(kafka_cluster: Cluster, topic: str) -> None:
    strict = f"{topic}.strict"
    await TopicsAdmin(kafka_cluster.servers, {}).create(WantedTopic(strict, 3, None, {"max.message.bytes": "1000"}))
    async with open_kafka(KafkaOptions(kafka_cluster.servers)) as log:
        leader = await asyncio.to_thread(kafka_cluster.leader, topic, 0)
        appends: list[asyncio.Task[Sequence[Record | LogError]]] = []
        refused: list[asyncio.Task[Sequence[Record | LogError]]] = []
        began = time.monotonic()
        while time.monotonic() - began < 10.0:
            if leader.up and time.monotonic() - began > 1.0:
                leader.kill()
            for _ in range(20):
                number = b"%d" % len(appends)
                appends.append(asyncio.create_task(log.append([NewRecord(topic, number, number)])))
            refused.append(asyncio.create_task(log.append([NewRecord(strict, random.randbytes(5000))])))
            await asyncio.wait(appends[-20:], timeout=0.1)
        outcomes = [outcome for append in appends for outcome in await append]
        assert {type(outcome) for outcome in outcomes} == {Record}
        assert {type(outcome) for append in refused for outcome in await append} == {RecordTooLarge}
        found = await stored(log, topic)
        assert (len(found), found.total()) == (len(appends), len(appends))
