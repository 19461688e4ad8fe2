"""Who may do what on a broker that asks: the rights of docs/operations.md suffice, and what lacks is named."""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from eventstreams.eventlog.kafka.admin import TopicsAdmin, WantedTopic
from eventstreams.eventlog.open import open_log
from eventstreams.records import NewRecord, Record
from tests.support.kafka import Broker
from tests.support.processes import ROOT, CommandProcess, GatewayProcess, IntakeProcess
from tests.support.secured import Right, SecuredBroker, as_user, grant, make_certificates, options_of
from tests.support.sse import Message, SseReader
from tests.test_cli import FREE_PORTS, run

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

STREAM = "test.event"
DEADLINE = 4.0
SECONDS = 30.0
"""In which every command says why it does not start, though the machine has other things to do; ten are promised."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, kafka_broker: Broker) -> Iterator[SecuredBroker]:
    folder = tmp_path_factory.mktemp("secured")
    own = SecuredBroker(folder / "kafka", make_certificates(folder / "certificates"))
    own.start()
    try:
        yield own
    finally:
        own.kill()


@pytest.fixture
async def topic(broker: SecuredBroker) -> str:
    """A topic of this test alone, made and written to once by who may do all."""
    name = f"{uuid.uuid4()}.{STREAM}"
    await TopicsAdmin(broker.at("OPEN"), {}).create(WantedTopic(name, 1, 1, {"retention.ms": "-1"}))
    return name


def documented(process: str, topic: str) -> list[Right]:
    """Return the rights that the table of docs/operations.md gives a process, on this topic."""
    page = (ROOT / "docs" / "operations.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `")]
    (rights,) = [row[1] for row in rows if row[0] == process]
    return [Right(right, "topic", topic) for right in rights.split(", ")]


async def put(broker: SecuredBroker, topic: str, *numbers: int) -> None:
    async with open_log(f"kafka://{broker.at('OPEN')}") as log:
        for outcome in await log.append([NewRecord(topic, b'{"n":%d}' % n, None, 1000 + n) for n in numbers]):
            assert isinstance(outcome, Record)


def streams_file(folder: Path, topic: str) -> Path:
    path = folder / "streams.yaml"
    path.write_text(json.dumps({"streams": {"s": {"topics": [topic]}}}))
    return path


@asynccontextmanager
async def watched(process: CommandProcess, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Run a process that must have no cause for a warning, nor count a failure."""
    lines = folder / "errors"
    with lines.open("wb") as errors:
        process.errors = errors.fileno()
        async with process.running(), httpx.AsyncClient(base_url=process.url, timeout=60.0, trust_env=False) as http:
            yield http
            metrics = (await http.get(f"{process.admin}/metrics")).text
    assert lines.read_text() == ""
    failed = [
        line for line in metrics.splitlines() if re.match(r"eventstreams_\w*(fail|lost|broken|skip)\w*[ {]", line)
    ]
    assert [line for line in failed if "_created" not in line and float(line.split()[-1])] == []


async def messages(response: httpx.Response) -> AsyncIterator[Message]:
    reader = SseReader()
    async for piece in response.aiter_bytes():
        for message in reader.feed(piece):
            yield message


async def take(http: httpx.AsyncClient, path: str, count: int, **headers: str) -> list[Message]:
    async with asyncio.timeout(30), http.stream("GET", path, headers=headers) as response:
        assert response.status_code == 200
        source = messages(response)
        return [await anext(source) for _ in range(count)]


def numbers(found: list[Message]) -> list[int]:
    return [json.loads(message.data)["n"] for message in found]


async def test_gateway_needs_no_more_than_is_documented(broker: SecuredBroker, topic: str, tmp_path: Path) -> None:
    await grant(broker, "gateway", documented("`serve`", topic))
    await put(broker, topic, 1, 2, 3)
    url, given = f"kafka://{broker.servers}", options_of(as_user("gateway"))
    process = GatewayProcess(url, streams_file(tmp_path, topic), "log_level=warning", *given)
    async with watched(process, tmp_path) as http:
        assert (await http.get(f"{process.admin}/readyz")).status_code == 200
        old = await take(http, "/v2/stream/s?since=0", 3)
        assert numbers(old) == [1, 2, 3]
        resumed = await take(http, "/v2/stream/s", 2, **{"last-event-id": old[0].last_event_id})
        assert numbers(resumed) == [2, 3]
        async with asyncio.timeout(30), http.stream("GET", "/v2/stream/s") as live:
            source = messages(live)
            await put(broker, topic, 4)
            assert numbers([await anext(source)]) == [4]
        listed = (await http.get("/v2/stream", headers={"accept": "application/json"})).json()["streams"]
        assert [one["partitions"] for one in listed] == [1]


