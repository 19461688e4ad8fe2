"""The kill rig of intake on three brokers: numbered events at a steady rate while brokers die and stand still.

Each way of posting has an intake of its own, with the default settings. In the end the log says whether promises were
kept: answered 201 is stored once, answered 503 once at most, and a hasty event is stored or counted as lost.
`python -m tests.support.cluster_oracle --minutes N` runs it long, one way after the other, and prints a table.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx
import orjson

from eventstreams.eventlog.kafka.admin import TopicsAdmin, WantedTopic
from eventstreams.eventlog.open import open_log
from tests.support.cluster import DEFAULT_SESSION, Cluster
from tests.support.intake_oracle import write_configuration
from tests.support.oracle_log import values
from tests.support.processes import IntakeProcess
from tests.support.steady import Ledger, Steady, Way
from tests.support.troubles import Hold, Kill, Trouble
from tests.support.watching import Watching

PRODUCE_TIMEOUT = 20.0
"""The default of `intake.produce_timeout`."""

GRACE = 10.0
"""Seconds beyond it after which an answer counts as hanging: three for a search of the log, the rest for a machine with
other things to do."""

SETTLE_TIMEOUT = 120.0
CALM = 3.0
"""Seconds between two troubles."""

WATCHERS = 9
PARTITIONS = 3
STREAMS: Mapping[str, dict[str, Any]] = {
    "rig.keyed": {"schema_title": "rig/numbered", "message_key_fields": {"producer": "producer"}},
    "rig.free": {"schema_title": "rig/numbered"},
}
ONCE = {"producers": {"eventgate": {"deduplication_window": 3600}}}
WAYS = (
    Way("plain"),
    Way("spool"),
    Way("dedup", repeats=True),
    Way("hasty", query="?hasty=true"),
    Way("batches", sizes=(1, 2, 10, 50)),
)
TROUBLES: Sequence[Trouble] = (
    Kill(1, (1.0, 6.0, 14.0)),
    Hold(1, (1.0, 6.0, 14.0)),
    Kill(1, (1.0, 6.0, 14.0)),
    Hold(1, (6.0, 14.0)),
    Kill(2, (1.0, 6.0, 25.0)),
    Hold(2, (1.0, 6.0, 25.0)),
)
COLUMNS = [
    "way",
    "kills",
    "stops",
    "posts",
    "201",
    "202",
    "503",
    "lost",
    "stored",
    "twice",
    "missing",
    "late",
    "slowest",
    "lag",
]


class Companion(Protocol):
    """What goes on beside the producers: subscribers that check what they get, for instance."""

    surprises: list[str]

    async def run(self) -> None:
        """Go on until `stop`, and return when all is checked."""
        ...

    def stop(self) -> None:
        """Have `run` come to its end: the log has all that it will have."""
        ...


@dataclass
class Troubles:
    """What was made, and what it cost: events answered 503 or lost, by kind of trouble."""

    made: Counter[str] = field(default_factory=Counter)
    cost: Counter[str] = field(default_factory=Counter)

    def count(self, verb: str) -> int:
        """Return how many of its troubles begin with a verb."""
        return sum(count for name, count in self.made.items() if name.startswith(verb))

    def __str__(self) -> str:
        return ", ".join(f"{name}: {self.cost[name] / count:.1f}" for name, count in sorted(self.made.items()))


@dataclass
class Found:
    """What became of one way's events."""

    way: Way
    ledger: Ledger
    troubles: Troubles
    lost: int = 0
    """Hasty events that intake has counted as lost."""
    stored: int = 0
    twice: int = 0
    missing: int = 0
    late: int = 0
    """Events answered 503 that the log has."""
    surprises: list[str] = field(default_factory=list)

    def judge(self, numbers: Counter[int]) -> None:
        """Compare what was answered with what the log holds."""
        ledger = self.ledger
        self.stored = numbers.total()
        self.twice = sum(count > 1 for count in numbers.values())
        self.missing = len(ledger.taken - numbers.keys()) - self.lost
        self.late = len(ledger.refused & numbers.keys())
        self.surprises += ledger.surprises
        if ledger.slowest > PRODUCE_TIMEOUT + GRACE + ledger.lag:
            self.surprises.append(f"an answer took {ledger.slowest:.1f} s")
        if not ledger.taken:
            self.surprises.append("nothing was taken")

    @property
    def clean(self) -> bool:
        """Whether every promise was kept."""
        return not (self.twice or self.missing or self.surprises)

    def row(self) -> list[str]:
        """Return what the table shows."""
        ledger, answers = self.ledger, self.ledger.answers
        shown = [self.troubles.count("kill"), self.troubles.count("hold"), ledger.posts]
        shown += [answers[201], answers[202], answers[503], self.lost]
        shown += [self.stored, self.twice, self.missing, self.late]
        return [self.way.name, *map(str, shown), f"{ledger.slowest:.1f} s", f"{ledger.lag:.1f} s"]


