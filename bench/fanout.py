"""Fan-out: one event at a time to many streams; what the server's CPU time is per delivery.

All servers hold their streams at once and take their rounds in turn: a ratio is the median of those between rounds next
to each other, so that what else the machine does falls on all alike.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

from bench import machine, targets
from bench.processes import Unavailable
from bench.report import Row, at_most
from bench.sink import Sink, open_sink
from bench.targets import Opening, Target

SUBSCRIBERS = (100, 1_000, 10_000)
DELIVERIES = 20_000
"""In one round; at least `LEAST_EVENTS` events."""

LEAST_EVENTS = 5
ROUNDS = 5
PACE = 20e-6
"""Seconds between two events for each stream, the same for all: caches are as warm for a fast server as for a slow one,
as if the events came from outside. `LEAST_PACE` at the least."""

LEAST_PACE = 0.01
SETTLE = 0.5
"""Seconds between the first bytes of the last stream and the first event: streams then stand at the head."""

OURS, FLOOR, NCHAN = "ours", "C send() loop", "nginx + nchan"
TARGETS: dict[str, Opening] = {
    OURS: targets.ours,
    FLOOR: targets.sendloop,
    NCHAN: targets.nchan,
    "ours, portable path": targets.portable,
    "queue per client": targets.queues,
}
COMPARED_AT = 1_000
FLOOR_FACTOR = 1.3
LINEAR_FACTOR = 1.5
"""How much more a delivery may cost at the worst number of subscribers than at the best."""

Costs = Mapping[str, Sequence[float]]
"""CPU microseconds per delivery in each round."""


async def run(folder: Path) -> Sequence[Row]:
    """Return the rows of all targets at all sizes."""
    rows: list[Row] = []
    growth: dict[int, float] = {}
    for subscribers in SUBSCRIBERS:
        found, missing = await costs(folder, subscribers, TARGETS)
        rows += [Row("fanout", f"{subscribers:,} streams, {name}", why) for name, why in missing.items()]
        rows += _compare(subscribers, found)
        growth[subscribers] = median(found[OURS])
    return [*rows, *_growth(growth)]


async def costs(
    folder: Path, subscribers: int, openings: Mapping[str, Opening], rounds: int = ROUNDS
) -> tuple[Costs, Mapping[str, str]]:
    """Return what deliveries cost each target, and why others are left out."""
    found: dict[str, list[float]] = {}
    missing: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        opened: dict[str, tuple[Target, Sink]] = {}
        for number, (name, opening) in enumerate(openings.items()):
            own = folder / f"{subscribers}-{number}"
            own.mkdir()
            try:
                target = await stack.enter_async_context(opening(own))
            except Unavailable as exc:
                missing[name] = str(exc)
                continue
            sink = await stack.enter_async_context(open_sink(target.port, target.path, subscribers))
            opened[name] = target, sink
        await asyncio.sleep(SETTLE)
        for turn in range(rounds + 1):
            for name, (target, sink) in opened.items():
                cost = await _round(target, sink, subscribers)
                if turn:  # the first one warms up
                    found.setdefault(name, []).append(cost)
    return found, missing


async def _round(target: Target, sink: Sink, subscribers: int) -> float:
    await sink.reset()
    events = max(LEAST_EVENTS, DELIVERIES // subscribers)
    pace = max(LEAST_PACE, PACE * subscribers)
    before, due = machine.cpu_seconds(target.pid), time.monotonic()
    for number in range(1, events + 1):
        await target.publish(1)
        await sink.wait(number * subscribers)
        due = max(due + pace, time.monotonic())
        await asyncio.sleep(due - time.monotonic())
    return (machine.cpu_seconds(target.pid) - before) / (events * subscribers) * 1e6


def _compare(subscribers: int, found: Costs) -> list[Row]:
    rows = [
        Row("fanout", f"{subscribers:,} streams, CPU a delivery: {name}", f"{median(values):.2f} us")
        for name, values in found.items()
    ]
    for rival, most in ((FLOOR, FLOOR_FACTOR), (NCHAN, 1.0)):
        if rival in found:
            what = f"{subscribers:,} streams, ours to {rival}"
            ratio = median(mine / theirs for mine, theirs in zip(found[OURS], found[rival], strict=True))
            aimed = subscribers == COMPARED_AT
            rows.append(at_most("fanout", what, ratio, most, "x") if aimed else Row("fanout", what, f"{ratio:.2f} x"))
    return rows


def _growth(found: Mapping[int, float]) -> list[Row]:
    rows = [Row("growth", f"{n:,} streams", f"{1e6 / value:,.0f} deliveries/s a core") for n, value in found.items()]
    worst = max(found.values()) / min(found.values())
    return [*rows, at_most("growth", "cost of a delivery, worst size to best", worst, LINEAR_FACTOR, "x")]