def intake(broker: SecuredBroker, topic: str, *settings: str, streams: str = "config/streams.yaml") -> IntakeProcess:
    given = (f"intake.produce_timeout={DEADLINE}", f"intake.topic_prefix={topic.removesuffix(STREAM)}")
    user = options_of(as_user("intake"))
    return IntakeProcess(
        f"kafka://{broker.servers}", "log_level=warning", f"streams={streams}", *given, *user, *settings
    )


async def post(http: httpx.AsyncClient, number: int) -> httpx.Response:
    event = {"$schema": "/test/event/1.0.0", "meta": {"stream": STREAM, "id": str(number)}, "test": str(number)}
    return await http.post("/v1/events", json=event)


async def held(broker: SecuredBroker, topic: str) -> list[str]:
    async with open_log(f"kafka://{broker.at('OPEN')}", writable=False) as log:
        (partition,) = await log.partitions(topic)
        end = (await log.extents([partition]))[partition].end
        block = await log.fetch(partition, 0, end, 2**20)
        return [json.loads(record.value)["test"] for record in block.records]


async def test_intake_needs_no_more_than_is_documented(broker: SecuredBroker, topic: str, tmp_path: Path) -> None:
    await put(broker, topic)  # a broker that never gave out a producer's number has the first one wait, with a warning
    await grant(broker, "intake", documented("`intake`", topic))
    process = intake(broker, topic)
    async with watched(process, tmp_path) as http:
        assert [(await post(http, number)).status_code for number in range(3)] == [201] * 3
        assert (await http.get(f"{process.admin}/readyz")).status_code == 200
    assert await held(broker, topic) == ["0", "1", "2"]


@pytest.mark.parametrize("spooling", [True, False])
async def test_intake_that_searches_the_log_needs_no_more_than_is_documented(
    broker: SecuredBroker, topic: str, tmp_path: Path, spooling: bool
) -> None:
    await grant(broker, "intake", documented("`intake` with a spool or deduplication", topic))
    streams = tmp_path / "streams.json"
    producers = {"eventgate": {} if spooling else {"deduplication_window": 600}}
    streams.write_text(json.dumps({"streams": {STREAM: {"schema_title": "test/event", "producers": producers}}}))
    more = [f"intake.spool={tmp_path / 'spool'}"] if spooling else []
    process = intake(broker, topic, *more, "log_level=error", streams=str(streams))
    async with (
        process.running(),
        httpx.AsyncClient(base_url=process.url, timeout=60.0, trust_env=False) as http,
    ):
        assert (await post(http, 1)).status_code == 201
        with broker.paused():
            # It was on the wire: whether it is stored is found by a search only.
            assert (await post(http, 2)).status_code == (202 if spooling else 503)
        async with asyncio.timeout(60):
            if spooling:
                await until_sent_on(http, process)
            while not spooling and (await post(http, 2)).status_code != 201:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    assert await held(broker, topic) == ["1", "2"]


async def until_sent_on(http: httpx.AsyncClient, process: CommandProcess) -> None:
    while "eventstreams_spool_events 0.0" not in (await http.get(f"{process.admin}/metrics")).text:  # noqa: ASYNC110
        await asyncio.sleep(0.1)


async def test_streams_apply_needs_no_more_than_is_documented(broker: SecuredBroker, tmp_path: Path) -> None:
    topic = str(uuid.uuid4())
    await grant(broker, "topics", documented("`streams apply`", topic))
    for partitions, said in ((1, "1 topics made, 0 grown"), (3, "0 topics made, 1 grown"), (3, "nothing to do")):
        code, out, error = await apply(broker, tmp_path, topic, partitions)
        assert (code, error) == (0, "")
        assert said in out
    async with open_log(f"kafka://{broker.at('OPEN')}", writable=False) as log:
        assert len(await log.partitions(topic)) == 3


