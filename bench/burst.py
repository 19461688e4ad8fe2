"""Fan-out under load: 5,000 events a second to 200 streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from bench import machine, targets
from bench.processes import Unavailable
from bench.report import Row, at_least
from bench.sink import Sink, open_sink
from bench.targets import Opening, Target

SUBSCRIBERS = 200
RATE = 5_000
SECONDS = 4.0
BATCH = 25
"""Events published in one go, five milliseconds' worth."""

SETTLE = 0.3


async def run(folder: Path) -> Sequence[Row]:
    """Return deliveries per CPU second, ours and nchan's."""
    rate, mine = await _deliveries(targets.ours, folder)
    what = f"{RATE:,} events/s to {SUBSCRIBERS} streams"
    rows = [
        at_least("burst", f"{what}, a core of CPU time", mine, 500_000, "deliveries/s"),
        Row("burst", f"{what}, in fact", f"{rate:,.0f} deliveries/s"),
    ]
    try:
        _, theirs = await _deliveries(targets.nchan, folder)
    except Unavailable as exc:
        return [*rows, Row("burst", "nginx + nchan", str(exc))]
    rows.append(Row("burst", f"{what}, nginx + nchan", f"{theirs:,.0f} deliveries/s a core"))
    return [*rows, at_least("burst", "ours to nginx + nchan", mine / theirs, 3, "x")]


async def _deliveries(opening: Opening, folder: Path) -> tuple[float, float]:
    """Return deliveries a second and deliveries per CPU second of the server."""
    async with (
        opening(folder) as target,
        open_sink(target.port, target.path, SUBSCRIBERS) as sink,
    ):
        await asyncio.sleep(SETTLE)
        await target.publish(BATCH)
        await sink.wait(BATCH * SUBSCRIBERS)
        return await _load(target, sink)


async def _load(target: Target, sink: Sink) -> tuple[float, float]:
    await sink.reset()
    before, began = machine.cpu_seconds(target.pid), time.monotonic()
    published = 0
    while (gone := time.monotonic() - began) < SECONDS:
        await target.publish(BATCH)
        published += BATCH
        await asyncio.sleep(max(0.0, published / RATE - gone))
    seconds = await sink.wait(published * SUBSCRIBERS)
    spent = machine.cpu_seconds(target.pid) - before
    return published * SUBSCRIBERS / seconds, published * SUBSCRIBERS / spent
