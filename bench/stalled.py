"""A thousand streams that never read, beside a hundred that do: what they cost the server, and the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from bench import machine, targets
from bench.report import Row, at_most
from bench.sink import Sink, Stats, open_sink
from bench.targets import Target

LIVE = 100
STALLED = 1_000
RATE = 100.0
SECONDS = 8.0
FILL_EVENTS = 800
"""Some 1 MB for each stream: more than the kernel takes, so that all have stalled before the measurement begins."""

SETTLE = 1.0


async def run(folder: Path) -> Sequence[Row]:
    """Return growth of memory, and latency beside that without them."""
    async with (
        targets.ours(folder) as target,
        open_sink(target.port, target.path, LIVE, "wakes") as live,
    ):
        await asyncio.sleep(SETTLE)
        # First without the others: the tail grows as much as it will later.
        await _fill(target, live)
        alone = await _load(target, live)
        before = machine.rss_bytes(target.pid)
        async with open_sink(target.port, target.path, STALLED, "stalled"):
            await asyncio.sleep(SETTLE)
            await _fill(target, live)
            beside = await _load(target, live)
            growth = (machine.rss_bytes(target.pid) - before) / 2**20
    what = f"{STALLED:,} stalled beside {LIVE} live"
    return [
        at_most("stalled", f"{what}, growth of RSS", growth, 64, "MB"),
        Row("stalled", f"{what}, p99 of the live alone", f"{alone.p99 / 1000:.2f} ms"),
        Row("stalled", f"{what}, p99 of the live beside", f"{beside.p99 / 1000:.2f} ms"),
        at_most("stalled", f"{what}, p99 to that alone", beside.p99 / alone.p99, 2, "x"),
    ]


async def _fill(target: Target, live: Sink) -> None:
    await live.reset()
    for done in range(0, FILL_EVENTS, 20):
        await target.publish(20)
        await live.wait((done + 20) * LIVE)


async def _load(target: Target, live: Sink) -> Stats:
    await live.reset()
    began, events = time.monotonic(), int(RATE * SECONDS)
    for number in range(1, events + 1):
        await target.publish(1)
        await asyncio.sleep(max(0.0, began + number / RATE - time.monotonic()))
    await live.wait(events * LIVE)
    return await live.stats()