class Producing:
    """One way of posting with its intake and its topics."""

    def __init__(self, cluster: Cluster, way: Way, folder: Path, rate: float, seed: int) -> None:
        self.way = way
        self._prefix = f"{way.name}{seed}."
        self._url = f"kafka://{cluster.servers}"
        self._servers = cluster.servers
        streams = {name: stream | (ONCE if way.repeats else {}) for name, stream in STREAMS.items()}
        settings = [*write_configuration(folder, streams), f"intake.topic_prefix={self._prefix}", "log_level=error"]
        settings += [f"intake.spool={folder / 'spool'}"] if way.name == "spool" else []
        self._intake = IntakeProcess(self._url, *settings, *way.settings)
        self._steady = Steady(way, self._intake, tuple(STREAMS), rate, seed)

    async def run(self, ready: asyncio.Event) -> None:
        """Make the topics, then post until `stop`; sets `ready` when it begins."""
        for topic in STREAMS:
            await TopicsAdmin(self._servers, {}).create(WantedTopic(self._prefix + topic, PARTITIONS))
        async with self._intake.running():
            ready.set()
            await self._steady.run()
            self._lost = await self._settled()
            # Ending in good order it has delivered what its client still had.
            assert await self._intake.end(signal.SIGTERM) == 0

    def stop(self) -> None:
        """Have `run` come to its end."""
        self._steady.stop()

    async def _settled(self) -> int:
        """Return the number of hasty events that were lost, when nothing is spooled or under way any more."""
        async with httpx.AsyncClient(trust_env=False) as http, asyncio.timeout(SETTLE_TIMEOUT):
            while True:
                lines = (await http.get(f"{self._intake.admin}/metrics")).text.splitlines()
                metrics = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
                lost = int(float(metrics["eventstreams_hasty_events_lost_total"]))
                waiting = float(metrics.get("eventstreams_spool_events", 0)) + float(
                    metrics["eventstreams_intake_in_flight_bytes"]
                )
                if not waiting and (not self.way.query or await self._missing() <= lost):
                    return lost
                await asyncio.sleep(0.2)

    async def _missing(self) -> int:
        return len(self._steady.ledger.taken - (await self._stored()).keys())

    @property
    def refusals(self) -> int:
        """How many events were answered 503 so far."""
        return self._steady.ledger.answers[503]

    async def found(self, troubles: Troubles) -> Found:
        """Return what became of the events, once all is over."""
        found = Found(self.way, self._steady.ledger, troubles, lost=self._lost)
        found.judge(await self._stored())
        return found

    async def _stored(self) -> Counter[int]:
        numbers: Counter[int] = Counter()
        async with open_log(self._url, writable=False) as log:
            for topic in STREAMS:
                for partition in await log.partitions(self._prefix + topic):
                    numbers.update(orjson.loads(value)["n"] for _, value in await values(log, partition))
        return numbers


