"""Several processes on one port: started again when they die, ended together, shown to operators as one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from textwrap import dedent

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from eventstreams.eventlog.embedded.log import open_embedded
from eventstreams.eventlog.kafka.admin import TopicsAdmin, WantedTopic
from eventstreams.eventlog.open import open_log
from eventstreams.metrics import WorkerMetrics
from eventstreams.records import NewRecord
from eventstreams.supervisor import Worker, merged
from tests.subscribe.test_delivery import eventually
from tests.support.kafka import Broker
from tests.support.processes import CommandProcess, GatewayProcess, IntakeProcess
from tests.support.topics import make_topics
from tests.test_cli import FREE_PORTS, run

EVENT = {"$schema": "/test/event/1.0.0", "meta": {"stream": "test.event"}, "test": "hello"}


def streams_file(folder: Path, topic: str = "a") -> Path:
    path = folder / "streams.yaml"
    path.write_text(json.dumps({"streams": {"edits": {"topics": [topic]}}}))
    return path


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[GatewayProcess]:
    """Two workers on an embedded log with ten events."""
    url = f"embedded:{tmp_path / 'events.db'}"
    async with open_log(url) as log:
        await log.create_topic("a")  # type: ignore[attr-defined]
        await log.append([NewRecord("a", b'{"n":%d}' % n, None, 1000 + n) for n in range(10)])
    process = GatewayProcess(url, streams_file(tmp_path), "log_level=error", workers=2)
    async with process.running():
        yield process


def on_uvloop(pid: int) -> bool:
    """Whether a process has the library loaded."""
    return "uvloop" in Path(f"/proc/{pid}/maps").read_text()


async def first_numbers(http: httpx.AsyncClient, url: str, count: int) -> list[int]:
    found: list[int] = []
    async with http.stream("GET", url, headers={"accept": "application/json"}) as response:
        async for line in response.aiter_lines():
            if line:
                found.append(json.loads(line)["n"])
            if len(found) == count:
                break
    return found


async def sample(http: httpx.AsyncClient, process: CommandProcess, name: str) -> dict[str, float]:
    """Return the values of a metric by worker."""
    text = (await http.get(f"{process.admin}/metrics")).text
    families = text_string_to_metric_families(text)
    return {s.labels.get("worker", ""): s.value for family in families for s in family.samples if s.name == name}


async def until(process: CommandProcess, http: httpx.AsyncClient, name: str, wanted: dict[str, float]) -> None:
    async with asyncio.timeout(30):
        while await sample(http, process, name) != wanted:  # noqa: ASYNC110 - a process says it on its port only
            await asyncio.sleep(0.05)


async def test_killed_worker_is_started_again_while_the_others_serve(gateway: GatewayProcess) -> None:
    async with httpx.AsyncClient(timeout=30) as http:
        before = gateway.children()
        assert len(before) == 2
        assert not any(map(on_uvloop, before))
        os.kill(before[0], signal.SIGKILL)
        url = f"{gateway.url}/v2/stream/edits?since=1"
        assert await first_numbers(http, url, 10) == list(range(10))
        assert (await http.get(f"{gateway.admin}/readyz")).status_code == 200
        await until(gateway, http, "eventstreams_workers", {"": 2.0})
        assert set(gateway.children()) & set(before) == {before[1]}
        assert sum((await sample(http, gateway, "eventstreams_worker_deaths_total")).values()) == 1
        for _ in range(8):
            assert await first_numbers(http, url, 10) == list(range(10))


async def test_metrics_are_shown_for_each_worker(gateway: GatewayProcess) -> None:
    async with httpx.AsyncClient(timeout=30) as http, AsyncExitStack() as open_streams:
        for _ in range(6):
            stream = http.stream("GET", f"{gateway.url}/v2/stream/edits")
            answer = await open_streams.enter_async_context(stream)
            assert answer.status_code == 200
        found = await sample(http, gateway, "eventstreams_connections")
        assert set(found) == {"0", "1"}
        assert sum(found.values()) == 6


async def test_workers_end_in_good_order_when_their_supervisor_is_killed(gateway: GatewayProcess) -> None:
    workers = gateway.children()
    async with httpx.AsyncClient(timeout=30) as http, http.stream("GET", f"{gateway.url}/v2/stream/edits") as stream:
        await gateway.end(signal.SIGKILL)
        lines = [line async for line in stream.aiter_lines()]
    assert any(line.startswith("retry: ") for line in lines)
    await eventually(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


async def test_start_that_fails_says_why_and_ends() -> None:
    given = ("--workers", "2", "--set", "streams=nowhere.yaml", "--set", "log=embedded:x.db", *FREE_PORTS)
    code, _, error = await run("serve", *given)
    assert code == 2
    assert "nowhere.yaml cannot be read" in error
    assert "ended with status 2 before it was ready" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("command", ["serve", "intake"])
async def test_log_in_memory_has_no_workers(command: str) -> None:
    code, _, error = await run(command, "--workers", "2", "--set", "log=embedded::memory:", *FREE_PORTS)
    assert code == 2
    assert "processes cannot share a log in memory" in error


async def test_worker_that_dies_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    intake = IntakeProcess(await make_topics(path, "test.event"), "log_level=error", workers=2)
    acknowledged: set[str] = set()
    async with intake.running(), httpx.AsyncClient(base_url=intake.url, timeout=30) as http:
        victims = intake.children()
        assert all(map(on_uvloop, victims))
        for number in range(120):
            if number % 40 == 20 and victims:
                os.kill(victims.pop(), signal.SIGKILL)
            event = {**EVENT, "test": str(number)}
            try:
                answer = await http.post("/v1/events", json=event)
            except httpx.TransportError:
                continue
            assert answer.status_code == 201, answer.text
            acknowledged.add(str(number))
        assert await intake.end(signal.SIGTERM) == 0
    assert len(acknowledged) >= 116
    assert await stored(path) >= acknowledged


@contextmanager
def one_worker(script: str, *given: object) -> Iterator[Worker]:
    """A worker that runs a script of ours in place of a service."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        worker = Worker(0, ["-c", dedent(script), *map(str, given)], [listener], WorkerMetrics())
        with closing(worker):
            yield worker


