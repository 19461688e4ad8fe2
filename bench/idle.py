"""Ten thousand streams on one core: what each costs in memory, and how late five events a second are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from bench import machine, targets
from bench.report import Row, at_most
from bench.sink import open_sink

STREAMS = 10_000
RATE = 5.0
SECONDS = 10.0
SETTLE = 2.0
FIRST = 100
"""Streams opened first: what the process loads with the first of them is not theirs."""


async def run(folder: Path) -> Sequence[Row]:
    """Return memory a stream, and latency."""
    async with targets.ours(folder) as target:
        async with open_sink(target.port, target.path, FIRST):
            await asyncio.sleep(SETTLE)
        before = machine.rss_bytes(target.pid)
        async with open_sink(target.port, target.path, STREAMS, "wakes") as sink:
            await asyncio.sleep(SETTLE)
            each = (machine.rss_bytes(target.pid) - before) / STREAMS / 1024
            await sink.reset()
            spent, began = machine.cpu_seconds(target.pid), time.monotonic()
            events = int(RATE * SECONDS)
            for number in range(1, events + 1):
                await target.publish(1)
                await asyncio.sleep(max(0.0, began + number / RATE - time.monotonic()))
            await sink.wait(events * STREAMS)
            busy = (machine.cpu_seconds(target.pid) - spent) / (time.monotonic() - began)
            stats = await sink.stats()
    what = f"{STREAMS:,} streams"
    return [
        at_most("idle", f"{what}, RSS of each", each, 6, "KB"),
        at_most("idle", f"{what}, {RATE:g} events/s, p99", stats.p99 / 1000, 250, "ms"),
        Row(
            "idle", f"{what}, {RATE:g} events/s, p50 and maximum", f"{stats.p50 / 1000:.0f}, {stats.max / 1000:.0f} ms"
        ),
        Row("idle", f"{what}, {RATE:g} events/s, of one core", f"{busy:.0%}"),
    ]
