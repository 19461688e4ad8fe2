"""Idempotent publish: an id that was stored within its stream's window is acknowledged and not stored again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from intake.dedupe import Deduplication, Key
from intake.options import IntakeOptions
from intake.outcome import ACCEPTED, DUPLICATE, EventOutcome, Kind
from tests.intake.conftest import TOPICS, Open, Rig, thing
from tests.support.away import AwayLog
from tests.support.topics import log_with


@pytest.fixture
def opened(open_intake: Open) -> Any:
    @asynccontextmanager
    async def opened(options: IntakeOptions | None = None) -> AsyncIterator[tuple[Rig, AwayLog]]:
        async with log_with(*TOPICS) as log:
            away = AwayLog(log)
            async with open_intake(options, log=away) as rig:
                rig.log = log
                yield rig, away

    return opened


def once(identity: str = "one", **fields: Any) -> dict[str, Any]:
    event = thing("once", **fields)
    event["meta"]["id"] = identity
    return event


async def test_concurrent_duplicates_are_stored_once(opened: Any) -> None:
    async with opened() as (rig, _):
        answers = await asyncio.gather(*(rig.post([once(), once("two")]) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {201}
        assert [event["meta"]["id"] for event in await rig.events("once")] == ["one", "two"]
        assert rig.value("eventstreams_duplicate_events_total") == 38
        labels = {"service": "test", "stream": "once", "schema_uri": "/thing/1.0.0"}
        assert rig.value("eventgate_events_produced_total", **labels) == 2


async def test_streams_and_invalid_events_have_ids_of_their_own(opened: Any) -> None:
    async with opened() as (rig, _):
        assert (await rig.post(once(count="x"))).status_code == 400
        assert (await rig.post(thing("things"))).status_code == 201
        assert (await rig.post(once())).status_code == 201
        assert len(await rig.events("once")) == 1


async def test_attempt_that_failed_does_not_count(opened: Any) -> None:
    async with opened() as (rig, log):
        log.away = True
        answers = await asyncio.gather(*(rig.post(once()) for _ in range(3)))
        assert {answer.status_code for answer in answers} == {503}
        log.away = False
        assert [(await rig.post(once())).status_code for _ in range(2)] == [201, 201]
        assert len(await rig.events("once")) == 1


@pytest.mark.parametrize("stored", [True, False])
async def test_attempt_whose_end_is_not_known_is_looked_for(opened: Any, stored: bool) -> None:
    async with opened() as (rig, log):
        log.silent, log.lost = stored, not stored
        assert (await rig.post([once(), once("two")])).status_code == 503
        # While the log cannot be asked, nothing is sent to it either.
        log.silent = log.lost = False
        log.away = True
        assert (await rig.post(once())).status_code == 503
        log.away = False
        assert [(await rig.post([once(), once("two"), once("three")])).status_code for _ in range(2)] == [201, 201]
        assert sorted(event["meta"]["id"] for event in await rig.events("once")) == ["one", "three", "two"]


@pytest.mark.parametrize("fate", ["stored", "refused", "unknown"])
async def test_repetition_waits_for_what_becomes_of_the_first(opened: Any, fate: str) -> None:
    async with opened() as (rig, log):
        log.late = True
        assert (await rig.post(once())).status_code == 503
        log.late = False
        repeated = asyncio.create_task(rig.post(once()))
        done, _ = await asyncio.wait([repeated], timeout=0.1)
        assert (len(done), len(log.open)) == (0, 1)
        await log.decide(fate)
        assert (await repeated).status_code == (201 if fate == "stored" else 503)
        # What is not stored may be sent again, and is looked for first where nobody knows.
        assert [(await rig.post(once())).status_code for _ in range(2)] == [201, 201]
        assert len(await rig.events("once")) == 1


async def test_repetition_is_answered_in_time_while_the_first_is_undecided(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intake.storing.SEARCH_SECONDS", 0.0)
    async with opened(IntakeOptions(produce_timeout=0.05)) as (rig, log):
        log.late = True
        assert (await rig.post(once())).status_code == 503
        log.late = False
        answer = await rig.post([once(), once("two")])
        assert answer.status_code == 207
        assert "not known yet" in answer.json()["error"][0]["context"]["message"]
        await log.decide("stored")
        assert (await rig.post(once())).status_code == 201
        assert sorted(event["meta"]["id"] for event in await rig.events("once")) == ["one", "two"]


async def test_search_for_an_earlier_attempt_ends_in_time(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intake.storing.SEARCH_SECONDS", 0.05)
    async with opened() as (rig, log):
        log.lost = True
        assert (await rig.post(once())).status_code == 503
        log.lost, log.hangs = False, True
        answer = await rig.post(once())
        assert answer.status_code == 503
        assert "cannot be asked: not searched in 0.05 s" in answer.json()["error"][0]["context"]["message"]
        log.hangs = False
        assert (await rig.post(once())).status_code == 201
        assert len(await rig.events("once")) == 1


async def test_ids_are_forgotten_after_their_window_and_over_the_bound() -> None:
    now = 0.0
    seen = Deduplication(3, clock=lambda: now)

    def first(identity: str) -> bool:
        claim, _ = seen.claim(Key("s", identity), 10.0)
        if claim is None:
            seen.settle(Key("s", identity), ACCEPTED, 0)
        return claim is None

    assert [first("a"), first("a"), first("b"), first("c")] == [True, False, True, True]
    assert first("d")
    assert (first("a"), len(seen)) == (True, 3)
    now = 11.0
    assert (first("d"), len(seen)) == (True, 1)


async def test_ids_under_way_are_not_forgotten() -> None:
    seen = Deduplication(1)
    assert seen.claim(Key("s", "a"), 10.0) == (None, None)
    assert seen.claim(Key("s", "b"), 10.0) == (None, None)
    waiting, _ = seen.claim(Key("s", "a"), 10.0)
    assert waiting is not None
    outcome = asyncio.create_task(seen.outcome(waiting, dict, 60.0))
    seen.settle(Key("s", "a"), ACCEPTED, 0)
    seen.settle(Key("s", "b"), ACCEPTED, 0)
    assert await outcome is DUPLICATE


async def test_ids_behind_one_that_is_under_way_are_forgotten_all_the_same() -> None:
    seen = Deduplication(10)
    seen.claim(Key("s", "first"), 10.0)
    for number in range(1000):
        seen.claim(Key("s", str(number)), 10.0)
        seen.settle(Key("s", str(number)), ACCEPTED, 0)
    assert len(seen) <= 12
    assert seen.claim(Key("s", "first"), 10.0)[0] is not None


async def test_duplicate_of_an_event_that_was_given_up_is_told_so() -> None:
    seen = Deduplication(10)
    seen.claim(Key("s", "a"), 10.0)
    waiting, _ = seen.claim(Key("s", "a"), 10.0)
    assert waiting is not None
    seen.settle(Key("s", "a"), None, 5)
    outcome: EventOutcome = await seen.outcome(waiting, dict, 60.0)
    assert (outcome.kind, outcome.status) == (Kind.FAILED, 503)
    # The next one is told since when the log may hold it.
    assert seen.claim(Key("s", "a"), 10.0) == (None, 5)
