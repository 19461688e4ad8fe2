"""Intake on a real Kafka: events a second, CPU an event and by stage, waiting times; EventGate beside it where it is.

Server and load have a core each; the broker is with the load, so the rate by the wall clock is bound by both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import brokers, machine, posting, stages, targets
from bench.eventgate import open_eventgate
from bench.posting import Posted
from bench.processes import ROOT, python, running
from bench.report import Row, at_least, at_most
from tests.support.kafka import KafkaUnavailable

SCHEMAS = ROOT / "config" / "schemas"
STREAMS = ROOT / "config" / "streams.yaml"
SECONDS = 5.0
WARM_SECONDS = 1.5
BATCH = 100
TWICE = 2.0


@dataclass(frozen=True, slots=True)
class Load:
    """A way to post, and what is to be reached: twice what EventGate 1.8.4 was seen to do on a core of its own."""

    name: str
    size: int
    connections: int
    paced: float
    """Requests a second at which waiting times are compared: EventGate's best."""
    rate: float
    """Events a second."""
    p99: float
    """Milliseconds, EventGate's."""
    cpu: float
    """Microseconds an event."""


LOADS = (
    Load("one event a request", 1, 64, 2_900, rate=6_000, p99=79, cpu=160),
    Load(f"batches of {BATCH}", BATCH, 16, 290, rate=60_000, p99=89, cpu=17),
)


@dataclass(frozen=True, slots=True)
class Result:
    """One server under one load."""

    rate: float
    """Events a second by the wall clock."""
    cpu: float
    """Microseconds of the server's CPU an event."""
    fast: Posted
    paced: Posted


async def run(folder: Path, *, eventgate: Path | None = None, seconds: float = SECONDS) -> Sequence[Row]:
    """Return ours on a broker of its own, EventGate's figures too where `eventgate` says where it is."""
    try:
        async with brokers.kafka(folder, topic=posting.STREAM) as url:
            return await compare(folder, url, eventgate=eventgate, seconds=seconds)
    except KafkaUnavailable as exc:
        return [Row("intake", "on Kafka", str(exc))]


async def compare(
    folder: Path, url: str, *, eventgate: Path | None, seconds: float, events: int = stages.EVENTS
) -> Sequence[Row]:
    """Return the table on a broker that has the topic; each stage is run with `events`. Raises: BenchError."""
    ours = await _measure(_ours(url), folder, seconds)
    rows = [row for load, result in zip(LOADS, ours, strict=True) for row in _rows(load, result)]
    if eventgate is None:
        rows.append(Row("intake", "EventGate beside it", "not run: --eventgate DIR tells where it is installed"))
    else:
        theirs = await _measure(
            open_eventgate(eventgate, folder, url.removeprefix("kafka://"), SCHEMAS), folder, seconds
        )
        for load, mine, other in zip(LOADS, ours, theirs, strict=True):
            rows += _rows(load, other, "EventGate, ") + _ratios(load, mine, other)
    async with _bare() as server:
        http = [(await _load(server, folder, load, seconds)).cpu for load in LOADS]
    sizes = {load.size: cost for load, cost in zip(LOADS, http, strict=True)}
    return [*rows, *await stages.rows(url, sizes, SCHEMAS, STREAMS, events)]


Opening = AbstractAsyncContextManager[tuple[int, int]]


@asynccontextmanager
async def _ours(url: str) -> AsyncIterator[tuple[int, int]]:
    """`eventstreams intake`, one process: its id and port."""
    command = targets.gateway_command(url, STREAMS, f'schemas=["{SCHEMAS}"]', service="intake")
    async with running(command, machine.SERVER_CORE) as process:
        yield process.pid, targets.port_in(await process.line_with("taking events at"))


@asynccontextmanager
async def _bare() -> AsyncIterator[tuple[int, int]]:
    """The same server around an endpoint that reads bodies and takes all: what HTTP costs."""
    async with running(python("-m", "bench.servers.bare"), machine.SERVER_CORE) as process:
        yield process.pid, targets.port_in(await process.line_with("port"))


async def _measure(opening: Opening, folder: Path, seconds: float) -> Sequence[Result]:
    async with opening as server:
        return [await _load(server, folder, load, seconds) for load in LOADS]


async def _load(server: tuple[int, int], folder: Path, load: Load, seconds: float) -> Result:
    """Post as fast as answers come, and at the pace; both once the server is warm."""
    pid, port = server
    requests = posting.write_requests(folder / "requests", _bodies(load.size))
    await posting.post(port, requests, connections=load.connections, seconds=min(WARM_SECONDS, seconds))
    before = machine.cpu_seconds(pid)
    fast = await posting.post(port, requests, connections=load.connections, seconds=seconds)
    events = fast.requests * load.size
    cpu = (machine.cpu_seconds(pid) - before) * 1e6 / events
    paced = await posting.post(port, requests, connections=load.connections, seconds=seconds, rate=load.paced)
    return Result(events / fast.seconds, cpu, fast, paced)


def _bodies(size: int) -> Sequence[object]:
    events = posting.recent_changes()
    return events if size == 1 else [events[first : first + size] for first in range(0, len(events), size)]


def _rows(load: Load, result: Result, whose: str = "") -> list[Row]:
    """Return a server's lines; targets are for ours."""
    what, paced, fast = f"{whose}{load.name}", result.paced, result.fast
    pace = f"at {load.paced * load.size:,.0f} events/s"
    rows = [
        at_least("intake", f"{what}, {load.connections} connections, by the clock", result.rate, load.rate, "events/s"),
        at_least("intake", f"{what}, what its CPU leaves room for", 1e6 / result.cpu, load.rate, "events/s a core"),
        at_most("intake", f"{what}, CPU", result.cpu, load.cpu, "us an event"),
        Row("intake", f"{what}, as fast as it goes, p50 and p99", f"{fast.p50:,.1f} and {fast.p99:,.1f} ms"),
        Row("intake", f"{what}, {pace}, p50", f"{paced.p50:,.1f} ms"),
        at_most("intake", f"{what}, {pace}, p99", paced.p99, load.p99, "ms"),
    ]
    return [Row(row.bench, row.what, row.measured) for row in rows] if whose else rows


def _ratios(load: Load, ours: Result, theirs: Result) -> list[Row]:
    return [
        at_least("intake", f"{load.name}, events/s over EventGate's", ours.rate / theirs.rate, TWICE, "times"),
        at_most("intake", f"{load.name}, CPU over EventGate's", ours.cpu / theirs.cpu, 1 / TWICE, "times"),
        at_most("intake", f"{load.name}, p99 over EventGate's", ours.paced.p99 / theirs.paced.p99, 1, "times"),
    ]
