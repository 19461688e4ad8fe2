"""Where the CPU of an event goes: each step of the pipeline alone, on the same events, in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from bench import posting
from bench.report import Row
from eventstreams.catalog.load import load_catalog
from eventstreams.eventlog.base import EventLog
from eventstreams.eventlog.open import open_log
from eventstreams.metrics import Metrics
from eventstreams.records import NewRecord
from eventstreams.runtime import collect_less
from eventstreams.schemas.formats import formats
from eventstreams.schemas.repository import DirectoryRepository
from eventstreams.schemas.validation import Validators
from intake.envelope import Caller, Plan
from intake.json_text import parse, serialise
from intake.options import IntakeOptions
from intake.pipeline import Intake

CALLER = Caller({"user-agent": "bench"}, "127.0.0.1", "r", {})
EVENTS = 10_000
"""How many a stage is measured with."""

AT_ONCE = 16
"""Appends under way."""


@dataclass(frozen=True, slots=True)
class _Stages:
    """Events in requests of one size, and what is done with them."""

    plan: Plan
    bodies: Sequence[bytes]
    stamped: Sequence[Sequence[dict[str, Any]]]
    size: int
    events: int

    def costs(self) -> dict[str, float]:
        """Return the microseconds of CPU an event of what does not wait."""
        is_valid = self.plan.validator.is_valid
        return {
            "parse": self._cost(lambda n: parse(self.bodies[n])),
            "validate": self._cost(lambda n: [is_valid(event) for event in self.stamped[n]]),
            "stamp": self._cost(self._stamp),
            "serialise": self._cost(lambda n: [serialise(event) for event in self.stamped[n]]),
        }

    def _stamp(self, number: int) -> None:
        for event in self.stamped[number]:
            event["meta"].pop("id", None)
            self.plan.stamp(event, CALLER, "2026-01-05T10:20:30.123Z")

    def _cost(self, job: Callable[[int], object]) -> float:
        began = time.process_time()
        for number in range(self.events // self.size):
            job(number % len(self.bodies))
        return (time.process_time() - began) * 1e6 / self.events

    async def awaited(self, job: Callable[[int], Awaitable[object]]) -> float:
        """Return the same of what waits, many at once; librdkafka's threads are in it."""
        requests = iter(range(max(self.events // self.size, 1)))

        async def work() -> None:
            for number in requests:
                await job(number % len(self.bodies))

        await job(0)
        began = time.process_time()
        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        return (time.process_time() - began) * 1e6 / self.events

    async def produce(self, log: EventLog) -> float:
        """Return what an append costs."""
        records = [[NewRecord(self.plan.topic, serialise(event), None, 0) for event in some] for some in self.stamped]
        return await self.awaited(lambda n: log.append(records[n]))


async def rows(url: str, http: Mapping[int, float], schemas: Path, streams: Path, events: int) -> Sequence[Row]:
    """Return the CPU an event by stage, for each size of requests; `http` is what HTTP costs at that size."""
    validators = Validators(DirectoryRepository(schemas), formats("production"))
    catalog, options = load_catalog(str(streams)), IntakeOptions()
    plan = Plan(await validators.get(posting.SCHEMA_URI), posting.STREAM, catalog.find(posting.STREAM), options)
    collect_less()
    made: list[Row] = []
    async with open_log(url) as log:
        intake = Intake(log, validators, catalog, options, Metrics("bench"))
        async with intake.open(5):
            for size, cost in http.items():
                stages = _stages(plan, size, events)
                costs = {"HTTP": cost, **stages.costs(), "produce": await stages.produce(log)}
                whole = await stages.awaited(lambda n, s=stages: intake.submit(orjson.loads(s.bodies[n]), CALLER))  # type: ignore[misc]
                made += _rows(size, costs, whole)
    return made


def _stages(plan: Plan, size: int, count: int) -> _Stages:
    events = posting.recent_changes()
    requests = [events[first : first + size] for first in range(0, len(events), size)]
    bodies = [orjson.dumps(request) for request in requests]
    stages = _Stages(plan, bodies, [orjson.loads(body) for body in bodies], size, count)
    for number in range(len(bodies)):
        stages._stamp(number)
    return stages


def _rows(size: int, costs: Mapping[str, float], whole: float) -> list[Row]:
    what = "one event a request" if size == 1 else f"batches of {size}"
    lines = {**costs, "all from parsing to the log's answer": whole}
    return [Row("intake", f"{what}, CPU: {name}", f"{cost:,.1f} us an event") for name, cost in lines.items()]
