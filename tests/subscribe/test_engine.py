"""The engine on the embedded log: what a client is sent, whatever happens between."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from eventstreams.eventlog.embedded.log import EmbeddedLog, open_embedded
from eventstreams.metrics import Metrics
from eventstreams.positions import Cursor, Edge, Next
from eventstreams.records import NewRecord, TopicPartition
from eventstreams.subscribe.engine import Engine
from eventstreams.subscribe.options import EngineOptions, Form
from eventstreams.subscribe.subscription import Subscription
from eventstreams.subscribe.wire import AsgiWire

PARTITIONS = [TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)]


class Client:
    """Reads a subscription's bytes as an SSE client does, keeping the last id of whole blocks."""

    def __init__(self) -> None:
        self.wire = AsgiWire()
        self.subscription: Subscription | None = None
        self.events: list[dict[str, Any]] = []
        self.named: list[tuple[str, dict[str, Any]]] = []
        self.last_id: list[dict[str, Any]] = []
        self._buffer = b""
        self._chunks = self.wire.chunks()

    async def connect(self, engine: Engine, cursor: Cursor, form: Form | None = None) -> Client:
        self.subscription = await engine.subscribe(cursor, self.wire, form or Form())
        self.wire.on_lost = self.subscription.close
        return self

    async def read(self, count: int, cut_at: int | None = None) -> None:
        """Read until `count` events came, or until so many bytes: then the rest of the chunk is lost."""
        taken = 0
        async with asyncio.timeout(30):
            async for chunk in self._chunks:
                piece = chunk if cut_at is None else chunk[: cut_at - taken]
                taken += len(piece)
                self._feed(piece)
                if len(self.events) >= count or (cut_at is not None and taken >= cut_at):
                    break
        if cut_at is not None:
            self.close()

    async def rest(self) -> bytes:
        """Return what comes until the stream ends."""
        return b"".join([chunk async for chunk in self._chunks])

    def _feed(self, piece: bytes) -> None:
        *blocks, self._buffer = (self._buffer + piece).split(b"\n\n")
        for block in blocks:
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
            if b"id" in fields:
                self.last_id = json.loads(fields[b"id"])
            if b"data" in fields:
                name, data = fields[b"event"].decode(), json.loads(fields[b"data"])
                if name == "message":
                    self.events.append(data)
                else:
                    self.named.append((name, data))

    def close(self) -> None:
        self.wire.lost()

    def cursor(self) -> Cursor:
        entries = ((TopicPartition(e["topic"], e["partition"]), Next(e["offset"])) for e in self.last_id)
        return Cursor(entries)


@asynccontextmanager
async def running(tail_bytes: int = 1 << 20) -> AsyncIterator[tuple[EmbeddedLog, Engine]]:
    async with open_embedded(":memory:") as log:
        await log.create_topic("a", 2)
        await log.create_topic("b", 1)
        options = EngineOptions(tail_bytes=tail_bytes, send_timeout=20.0)
        async with Engine(log, options, Metrics()).open() as engine:
            yield log, engine


async def add(log: EmbeddedLog, first: int, count: int, seed: int = 0) -> None:
    rng = random.Random(seed)
    await log.append(
        [
            NewRecord(
                rng.choice("ab"), json.dumps({"n": n, "meta": {"stream": "s"}}).encode(), b"%d" % n, 1000 + n // 3
            )
            for n in range(first, first + count)
        ]
    )


def seen(events: list[dict[str, Any]]) -> Mapping[tuple[str, int], list[int]]:
    """Offsets by partition, in the order of arrival."""
    offsets: dict[tuple[str, int], list[int]] = {}
    for event in events:
        meta = event["meta"]
        offsets.setdefault((meta["topic"], meta["partition"]), []).append(meta["offset"])
    return offsets


def assert_each_once_in_order(events: list[dict[str, Any]], count: int) -> None:
    assert sorted(event["n"] for event in events) == list(range(count))
    assert all(offsets == list(range(len(offsets))) for offsets in seen(events).values())


async def earliest(log: EmbeddedLog) -> Cursor:
    return await log.resolve(dict.fromkeys(PARTITIONS, Edge.EARLIEST))


async def test_first_bytes_are_the_comment_and_the_starting_cursor() -> None:
    async with running() as (log, engine):
        client = await Client().connect(engine, await earliest(log))
        async for chunk in client.wire.chunks():
            block = rb':ok\n\nretry: \d+\nid: \[{"topic":"a","partition":0,"offset":0,"cluster":"[^\n]*}]\n\n'
            assert re.fullmatch(block, chunk)
            break
        client.close()


