"""The kill rig of intake: producers POST numbered events under load, intake and broker are killed at random.

No number is ever sent twice, so that whatever the log holds twice was stored twice by us. At the end the log holds
every event that was acknowledged, none twice, those of one producer in order. `python -m tests.support.intake_oracle
--minutes N` runs it long; with `--spool` events are kept on disk while the broker is away: 202 counts as acknowledged.
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
from typing import Any

import httpx
import orjson

from eventstreams.eventlog.open import open_log
from eventstreams.records import TopicPartition
from tests.support.oracle_log import values
from tests.support.places import KafkaPlace
from tests.support.posting import Poster
from tests.support.processes import IntakeProcess

TOPICS = {"rig.busy": 3, "rig.steady": 1}
STREAM = {"schema_title": "rig/numbered", "message_key_fields": {"producer": "producer"}}
PRODUCE_TIMEOUT = 4.0
GRACE = 4.0
"""Seconds beyond the deadline in which an answer must come, on a machine with other things to do."""

SETTLE_TIMEOUT = 120.0

PROPERTIES = {
    "$schema": {"type": "string"},
    "meta": {"type": "object", "properties": {name: {"type": "string"} for name in ("stream", "id", "dt")}},
    "n": {"type": "integer"},
    "producer": {"type": "integer"},
    "padding": {"type": "string"},
}


def write_configuration(folder: Path, streams: Mapping[str, Mapping[str, Any]]) -> Sequence[str]:
    """Write a schema and streams; return the settings that name them."""
    schema = folder / "schemas" / "rig" / "numbered" / "1.0.0"
    schema.parent.mkdir(parents=True)
    schema.write_bytes(orjson.dumps({"title": "rig/numbered", "type": "object", "properties": PROPERTIES}))
    path = folder / "streams.yaml"
    path.write_bytes(orjson.dumps(streams))
    return f"streams={path}", f"schemas={folder / 'schemas'}"


@dataclass
class Report:
    """What a run did and what it found."""

    events: int = 0
    acknowledged: int = 0
    spooled: int = 0
    stored: int = 0
    intake_kills: int = 0
    broker_kills: int = 0
    missing: int = 0
    twice: int = 0
    reordered: int = 0
    slowest: float = 0.0
    surprises: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing acknowledged is missing, stored twice, out of order, or answered late."""
        late = self.slowest > PRODUCE_TIMEOUT + GRACE
        return not (self.missing or self.twice or self.reordered or late or self.surprises)

    def __str__(self) -> str:
        shown = {name: value for name, value in vars(self).items() if name != "surprises"}
        shown["slowest"] = f"{self.slowest:.2f}"
        return " ".join(f"{name}={value}" for name, value in shown.items())

    def heard(self, posters: Sequence[Poster]) -> set[int]:
        """Take over what the producers noted; return the numbers that were acknowledged."""
        self.events = sum(poster.sent for poster in posters)
        self.spooled = sum(poster.spooled for poster in posters)
        self.slowest = max(poster.slowest for poster in posters)
        self.surprises += [surprise for poster in posters for surprise in poster.surprises]
        return {number for poster in posters for number in poster.acknowledged}

    def judge(self, acknowledged: set[int], stored: Sequence[Sequence[dict[str, int]]]) -> None:
        """Compare what was acknowledged with what each partition holds, in its order."""
        counts = Counter(event["n"] for partition in stored for event in partition)
        self.acknowledged = len(acknowledged)
        self.stored = counts.total()
        self.missing = len(acknowledged - counts.keys())
        self.twice = sum(1 for count in counts.values() if count > 1)
        for partition in stored:
            self._judge_order(partition, acknowledged)

    def _judge_order(self, partition: Sequence[dict[str, int]], acknowledged: set[int]) -> None:
        last: dict[int, int] = {}
        for event in partition:
            producer, number = event["producer"], event["n"]
            if number in acknowledged:
                self.reordered += number < last.get(producer, -1)
                last[producer] = number


