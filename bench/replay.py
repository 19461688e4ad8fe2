"""Replay: one client, and a hundred over the same hour; from the embedded log and from Kafka."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from bench import brokers, events, machine, targets
from bench.machine import SERVER_CORE
from bench.processes import BenchError, Running, Unavailable, running
from bench.report import Row, at_least, at_most
from bench.sink import open_sink
from eventstreams.errors import EventStreamsError
from eventstreams.eventlog.base import EventLog
from eventstreams.eventlog.open import open_log
from tests.support.kafka import KafkaUnavailable, free_port

EVENTS = 200_000
BATCH = 2_000
HOUR_MS = 3_600_000
CLIENTS = 100
CLIENTS_EVENTS = 50_000
"""Of the hour, for each of many: five million deliveries."""

ROUNDS = 3
KEEP_FOR_EVER = {"retention.ms": "-1"}


async def run_one(folder: Path) -> Sequence[Row]:
    """Return the speed of one client's replay from both logs."""
    async with embedded(folder) as url:
        rows = [await _one(folder, url, "the embedded log")]
    try:
        async with brokers.kafka(folder, KEEP_FOR_EVER) as url:
            async with open_log(url) as log:
                await _fill(log)
            return [*rows, await _one(folder, url, "Kafka")]
    except KafkaUnavailable as exc:
        return [*rows, Row("replay", "one client, from Kafka", str(exc))]


async def run_crowd(folder: Path) -> Sequence[Row]:
    """Return the speed of many over the same hour, and how often the log was read for them."""
    async with embedded(folder) as url, _gateway(folder, url) as (server, port, admin):
        since = await _since(url, CLIENTS_EVENTS)
        before = await _read_records(admin)
        spent = machine.cpu_seconds(server.pid)
        seconds, taken = await _replay(port, since, CLIENTS, CLIENTS_EVENTS)
        spent = machine.cpu_seconds(server.pid) - spent
        reads = (await _read_records(admin) - before) / CLIENTS_EVENTS
    what = f"{CLIENTS} clients over the same {CLIENTS_EVENTS:,} events"
    return [
        at_least("crowd", f"{what}, in all", taken / seconds, 500_000, "events/s"),
        Row("crowd", f"{what}, a core of CPU time", f"{taken / spent:,.0f} events/s"),
        at_most("crowd", f"{what}, times that the log was read", reads, 1.1, "x"),
    ]


@asynccontextmanager
async def embedded(folder: Path) -> AsyncIterator[str]:
    """Have an embedded log with an hour of events; yields its URL."""
    async with targets.fresh_log(folder) as log:
        await _fill(log)
    yield f"embedded:{targets.database(folder)}"


async def _fill(log: EventLog) -> None:
    """Append an hour of events, evenly."""
    now = time.time_ns() // 1_000_000
    for first in range(0, EVENTS, BATCH):
        timestamps = (now - HOUR_MS + HOUR_MS * n // EVENTS for n in range(first, first + BATCH))
        for outcome in await log.append([new for t in timestamps for new in events.records(1, timestamp=t)]):
            if isinstance(outcome, EventStreamsError):
                raise BenchError(f"an event was not stored: {outcome}")


@asynccontextmanager
async def _gateway(folder: Path, url: str) -> AsyncIterator[tuple[Running, int, int]]:
    admin = free_port()
    command = targets.gateway_command(url, targets.write_streams(folder), f"admin.port={admin}")
    async with running(command, SERVER_CORE) as process:
        yield process, targets.port_in(await process.line_with("serving streams at")), admin


async def _since(url: str, count: int) -> int:
    """Return the time (ms) from which on there are so many events."""
    async with open_log(url, writable=False) as log:
        (partition,) = await log.partitions(events.TOPIC)
        end = (await log.extents([partition]))[partition].end
        block = await log.fetch(partition, end - count, end - count + 1, 1)
        return block.records[0].timestamp


async def _one(folder: Path, url: str, log: str) -> Row:
    async with _gateway(folder, url) as (_, port, _):
        since = await _since(url, EVENTS)
        speeds = []
        for _ in range(ROUNDS):
            seconds, taken = await _replay(port, since, 1, EVENTS)
            speeds.append(taken / seconds)
    return at_least("replay", f"one client, {EVENTS:,} events from {log}", max(speeds), 100_000, "events/s")


async def _replay(port: int, since: int, clients: int, count: int) -> tuple[float, int]:
    """Return the seconds that a replay took, and the events that came."""
    began = time.monotonic()
    async with open_sink(port, f"/v2/stream/{events.TOPIC}?since={since}", clients) as sink:
        await sink.wait(clients * count)
        return time.monotonic() - began, (await sink.stats()).events


async def _read_records(admin: int) -> float:
    async with httpx.AsyncClient(trust_env=False) as http:
        text = (await http.get(f"http://127.0.0.1:{admin}/metrics")).text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "eventstreams_replay_read_records_total":
                return float(sample.value)
    raise Unavailable("the gateway does not count what it reads for replay")
