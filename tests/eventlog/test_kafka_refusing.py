"""Brokers that refuse connections are not asked: librdkafka would try to connect to them without a pause."""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from types import SimpleNamespace

import pytest

from eventstreams.errors import LogError
from eventstreams.eventlog.kafka.admin import TopicsAdmin, WantedTopic
from eventstreams.eventlog.kafka.log import KafkaLog, open_kafka
from eventstreams.eventlog.kafka.options import KafkaOptions
from eventstreams.eventlog.kafka.refusing import refusing
from eventstreams.records import TopicPartition
from tests.support.cluster import Cluster


async def test_brokers_that_refuse_are_told_from_those_that_do_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # taken, and nobody listens
        ports = {1: listening.getsockname()[1], 2: bound.getsockname()[1]}
        brokers = {number: SimpleNamespace(host="127.0.0.1", port=port) for number, port in ports.items()}
        assert await refusing(SimpleNamespace(brokers=brokers), [1, 2, 2, 3]) == {2}


@pytest.mark.kafka
@pytest.mark.timeout(240)
async def test_dead_brokers_take_no_core(kafka_cluster: Cluster) -> None:
    """Two of three: no leader, no controller. It took 0.8 of a core, and takes a fiftieth."""
    await asyncio.to_thread(kafka_cluster.wait_whole)
    await TopicsAdmin(kafka_cluster.servers, {}).create(WantedTopic("refusing.t", 6))
    async with open_kafka(KafkaOptions(kafka_cluster.servers)) as log:
        places = [TopicPartition("refusing.t", number) for number in range(6)]
        assert len(await log.extents(places)) == len(places)
        try:
            for node in kafka_cluster.nodes[:2]:
                node.kill()
            with pytest.raises(LogError):
                await log.extents(places)
            assert await share_of_a_core(log, places) < 0.4
        finally:
            await asyncio.to_thread(kafka_cluster.start)
            await asyncio.to_thread(kafka_cluster.wait_whole)
        assert len(await log.extents(places)) == len(places)


async def share_of_a_core(log: KafkaLog, places: list[TopicPartition]) -> float:
    """Return what asking again and again takes, for some seconds."""
    began, used = time.monotonic(), _used()
    for _ in range(2):
        asked = await asyncio.gather(log.extents(places), log.describe(["refusing.t"]), return_exceptions=True)
        assert isinstance(asked[0], LogError)
    return (_used() - used) / (time.monotonic() - began)


def _used() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