class Rig:
    """One run with a broker of its own; what it needs else is put into `folder`."""

    def __init__(self, folder: Path, *, producers: int, seed: int, spool: bool) -> None:
        self._rng = random.Random(seed)
        self._place = KafkaPlace(folder)
        self._spool = spool
        settings = [
            *write_configuration(folder, dict.fromkeys(TOPICS, STREAM)),
            f"intake.produce_timeout={PRODUCE_TIMEOUT}",
            "log_level=error",
        ]
        settings += [f"intake.spool={folder / 'spool'}"] if spool else []
        self.intake = IntakeProcess(self._place.url, *settings)
        topics = tuple(TOPICS)
        self._more = asyncio.Event()
        self.posters = [
            Poster(
                self.intake,
                number,
                topics[number % len(topics)],
                rng=random.Random(self._rng.random()),
                more=self._more,
            )
            for number in range(producers)
        ]
        self.report = Report()

    async def run(self, *, kills: int, acknowledged: int, seconds: float, burst: int = 2000) -> Report:
        """Run until there were so many kills of each side and acknowledgements, for `seconds` at least.

        At most `burst` events are acknowledged between two troubles, or a few more.
        """
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._place.running(TOPICS))
            await stack.enter_async_context(self.intake.running())
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            posting = [tasks.create_task(poster.run()) for poster in self.posters]
            until = time.monotonic() + seconds
            while not self._done(kills, acknowledged, until):
                await self._trouble()
                await self._progress(self._rng.randint(20, burst))
            for poster in self.posters:
                poster.stop()
            await asyncio.wait(posting)
            await self._settled()
            self.report.judge(self.report.heard(self.posters), await self._stored())
        return self.report

    def _done(self, kills: int, acknowledged: int, until: float) -> bool:
        report = self.report
        enough = min(report.intake_kills, report.broker_kills) >= kills and self._acknowledged() >= acknowledged
        return enough and time.monotonic() >= until

    def _acknowledged(self) -> int:
        return sum(len(poster.acknowledged) for poster in self.posters)

    async def _progress(self, events: int) -> None:
        """Wait until so many more events are acknowledged."""
        wanted = self._acknowledged() + events
        async with asyncio.timeout(SETTLE_TIMEOUT):
            while self._acknowledged() < wanted:
                self._more.clear()
                await self._more.wait()

    async def _trouble(self) -> None:
        """Kill intake, or the broker, or both, and start them again."""
        what = self._rng.choice(("intake", "intake", "broker", "both"))
        if what != "intake":
            await self._place.kill()
            self.report.broker_kills += 1
            # Some are answered in the meantime, some are under way.
            await asyncio.sleep(self._rng.choice((0.0, 0.5, PRODUCE_TIMEOUT + 1.0)))
        if what != "broker":
            await self.intake.end(signal.SIGKILL if self._rng.random() < 0.8 else signal.SIGTERM)
            self.report.intake_kills += 1
            if self._spool and what == "both" and self._rng.random() < 0.5:
                # The spool needs no broker to start.
                await self.intake.start()
        if what != "intake":
            await self._place.start()
        if not self.intake.up.is_set():
            await self.intake.start()

    async def _settled(self) -> None:
        """Return when the spool is empty."""
        if not self._spool:
            return
        async with httpx.AsyncClient(trust_env=False) as http, asyncio.timeout(SETTLE_TIMEOUT):
            empty = "\neventstreams_spool_events 0.0\n"
            while empty not in (await http.get(f"{self.intake.admin}/metrics")).text:  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    async def _stored(self) -> Sequence[Sequence[dict[str, int]]]:
        async with open_log(self._place.url, writable=False) as log:
            return [
                [orjson.loads(value) for _, value in await values(log, TopicPartition(topic, number))]
                for topic, partitions in TOPICS.items()
                for number in range(partitions)
            ]


def main(arguments: Sequence[str]) -> int:
    """Run for some minutes; exit status 1 when anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--producers", type=int, default=16)
    parser.add_argument("--kills", type=int, default=20, help="of each side, at least")
    parser.add_argument("--acknowledged", type=int, default=0, help="events, at least")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--spool", action="store_true")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder), producers=given.producers, seed=given.seed, spool=given.spool)
        running = rig.run(kills=given.kills, acknowledged=given.acknowledged, seconds=60 * given.minutes, burst=12_000)
        report = asyncio.run(running)
    print(f"spool={'on' if given.spool else 'off'} seed={given.seed} {report}", *report.surprises[:20], sep="\n")
    return 0 if report.clean else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
