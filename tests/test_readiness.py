"""`/readyz` tells whether requests would be served; and services wait for a log that is away at the start."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from confluent_kafka.admin import ClusterMetadata, PartitionMetadata, TopicMetadata

from eventstreams.catalog.load import CatalogOptions, load_streams
from eventstreams.catalog.streams import StreamCatalog
from eventstreams.errors import LogUnavailable
from eventstreams.eventlog.base import EventLog
from eventstreams.eventlog.embedded.log import CHECK_SECONDS, open_embedded
from eventstreams.eventlog.kafka.admin import TopicsAdmin, WantedTopic
from eventstreams.eventlog.kafka.log import open_kafka
from eventstreams.eventlog.kafka.options import KafkaOptions
from eventstreams.eventlog.kafka.readiness import places_of, with_enough_replicas
from eventstreams.readiness import READY_TIMEOUT, served_topics, written_topics
from eventstreams.settings import IntakeSettings
from tests.support.kafka import Broker, free_port
from tests.support.processes import CommandProcess, GatewayProcess, IntakeProcess
from tests.support.secured import SecuredBroker, make_certificates
from tests.support.topics import make_topics
from tests.test_cli import FREE_PORTS, run

STREAM = "test.event"
IN_TIME = READY_TIMEOUT + 10.0


@asynccontextmanager
async def client(process: CommandProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with process.running(), httpx.AsyncClient(base_url=process.url, timeout=30.0, trust_env=False) as http:
        yield http


async def readiness(http: httpx.AsyncClient, process: CommandProcess) -> tuple[int, str]:
    """Return the status, and the sentence where there is one; in time."""
    began = time.monotonic()
    answer = await http.get(f"{process.admin}/readyz")
    assert time.monotonic() - began < IN_TIME
    return answer.status_code, answer.json().get("detail", "")


async def until_ready(http: httpx.AsyncClient, process: CommandProcess, status: int = 200) -> None:
    async with asyncio.timeout(60):
        while (await readiness(http, process))[0] != status:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def post(http: httpx.AsyncClient, text: str = "x") -> int:
    event = {"$schema": "/test/event/1.0.0", "meta": {"stream": STREAM}, "test": text}
    return (await http.post("/v1/events", json=event)).status_code


def streams_file(folder: Path, *topics: str) -> Path:
    path = folder / "streams.yaml"
    path.write_text(json.dumps({"streams": {"s": {"topics": topics}}}))
    return path


# -- the embedded log


async def test_intake_whose_file_cannot_grow_is_not_ready_until_it_can(tmp_path: Path) -> None:
    process = IntakeProcess(await make_topics(tmp_path / "events.db", STREAM), "log_level=error")
    async with client(process) as http:
        assert await readiness(http, process) == (200, "")
        assert await post(http) == 201
        free = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        size = (tmp_path / "events.db-wal").stat().st_size
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, free[1]))
        await until_ready(http, process, 503)
        assert "event log" in (await readiness(http, process))[1]
        assert await post(http, "x" * 10_000) == 503
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, free)
        await until_ready(http, process)
        assert await post(http, "x" * 10_000) == 201


async def test_log_on_a_full_disk_can_be_read_and_not_written(tmp_path: Path) -> None:
    async with open_embedded(str(tmp_path / "events.db")) as log:
        await log.check(5.0, writing=True)
        log._connections[0].pragma("max_page_count", int(str(log._connections[0].pragma("page_count"))))
        await asyncio.sleep(CHECK_SECONDS)  # what was found before counts for so long
        await log.check(5.0)
        with pytest.raises(LogUnavailable, match="the disk of the event log is full"):
            await log.check(5.0, writing=True)


async def test_log_that_is_read_only_now_is_not_writable(tmp_path: Path) -> None:
    async with open_embedded(str(tmp_path / "events.db")) as log:
        log._connections[0].pragma("query_only", True)
        with pytest.raises(LogUnavailable, match="readonly"):
            await log.check(5.0, writing=True)


async def test_many_that_ask_at_once_have_one_thing_written(tmp_path: Path) -> None:
    async with open_embedded(str(tmp_path / "events.db")) as log:
        before = log._connections[0].total_changes()
        await asyncio.gather(*(log.check(5.0, writing=True) for _ in range(100)))
        assert log._connections[0].total_changes() - before <= 2  # a replaced row is two changes


# -- Kafka


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, kafka_broker: Broker) -> Iterator[SecuredBroker]:
    folder = tmp_path_factory.mktemp("secured")
    broker = SecuredBroker(folder / "kafka", make_certificates(folder / "certificates"))
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


async def make(broker: Broker, servers: str, *, least: int = 1) -> str:
    name = f"{uuid.uuid4()}.{STREAM}"
    config = {"retention.ms": "-1", "min.insync.replicas": str(least)}
    await TopicsAdmin(servers, {}).create(WantedTopic(name, 1, 1, config))
    return name


@pytest.mark.kafka
async def test_brokers_that_advertise_what_cannot_be_reached_are_told(secured: SecuredBroker, tmp_path: Path) -> None:
    topic = await make(secured, secured.at("OPEN"))
    url = f"kafka://{secured.at('LYING')}"
    gateway = GatewayProcess(url, streams_file(tmp_path, topic), "log_level=error")
    intake = IntakeProcess(url, f"intake.topic_prefix={topic.removesuffix(STREAM)}", "intake.produce_timeout=4")
    for process in (gateway, intake):
        async with client(process) as http:
            status, sentence = await readiness(http, process)
            assert status == 503
            assert f"Kafka at {secured.at('LYING')} cannot be reached: 127.0.0.1:" in sentence
            assert "refused" in sentence
            served = await http.get("/v2/stream/s") if process is gateway else None
            assert (served.status_code if served else await post(http)) == 503


@pytest.mark.kafka
async def test_gateway_is_ready_when_one_of_its_topics_can_be_read(kafka_broker: Broker, tmp_path: Path) -> None:
    servers = kafka_broker.servers
    nowhere = [f"{uuid.uuid4()}" for _ in range(300)]
    process = GatewayProcess(f"kafka://{servers}", streams_file(tmp_path, *nowhere), "log_level=error")
    async with client(process) as http:
        status, sentence = await readiness(http, process)
        assert (status, f"there is no topic {min(nowhere)}" in sentence) == (503, True)
        assert "and 297 more" in sentence
    there = await make(kafka_broker, servers)
    process = GatewayProcess(f"kafka://{servers}", streams_file(tmp_path, *nowhere, there), "log_level=error")
    async with client(process) as http:
        assert await readiness(http, process) == (200, "")


@pytest.mark.kafka
async def test_topic_whose_replicas_are_all_there_takes_events(kafka_broker: Broker, tmp_path: Path) -> None:
    """Though it has fewer than its configuration asks for: the broker asks for no more than there are."""
    servers = kafka_broker.servers
    topic = await make(kafka_broker, servers, least=2)
    streams = tmp_path / "streams.yaml"
    streams.write_text(json.dumps({"streams": {STREAM: {"schema_title": "test/event"}}}))
    given = (f"intake.topic_prefix={topic.removesuffix(STREAM)}", f"streams={streams}")
    process = IntakeProcess(f"kafka://{servers}", "log_level=error", *given)
    async with client(process) as http:
        assert await readiness(http, process) == (200, "")
        assert await post(http) == 201


@pytest.mark.kafka
async def test_broker_that_stands_still_is_told_in_time_to_all_who_ask(tmp_path: Path, kafka_broker: Broker) -> None:
    broker = Broker(tmp_path / "broker")
    broker.start()
    try:
        topic = await make(broker, broker.servers)
        async with open_kafka(KafkaOptions(broker.servers, writable=False)) as log:
            with broker.paused():
                began = time.monotonic()
                asked = (log.check(1.5, [topic]) for _ in range(50))
                answers = await asyncio.gather(*asked, return_exceptions=True)
                assert time.monotonic() - began < 20.0
                assert {type(answer) for answer in answers} == {LogUnavailable}
            async with asyncio.timeout(30):
                while await is_away(log, topic):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
    finally:
        broker.kill()


async def is_away(log: EventLog, topic: str) -> bool:
    try:
        await log.check(2.0, [topic])
    except LogUnavailable:
        return True
    return False


def metadata(**leaders: list[int]) -> ClusterMetadata:
    """Return what a broker would say of topics, with the leader of each of their partitions; -1 is none."""
    found = ClusterMetadata()
    for name, numbers in leaders.items():
        topic = TopicMetadata()
        topic.topic = name
        for number, leader in enumerate(numbers):
            partition = PartitionMetadata()
            partition.id, partition.leader, partition.replicas, partition.isrs = number, leader, [1, 2, 3], [1]
            topic.partitions[number] = partition
        found.topics[name] = topic
    return found


def test_partitions_without_a_leader_are_left_out_unless_all_are() -> None:
    some = places_of(metadata(a=[-1, 2], b=[-1], c=[1]), {"a", "b", "elsewhere"})
    assert [(place.topic, place.number, place.leader) for place in some] == [("a", 1, 2)]
    with pytest.raises(LogUnavailable, match="no partition of a, b has a leader"):
        places_of(metadata(a=[-1, -1], b=[-1], c=[1]), {"a", "b", "elsewhere"})


def test_partitions_with_too_few_replicas_in_sync_are_left_out_unless_all_have() -> None:
    places = places_of(metadata(a=[1], b=[1]), {"a", "b"})
    assert with_enough_replicas(places, {}) == places
    assert with_enough_replicas(places, {"a": 2}) == places[1:]
    with pytest.raises(LogUnavailable, match=r"needs: a/0 has 1, min\.insync\.replicas is 2"):
        with_enough_replicas(places, {"a": 2, "b": 2})


def test_topics_are_those_that_streams_are_read_from_and_events_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "streams.yaml"
    path.write_text("streams: {s: {topics: [a, b]}, eventlogging_X: {topics: [c]}, /^p/: {}}")
    catalog = StreamCatalog(load_streams(str(path), CatalogOptions()))
    assert served_topics(catalog) == {"a", "b", "c"}
    assert written_topics(catalog, IntakeSettings(topic_prefix="x.")) == {"x.s", "eventlogging_X"}
    assert written_topics(catalog, IntakeSettings(check_streams=False)) is None


# -- away at the start


@pytest.fixture
def late(tmp_path: Path, kafka_broker: Broker) -> Iterator[Broker]:
    """A broker that is there, with a topic `t.test.event`, and is not running."""
    broker = Broker(tmp_path / "late")
    broker.start()
    try:
        asyncio.run(TopicsAdmin(broker.servers, {}).create(WantedTopic(f"t.{STREAM}", 1, 1, {"retention.ms": "-1"})))
        broker.kill()
        yield broker
    finally:
        broker.kill()


def intake_on(broker: Broker, *settings: str, workers: int = 1) -> IntakeProcess:
    given = ("log_level=error", "intake.topic_prefix=t.", "intake.produce_timeout=4", *settings)
    return IntakeProcess(f"kafka://{broker.servers}", *given, workers=workers)


def sse_values(text: str, field: str) -> list[str]:
    return [line.removeprefix(f"{field}: ") for line in text.splitlines() if line.startswith(f"{field}: ")]


async def first_events(http: httpx.AsyncClient, count: int, **headers: str) -> tuple[list[str], list[str]]:
    """Return the tests and ids of the next events."""
    found: list[str] = []
    text = ""
    async with asyncio.timeout(30), http.stream("GET", "/v2/stream/s?since=0", headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            text += line + "\n"
            found = sse_values(text, "data")
            if len(found) == count:
                break
    return [json.loads(data)["test"] for data in found], sse_values(text, "id")


@pytest.mark.kafka
async def test_services_started_before_their_broker_wait_for_it(late: Broker, tmp_path: Path) -> None:
    gateway = GatewayProcess(f"kafka://{late.servers}", streams_file(tmp_path, f"t.{STREAM}"), "log_level=error")
    intake = intake_on(late)
    async with client(gateway) as reading, client(intake) as writing:
        for http, process in ((reading, gateway), (writing, intake)):
            status, sentence = await readiness(http, process)
            assert status == 503
            assert f"Kafka at {late.servers} cannot be reached: " in sentence
            assert "Connection refused" in sentence
        refused = await reading.get("/v2/stream/s")
        assert (refused.status_code, int(refused.headers["retry-after"]) >= 1) == (503, True)
        assert await post(writing) == 503
        await asyncio.to_thread(late.start)
        await until_ready(reading, gateway)
        await until_ready(writing, intake)
        assert [await post(writing, str(number)) for number in range(3)] == [201] * 3
        tests, ids = await first_events(reading, 3)
        assert tests == ["0", "1", "2"]
        assert json.loads(ids[-3])[0]["cluster"]
        resumed, _ = await first_events(reading, 2, **{"last-event-id": ids[-3]})
        assert resumed == ["1", "2"]


@pytest.mark.kafka
async def test_intake_with_a_spool_takes_events_before_its_broker_is_there(late: Broker, tmp_path: Path) -> None:
    """However long that takes: the time that others wait is over at once."""
    intake = intake_on(late, f"intake.spool={tmp_path / 'spool'}", "log_wait=1")
    async with client(intake) as http:
        assert await post(http, "early") == 202
        assert (await readiness(http, intake))[0] == 200
        began = time.monotonic()
        while time.monotonic() - began < 3.0:
            assert await post(http, "early") == 202
        await asyncio.to_thread(late.start)
        async with asyncio.timeout(60):
            while await post(http, "late") != 201:
                pass


async def test_wait_that_is_over_ends_a_service_with_the_reason(tmp_path: Path) -> None:
    servers = f"127.0.0.1:{free_port()}"
    streams = streams_file(tmp_path, "t")
    given = [f"log=kafka://{servers}", f"streams={streams}", "log_wait=1", "log_level=error"]
    settings = [part for one in given for part in ("--set", one)]
    for command in (["serve"], ["intake"], ["serve", "--workers", "2"]):
        code, _, error = await run(*command, *FREE_PORTS, *settings)
        assert code == 2
        said = [line for line in error.splitlines() if line.startswith(f"eventstreams: Kafka at {servers} cannot be")]
        assert said
        assert all(line.endswith("Connection refused (waited 1 s: log_wait)") for line in said)


async def test_service_that_waits_ends_in_good_order_when_told_to(tmp_path: Path) -> None:
    servers = f"127.0.0.1:{free_port()}"
    process = GatewayProcess(f"kafka://{servers}", streams_file(tmp_path, "t"), "log_wait=null", "log_level=error")
    await process.start()
    began = time.monotonic()
    assert await process.end(signal.SIGTERM) in (0, -signal.SIGTERM)
    assert time.monotonic() - began < 30.0


async def test_workers_that_wait_tell_why_none_is_ready(tmp_path: Path) -> None:
    servers = f"127.0.0.1:{free_port()}"
    given = (f"kafka://{servers}", streams_file(tmp_path, "t"), "log_level=error")
    process = GatewayProcess(*given, workers=2)
    starting = asyncio.create_task(process.start())
    async with httpx.AsyncClient(trust_env=False, timeout=10.0) as http, asyncio.timeout(60):
        sentence = ""
        while "no worker is ready: Kafka at" not in sentence:
            try:
                answer = await http.get(f"{process.admin}/readyz")
            except httpx.ConnectError:
                await asyncio.sleep(0.05)
                continue
            assert answer.status_code == 503
            sentence = answer.json()["detail"]
    assert f"Kafka at {servers} cannot be reached" in sentence
    await process.end(signal.SIGTERM)
    with pytest.raises(AssertionError, match="before it was ready"):
        await starting
