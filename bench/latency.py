"""From POST to socket: real intake and gateway processes over one log, one event a request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from bench import brokers, events, targets
from bench.machine import ALL_CORES
from bench.processes import BenchError, running
from bench.report import Row, at_most
from bench.sink import Sink, open_sink
from tests.support.kafka import KafkaUnavailable

RATE = 1_000
SUBSCRIBERS = 100
PRODUCERS = 20
"""Connections that post in turn, each once it was answered."""

SECONDS = 8.0
WARM_UP = 1.0
HEAD = (
    b"POST /v1/events HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n" % events.SIZE
)


async def run(folder: Path) -> Sequence[Row]:
    """Return latency over both logs; events count from when they were due."""
    async with targets.fresh_log(folder):
        pass
    rows = await _measure(folder, f"embedded:{targets.database(folder)}", "embedded log")
    try:
        async with brokers.kafka(folder) as url:
            return [*rows, *await _measure(folder, url, "Kafka")]
    except KafkaUnavailable as exc:
        return [*rows, Row("latency", "POST to socket, Kafka", str(exc))]


async def _measure(folder: Path, url: str, log: str) -> list[Row]:
    async with (
        _service(folder, url, "serve", "serving streams at") as gateway,
        _service(folder, url, "intake", "taking events at") as intake,
        open_sink(gateway, f"/v2/stream/{events.TOPIC}", SUBSCRIBERS, "wakes") as sink,
    ):
        await _post(intake, sink, WARM_UP)
        await _post(intake, sink, SECONDS)
        stats = await sink.stats()
    what = f"POST to socket, {log}, {RATE:,} events/s to {SUBSCRIBERS}"
    return [
        at_most("latency", f"{what}, p50", stats.p50 / 1000, 10, "ms"),
        at_most("latency", f"{what}, p99", stats.p99 / 1000, 50, "ms"),
    ]


@asynccontextmanager
async def _service(folder: Path, url: str, name: str, says: str) -> AsyncIterator[int]:
    command = targets.gateway_command(url, targets.write_streams(folder), service=name)
    async with running(command, ALL_CORES) as process:
        yield targets.port_in(await process.line_with(says))


async def _post(port: int, sink: Sink, seconds: float) -> None:
    """Post at the rate for so long, and wait until all have come."""
    await sink.reset()
    began, count = time.monotonic_ns() + 10_000_000, int(RATE * seconds)
    async with asyncio.TaskGroup() as tasks:
        for first in range(PRODUCERS):
            due = (began + n * 1_000_000_000 // RATE for n in range(first, count, PRODUCERS))
            tasks.create_task(_produce(port, list(due)))
    await sink.wait(count * SUBSCRIBERS)


async def _produce(port: int, due: Sequence[int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for moment in due:
        await asyncio.sleep(max(0, moment - time.monotonic_ns()) / 1e9)
        writer.write(HEAD + events.event(moment))
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 201"):
            raise BenchError(f"an event was not taken: {head[:200]!r}")
    writer.close()
