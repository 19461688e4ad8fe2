"""The clients: many streams in one small C program, which drains and counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from bench.machine import LOAD_CORE
from bench.processes import BenchError, Running, compiled, running

OPEN_TIMEOUT = 90.0
WAIT_TIMEOUT = 60.0


class Stats(NamedTuple):
    """What came since the last reset; `least` and `most` are events of one stream, times in microseconds."""

    events: int
    bytes: int
    closed: int
    least: int
    most: int
    p50: int
    p90: int
    p99: int
    max: int


class Sink:
    """Open streams. Made by `open_sink`."""

    def __init__(self, process: Running) -> None:
        self._process = process
        self.pid = process.pid

    async def _ask(self, order: str) -> str:
        await self._process.say(order.encode())
        return await self._process.line()

    async def reset(self) -> None:
        """Set all counters to zero."""
        await self._ask("reset")

    async def wait(self, events: int) -> float:
        """Return when so many events came in all since the reset: the seconds since then. Raises: BenchError."""
        try:
            async with asyncio.timeout(WAIT_TIMEOUT):
                return float((await self._ask(f"wait {events}")).split()[2])
        except TimeoutError as exc:
            raise BenchError(f"{events} events did not come within {WAIT_TIMEOUT:g} s") from exc

    async def stats(self) -> Stats:
        """Return what came."""
        return Stats(*map(int, (await self._ask("stats")).split()))


@asynccontextmanager
async def open_sink(
    port: int, path: str, count: int, how: Literal["naps", "stalled", "wakes"] = "naps"
) -> AsyncIterator[Sink]:
    """Open `count` streams and return when all have begun.

    Those that are `stalled` take no more than that; who `wakes` at once measures latency, at the server's cost; who
    `naps` sees things a millisecond late.
    """
    command: list[str | Path] = [compiled("sink"), str(port), str(count), path, how]
    async with running(command, LOAD_CORE) as process:
        async with asyncio.timeout(OPEN_TIMEOUT):
            await process.line()
        yield Sink(process)
