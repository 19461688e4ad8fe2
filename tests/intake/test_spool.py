"""The spool: events kept on local disk while the log is away."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from eventstreams.errors import ConfigurationError, LogUnavailable, RecordTooLarge, UnknownTopic
from eventstreams.eventlog.base import EventLog
from eventstreams.metrics import Metrics
from eventstreams.records import NewRecord, Record, TopicPartition
from intake.spool import SPOOLED, Spool, SpoolOptions
from intake.spool_file import Kept, SpoolFile, open_files
from intake.spool_replay import open_spool
from tests.intake.conftest import TOPICS, Open, Rig, thing
from tests.support.away import AwayLog
from tests.support.topics import log_with


@pytest.fixture
async def log() -> AsyncIterator[AwayLog]:
    async with log_with("t", "other", "nowhere") as opened:
        yield AwayLog(opened)


def record(number: int, topic: str = "t") -> NewRecord:
    return NewRecord(topic, b"%d" % number, None, time.time_ns() // 1_000_000)


async def values(log: EventLog | AwayLog, topic: str = "t") -> list[int]:
    partition = TopicPartition(topic, 0)
    if partition not in await log.partitions(topic):
        return []
    extent = (await log.extents([partition]))[partition]
    return [int(one.value) for one in (await log.fetch(partition, 0, extent.end, 2**24)).records]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


Opened = Callable[..., Any]


@pytest.fixture
def spool(tmp_path: Path, log: AwayLog) -> Opened:
    @asynccontextmanager
    async def opened(max_bytes: int = 2**20, folder: str = "spool") -> AsyncIterator[tuple[Spool, Metrics]]:
        metrics = Metrics()
        options = SpoolOptions(tmp_path / folder, max_bytes, produce_timeout=1.0)
        async with open_spool(log, options, metrics) as held:
            yield held, metrics

    return opened


def sample(metrics: Metrics, name: str) -> float:
    value = metrics.registry.get_sample_value(name)
    assert value is not None
    return value


async def test_events_are_kept_while_the_log_is_away_and_sent_on_in_order(log: AwayLog, spool: Opened) -> None:
    async with spool() as (held, metrics):
        assert isinstance((await held.append([record(0)]))[0], Record)
        log.away = True
        for number in range(1, 400, 2):
            assert await held.append([record(number), record(number + 1)]) == [SPOOLED] * 2
        assert sample(metrics, "eventstreams_spool_events") == 400
        assert sample(metrics, "eventstreams_spool_bytes") > 400 * 64
        assert sample(metrics, "eventstreams_spool_oldest_seconds") > 0
        log.away = False
        await until(lambda: not held.store.topics)
        assert await values(log) == list(range(401))
        assert isinstance((await held.append([record(401)]))[0], Record)
        assert sample(metrics, "eventstreams_spool_replayed_events_total") == 400
        assert sample(metrics, "eventstreams_spool_oldest_seconds") == 0


async def test_busy_stream_keeps_its_order_and_leaves_the_spool(log: AwayLog, spool: Opened) -> None:
    async with spool() as (held, metrics):
        number = 0
        for _ in range(5):
            for away in (True, False):
                log.away = away
                # Until the log takes them again: something always comes behind what is kept.
                outcome: object = None
                async with asyncio.timeout(20):
                    while isinstance(outcome, Record) is away or (number + 1) % 50:
                        (outcome,) = await held.append([record(number)])
                        number += 1
        await until(lambda: not held.store.topics)
        assert await values(log) == list(range(number))
        assert sample(metrics, "eventstreams_intake_background_failures_total") == 0


async def test_append_that_may_have_been_stored_is_looked_for_before_it_is_sent_again(
    log: AwayLog, spool: Opened
) -> None:
    async with spool() as (held, _):
        log.silent = True
        assert await held.append([record(1), record(2)]) == [SPOOLED] * 2
        log.silent = False
        await until(lambda: not held.store.topics)
        assert await values(log) == [1, 2]


@pytest.mark.parametrize("fate", ["stored", "refused", "unknown"])
async def test_append_whose_end_is_open_is_not_sent_again_beside_it(log: AwayLog, spool: Opened, fate: str) -> None:
    async with spool() as (held, metrics):
        log.late = True
        assert await held.append([record(1)]) == [SPOOLED]
        log.late = False
        assert await held.append([record(2)]) == [SPOOLED]
        # The replay goes round, and sends neither: the second is behind the first.
        before = log.checks
        await until(lambda: log.checks >= before + 3)
        assert (await values(log), len(log.open)) == ([], 1)
        await log.decide(fate)
        await until(lambda: not held.store.topics)
        assert await values(log) == [1, 2]
        assert sample(metrics, "eventstreams_spool_replayed_events_total") == 2


def left_behind(folder: Path, kept: list[Kept]) -> SpoolFile:
    """Leave a file as a process does that was killed."""
    file = open_files(folder)[-1]
    file.put(kept)
    os.close(file._lock)
    return file


async def test_what_a_killed_process_left_is_sent_on_once(log: AwayLog, spool: Opened, tmp_path: Path) -> None:
    now = time.time_ns() // 1_000_000
    stored, lost, never = record(1), record(2), record(3)
    await log.append([stored])
    left_behind(tmp_path / "spool", [Kept(stored, now, True), Kept(lost, now, True), Kept(never, now, False)])
    async with spool() as (held, _):
        # New events go behind what is left.
        log.away = True
        assert await held.append([record(4)]) == [SPOOLED]
        log.away = False
        await until(lambda: not held.store.topics)
        assert await values(log) == [1, 2, 3, 4]
    assert [path.name for path in (tmp_path / "spool").iterdir()] == ["lock"]


async def test_processes_have_files_of_their_own(log: AwayLog, spool: Opened, tmp_path: Path) -> None:
    log.away = True
    async with AsyncExitStack() as stack:
        (one, _), (other, _) = [await stack.enter_async_context(spool()) for _ in range(2)]
        assert await one.append([record(1)]) == await other.append([record(2)]) == [SPOOLED]
        assert len(list((tmp_path / "spool").glob("*.spool"))) == 2
        assert (one.store.count("t"), other.store.count("t")) == (1, 1)
    log.away = False
    async with spool() as (third, _):
        await until(lambda: not third.store.topics)
    assert sorted(await values(log)) == [1, 2]


async def test_spool_is_bounded(log: AwayLog, spool: Opened) -> None:
    async with spool(max_bytes=200) as (held, metrics):
        log.away = True
        outcomes = [(await held.append([record(number)]))[0] for number in range(5)]
        assert outcomes[:3] == [SPOOLED] * 3
        assert {str(outcome) for outcome in outcomes[3:]} == {
            "the log is away, and 195 bytes are kept already: at most 200 are"
        }
        log.away = False
        await until(lambda: not held.store.topics)
        assert sample(metrics, "eventstreams_spool_bytes") == 0
        assert await values(log) == [0, 1, 2]


async def test_full_disk_is_told_and_keeps_nothing(log: AwayLog, spool: Opened) -> None:
    async with spool() as (held, _):
        log.away = True
        assert await held.append([record(1)]) == [SPOOLED]
        database = held.store._files[-1]._db
        pages = int(database.pragma("page_count"))
        database.pragma("max_page_count", pages)
        (outcome,) = await held.append([NewRecord("t", b"x" * 100_000)])
        assert isinstance(outcome, LogUnavailable)
        assert str(outcome) == "the log is away, and the spool cannot be written: the disk is full"
        assert held.store.count("t") == 1
        database.pragma("max_page_count", 1_000_000)
        assert await held.append([record(2)]) == [SPOOLED]
        log.away = False
        await until(lambda: not held.store.topics)
        assert await values(log) == [1, 2]


async def test_what_the_log_refuses_holds_up_nothing_else(log: AwayLog, spool: Opened, tmp_path: Path) -> None:
    def refuse(new: NewRecord) -> UnknownTopic | RecordTooLarge | None:
        if new.topic == "nowhere":
            return UnknownTopic("there is no topic 'nowhere'")
        return RecordTooLarge("too large") if new.value == b"1" else None

    async with spool() as (held, metrics):
        log.away, log.refuse = True, refuse
        await held.append([record(0, "nowhere"), record(1), record(2), record(3, "other")])
        log.away = False
        await until(lambda: list(held.store.topics) == ["nowhere"])
        assert (await values(log), await values(log, "other")) == ([2], [3])
        assert sample(metrics, "eventstreams_spool_refused_events_total") == 1
        # Its events stay, in their order, until somebody makes the topic.
        assert await held.append([record(4, "nowhere")]) == [SPOOLED]
        log.refuse = lambda _: None
        await until(lambda: not held.store.topics)
        assert await values(log, "nowhere") == [0, 4]
    # What was put aside stays for people to look at.
    assert len(list((tmp_path / "spool").glob("*.spool"))) == 1


async def test_directory_that_cannot_be_used_is_named(spool: Opened, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"spool .*/file cannot be used: "):
        async with spool(folder="file"):
            pass


async def test_file_of_another_format_is_refused(spool: Opened, tmp_path: Path) -> None:
    left_behind(tmp_path / "spool", [])._db.pragma("user_version", 99)
    with pytest.raises(ConfigurationError, match="has format 99: expected 1"):
        async with spool():
            pass


# -- as producers see it


@pytest.fixture
def spooling(open_intake: Open, tmp_path: Path) -> Callable[..., Any]:
    @asynccontextmanager
    async def opened() -> AsyncIterator[tuple[Rig, AwayLog]]:
        async with log_with(*TOPICS) as log:
            away = AwayLog(log)
            options = SpoolOptions(tmp_path / "spool", 10_000, 1.0)
            async with (
                open_spool(away, options, Metrics()) as held,
                open_intake(log=away, spool=held) as rig,
            ):
                yield rig, away

    return opened


async def test_producers_are_told_202_while_the_log_is_away(spooling: Callable[..., Any]) -> None:
    async with spooling() as (rig, log):
        log.away = True
        answer = await rig.post([thing(count=1), thing(count=2)])
        assert (answer.status_code, answer.content) == (202, b"")
        answer = await rig.post([thing(count=3), thing(count="x")])
        assert answer.status_code == 207
        assert [len(answer.json()[kind]) for kind in ("invalid", "error")] == [1, 0]
        answer = await rig.post(thing(name="x" * 20_000))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "at most 10000 are" in answer.json()["error"][0]["context"]["message"]
        log.away = False
        await until_stored(log, 3)
        assert [json.loads(one.value)["count"] for one in await held(log)] == [1, 2, 3]
        assert (await rig.post(thing())).status_code == 201


async def test_duplicate_of_a_kept_event_has_its_outcome(spooling: Callable[..., Any]) -> None:
    async with spooling() as (rig, log):
        log.away = True
        assert [(await rig.post(thing("once"))).status_code for _ in range(2)] == [202, 202]
        log.away = False
        await until_stored(log, 1, "once")
        assert (await rig.post(thing("once"))).status_code == 202
        assert len(await held(log, "once")) == 1


async def held(log: AwayLog, topic: str = "things") -> list[Record]:
    partition = TopicPartition(topic, 0)
    if partition not in await log.partitions(topic):
        return []
    return list((await log.fetch(partition, 0, (await log.extents([partition]))[partition].end, 2**24)).records)


async def until_stored(log: AwayLog, count: int, topic: str = "things") -> None:
    async with asyncio.timeout(20):
        while len(await held(log, topic)) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