async def test_worker_that_is_stopped_while_it_starts_again_ends_in_good_order(tmp_path: Path) -> None:
    script = """
        import pathlib, signal, sys
        starts = pathlib.Path(sys.argv[1])
        with starts.open("a") as file:
            file.write("x")
        if starts.read_text() == "x":
            print("ready", flush=True)
            signal.raise_signal(signal.SIGKILL)
        signal.pause()
    """
    starts = tmp_path / "starts"
    with one_worker(script, starts) as worker:
        running = asyncio.create_task(worker.run())
        await eventually(lambda: starts.exists() and starts.read_text() == "xx")
        worker.stop(signal.SIGTERM)
        assert await asyncio.wait_for(running, 30) == 0


async def test_worker_is_stopped_though_its_process_was_not_there_yet() -> None:
    with one_worker("import signal; signal.pause()") as worker:
        running = asyncio.create_task(worker.run())
        await asyncio.sleep(0)
        worker.stop(signal.SIGTERM)
        assert await asyncio.wait_for(running, 30) == 0


async def test_worker_that_fails_at_the_end_says_so() -> None:
    script = """
        import signal, sys
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
        print("ready", flush=True)
        signal.pause()
    """
    with one_worker(script) as worker:
        running = asyncio.create_task(worker.run())
        await worker.ready.wait()
        worker.stop(signal.SIGTERM)
        assert await asyncio.wait_for(running, 30) == 3


async def stored(path: Path) -> set[str]:
    async with open_embedded(str(path)) as log:
        (partition,) = await log.partitions("test.event")
        block = await log.fetch(partition, 0, 1000, 1 << 24)
        return {json.loads(record.value)["test"] for record in block.records}


@asynccontextmanager
async def on_kafka(folder: Path, broker: Broker) -> AsyncIterator[tuple[GatewayProcess, str]]:
    topic = f"{uuid.uuid4()}.a"
    await TopicsAdmin(broker.servers, {}).create(WantedTopic(topic, 1, 1, {"retention.ms": "-1"}))
    gateway = GatewayProcess(
        f"kafka://{broker.servers}",
        streams_file(folder, topic),
        "log_level=error",
        "gateway.drain_timeout=3",
        workers=2,
    )
    async with gateway.running():
        yield gateway, topic


@pytest.mark.kafka
async def test_workers_on_kafka_each_deliver_what_is_appended(tmp_path: Path, kafka_broker: Broker) -> None:
    async with (
        on_kafka(tmp_path, kafka_broker) as (gateway, topic),
        open_log(f"kafka://{kafka_broker.servers}") as log,
        httpx.AsyncClient(timeout=30) as http,
    ):
        url = f"{gateway.url}/v2/stream/edits?since=1"
        reading = [asyncio.create_task(first_numbers(http, url, 20)) for _ in range(6)]
        for n in range(20):
            (outcome,) = await log.append([NewRecord(topic, b'{"n":%d}' % n)])
            assert not isinstance(outcome, Exception)
        assert await asyncio.gather(*reading) == [list(range(20))] * 6
        assert await gateway.end(signal.SIGTERM) == 0


def test_expositions_are_merged_with_each_family_once() -> None:
    text = (
        "# HELP eventstreams_gaps_total Gaps\n# TYPE eventstreams_gaps_total counter\neventstreams_gaps_total 1.0\n"
        '# HELP x A \\"quoted\\" one\n# TYPE x gauge\nx{reason="a\\"b\\\\c\\nd"} 2.0\n'
    )
    one = merged({0: text, 3: text}).decode()
    assert one.count("# TYPE eventstreams_gaps_total counter\n") == 1
    found = [s for family in text_string_to_metric_families(one) for s in family.samples]
    assert [(s.name, s.labels, s.value) for s in found] == [
        ("eventstreams_gaps_total", {"worker": "0"}, 1.0),
        ("eventstreams_gaps_total", {"worker": "3"}, 1.0),
        ("x", {"reason": 'a"b\\c\nd', "worker": "0"}, 2.0),
        ("x", {"reason": 'a"b\\c\nd', "worker": "3"}, 2.0),
    ]
