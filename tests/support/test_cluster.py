"""The cluster of the tests does what those rely on: a leader's death makes another node lead, and heals."""

from __future__ import annotations

import asyncio

import pytest

from eventstreams.eventlog.kafka.admin import TopicsAdmin, WantedTopic
from tests.support.cluster import Cluster
from tests.support.kafka import Node

TOPIC = "cluster.led"


@pytest.mark.kafka
@pytest.mark.timeout(180)
async def test_cluster_has_another_leader_after_a_kill_and_is_whole_after_a_start(kafka_cluster: Cluster) -> None:
    await TopicsAdmin(kafka_cluster.servers, {}).create(WantedTopic(TOPIC, 1))
    first = await asyncio.to_thread(kafka_cluster.leader, TOPIC)
    await asyncio.to_thread(first.kill)
    try:
        async with asyncio.timeout(60):
            second = await leader_beside(kafka_cluster, first)
        assert second.up
    finally:
        await asyncio.to_thread(first.start)
    await asyncio.to_thread(kafka_cluster.wait_whole)
    with second.paused():
        async with asyncio.timeout(60):
            await leader_beside(kafka_cluster, second)
    await asyncio.to_thread(kafka_cluster.wait_whole)


async def leader_beside(cluster: Cluster, old: Node) -> Node:
    while (leader := await asyncio.to_thread(cluster.leader, TOPIC)) is old:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    return leader