async def test_replay_and_live_meet_without_hole_or_overlap() -> None:
    async with running() as (log, engine):
        await add(log, 0, 700)
        client = await Client().connect(engine, await earliest(log))
        reading = asyncio.create_task(client.read(1400))
        for first in range(700, 1400, 50):
            await add(log, first, 50, first)
        await reading
        assert_each_once_in_order(client.events, 1400)
        client.close()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("tail_bytes", [2_000, 1 << 20])
async def test_client_cut_after_any_byte_resumes_exactly(seed: int, tail_bytes: int) -> None:
    rng = random.Random(seed)
    async with running(tail_bytes) as (log, engine):
        cursor = await earliest(log)
        await add(log, 0, 200, seed)

        async def produce() -> None:
            for first in range(200, 600, 20):
                await add(log, first, 20, seed + first)
                await asyncio.sleep(0)

        producing = asyncio.create_task(produce())
        events: list[dict[str, Any]] = []
        while len(events) < 600:
            client = await Client().connect(engine, cursor)
            await client.read(600 - len(events), cut_at=rng.randrange(1, 40_000))
            events += client.events
            cursor = client.cursor() if client.last_id else cursor
        await producing
        assert_each_once_in_order(events, 600)


async def test_ids_never_go_backwards_between_replay_and_head() -> None:
    async with running() as (log, engine):
        await add(log, 0, 300)
        client = await Client().connect(engine, await earliest(log))
        await client.read(300)
        before = client.cursor()
        reading = asyncio.create_task(client.read(301))
        await add(log, 300, 1)
        await reading
        assert len(client.events) == 301
        assert all(client.cursor()[p].offset >= before[p].offset for p in PARTITIONS)
        client.close()


async def test_cursor_that_retention_has_passed_gets_a_gap_notice() -> None:
    async with running() as (log, engine):
        partition = TopicPartition("b", 0)
        await log.append([NewRecord("b", b'{"n":%d}' % n, None, n) for n in range(10)])
        await log.delete_before(partition, 4)
        client = await Client().connect(engine, Cursor([(partition, Next(1))]))
        await client.read(6)
        assert [event["n"] for event in client.events] == [4, 5, 6, 7, 8, 9]
        ((name, body),) = client.named
        assert name == "gap"
        assert [(g["topic"], g["partition"], g["first_offset"], g["last_offset"]) for g in body["partitions"]] == [
            ("b", 0, 1, 3)
        ]
        client.close()


async def test_json_lines_carry_events_only() -> None:
    async with running() as (log, engine):
        await add(log, 0, 3)
        client = await Client().connect(engine, await earliest(log), Form(json_lines=True))
        got = b""
        async for chunk in client.wire.chunks():
            got += chunk
            if got.count(b"\n") == 4:
                break
        lines = got.split(b"\n")
        assert lines[0] == b""
        assert sorted(json.loads(line)["n"] for line in lines[1:4]) == [0, 1, 2]
        client.close()


async def test_bad_records_are_skipped_and_the_cursor_passes_them() -> None:
    async with running() as (log, engine):
        partition = TopicPartition("b", 0)
        bad = [b"no json", b'"text"', b"1", b"null", b"", b'{"meta":"x"}', b'{"a":1,"a":2}', b'{"n":NaN}']
        await log.append([NewRecord("b", value) for value in [*bad, b'{"n":"good\\nline"}']])
        client = await Client().connect(engine, Cursor([(partition, Next(0))]))
        await client.read(1)
        assert [event["n"] for event in client.events] == ["good\nline"]
        assert client.cursor()[partition].offset == len(bad) + 1
        client.close()


@pytest.mark.parametrize("steps", range(1, 40, 3))
async def test_client_that_goes_while_its_stream_grows_leaves_nothing_behind(steps: int) -> None:
    async with running() as (log, engine):
        client = await Client().connect(engine, await earliest(log))
        await log.create_topic("b", 3)
        growing = asyncio.create_task(engine.growth.refresh())
        for _ in range(steps):
            await asyncio.sleep(0)
        client.close()
        await growing
        assert engine.subscriptions() == []


async def test_drain_ends_each_stream_with_a_final_id_and_a_time_to_come_back() -> None:
    async with running() as (log, engine):
        await add(log, 0, 5)
        client = await Client().connect(engine, await earliest(log))
        await client.read(5)

        async def rest() -> bytes:
            got = await client.rest()
            client.close()
            return got

        reading = asyncio.create_task(rest())
        await engine.drain(5.0)
        last = await reading
        assert b"retry: " in last
        assert last.endswith(b"}]\n\n")
