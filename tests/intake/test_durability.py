"""Intake as its producers see it while a real broker stops, dies, or stands still; and while intake itself ends."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from eventstreams.errors import LogUnavailable
from eventstreams.eventlog.kafka.admin import TopicsAdmin, WantedTopic
from eventstreams.eventlog.open import open_log
from eventstreams.records import TopicPartition
from tests.support.kafka import Broker
from tests.support.oracle_log import values
from tests.support.processes import IntakeProcess

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

STREAM = "test.event"
DEADLINE = 4.0
SLACK = 1.5
"""Seconds on a machine that does other things as well."""


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory, kafka_broker: Broker) -> Iterator[Broker]:
    """A broker that may be killed. The suite's is asked for so that one word tells where there is none."""
    own = Broker(tmp_path_factory.mktemp("mortal"))
    own.start()
    try:
        yield own
    finally:
        own.kill()


@pytest.fixture
def prefix() -> str:
    """What makes the topic one of this test alone."""
    return f"{uuid.uuid4()}."


class Producer:
    """Posts numbered events to one intake."""

    def __init__(self, intake: IntakeProcess, http: httpx.AsyncClient) -> None:
        self._http = http
        self.intake = intake

    async def post(self, *numbers: int, query: str = "", padding: int = 0, **more: str) -> httpx.Response:
        events = [
            {"$schema": "/test/event/1.0.0", "meta": {"stream": STREAM, "id": str(n)}, "test": f"{n}{' ' * padding}"}
            for n in numbers
        ]
        headers = {"content-type": "application/json", **more}
        return await self._http.post(
            f"{self.intake.url}/v1/events{query}", content=orjson.dumps(events), headers=headers
        )

    async def metric(self, name: str) -> float:
        text = (await self._http.get(f"{self.intake.admin}/metrics")).text
        return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name} "))

    async def ready(self) -> httpx.Response:
        return await self._http.get(f"{self.intake.admin}/readyz")


@asynccontextmanager
async def running(broker: Broker, prefix: str, *settings: str, workers: int = 1) -> AsyncIterator[Producer]:
    given = (f"intake.produce_timeout={DEADLINE}", f"intake.topic_prefix={prefix}", "log_level=error", *settings)
    intake = IntakeProcess(f"kafka://{broker.servers}", *given, workers=workers)
    async with intake.running(), httpx.AsyncClient(timeout=60.0, trust_env=False) as http:
        yield Producer(intake, http)


async def create_topic(broker: Broker, prefix: str) -> None:
    await TopicsAdmin(broker.servers, {}).create(WantedTopic(prefix + STREAM, 1, 1))


async def stored(broker: Broker, prefix: str) -> list[int]:
    async with open_log(f"kafka://{broker.servers}", writable=False) as log:
        return [int(orjson.loads(value)["test"]) for _, value in await values(log, TopicPartition(prefix + STREAM, 0))]


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_broker_that_is_away_is_answered_in_time_and_what_was_not_sent_does_not_come(
    mortal: Broker, prefix: str
) -> None:
    await create_topic(mortal, prefix)
    async with running(mortal, prefix, "intake.max_in_flight_bytes=100000") as producer:
        assert (await producer.post(1, 2)).status_code == 201
        await asyncio.to_thread(mortal.kill)
        began = time.monotonic()
        numbers = range(10, 30)
        answers = await asyncio.gather(*(producer.post(n) for n in numbers))
        assert time.monotonic() - began < DEADLINE + SLACK
        assert {(answer.status_code, answer.headers["retry-after"]) for answer in answers} == {(503, "1")}
        assert {len(answer.json()["error"]) for answer in answers} == {1}
        # The Kafka client has the first of them, and those that came at once with it.
        words = list(map(told, answers))
        sent = [n for n, word in zip(numbers, words, strict=True) if "no acknowledgement" in word]
        held = [n for n, word in zip(numbers, words, strict=True) if "was not sent" in word]
        assert sent
        assert held
        assert len(sent) + len(held) == len(answers)
        answer = await producer.post(30, 31)
        assert (answer.status_code, "was not sent" in told(answer)) == (503, True)
        # Hasty ones are taken while there is room, then refused at once; what is lost is counted.
        began = time.monotonic()
        hasty = [(await producer.post(n, query="?hasty=true", padding=9000)).status_code for n in range(100, 120)]
        assert time.monotonic() - began < DEADLINE / 2
        assert (hasty[0], hasty[-1], set(hasty)) == (202, 503, {202, 503})
        await until(lambda: lost(producer, hasty.count(202)))
        assert await producer.metric("eventstreams_intake_in_flight_bytes") == 0
        await asyncio.to_thread(mortal.start)
        await until(lambda: taken(producer, 3))
        # What the Kafka client had comes once, what it had not never.
        assert sorted(n for n in await stored(mortal, prefix) if n != 3) == [1, 2, *sent]


