"""Resume is exact: a state machine over log, tail, retention, compaction, growth, cuts after any byte, new processes.

Clients go the way of a request (`find_start`), are sent real bytes and keep what whole blocks told them. Whatever
happens between, none of them loses, repeats or reorders an event that was not removed from the log before it came.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from eventstreams.eventlog.embedded import queries
from eventstreams.eventlog.embedded.log import EmbeddedLog, open_embedded
from eventstreams.filters.compile import compile_filters
from eventstreams.metrics import Metrics
from eventstreams.positions import AtTime, Edge, Position
from eventstreams.records import NewRecord, TopicPartition
from eventstreams.subscribe import blocks, group, replay
from eventstreams.subscribe.engine import Engine
from eventstreams.subscribe.event_id import parse_last_event_id
from eventstreams.subscribe.options import EngineOptions, Form
from eventstreams.subscribe.request import StreamRequest
from eventstreams.subscribe.start import find_start
from eventstreams.subscribe.subscription import Subscription
from eventstreams.subscribe.wire import AsgiWire
from tests.support.sse import SseReader

T = TypeVar("T")
TOPICS = ("a", "b")
PATIENCE = 10.0
"""Seconds in which what must come comes; a loss shows as their end."""

SMALL = (
    (blocks, "BLOCK_OFFSETS", 4),
    (replay, "STEP_BYTES", 2000),
    (group, "RECENT_BYTES", 3000),
)
"""Sizes so small that clients pass from one way of reading to another all the time."""

KEPT = compile_filters(["event.keep"])

timestamps = st.integers(1000, 1006)
"""So few that most are shared and many lie back."""

batches = st.lists(st.tuples(st.sampled_from(TOPICS), timestamps, st.booleans(), st.integers(0, 3000)), max_size=30)
starts = st.one_of(st.sampled_from([Edge.EARLIEST, Edge.LATEST]), timestamps.map(AtTime))


class Client:
    """One that comes back with its last id; knows what it has seen and been told is missing."""

    def __init__(self, since: Position, *, filtered: bool) -> None:
        self.since = since
        self.filter = KEPT if filtered else None
        self.last_id = ""
        self.start: dict[TopicPartition, int] = {}
        self.seen: dict[TopicPartition, list[int]] = {}
        self.numbers: set[int] = set()
        self.gaps: list[tuple[TopicPartition, int, int]] = []
        self.subscription: Subscription | None = None
        self._wire = AsgiWire()

    async def connect(self, engine: Engine) -> None:
        given_id = parse_last_event_id(self.last_id) if self.last_id else None
        request = StreamRequest(TOPICS, (), self.since, given_id, Form(), self.filter, ("s",))
        start = await find_start(request, engine.log, engine, resume_skew=1.0)
        named = {TopicPartition(e["topic"], e["partition"]) for e in json.loads(self.last_id)} if self.last_id else ()
        for partition, next_ in start.cursor.items():
            if partition not in named:
                self.start[partition] = next_.offset
        self._wire = AsgiWire()
        self._chunks = self._wire.chunks()
        self._reader = SseReader(self.last_id)
        self.subscription = await engine.subscribe(
            start.cursor, self._wire, Form(), filter_=self.filter, gaps=start.gaps, streams=start.streams
        )
        self._wire.on_lost = self.subscription.close

    async def read(self, enough: Callable[[], bool], cut_at: int | None = None) -> None:
        """Read until it is enough, or just so many bytes, and then hang up: the rest is lost."""
        left = cut_at
        async with asyncio.timeout(PATIENCE):
            while not enough():
                piece = await anext(self._chunks)
                self._take(piece if left is None else piece[:left])
                if left is not None:
                    left -= len(piece)
                    if left <= 0:
                        break
        if cut_at is not None:
            self.hang_up()

    def _take(self, piece: bytes) -> None:
        for message in self._reader.feed(piece):
            body = json.loads(message.data)
            if message.name == "gap":
                self.gaps += [
                    (TopicPartition(g["topic"], g["partition"]), g["first_offset"], g["last_offset"])
                    for g in body["partitions"]
                ]
                continue
            assert message.name == "message", message
            partition = TopicPartition(body["meta"]["topic"], body["meta"]["partition"])
            after = {(e["topic"], e["partition"]): e["offset"] for e in json.loads(message.last_event_id)}
            assert after[partition] == body["meta"]["offset"] + 1
            self.seen.setdefault(partition, []).append(body["meta"]["offset"])
            self.numbers |= {body["n"]} if "n" in body else set()
        self.last_id = self._reader.last_event_id

    def hang_up(self) -> None:
        self._wire.lost()
        self.subscription = None

    def has_seen(self, partition: TopicPartition, offset: int) -> bool:
        return offset in self.seen.get(partition, ())

    def was_told(self, partition: TopicPartition, offset: int) -> bool:
        return any(partition == gap[0] and gap[1] <= offset <= gap[2] for gap in self.gaps)


class Resume(RuleBasedStateMachine):
    """The model: which records there are, and which are gone from the log, by expiry or by compaction."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = pytest.MonkeyPatch()
        for module, name, size in SMALL:
            self.sizes.setattr(module, name, size)
        self.loop = asyncio.new_event_loop()
        self.records: dict[TopicPartition, dict[int, bool]] = {}
        self.expired: dict[TopicPartition, int] = {}
        self.compacted: set[tuple[TopicPartition, int]] = set()
        self.clients: list[Client] = []
        self.partitions = 2
        self._stop: asyncio.Event | None = None
        self.log = self.run(self._open_log())

    def run(self, job: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(job)

    # -- what is open: each context is entered and left by one task

    async def _open_log(self) -> EmbeddedLog:
        self._stack = AsyncExitStack()
        log = await self._stack.enter_async_context(open_embedded(":memory:"))
        await log.create_topic("a", self.partitions)
        await log.create_topic("b", 1)
        return log

    async def _engine_for(self, tail_bytes: int, opened: asyncio.Future[Engine], stop: asyncio.Event) -> None:
        options = EngineOptions(tail_bytes=tail_bytes, block_cache_bytes=20_000, step_cache_bytes=20_000)
        async with Engine(self.log, options, Metrics(), topics={"s": TOPICS}.__getitem__).open() as engine:
            opened.set_result(engine)
            await stop.wait()

    async def _start_engine(self, tail_bytes: int) -> None:
        opened: asyncio.Future[Engine] = self.loop.create_future()
        self._stop = asyncio.Event()
        self._process = self.loop.create_task(self._engine_for(tail_bytes, opened, self._stop))
        self.engine = await opened

    async def _stop_engine(self) -> None:
        for client in self.clients:
            client.hang_up()
        if self._stop is not None:
            self._stop.set()
            await self._process

    # -- what happens

    @initialize(tail_bytes=st.sampled_from([3_000, 1 << 20]))
    def begin(self, tail_bytes: int) -> None:
        self.run(self._start_engine(tail_bytes))

    @rule(since=starts, filtered=st.booleans())
    def come(self, since: Position, filtered: bool) -> None:
        if len(self.clients) < 6:
            self.clients.append(Client(since, filtered=filtered))
            self.run(self.clients[-1].connect(self.engine))

    @rule(batch=batches, delivered=st.booleans())
    def append(self, batch: list[tuple[str, int, bool, int]], delivered: bool) -> None:
        """Add to the log; `delivered` as a batch of its own, whether or not any client takes it."""
        new = [
            NewRecord(topic, json.dumps({"keep": keep, "pad": "x" * size}).encode(), None, timestamp)
            for topic, timestamp, keep, size in batch
        ]
        for record, (_, _, keep, _) in zip(self.run(self.log.append(new)), batch, strict=True):
            assert not isinstance(record, Exception)
            self.records.setdefault(TopicPartition(record.topic, record.partition), {})[record.offset] = keep
        if delivered:
            self.run(self._delivered())

    async def _delivered(self) -> None:
        tails = self.engine.tail.partitions
        while any(p in tails and tails[p].end <= max(records) for p, records in self.records.items()):
            await self.engine.bell

    @precondition(lambda self: self.records)
    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        partition = data.draw(st.sampled_from(sorted(self.records)))
        before = data.draw(st.integers(0, max(self.records[partition]) + 1))
        self.run(self.log.delete_before(partition, before))
        self.expired[partition] = max(before, self.expired.get(partition, 0))

    @precondition(lambda self: self.records)
    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        """Remove records from between others, as compaction does: their offsets stay empty."""
        partition = data.draw(st.sampled_from(sorted(self.records)))
        last = max(self.records[partition])
        gone = data.draw(st.sets(st.integers(0, last), max_size=8)) - {last}
        self.run(remove(self.log, partition, gone))
        self.compacted |= {(partition, offset) for offset in gone}

    @precondition(lambda self: self.partitions < 5)
    @rule()
    def grow(self) -> None:
        self.partitions += 1
        self.run(self.log.create_topic("a", self.partitions))
        self.run(self.engine.growth.refresh())
        new = TopicPartition("a", self.partitions - 1)
        for client in self.clients:
            if client.subscription is not None:
                client.start[new] = self.expired.get(new, 0)

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), size=st.integers(1, 20_000))
    def cut(self, data: st.DataObject, size: int) -> None:
        """A client reads up to so many bytes and is cut."""
        client = data.draw(st.sampled_from(self.clients))
        self.run(self._read_and_cut(client, size))

    async def _read_and_cut(self, client: Client, size: int) -> None:
        if client.subscription is None:
            await client.connect(self.engine)
        await client.read(lambda: not self.missing(client), size)
        if client.subscription is not None:
            client.hang_up()

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def catch_up(self, data: st.DataObject) -> None:
        self.run(self._catch_up(data.draw(st.sampled_from(self.clients))))

    async def _catch_up(self, client: Client) -> None:
        if client.subscription is None:
            await client.connect(self.engine)
        await client.read(lambda: not self.missing(client))
        self.check(client)

    @rule(tail_bytes=st.sampled_from([3_000, 1 << 20]))
    def restart(self, tail_bytes: int) -> None:
        self.run(self._stop_engine())
        self.run(self._start_engine(tail_bytes))

    # -- what must hold

    def missing(self, client: Client) -> list[tuple[TopicPartition, int]]:
        """Return what a client has still to be sent, or to be told of."""
        return [
            (partition, offset)
            for partition, records in self.records.items()
            for offset, keep in records.items()
            if partition in client.start and offset >= client.start[partition] and self._wants(client, keep)
            if not client.has_seen(partition, offset) and not client.was_told(partition, offset)
            if (partition, offset) not in self.compacted
        ]

    @staticmethod
    def _wants(client: Client, keep: bool) -> bool:
        return keep or client.filter is None

    def check(self, client: Client) -> None:
        for partition, offsets in client.seen.items():
            assert offsets == sorted(set(offsets)), f"repeated or reordered in {partition}: {offsets}"
            assert all(self._wants(client, self.records[partition][offset]) for offset in offsets)
        for partition, _, last in client.gaps:
            assert last < self.expired[partition], "a gap notice of what is still there"

    def teardown(self) -> None:
        try:
            if self._stop is not None:
                for client in self.clients:
                    self.run(self._catch_up(client))
        finally:
            self.run(self._stop_engine())
            self.run(self._stack.aclose())
            self.sizes.undo()
            self.loop.close()


