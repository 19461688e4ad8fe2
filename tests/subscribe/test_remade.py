"""A topic that is deleted and made anew under its name: a gap notice, then every record of the new one. On both logs.

Whatever the new one holds, more than the old one, as much, or less; whoever asks: open streams at the head or on their
way through the past, those who come back in the same process or in another one.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from eventstreams.errors import InvalidAssignment, LogUnavailable, NoTopics, OffsetOutOfRange
from eventstreams.eventlog.base import Block, EventLog
from eventstreams.eventlog.embedded.log import EmbeddedLog, open_embedded
from eventstreams.eventlog.kafka.admin import TopicsAdmin, WantedTopic
from eventstreams.eventlog.kafka.log import open_kafka
from eventstreams.eventlog.kafka.options import KafkaOptions
from eventstreams.metrics import Metrics
from eventstreams.positions import AtOffset, Edge, Position
from eventstreams.records import NewRecord, Record, TopicPartition
from eventstreams.subscribe.engine import Engine
from eventstreams.subscribe.event_id import parse_last_event_id
from eventstreams.subscribe.options import EngineOptions, Form
from eventstreams.subscribe.request import StreamRequest
from eventstreams.subscribe.start import find_start
from tests.subscribe.test_engine import Client
from tests.support.kafka import Broker

SIZES = pytest.mark.parametrize("size", [8, 5, 2], ids=["longer", "as-long", "shorter"])
"""How many records the new topic has, where the old one had five."""


TIME = 1_000_000
"""Of the first record, ms."""


class Place:
    """A log with a topic of its own, which can be made anew."""

    def __init__(self, log: EventLog, broker: Broker | None) -> None:
        self.log = log
        self._broker = broker
        self.topic = f"{uuid.uuid4()}.t" if broker else "t"

    async def make(self, partitions: int = 1) -> None:
        if self._broker is not None:
            wanted = WantedTopic(self.topic, partitions, 1, {"retention.ms": "-1"})
            await TopicsAdmin(self._broker.servers, {}).create(wanted)
        else:
            assert isinstance(self.log, EmbeddedLog)
            await self.log.create_topic(self.topic, partitions)

    async def delete(self) -> None:
        if self._broker is not None:
            admin = AdminClient({"bootstrap.servers": self._broker.servers})
            await asyncio.wrap_future(admin.delete_topics([self.topic])[self.topic])
            # The controller has; until the broker has too, it takes records that go with the topic.
            while await self.log.describe([self.topic]):
                pass
        else:
            assert isinstance(self.log, EmbeddedLog)
            await self.log.delete_topic(self.topic)

    async def add(self, word: str, count: int, key: bytes | None = None) -> None:
        """Append `count` events; a producer of its own, since an old one takes time to see that a topic is new."""
        new = [
            NewRecord(self.topic, json.dumps({"n": f"{word}{n}", "meta": {}}).encode(), key, TIME + n)
            for n in range(count)
        ]
        async with self._producer() as log:
            outcomes = await log.append(new)
        assert all(isinstance(outcome, Record) for outcome in outcomes), outcomes

    @asynccontextmanager
    async def _producer(self) -> AsyncIterator[EventLog]:
        if self._broker is None:
            yield self.log
        else:
            async with open_kafka(KafkaOptions(self._broker.servers)) as log:
                yield log

    async def remake(self, size: int, partitions: int = 1) -> None:
        await self.delete()
        await self.make(partitions)
        await self.add("new", size)

    def engine(self, options: EngineOptions | None = None) -> AbstractAsyncContextManager[Engine]:
        return Engine(self.log, options or EngineOptions(), Metrics()).open()

    async def connect(
        self, engine: Engine, last_id: Sequence[dict[str, Any]] = (), since: Position = Edge.EARLIEST
    ) -> Client:
        """Connect as a request does, with this Last-Event-ID."""
        given = parse_last_event_id(json.dumps(last_id)) if last_id else None
        request = StreamRequest((self.topic,), (), since, given, Form(), None, ("s",))
        start = await find_start(request, engine.log, engine, resume_skew=1.0)
        client = Client()
        client.subscription = await engine.subscribe(
            start.cursor, client.wire, Form(), gaps=start.gaps, streams=start.streams
        )
        client.wire.on_lost = client.subscription.close
        return client


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    if request.param == "kafka":
        broker: Broker = request.getfixturevalue("kafka_broker")
        async with open_kafka(KafkaOptions(broker.servers)) as kafka:
            yield Place(kafka, broker)
    else:
        async with open_embedded(str(tmp_path / "events.db")) as embedded:
            yield Place(embedded, None)


def words(client: Client) -> list[str]:
    return [event["n"] for event in client.events]


def numbered(word: str, count: int) -> list[str]:
    return [f"{word}{n}" for n in range(count)]


def gap_of(client: Client) -> list[tuple[int, int, int | None]]:
    """Return partition, first and last offset of the only notice."""
    ((name, body),) = client.named
    assert name == "gap"
    return [(gap["partition"], gap["first_offset"], gap["last_offset"]) for gap in body["partitions"]]


async def read_five(place: Place, engine: Engine) -> Client:
    """Add five records, and return a client that has read them and gone."""
    await place.add("old", 5)
    client = await place.connect(engine)
    await client.read(5)
    client.close()
    return client


@SIZES
async def test_open_stream_is_told_and_sent_every_record_of_the_new_topic(place: Place, size: int) -> None:
    await place.make()
    await place.add("old", 5)
    async with place.engine() as engine:
        client = await place.connect(engine)
        await client.read(5)
        before = client.last_id[0]["log"]
        await place.remake(size)
        await client.read(5 + size)
        assert words(client) == numbered("old", 5) + numbered("new", size)
        assert gap_of(client) == [(0, 5, None)]
        assert client.last_id[0]["offset"] == size
        assert client.last_id[0]["log"] != before
        client.close()


@SIZES
@pytest.mark.parametrize("read", [5, 2], ids=["at-its-end", "in-its-past"])
async def test_who_comes_back_in_the_same_process_gets_nothing_from_memory(place: Place, size: int, read: int) -> None:
    await place.make()
    await place.add("old", 5)
    async with place.engine() as engine:
        first = await place.connect(engine)
        await first.read(5)
        second = await place.connect(engine)
        await second.read(read)
        last_id = second.last_id
        last_id[0]["offset"], last_id[0]["timestamp"] = read, TIME + read
        second.close()
        await place.remake(size)
        third = await place.connect(engine, last_id)
        await third.read(size)
        assert words(third) == numbered("new", size)
        assert gap_of(third) == [(0, read, None)]
        await first.read(5 + size)
        assert words(first) == numbered("old", 5) + numbered("new", size)
        for client in (first, third):
            client.close()


@SIZES
async def test_who_comes_back_to_another_process_is_told(place: Place, size: int) -> None:
    await place.make()
    async with place.engine() as engine:
        client = await read_five(place, engine)
    await place.remake(size)
    async with place.engine() as engine:
        again = await place.connect(engine, client.last_id)
        await again.read(size)
        assert words(again) == numbered("new", size)
        assert gap_of(again) == [(0, 5, None)]
        again.close()


async def test_who_comes_back_with_an_id_without_a_mark_is_told_by_the_times_of_records(place: Place) -> None:
    await place.make()
    async with place.engine() as engine:
        client = await read_five(place, engine)
    last_id = [{**entry, "timestamp": entry["timestamp"] - 3000} for entry in client.last_id]
    del last_id[0]["log"]
    async with place.engine() as engine:
        again = await place.connect(engine, last_id)
        await again.read(5)
        assert words(again) == numbered("old", 5), "the log's record before offset 5 is later than the client's last"
        assert gap_of(again) == [(0, 5, None)]
        again.close()


async def test_id_of_this_topic_goes_on_without_a_notice(place: Place) -> None:
    await place.make()
    async with place.engine() as engine:
        client = await read_five(place, engine)
        await place.add("more", 2)
    for marked in (True, False):
        last_id = [dict(entry) for entry in client.last_id]
        if not marked:
            del last_id[0]["log"]
        async with place.engine() as engine:
            again = await place.connect(engine, last_id)
            await again.read(2)
            assert words(again) == numbered("more", 2)
            assert again.named == []
            again.close()


async def test_topic_made_anew_while_nobody_watched_leaves_nothing_of_the_old_one(place: Place) -> None:
    await place.make()
    await place.add("old", 5)
    async with place.engine(EngineOptions(grace=0.01)) as engine:
        client = await place.connect(engine)
        await client.read(5)
        await place.add("late", 2)
        await client.read(7)
        client.close()
        async with asyncio.timeout(30):
            while engine.tail.partitions:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await place.remake(3)
        again = await place.connect(engine)
        await again.read(3)
        await place.add("newer", 3)
        await again.read(6)
        assert words(again) == numbered("new", 3) + numbered("newer", 3)
        assert again.named == []
        again.close()


async def test_one_notice_tells_of_all_partitions_of_the_topic(place: Place) -> None:
    await place.make(2)
    for key in (b"a", b"b", b"c", b"d"):
        await place.add("old", 2, key)
    async with place.engine() as engine:
        client = await place.connect(engine)
        await client.read(8)
        offsets = {entry["partition"]: entry["offset"] for entry in client.last_id}
        assert all(offsets.values())
        await place.remake(6, partitions=2)
        await client.read(14)
        assert sorted(words(client)[8:]) == numbered("new", 6)
        assert sorted(gap_of(client)) == [(n, offsets[n], None) for n in (0, 1)]
        assert client.last_id[0]["log"]
        assert "log" not in client.last_id[1], "it stands once for each topic"
        client.close()


async def test_partition_that_the_new_topic_lacks_is_a_gap_for_who_comes_back(place: Place) -> None:
    await place.make(2)
    for key in (b"a", b"b", b"c", b"d"):
        await place.add("old", 2, key)
    async with place.engine() as engine:
        client = await place.connect(engine)
        await client.read(8)
        client.close()
    await place.remake(3)
    async with place.engine() as engine:
        again = await place.connect(engine, client.last_id)
        await again.read(3)
        assert words(again) == numbered("new", 3)
        assert sorted(partition for partition, _, _ in gap_of(again)) == [0, 1]
        assert [entry["partition"] for entry in again.last_id] == [0]
        again.close()


async def test_client_on_its_way_through_the_past_is_told_and_sent_the_new_topic(place: Place) -> None:
    await place.make()
    await place.add("old", 400)
    options = EngineOptions(tail_bytes=1, block_cache_bytes=1, step_cache_bytes=1)
    async with place.engine(options) as engine:
        client = await place.connect(engine)
        await client.read(1)
        await place.remake(450)
        async with asyncio.timeout(60):
            while words(client)[-1] != "new449":
                await client.read(len(client.events) + 1)
        old = [word for word in words(client) if word.startswith("old")]
        assert words(client) == numbered("old", len(old)) + numbered("new", 450)
        assert gap_of(client) == [(0, len(old), None)]
        client.close()


async def test_topic_next_to_it_goes_on_meanwhile(place: Place) -> None:
    await place.make()
    await place.add("old", 5)
    neighbour = Place(place.log, place._broker)
    neighbour.topic = f"{place.topic}.neighbour"
    await neighbour.make()
    async with place.engine() as engine:
        partitions = [TopicPartition(place.topic, 0), TopicPartition(neighbour.topic, 0)]
        cursor = await place.log.resolve(dict.fromkeys(partitions, Edge.EARLIEST))
        client = await Client().connect(engine, cursor)
        await client.read(5)
        await place.delete()
        await neighbour.add("next", 3)
        await client.read(8)
        await place.make()
        await place.add("new", 6)
        await client.read(14)
        assert words(client) == numbered("old", 5) + numbered("next", 3) + numbered("new", 6)
        assert gap_of(client) == [(0, 5, None)]
        client.close()


class HeldFetch:
    """A log of which one fetch waits, and then says that its place is out of range."""

    def __init__(self, log: EmbeddedLog) -> None:
        self._log = log
        self.asked, self.goes_on = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def fetch(
        self, partition: TopicPartition, start: int, stop: int, max_bytes: int, identity: str = ""
    ) -> Block:
        if not self.asked.is_set():
            self.asked.set()
            await self.goes_on.wait()
            raise OffsetOutOfRange(partition, start, 7)
        return await self._log.fetch(partition, start, stop, max_bytes, identity)


async def test_word_of_a_place_that_a_client_has_left_does_not_move_it(tmp_path: Path) -> None:
    async with open_embedded(str(tmp_path / "events.db")) as log:
        place = Place(log, None)
        await place.make()
        await place.add("old", 10)
        held = HeldFetch(log)
        place.log = held
        async with place.engine() as engine:
            cursor = await log.resolve({TopicPartition("t", 0): AtOffset(2)})
            client = await Client().connect(engine, cursor)
            reading = asyncio.create_task(client.read(9))
            await held.asked.wait()
            place.log = log
            await place.remake(9)
            await reading
            held.goes_on.set()
            await place.add("more", 1)
            await client.read(10)
            assert words(client) == [*numbered("new", 9), "more0"]
            assert gap_of(client) == [(0, 2, None)]
            client.close()


async def test_topic_that_was_there_a_moment_ago_is_away_and_no_mistake_of_the_client(place: Place) -> None:
    await place.make()
    await place.add("old", 5)
    async with place.engine(EngineOptions(gone_after=1.0)) as engine:
        client = await place.connect(engine)
        await client.read(5)
        client.close()
        await place.delete()
        with pytest.raises(LogUnavailable, match="not there just now"):
            await place.connect(engine, client.last_id)
        with pytest.raises(LogUnavailable, match="not there just now"):
            await place.connect(engine)
        await place.make()
        await place.add("new", 1)
        again = await place.connect(engine, client.last_id)
        await again.read(1)
        assert words(again) == ["new0"]
        again.close()
        await place.delete()
        refused: Exception | None = None
        async with asyncio.timeout(30):
            while refused is None:
                try:
                    await place.connect(engine)
                except NoTopics as exc:
                    refused = exc
                except LogUnavailable:
                    await asyncio.sleep(0.05)


async def test_partition_that_only_the_id_knows_of_is_not_heard_of_yet(place: Place) -> None:
    """It was made over this topic, so there is such a partition: a broker that lags behind answers."""
    await place.make()
    async with place.engine() as engine:
        client = await read_five(place, engine)
        more = {"topic": place.topic, "partition": 1, "offset": 0}
        with pytest.raises(LogUnavailable, match=r"partitions of .*t are not there just now"):
            await place.connect(engine, [*client.last_id, more])
        with pytest.raises(InvalidAssignment, match="there is no such partition"):
            await place.connect(engine, [more])
