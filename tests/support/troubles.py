"""What happens to a cluster while others use it. Each trouble leaves the cluster whole."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Protocol

from tests.support.cluster import Cluster
from tests.support.kafka import Node


class Trouble(Protocol):
    """One kind of trouble."""

    name: str

    async def strike(self, cluster: Cluster, rng: random.Random) -> None:
        """Make it, and return when the cluster is whole again."""
        ...


class Kill:
    """Brokers die as in a crash, so many at once, and are started again after some of `seconds`."""

    def __init__(self, count: int, seconds: Sequence[float]) -> None:
        self.name = f"kill {count}"
        self._count = count
        self._seconds = seconds

    async def strike(self, cluster: Cluster, rng: random.Random) -> None:
        for node in victims(cluster, rng, self._count):
            node.kill()
        await asyncio.sleep(rng.choice(self._seconds))
        await asyncio.to_thread(cluster.start)
        await asyncio.to_thread(cluster.wait_whole)


class Hold:
    """Brokers stand still, so many at once, and go on after some of `seconds`: their connections stay open."""

    def __init__(self, count: int, seconds: Sequence[float]) -> None:
        self.name = f"hold {count}"
        self._count = count
        self._seconds = seconds

    async def strike(self, cluster: Cluster, rng: random.Random) -> None:
        held = victims(cluster, rng, self._count)
        for node in held:
            node.hold()
        try:
            await asyncio.sleep(rng.choice(self._seconds))
        finally:
            for node in held:
                node.let_go()
        await asyncio.to_thread(cluster.wait_whole)


def victims(cluster: Cluster, rng: random.Random, count: int) -> Sequence[Node]:
    """Return so many nodes of a cluster, whichever they are."""
    return rng.sample(list(cluster.nodes), count)