def told(answer: httpx.Response) -> str:
    return str(answer.json()["error"][0]["context"]["message"])


async def lost(producer: Producer, count: int) -> bool:
    return await producer.metric("eventstreams_hasty_events_lost_total") == count


async def taken(producer: Producer, number: int) -> bool:
    return (await producer.post(number)).status_code == 201


async def test_spool_takes_events_until_the_broker_is_back_and_survives_kill_9(
    mortal: Broker, prefix: str, tmp_path: Path
) -> None:
    await create_topic(mortal, prefix)
    folder = f"intake.spool={tmp_path / 'spool'}"
    async with running(mortal, prefix, folder) as producer:
        assert (await producer.post(1)).status_code == 201
        await asyncio.to_thread(mortal.kill)
        began = time.monotonic()
        assert (await producer.post(2, 3)).status_code == 202
        assert time.monotonic() - began < DEADLINE + SLACK
        began = time.monotonic()
        assert {(await producer.post(n)).status_code for n in range(4, 24)} == {202}
        assert time.monotonic() - began < DEADLINE / 2
        assert await producer.metric("eventstreams_spool_events") == 22
        assert (await producer.ready()).status_code == 200
        await producer.intake.end(signal.SIGKILL)
    # It starts without a broker, and goes on with what the other one left.
    async with running(mortal, prefix, folder) as producer:
        assert (await producer.post(24, query="?hasty=true")).status_code == 202
        await until(lambda: kept(producer, 23))
        await asyncio.to_thread(mortal.start)
        await until(lambda: kept(producer, 0))
        await until(lambda: taken(producer, 25))
    assert await stored(mortal, prefix) == list(range(1, 26))


async def kept(producer: Producer, count: int) -> bool:
    return await producer.metric("eventstreams_spool_events") == count


async def test_what_a_killed_worker_kept_is_sent_on_by_the_one_in_its_place(
    mortal: Broker, prefix: str, tmp_path: Path
) -> None:
    await create_topic(mortal, prefix)
    spool = tmp_path / "spool"
    async with running(mortal, prefix, f"intake.spool={spool}", workers=2) as producer:
        await until(lambda: taken(producer, 0))
        await asyncio.to_thread(mortal.kill)
        answers = await asyncio.gather(*(producer.post(n, n + 1, connection="close") for n in range(2, 42, 2)))
        assert {answer.status_code for answer in answers} == {202}
        assert len(list(spool.glob("*.spool"))) == 2
        os.kill(children(producer.intake.pid)[0], signal.SIGKILL)
        await asyncio.to_thread(mortal.start)
        await until(lambda: all_stored(mortal, prefix, 41))
    found = await stored(mortal, prefix)
    assert sorted(found) == [0, *range(2, 42)]


def children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


async def all_stored(broker: Broker, prefix: str, count: int) -> bool:
    try:
        return len(await stored(broker, prefix)) >= count
    except LogUnavailable:
        return False


async def test_sigterm_settles_what_is_under_way_and_refuses_what_comes(kafka_broker: Broker, prefix: str) -> None:
    await create_topic(kafka_broker, prefix)
    async with running(kafka_broker, prefix, "intake.produce_timeout=20") as producer:
        assert (await producer.post(1)).status_code == 201
        with kafka_broker.paused():
            waiting = asyncio.create_task(producer.post(2, 3))
            assert (await producer.post(4, query="?hasty=true", padding=1000)).status_code == 202
            await until(lambda: both_in_flight(producer))
            ending = asyncio.create_task(producer.intake.end(signal.SIGTERM))
            await until(lambda: refusing(producer))
            assert "stopping" in (await producer.ready()).text
            answer = await producer.post(99)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert (await waiting).status_code == 201
        assert await ending == 0
    assert sorted(await stored(kafka_broker, prefix)) == [1, 2, 3, 4]


async def both_in_flight(producer: Producer) -> bool:
    # The hasty one is somewhat over 1,080 bytes, the other one 160.
    return await producer.metric("eventstreams_intake_in_flight_bytes") > 1200


async def refusing(producer: Producer) -> bool:
    # A dry run, which before that is answered without the log. Balancers are told somewhat sooner.
    return (await producer.post(99, query="?validate_only=true")).status_code == 503


async def test_sigterm_flushes_hasty_events(kafka_broker: Broker, prefix: str) -> None:
    await create_topic(kafka_broker, prefix)
    async with running(kafka_broker, prefix) as producer:
        numbers = range(2000)
        answers = await asyncio.gather(
            *(producer.post(*numbers[n : n + 50], query="?hasty=true") for n in range(0, 2000, 50))
        )
        assert {answer.status_code for answer in answers} == {202}
        assert await producer.intake.end(signal.SIGTERM) == 0
    assert sorted(await stored(kafka_broker, prefix)) == list(numbers)
