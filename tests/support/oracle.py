"""The oracle rig: numbered events, clients that are cut after random bytes, gateway, producer and broker killed.

At the end every client has seen each event of each partition once and in order; the log itself says which there are,
and it holds every event that the producer got an acknowledgement for. `python -m tests.support.oracle --minutes N`
runs it long; with `--log kafka` over a real broker, which is killed and started again as well; with `--log cluster`
over three, one after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import orjson

from eventstreams.eventlog.base import EventLog
from eventstreams.eventlog.open import open_log
from eventstreams.records import TopicPartition
from tests.support.numbered import TOPICS
from tests.support.oracle_client import Client
from tests.support.places import ClusterPlace, EmbeddedPlace, KafkaPlace, LogPlace
from tests.support.processes import GatewayProcess, Process
from tests.support.sse import Place

Truth = dict[Place, list[tuple[int, int]]]
"""Offset and number of every event that the log holds, by partition."""

STANDSTILL = 60.0
"""Seconds in which some client must have come further, once nothing is cut or killed any more."""

UNCERTAIN = 10_000
"""Numbers that a killed producer may have given, at most: what comes after begins beyond them."""

FETCH_BYTES = 1 << 22

SETTINGS = ("gateway.tail_bytes=300000", "gateway.replay_bytes=3000000", "gateway.drain_timeout=2")
"""A tail so small that clients pass from the log to the tail and back all the time."""


PLACES: dict[str, Callable[[Path], LogPlace]] = {
    "embedded": EmbeddedPlace,
    "kafka": KafkaPlace,
    "cluster": ClusterPlace,
}


@dataclass
class Report:
    """What a run did and what it found."""

    events: int = 0
    received: int = 0
    cuts: int = 0
    gateway_kills: int = 0
    broker_kills: int = 0
    behind: int = 0
    """Events that clients were not sent because the run ended before they had come so far."""
    lost: int = 0
    repeated: int = 0
    reordered: int = 0
    fallen_ids: int = 0
    unstored: int = 0
    surprises: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing was lost, repeated, reordered or odd."""
        counts = (self.behind, self.lost, self.repeated, self.reordered, self.fallen_ids, self.unstored)
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
            missing = wanted - set(seen)
            behind = sum(1 for event in missing if event[0] >= client.ids.offsets.get(place, 0))
            self.behind += behind
            self.lost += len(missing) - behind
            self.repeated += len(seen) - len(set(seen))
            self.reordered += sum(1 for before, after in pairwise(seen) if after[0] < before[0])
            self.surprises += [f"never stored: {place} {event}" for event in set(seen) - set(events)]


