"""The oracle rig: numbered events, clients that are cut after random bytes, gateway and producer killed and restarted.

At the end every client has seen each event of each partition once and in order; the log itself says which there are.
`python -m tests.support.oracle --minutes N` runs it long.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import orjson

from eventstreams.eventlog.embedded.log import open_embedded
from eventstreams.records import TopicPartition
from tests.support.numbered import TOPICS
from tests.support.oracle_client import Client
from tests.support.processes import GatewayProcess, Process
from tests.support.sse import Place

Truth = dict[Place, list[tuple[int, int]]]
"""Offset and number of every event that the log holds, by partition."""

CATCH_UP = 90.0
"""Seconds in which every client must have come to the end, once nothing is cut or killed any more."""

SETTINGS = ("gateway.tail_bytes=300000", "gateway.replay_bytes=3000000", "gateway.drain_timeout=2")
"""A tail so small that clients pass from the log to the tail and back all the time."""


@dataclass
class Report:
    """What a run did and what it found."""

    events: int = 0
    received: int = 0
    cuts: int = 0
    gateway_kills: int = 0
    broker_kills: int = 0
    lost: int = 0
    repeated: int = 0
    reordered: int = 0
    fallen_ids: int = 0
    unstored: int = 0
    surprises: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing was lost, repeated, reordered or odd."""
        counts = (self.lost, self.repeated, self.reordered, self.fallen_ids, self.unstored)
        return not any(counts) and not self.surprises

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in vars(self).items() if name != "surprises")

    def judge(self, client: Client, truth: Truth) -> None:
        """Compare what a client saw with what there was."""
        self.cuts += client.cuts
        self.fallen_ids += client.ids.fallen
        self.surprises += client.surprises
        for place, events in truth.items():
            if place[0] not in client.streams:
                continue
            seen = client.seen[place]
            wanted = {event for event in events if event[0] >= client.start(place)}
            self.received += len(seen)
            self.lost += len(wanted - set(seen))
            self.repeated += len(seen) - len(set(seen))
            self.reordered += sum(1 for before, after in pairwise(seen) if after[0] < before[0])
            self.surprises += [f"never stored: {place} {event}" for event in set(seen) - set(events)]


class Rig:
    """One run over the embedded log in `folder`."""

    def __init__(self, folder: Path, *, clients: int, rate: float, seed: int) -> None:
        self._rng = random.Random(seed)
        self._rate = rate
        self._path = folder / "events.db"
        streams = folder / "streams.yaml"
        streams.write_text(orjson.dumps({"streams": {topic: {"topics": [topic]} for topic in TOPICS}}).decode())
        self.report = Report()
        self._url = f"embedded:{self._path}"
        self.gateway = GatewayProcess(self._url, streams, *SETTINGS)
        self.clients = [self._client(number) for number in range(clients)]
        self._acked: set[int] = set()
        self._next = 0

    def _client(self, number: int) -> Client:
        rng = random.Random(self._rng.random())
        streams = rng.sample(list(TOPICS), rng.randint(1, len(TOPICS)))
        return Client(self.gateway, streams, rng, whole=number % 2 == 0)

    async def run(self, *, kills: int, cuts: int, seconds: float) -> Report:
        """Run until there were so many kills of each side and so many cuts, for `seconds` at least."""
        await self._make_topics()
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            await stack.enter_async_context(self.gateway.running())
            reading = [tasks.create_task(client.run()) for client in self.clients]
            await self._trouble(kills, cuts, time.monotonic() + seconds)
            truth = await self._truth()
            await self._catch_up(truth)
            for task in reading:
                task.cancel()
        self._judge(truth)
        return self.report

    async def _trouble(self, kills: int, cuts: int, until: float) -> None:
        """Kill and restart, in turns, while producers write; returns when all of it is stored."""
        report = self.report
        while True:
            await self._produce_until_killed()
            report.broker_kills += 1
            if report.gateway_kills < kills or self._rng.random() < 0.5:
                await self.gateway.end(signal.SIGKILL if report.gateway_kills % 2 else signal.SIGTERM)
                await self.gateway.start()
                report.gateway_kills += 1
            done = report.gateway_kills >= kills and report.broker_kills >= kills
            if done and sum(client.cuts for client in self.clients) >= cuts and time.monotonic() >= until:
                return

    async def _produce_until_killed(self) -> None:
        """Run a producer for some of its batches, then kill it in the middle of what it does."""
        producer = Process(["-m", "tests.support.numbered", self._url, str(self._next), str(self._rate)], "producing")
        async with producer.running():
            batches = self._rng.randint(20, 60)
            async for line in producer.lines():
                first, count = map(int, line.split()[1:])
                self._acked.update(range(first, first + count))
                self._next = first + count
                batches -= 1
                if batches == 0:
                    break
            await producer.end(signal.SIGKILL)
            async for line in producer.lines():
                first, count = map(int, line.split()[1:])
                self._acked.update(range(first, first + count))
                self._next = first + count
        # What was being written when it was killed may be stored: those numbers are not given again.
        self._next += 10_000

    async def _make_topics(self) -> None:
        async with open_embedded(str(self._path)) as log:
            for topic, partitions in TOPICS.items():
                await log.create_topic(topic, partitions)

    async def _truth(self) -> Truth:
        truth: Truth = {}
        async with open_embedded(str(self._path)) as log:
            for topic, partitions in TOPICS.items():
                for number in range(partitions):
                    truth[topic, number] = events = []
                    at, end = 0, (await log.extents([TopicPartition(topic, number)]))[TopicPartition(topic, number)].end
                    while at < end:
                        block = await log.fetch(TopicPartition(topic, number), at, end, 1 << 22)
                        events += [(record.offset, orjson.loads(record.value)["n"]) for record in block.records]
                        at = block.next_offset
        return truth

    async def _catch_up(self, truth: Truth) -> None:
        """Wait until every client has come to the end; one that does not is judged by what it saw."""
        ends = {place: len(events) for place, events in truth.items()}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CATCH_UP):
                await asyncio.gather(*(client.reach(ends) for client in self.clients))

    def _judge(self, truth: Truth) -> None:
        stored = [number for events in truth.values() for _, number in events]
        self.report.events = len(stored)
        self.report.unstored = len(self._acked - set(stored))
        if len(stored) != len(set(stored)):
            self.report.surprises.append("the log holds a number twice")
        for client in self.clients:
            self.report.judge(client, truth)


def main(arguments: Sequence[str]) -> int:
    """Run for some minutes; exit status 1 when anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--rate", type=float, default=200.0, help="events a second")
    parser.add_argument("--kills", type=int, default=20, help="of each side, at least")
    parser.add_argument("--cuts", type=int, default=100, help="of clients, at least")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder), clients=given.clients, rate=given.rate, seed=given.seed)
        report = asyncio.run(rig.run(kills=given.kills, cuts=given.cuts, seconds=60 * given.minutes))
    print(f"seed={given.seed} {report}", *report.surprises[:20], sep="\n")
    return 0 if report.clean else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
