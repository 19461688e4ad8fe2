"""What streams hold beside events, on both ways of delivery: gaps, errors, blocks of ids, heartbeats, goodbyes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from eventstreams.errors import UnknownTopic
from eventstreams.records import TopicPartition
from eventstreams.subscribe.endpoints import GatewayOptions
from eventstreams.subscribe.options import EngineOptions
from eventstreams.subscribe.retries import Retries
from tests.subscribe.test_delivery import PATHS, Client, Gateway, connected, numbers, serving, unchunked

STREAM = "GET /v2/stream/edits HTTP/1.1"
EDITS = TopicPartition("a", 0)


@pytest.fixture(params=PATHS)
async def gateway(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Gateway]:
    async with serving(tmp_path, request.param, EngineOptions(heartbeat=0.1)) as running:
        yield running


def last_event_id(gateway: Gateway, offset: int, timestamp: int | None = None, cluster: str | None = None) -> str:
    entry: dict[str, Any] = {"topic": "a", "partition": 0, "offset": offset, "cluster": cluster or gateway.log.cluster}
    if timestamp is not None:
        entry["timestamp"] = timestamp
    return f"Last-Event-ID: {json.dumps([entry])}"


def named(body: bytes, name: str) -> list[dict[str, Any]]:
    return [json.loads(data) for data in re.findall(rb"event: %b\n(?:id: .*\n)?data: (.*)\n\n" % name.encode(), body)]


def gaps(gateway: Gateway) -> tuple[float | None, float | None]:
    value = gateway.metrics.registry.get_sample_value
    return value("eventstreams_gaps_total"), value("eventstreams_gap_offsets_total")


@asynccontextmanager
async def resumed(gateway: Gateway, header: str, *more: str) -> AsyncIterator[Client]:
    async with connected(gateway, STREAM, header, *more) as client:
        await client.head()
        yield client


async def test_cursor_that_retention_has_passed_gets_a_notice_and_the_earliest_events(gateway: Gateway) -> None:
    await gateway.add(*range(10))
    await gateway.log.delete_before(EDITS, 4)
    async with resumed(gateway, last_event_id(gateway, 1, 1)) as client:
        body = await client.until(b'"n":9,')
        ((gap,),) = (notice["partitions"] for notice in named(body, "gap"))
        assert (gap["first_offset"], gap["last_offset"], gap["after_timestamp"]) == (1, 3, 0)
        assert numbers(body) == [4, 5, 6, 7, 8, 9]
        assert gaps(gateway) == (1, 3)


async def test_no_id_past_a_gap_comes_before_its_notice(gateway: Gateway) -> None:
    """A client that is cut in between would come back with that id, and never be told."""
    await gateway.add(*range(10))
    await gateway.log.delete_before(EDITS, 4)
    async with resumed(gateway, last_event_id(gateway, 1, 1)) as client:
        before, notice, after = (await client.until(b'"n":9,')).partition(b"event: gap\n")
        assert notice
        assert b"id: " not in before
        assert after.split(b"\n\n")[1].startswith(b"id: "), "the block of where it stands comes next"


async def test_offset_beyond_the_end_goes_on_by_time_and_says_so(gateway: Gateway) -> None:
    """The log was made anew: its records have other numbers, and the same times."""
    await gateway.add(*range(1000, 9000, 1000))
    async with resumed(gateway, last_event_id(gateway, 500, 5001)) as client:
        body = await client.until(b'"n":8000,')
        ((gap,),) = (notice["partitions"] for notice in named(body, "gap"))
        assert (gap["first_offset"], gap["last_offset"], gap["after_timestamp"]) == (500, None, 5000)
        assert numbers(body) == [4000, 5000, 6000, 7000, 8000]


async def test_offset_beyond_the_end_without_a_time_begins_a_new_log_at_its_beginning(gateway: Gateway) -> None:
    await gateway.add(1, 2, 3)
    async with resumed(gateway, last_event_id(gateway, 500)) as client:
        assert numbers(await client.until(b'"n":3,')) == [1, 2, 3]


async def test_offset_beyond_the_end_of_an_unknown_cluster_begins_now(gateway: Gateway) -> None:
    await gateway.add(1, 2, 3)
    async with resumed(gateway, 'Last-Event-ID: [{"topic":"a","partition":0,"offset":500}]') as client:
        await gateway.open_streams(1)
        await gateway.add(4, 5)
        assert numbers(await client.until(b'"n":5,')) == [4, 5]


async def test_json_lines_have_no_notices_and_their_gaps_are_counted(gateway: Gateway) -> None:
    await gateway.add(*range(10))
    await gateway.log.delete_before(EDITS, 4)
    async with resumed(gateway, last_event_id(gateway, 1), "Accept: application/json") as client:
        body = await client.until(b'"n":9,')
        assert re.findall(rb'"n":(\d)', body) == [b"4", b"5", b"6", b"7", b"8", b"9"]
        assert b"gap" not in body
        assert gaps(gateway) == (1, 3)


async def test_error_ends_a_stream_cleanly_after_saying_why(gateway: Gateway) -> None:
    async with connected(gateway) as client:
        await client.head()
        await gateway.open_streams(1)
        await gateway.add(1)
        first = await client.until(b'"n":1,')
        gateway.engine.gone(UnknownTopic("topic 'a' was deleted"), EDITS)
        await gateway.add(2)
        body, ended = unchunked(first + await client.rest())
        assert ended
        (error,) = named(body, "error")
        assert error["message"] == "topic 'a' was deleted"
        assert numbers(body) == [1]
        assert gateway.dropped("unknown_topic") == 1
        await gateway.open_streams(0)


async def test_idle_stream_gets_heartbeats_of_one_line(gateway: Gateway) -> None:
    async with connected(gateway) as client:
        body = await client.until(b"\n:\n")
        assert re.search(rb":ok\n\nretry: \d+\nid: .*\n\n", body)


async def test_filtered_stretch_moves_the_id_of_an_idle_stream(gateway: Gateway) -> None:
    async with connected(gateway, "GET /v2/stream/edits?filter=event.n%20%3C%200 HTTP/1.1") as client:
        await client.until(b":ok\n\n")
        await gateway.open_streams(1)
        await gateway.add(*range(20))
        body = await client.until(b'"offset":20')
        assert numbers(body) == []


async def test_streams_without_positions_are_sent_no_blocks_of_ids(gateway: Gateway) -> None:
    async with connected(gateway, "GET /v2/stream/edits?positions=false&filter=event.n%20%3C%200 HTTP/1.1") as client:
        await client.head()
        await gateway.open_streams(1)
        await gateway.add(1, 2, 3)
        first = await client.until(b":\n")
        await gateway.engine.drain(5)
        body, ended = unchunked(first + await client.rest())
        assert ended
        assert b"id: " not in body
        # No blank line: their users would be handed an empty message.
        assert re.fullmatch(rb":ok\n\nretry: \d+\n(:\n)+retry: \d+\n", body)


async def test_first_thing_told_is_when_to_come_back_each_client_another_time(tmp_path: Path) -> None:
    options = EngineOptions(retry=30.0, retry_spread=5.0)
    async with serving(tmp_path, "direct", options=options) as gateway, AsyncExitStack() as stack:
        told = []
        for query in ["", "?positions=event", "?positions=false", "?since=1"] * 5:
            given = connected(gateway, f"GET /v2/stream/edits{query} HTTP/1.1")
            client = await stack.enter_async_context(given)
            async with asyncio.timeout(20):
                await client.reader.readuntil(b"\n:ok\n\nretry: ")
                told.append(int(await client.reader.readline()))
        assert all(30_000 <= retry <= 35_000 for retry in told)
        assert len(set(told)) > 10


@pytest.mark.parametrize(("query", "blocks"), [("", False), ("?positions=true", True)])
async def test_user_agents_that_take_a_block_with_an_id_for_a_message_get_it_on_demand(
    tmp_path: Path, query: str, blocks: bool
) -> None:
    reading = GatewayOptions(no_id_blocks=("python-httpx/",))
    async with serving(tmp_path, "direct", reading=reading) as gateway:
        request = f"GET /v2/stream/edits{query} HTTP/1.1"
        async with connected(gateway, request, "User-Agent: python-httpx/0.28.1") as client:
            await client.head()
            await gateway.open_streams(1)
            await gateway.add(1)
            body = await client.until(b'"n":1')
            assert body.count(b"id: ") == 1 + blocks


async def test_nothing_comes_after_the_goodbye(gateway: Gateway) -> None:
    async with connected(gateway) as client:
        await client.head()
        await gateway.open_streams(1)
        draining = asyncio.create_task(gateway.engine.drain(5))
        await asyncio.sleep(0)
        await gateway.add(1, 2, 3)
        await draining
        body, ended = unchunked(await client.rest())
        assert ended
        assert re.search(rb"retry: \d+\nid: .*\n\n$", body)


async def test_stream_let_in_while_the_drain_begins_is_ended_too(gateway: Gateway) -> None:
    await gateway.engine.drain(0.1)
    async with connected(gateway) as client:
        await client.head()
        body, ended = unchunked(await client.rest())
        assert ended
        assert re.search(rb"retry: \d+\nid: .*\n\n$", body)


def test_each_client_of_a_drain_gets_a_time_of_its_own_to_come_back() -> None:
    slots = Retries(20.0, 8.0).slots(1000)
    given = [next(slots) for _ in range(1000)]
    assert sorted(given) == [20_000 + 8 * n for n in range(1000)]
    assert given != sorted(given)
    assert 20_000 <= next(slots) <= 28_000
