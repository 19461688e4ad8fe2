"""Where a stream begins by the Last-Event-ID that it is asked for with; over HTTP, on both ways of delivery."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.subscribe.test_gateway import PATHS, Running, add, serving, subscribe


@pytest.fixture(params=PATHS)
async def gateway(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    async with serving(tmp_path, request.param) as running:
        yield running


async def test_resume_with_the_last_id_goes_on_exactly(gateway: Running) -> None:
    await add(gateway.log, "a", 1000, 1000, 1000)
    first = await subscribe(gateway, "/v2/stream/changes?since=0", 1)
    await add(gateway.log, "b", 5)
    rest = await subscribe(gateway, "/v2/stream/changes", 3, **{"Last-Event-ID": first.last_id})
    places = [(e["meta"]["topic"], e["meta"]["offset"]) for e in [*first.events, *rest.events]]
    assert sorted(places) == [("a", 0), ("a", 1), ("a", 2), ("b", 0)]


@pytest.mark.parametrize(
    ("since", "entries", "order"),
    [
        ("", ["b", {"topic": "a", "partition": 0, "offset": 0}], "ba"),
        ("?since=1", ["b", {"topic": "a", "partition": 0, "offset": 0}], "ab"),
        ("?since=1", ["b", {"topic": "a", "partition": 0, "timestamp": 1}], "ba"),
        ("", [{"topic": "b", "partition": 0, "timestamp": 1}, {"topic": "a", "partition": 0, "offset": 0}], "ab"),
        ("", [{"topic": "b", "partition": 0, "timestamp": 1, "offset": 0}, "a"], "ba"),
    ],
)
async def test_id_lists_last_what_was_looked_up_by_time(
    gateway: Running, since: str, entries: list[object], order: str
) -> None:
    await add(gateway.log, "a", 1000)
    await add(gateway.log, "b", 1000)
    named = {"Last-Event-ID": json.dumps(entries)}
    reply = await subscribe(gateway, f"/v2/stream/edits{since}", 1, **named)
    assert [entry["topic"] for entry in json.loads(reply.last_id)] == list(order)


async def test_resume_is_exact_though_a_stale_broker_tells_of_an_earlier_end(gateway: Running) -> None:
    await add(gateway.log, "a", 1000, 1000, 1000)
    first = await subscribe(gateway, "/v2/stream/edits?since=0", 2)
    gateway.away.stale = 2
    rest = await subscribe(gateway, "/v2/stream/edits", 1, **{"Last-Event-ID": first.last_id})
    assert [event["meta"]["offset"] for event in (*first.events, *rest.events)] == [0, 1, 2]
    assert not gateway.away.stale


async def test_id_of_another_cluster_goes_on_by_time_and_loses_nothing(gateway: Running) -> None:
    await add(gateway.log, "a", 10_000, 20_000, 20_000, 30_000)
    other = '[{"topic":"a","partition":0,"timestamp":20001,"offset":900,"cluster":"elsewhere"}]'
    reply = await subscribe(gateway, "/v2/stream/edits", 3, **{"Last-Event-ID": other})
    assert [event["ts"] for event in reply.events] == [20_000, 20_000, 30_000]


@pytest.mark.parametrize(
    ("header", "status", "name"),
    [
        ("abc", 400, "InvalidAssignmentError"),
        ("[]", 400, "InvalidAssignmentError"),
        ('["q"]', 404, "TopicNotAvailableError"),
        ('[{"topic":"a","partition":9,"timestamp":1}]', 400, "InvalidAssignmentError"),
    ],
)
async def test_last_event_id_that_cannot_be_used_is_refused(
    gateway: Running, header: str, status: int, name: str
) -> None:
    response = await gateway.http.get("/v2/stream/edits", headers={"Last-Event-ID": header})
    assert (response.status_code, response.json()["name"]) == (status, name)


async def test_id_with_a_topic_that_its_stream_has_no_more_goes_on_with_the_others(gateway: Running) -> None:
    await add(gateway.log, "q", 1)
    await add(gateway.log, "a", 1)
    cluster = gateway.log.cluster
    entries = [
        {"topic": "q", "partition": 0, "offset": 0, "cluster": cluster},
        {"topic": "a", "partition": 0, "offset": 0},
    ]
    reply = await subscribe(gateway, "/v2/stream/quiet", 1, **{"Last-Event-ID": json.dumps(entries)})
    assert [entry["topic"] for entry in json.loads(reply.last_id)] == ["q"]


async def test_id_that_names_some_partitions_keeps_to_them_over_reconnects(gateway: Running) -> None:
    await add(gateway.log, "a", 1000, 2000)
    await add(gateway.log, "b", 1000)
    await add(gateway.log, "q", 1000)
    some = '[{"topic":"a","partition":0,"offset":0}]'
    path = "/v2/stream/edits,quiet"
    reply = await subscribe(gateway, path, 1, **{"Last-Event-ID": some})
    assert json.loads(reply.last_id)[0]["partial"] is True
    reply = await subscribe(gateway, path, 1, **{"Last-Event-ID": reply.last_id})
    await add(gateway.log, "b", 3000)
    await add(gateway.log, "a", 3000)
    reply = await subscribe(gateway, path, 1, **{"Last-Event-ID": reply.last_id})
    assert [(event["meta"]["topic"], event["ts"]) for event in reply.events] == [("a", 3000)]


async def test_whole_and_partial_subscriptions_to_the_same_partitions_keep_their_own_ids(gateway: Running) -> None:
    await add(gateway.log, "q", 1000)
    named = {"Last-Event-ID": '[{"topic":"q","partition":0,"offset":0}]'}
    partial, whole = await asyncio.gather(
        subscribe(gateway, "/v2/stream/edits,quiet", 1, **named), subscribe(gateway, "/v2/stream/quiet", 1, **named)
    )
    assert "partial" in json.loads(partial.last_id)[0]
    assert "partial" not in json.loads(whole.last_id)[0]


async def test_stream_added_to_a_request_begins_about_when_its_id_was_made(gateway: Running) -> None:
    day = 86_400_000
    await add(gateway.log, "q", 100 * day)
    await add(gateway.log, "a", *(n * day for n in range(1, 100)), 100 * day - 1, 100 * day + 1)
    reply = await subscribe(gateway, "/v2/stream/quiet?since=0", 1)
    reply = await subscribe(gateway, "/v2/stream/quiet,edits", 2, **{"Last-Event-ID": reply.last_id})
    assert [event["ts"] for event in reply.events] == [100 * day - 1, 100 * day + 1]
