"""What every event log promises: one suite, run on each implementation."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient

from eventstreams.errors import OffsetOutOfRange, UnknownTopic
from eventstreams.eventlog.base import LogReader
from eventstreams.eventlog.embedded.log import EmbeddedLog, open_embedded
from eventstreams.eventlog.kafka.admin import TopicsAdmin, WantedTopic
from eventstreams.eventlog.kafka.log import KafkaLog, open_kafka
from eventstreams.eventlog.kafka.options import KafkaOptions
from eventstreams.positions import AtOffset, AtTime, Edge, Position
from eventstreams.records import NewRecord, Record, TopicPartition
from tests.support.kafka import Broker


class Subject:
    """A log under test with a topic of its own, `t` with the partition `p`; what the protocol leaves out is added."""

    def __init__(self, log: EmbeddedLog | KafkaLog, prefix: str, admin: TopicsAdmin | None = None) -> None:
        self._log = log
        self._prefix = prefix
        self._admin = admin
        self.t = prefix + "t"
        self.p = TopicPartition(self.t, 0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def topic(self, name: str, partitions: int) -> str:
        if isinstance(self._log, EmbeddedLog):
            await self._log.create_topic(name, partitions)
            return name
        assert self._admin is not None
        config = {"retention.ms": "-1"}
        await self._admin.create(WantedTopic(self._prefix + name, partitions, 1, config))
        return self._prefix + name

    async def delete_before(self, partition: TopicPartition, offset: int) -> None:
        if isinstance(self._log, EmbeddedLog):
            await self._log.delete_before(partition, offset)
            return
        client = AdminClient({"bootstrap.servers": self._log.servers})
        futures = client.delete_records([KafkaPartition(*partition, offset)])
        await asyncio.gather(*map(asyncio.wrap_future, futures.values()))


@pytest.fixture(params=["memory", "file", pytest.param("kafka", marks=pytest.mark.kafka)])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    if request.param == "kafka":
        broker: Broker = request.getfixturevalue("kafka_broker")
        async with open_kafka(KafkaOptions(broker.servers)) as kafka:
            subject = Subject(kafka, f"{uuid.uuid4()}.", TopicsAdmin(broker.servers, {}))
            await subject.topic("t", 1)
            yield subject
        return
    path = ":memory:" if request.param == "memory" else str(tmp_path / "data" / "events.db")
    async with open_embedded(path) as embedded:
        await embedded.create_topic("t", 1)
        yield Subject(embedded, "")


async def collect(reader: LogReader, count: int) -> list[Record]:
    """Read until `count` records came: one read may return fewer."""
    records: list[Record] = []
    while len(records) < count:
        records += await reader.read(count - len(records), 30.0)
    return records


async def add(log: Subject, *timestamps: int, topic: str | None = None) -> list[Record]:
    outcomes = await log.append([NewRecord(topic or log.t, b"%d" % i, None, ts) for i, ts in enumerate(timestamps)])
    return [outcome for outcome in outcomes if isinstance(outcome, Record)]


async def test_append_returns_the_records_as_stored(log: Subject) -> None:
    outcomes = await log.append([NewRecord(log.t, b"a", b"k", 5), NewRecord(log.t, b"b", None, 6)])
    assert outcomes == [Record(log.t, 0, 0, 5, b"a", b"k"), Record(log.t, 0, 1, 6, b"b", None)]


async def test_append_gives_the_time_where_there_is_none(log: Subject) -> None:
    (record,) = await log.append([NewRecord(log.t, b"a")])
    assert isinstance(record, Record)
    assert record.timestamp > 1_700_000_000_000


async def test_records_of_unknown_topics_fail_alone_and_make_none(log: Subject) -> None:
    nowhere, nothing = log.t + ".nowhere", log.t + ".nothing"
    batch = [(nowhere, b"a"), (log.t, b"b"), (nothing, b"c"), (nowhere, b"d"), (log.t, b"e")]
    outcomes = await log.append([NewRecord(topic, value, b"k", 1) for topic, value in batch])
    assert [str(outcome) for outcome in outcomes if isinstance(outcome, UnknownTopic)] == [
        f"there is no topic {topic!r}: eventstreams streams apply makes those of the stream configuration"
        for topic in (nowhere, nothing, nowhere)
    ]
    stored = [outcome for outcome in outcomes if isinstance(outcome, Record)]
    assert stored == [Record(log.t, 0, 0, 1, b"b", b"k"), Record(log.t, 0, 1, 1, b"e", b"k")]
    assert (await log.fetch(log.p, 0, 9, 1000)).records == stored
    assert await log.partitions(nowhere) == await log.partitions(nothing) == []


async def test_concurrent_appends_get_offsets_without_holes(log: Subject) -> None:
    outcomes = await asyncio.gather(*(add(log, 1, 2, 3) for _ in range(50)))
    assert sorted(r.offset for records in outcomes for r in records) == list(range(150))


async def test_equal_keys_stay_in_one_partition(log: Subject) -> None:
    many = await log.topic("many", 4)
    outcomes = await log.append([NewRecord(many, b"x", b"key%d" % (i % 7)) for i in range(70)])
    placed = {(r.key, r.partition) for r in outcomes if isinstance(r, Record)}
    assert len(placed) == 7


async def test_partitions_lists_none_of_an_unknown_topic(log: Subject) -> None:
    many = await log.topic("many", 3)
    assert await log.partitions(many) == [TopicPartition(many, n) for n in range(3)]
    assert await log.partitions("nope") == []


@pytest.mark.parametrize(
    ("position", "offset"),
    [
        (Edge.EARLIEST, 0),
        (Edge.LATEST, 5),
        (AtOffset(3), 3),
        (AtOffset(99), 99),
        (AtTime(0), 0),
        (AtTime(100), 0),
        (AtTime(101), 3),
        (AtTime(150), 4),
        (AtTime(151), 5),
    ],
)
async def test_resolve_finds_the_first_record_at_or_after(log: Subject, position: Position, offset: int) -> None:
    await add(log, 100, 90, 95, 120, 150)
    cursor = await log.resolve({log.p: position})
    assert cursor[log.p].offset == offset
    assert cursor.cluster == log.cluster


async def test_resolve_refuses_an_unknown_partition(log: Subject) -> None:
    with pytest.raises(UnknownTopic, match=r"no partition 9 of topic '.*t'"):
        await log.resolve({TopicPartition(log.t, 9): Edge.LATEST})


async def test_fetch_ends_at_stop_at_the_end_and_at_max_bytes(log: Subject) -> None:
    stored = await add(log, 1, 2, 3, 4)
    assert await log.fetch(log.p, 1, 3, 1000) == (stored[1:3], 3)
    assert await log.fetch(log.p, 2, 99, 1000) == (stored[2:], 4)
    assert await log.fetch(log.p, 4, 99, 1000) == ([], 4)
    assert await log.fetch(log.p, 0, 99, 1) == (stored[:1], 1)


async def test_fetch_below_the_earliest_says_where_to_go_on(log: Subject) -> None:
    await add(log, 1, 2, 3, 4)
    await log.delete_before(log.p, 3)
    with pytest.raises(OffsetOutOfRange) as caught:
        await log.fetch(log.p, 1, 9, 1000)
    assert (caught.value.partition, caught.value.offset, caught.value.earliest) == (log.p, 1, 3)


async def test_offsets_are_not_given_again_after_everything_was_removed(log: Subject) -> None:
    await add(log, 1, 2)
    await log.delete_before(log.p, 2)
    assert (await log.extents([log.p]))[log.p] == (2, 2)
    assert (await add(log, 3))[0].offset == 2


async def test_last_timestamp_is_of_the_newest_record_before(log: Subject) -> None:
    await add(log, 5, 9, 7)
    assert await log.last_timestamp(log.p, 3) == 7
    assert await log.last_timestamp(log.p, 2) == 9
    assert await log.last_timestamp(log.p, 0) is None


async def test_reader_waits_for_growth_and_keeps_order(log: Subject) -> None:
    reader = await log.open_reader({log.p: 0})
    waiting = asyncio.create_task(reader.read(10, 30.0))
    await asyncio.sleep(0)
    stored = await add(log, 1, 2)
    first = await waiting
    assert [*first, *await collect(reader, 2 - len(first))] == stored
    assert reader.positions() == {log.p: 2}
    assert await reader.read(10, 0.0) == []
    await reader.aclose()


async def test_reader_loses_nothing_when_a_read_is_cancelled(log: Subject) -> None:
    reader = await log.open_reader({log.p: 0})
    waiting = asyncio.create_task(reader.read(10, 30.0))
    await asyncio.sleep(0)
    waiting.cancel()
    stored = await add(log, 1)
    await asyncio.gather(waiting, return_exceptions=True)
    assert await collect(reader, 1) == stored
    await reader.aclose()


async def test_reader_reads_several_partitions_each_in_order(log: Subject) -> None:
    u = await log.topic("u", 1)
    await add(log, *range(20))
    await add(log, 1, topic=u)
    reader = await log.open_reader({log.p: 0, TopicPartition(u, 0): 0})
    records = await collect(reader, 21)
    assert [r.offset for r in records if r.topic == log.t] == list(range(20))
    assert [r.offset for r in records if r.topic == u] == [0]


async def test_reader_says_when_retention_passed_it_and_goes_on(log: Subject) -> None:
    await add(log, 1, 2, 3)
    await log.delete_before(log.p, 2)
    reader = await log.open_reader({log.p: 0})
    with pytest.raises(OffsetOutOfRange) as caught:
        await reader.read(10, 30.0)
    await reader.assign({log.p: caught.value.earliest})
    assert [r.offset for r in await collect(reader, 1)] == [2]


async def test_reader_stops_with_what_is_unassigned(log: Subject) -> None:
    await add(log, 1)
    reader = await log.open_reader({log.p: 0})
    await reader.unassign([log.p])
    assert await reader.read(10, 0.0) == []


async def test_check_returns_where_topics_can_be_read_or_appended_to(log: Subject) -> None:
    await log.reached()
    await log.check(5.0, [log.t])
    await log.check(5.0, [log.t, "nope"], writing=True)
    assert await add(log, 1), "what was tried left something behind"
    assert (await log.extents([log.p]))[log.p] == (0, 1)


async def test_check_returns_and_close_is_idempotent(log: Subject) -> None:
    await log.check(5.0)
    await log.aclose()
    await log.aclose()