class Rig:
    """Some ways of posting at once, on a cluster that runs, in a folder of theirs."""

    def __init__(
        self,
        cluster: Cluster,
        folder: Path,
        ways: Sequence[Way],
        *,
        rate: float,
        seed: int,
        companions: Sequence[Companion] = (),
    ) -> None:
        self._cluster = cluster
        self._rng = random.Random(seed)
        self._producing = [Producing(cluster, way, folder / way.name, rate, seed) for way in ways]
        self._companions = companions

    async def run(self, troubles: Sequence[Trouble], seconds: float) -> Sequence[Found]:
        """Have each trouble at least once, and again in any order until time is over."""
        made = Troubles()
        async with asyncio.TaskGroup() as tasks, AsyncExitStack() as stack:
            begun = [asyncio.Event() for _ in self._producing]
            for producing, ready in zip(self._producing, begun, strict=True):
                tasks.create_task(producing.run(ready))
                stack.callback(producing.stop)
            for companion in self._companions:
                tasks.create_task(companion.run())
            await asyncio.gather(*(ready.wait() for ready in begun))
            await self._trouble(troubles, seconds, made)
        found = [await producing.found(made) for producing in self._producing]
        for companion in self._companions:
            found[0].surprises += companion.surprises
        return found

    async def _trouble(self, troubles: Sequence[Trouble], seconds: float, done: Troubles) -> None:
        until = time.monotonic() + seconds
        while done.made.total() < len(troubles) or time.monotonic() < until:
            for trouble in self._rng.sample(list(troubles), len(troubles)):
                await asyncio.sleep(CALM)
                before = sum(producing.refusals for producing in self._producing)
                await trouble.strike(self._cluster, self._rng)
                done.made[trouble.name] += 1
                done.cost[trouble.name] += sum(producing.refusals for producing in self._producing) - before
                if done.made.total() >= len(troubles) and time.monotonic() >= until:
                    break
        # What came in while the last ended is answered, and companions catch up.
        await asyncio.sleep(CALM)
        for companion in self._companions:
            companion.stop()


def table(found: Sequence[Found]) -> str:
    """Return what was found, a line for each way."""
    rows = [COLUMNS, *(one.row() for one in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


async def soak(cluster: Cluster, folder: Path, ways: Sequence[Way], *, minutes: float, rate: float, seed: int) -> int:
    """Run the ways one after the other, with subscribers beside; print a table; return the exit status."""
    found: list[Found] = []
    watched: list[str] = []
    for number, way in enumerate(ways):
        watching = Watching(cluster.servers, folder, clients=WATCHERS, seed=seed + number)
        rig = Rig(cluster, folder, [way], rate=rate, seed=seed, companions=[watching])
        found += await rig.run(TROUBLES, 60 * minutes / len(ways))
        watched.append(f"{way.name}: {watching}")
        print(f"{table(found[-1:])}\n503s of each trouble: {found[-1].troubles}\n{watching}")
        print(*found[-1].surprises[:20], sep="\n", flush=True)
    print(f"\nseed={seed} rate={rate:g}/s\n{table(found)}", *watched, sep="\n")
    return 0 if all(one.clean for one in found) else 1


def main(arguments: Sequence[str]) -> int:
    """Run for some minutes; exit status 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=200.0, help="events a second")
    parser.add_argument("--session", type=float, default=DEFAULT_SESSION, help="the brokers' session timeout, seconds")
    parser.add_argument("--ways", nargs="*", default=[way.name for way in WAYS])
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    given = parser.parse_args(arguments)
    ways = [way for way in WAYS if way.name in given.ways]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cluster = Cluster(folder / "cluster", session_timeout=given.session)
        try:
            cluster.start()
            running = soak(cluster, folder, ways, minutes=given.minutes, rate=given.rate, seed=given.seed)
            return asyncio.run(running)
        finally:
            cluster.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