class Rig:
    """One run over the log at `place`; what it needs else is put into `folder`."""

    def __init__(self, folder: Path, place: LogPlace, *, clients: int, rate: float, seed: int) -> None:
        self._rng = random.Random(seed)
        self._rate = rate
        self._place = place
        streams = folder / "streams.yaml"
        streams.write_text(orjson.dumps({"streams": {topic: {"topics": [topic]} for topic in TOPICS}}).decode())
        self.report = Report()
        self.gateway = GatewayProcess(place.url, streams, *SETTINGS)
        self.clients = [self._client(number) for number in range(clients)]
        self._acked: set[int] = set()
        self._next = 0

    def _client(self, number: int) -> Client:
        rng = random.Random(self._rng.random())
        streams = rng.sample(list(TOPICS), rng.randint(1, len(TOPICS)))
        return Client(self.gateway, streams, rng, whole=number % 2 == 0)

    async def run(self, *, kills: int, cuts: int, seconds: float) -> Report:
        """Run until there were so many kills of each side and so many cuts, for `seconds` at least."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._place.running(TOPICS))
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
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
                await self.gateway.end(self._way_to_end())
                await self.gateway.start()
                report.gateway_kills += 1
            done = report.gateway_kills >= kills and report.broker_kills >= kills
            if done and sum(client.cuts for client in self.clients) >= cuts and time.monotonic() >= until:
                return

    def _way_to_end(self) -> signal.Signals:
        return signal.SIGKILL if self.report.gateway_kills % 2 == 0 else signal.SIGTERM

    async def _produce_until_killed(self) -> None:
        """Run a producer for some of its batches, then kill it in the middle of what it does.

        Where there is a broker, that is killed under the producer first, which goes on when the broker is back.
        """
        arguments = ["-m", "tests.support.numbered", self._place.url, str(self._next), str(self._rate)]
        producer = Process(arguments, "producing")
        async with producer.running():
            await self._acknowledged(producer, self._rng.randint(20, 60))
            if self._place.has_broker:
                await self._restart_broker()
                await self._acknowledged(producer, self._rng.randint(300, 700))
            await producer.end(signal.SIGKILL)
            await self._acknowledged(producer, None)
        # What was being written when it was killed may be stored: those numbers are not given again.
        self._next += UNCERTAIN

    async def _acknowledged(self, producer: Process, batches: int | None) -> None:
        """Note what the producer says until so many batches were acknowledged; None is until it has ended."""
        async for line in producer.lines():
            first, count = map(int, line.split()[1:])
            self._acked.update(range(first, first + count))
            self._next = first + count
            if batches is not None:
                batches -= 1
                if batches == 0:
                    return

    async def _restart_broker(self) -> None:
        """Kill the broker and start it again; every third time the gateway dies while it is away."""
        await self._place.kill()
        both = self._rng.random() < 1 / 3
        if both:
            await self.gateway.end(self._way_to_end())
        await self._place.start()
        if both:
            await self.gateway.start()
            self.report.gateway_kills += 1

    async def _truth(self) -> Truth:
        async with open_log(self._place.url, writable=False) as log:
            return {
                (topic, n): await _events(log, TopicPartition(topic, n))
                for topic in TOPICS
                for n in range(TOPICS[topic])
            }

    async def _catch_up(self, truth: Truth) -> None:
        """Wait until every client has come to the end; one that does not is told of, and judged by what it saw.

        What they have to read depends on how often they were cut, so they have time as long as they come further.
        """
        ends = {place: events[-1][0] + 1 for place, events in truth.items() if events}
        reaching = [asyncio.ensure_future(client.reach(ends)) for client in self.clients]
        left = -1
        while left != (left := sum(client.left(ends) for client in self.clients)):
            await asyncio.wait(reaching, timeout=STANDSTILL)
            if all(one.done() for one in reaching):
                return
        for one in reaching:
            one.cancel()
        for number, client in enumerate(self.clients):
            if client.behind(ends):
                self.report.surprises.append(f"client {number} is behind: {client.where(ends)}")

    def _judge(self, truth: Truth) -> None:
        stored = [number for events in truth.values() for _, number in events]
        self.report.events = len(stored)
        self.report.unstored = len(self._acked - set(stored))
        if len(stored) != len(set(stored)):
            self.report.surprises.append("the log holds a number twice")
        for client in self.clients:
            self.report.judge(client, truth)


async def _events(log: EventLog, partition: TopicPartition) -> list[tuple[int, int]]:
    """Return offset and number of all that a partition holds."""
    events: list[tuple[int, int]] = []
    extent = (await log.extents([partition]))[partition]
    at = extent.earliest
    while at < extent.end:
        block = await log.fetch(partition, at, extent.end, FETCH_BYTES)
        events += [(record.offset, orjson.loads(record.value)["n"]) for record in block.records]
        at = block.next_offset
    return events


def main(arguments: Sequence[str]) -> int:
    """Run for some minutes; exit status 1 when anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--log", choices=PLACES, default="embedded")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--rate", type=float, default=200.0, help="events a second")
    parser.add_argument("--kills", type=int, default=20, help="of each side, at least")
    parser.add_argument("--cuts", type=int, default=100, help="of clients, at least")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        place = PLACES[given.log](Path(folder))
        rig = Rig(Path(folder), place, clients=given.clients, rate=given.rate, seed=given.seed)
        report = asyncio.run(rig.run(kills=given.kills, cuts=given.cuts, seconds=60 * given.minutes))
    print(f"log={given.log} seed={given.seed} {report}", *report.surprises[:20], sep="\n")
    return 0 if report.clean else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