async def apply(broker: SecuredBroker, folder: Path, topic: str, partitions: int) -> tuple[int | None, str, str]:
    streams = folder / "streams.yaml"
    kafka = {"partitions": partitions, "replication_factor": 1}
    streams.write_text(json.dumps({"streams": {"s": {"topics": [topic], "kafka": kafka}}}))
    given = [f"log=kafka://{broker.servers}", f"streams={streams}", *options_of(as_user("topics"))]
    return await run("streams", "apply", *(part for one in given for part in ("--set", one)))


async def test_right_that_the_gateway_lacks_is_named(broker: SecuredBroker, topic: str, tmp_path: Path) -> None:
    await grant(broker, "gateway", [])
    url, given = f"kafka://{broker.servers}", options_of(as_user("gateway"))
    process = GatewayProcess(url, streams_file(tmp_path, topic), "log_level=error", *given)
    async with process.running(), httpx.AsyncClient(base_url=process.url, timeout=30.0, trust_env=False) as http:
        answer = await http.get("/v2/stream/s")
        assert answer.status_code == 500
        assert f"the client lacks the right DESCRIBE on topic {topic}" in answer.json()["detail"]
        ready = await http.get(f"{process.admin}/readyz")
        assert (ready.status_code, "DESCRIBE" in ready.text, topic in ready.text) == (503, True, True)
        await grant(broker, "gateway", [Right("DESCRIBE", "topic", topic)])
        async with asyncio.timeout(30), http.stream("GET", "/v2/stream/s?since=0") as response:
            assert response.status_code == 200
            error = await anext(messages(response))
            assert error.name == "error"
            # To the letter as the original says it; the right is named in the log.
            words = "Broker: Topic authorization failed"
            assert json.loads(error.data) == {"message": words, "code": 29, "errno": 29, "origin": "local"}


@pytest.mark.parametrize("elsewhere", [True, False])
async def test_right_that_intake_lacks_is_named(broker: SecuredBroker, topic: str, elsewhere: bool) -> None:
    """Whether it may write to some other topic, or to none: then it gets no producer's number."""
    more = [Right("WRITE", "topic", "elsewhere")] if elsewhere else []
    await grant(broker, "intake", [Right("DESCRIBE", "topic", topic), *more])
    process = intake(broker, topic, "log_level=error")
    async with (
        process.running(),
        httpx.AsyncClient(base_url=process.url, timeout=30.0, trust_env=False) as http,
    ):
        answer = await post(http, 1)
        assert answer.status_code == 500
        assert f"the client lacks the right WRITE on topic {topic}" in answer.text


async def test_right_that_streams_apply_lacks_is_named(broker: SecuredBroker, topic: str, tmp_path: Path) -> None:
    for rights, wanted, lacking in (("DESCRIBE", "new", "CREATE"), ("DESCRIBE", topic, "ALTER")):
        await grant(broker, "topics", [Right(rights, "topic", wanted)])
        code, _, error = await apply(broker, tmp_path, wanted, 2)
        assert code == 1
        assert f"the client lacks the right {lacking} on topic {wanted}" in error


@pytest.mark.parametrize("command", ["serve", "intake", "intake with a spool", "dev", "streams apply"])
async def test_every_command_says_within_seconds_that_a_password_is_refused(
    broker: SecuredBroker, tmp_path: Path, command: str
) -> None:
    words, _, spool = command.partition(" with a ")
    given = [f"intake.spool={tmp_path / 'spool'}"] if spool else []
    given += [f"log=kafka://{broker.servers}", *options_of(as_user("gateway", "wrong"))]
    await said(words.split(), given, broker.servers, "Invalid username or password")


async def said(command: list[str], settings: list[str], servers: str, words: str) -> None:
    """Run a command that cannot start; the last line says why."""
    ports = FREE_PORTS if command[0] != "streams" else []
    began = time.monotonic()
    code, _, error = await run(*command, *ports, *(part for one in settings for part in ("--set", one)))
    assert time.monotonic() - began < SECONDS
    assert code == (2 if ports else 1)
    last = error.splitlines()[-1]
    assert last.startswith(f"eventstreams: Kafka at {servers} cannot be reached: ")
    assert words in last