async def remove(log: EmbeddedLog, partition: TopicPartition, offsets: set[int]) -> None:
    row = (await log.read(lambda connection: queries.known(connection, partition))).id

    def job(connection: apsw.Connection) -> None:
        for offset in offsets:
            connection.execute('DELETE FROM records WHERE partition = ? AND "offset" = ?', (row, offset))

    await log._writer.run(job)


@pytest.mark.timeout(300)
class TestResume(Resume.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))


# -- across clusters: at least once


@given(
    drawn=st.lists(st.tuples(st.sampled_from(TOPICS), st.integers(0, 900)), min_size=1, max_size=40),
    before=st.integers(0, 5),
    cut=st.integers(1, 8000),
)
@settings(max_examples=25, deadline=None)
def test_change_of_cluster_loses_nothing(drawn: list[tuple[str, int]], before: int, cut: int) -> None:
    """`drawn`: topic, and by how many ms (less than the skew) an event's time lies back of its neighbours'."""
    new = [
        NewRecord(topic, json.dumps({"n": n}).encode(), None, 10_000 + 100 * (n // 3) - back)
        for n, (topic, back) in enumerate(drawn)
    ]
    older = [NewRecord("a", b"{}", None, 1)] * before
    assert asyncio.run(read_on_two_clusters([], older, new, cut)) >= set(range(len(new)))


async def read_on_two_clusters(*parts: Any) -> set[int]:
    """Read up to `cut` bytes on one cluster, the rest on another that has the same events at other offsets."""
    *before, new, cut = parts
    client = Client(AtTime(1), filtered=False)
    for older, size in zip(before, (cut, None), strict=True):
        async with open_embedded(":memory:") as log:
            for topic in TOPICS:
                await log.create_topic(topic, 1)
            await log.append([*older, *new])
            async with Engine(log, EngineOptions(), Metrics()).open() as engine:
                await client.connect(engine)
                await client.read(lambda: len(client.numbers) == len(new), size)
                client.hang_up()
    return client.numbers
