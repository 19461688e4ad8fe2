"""What every event log promises: one suite, run on each implementation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eventstreams.errors import OffsetOutOfRange, UnknownTopic
from eventstreams.eventlog.embedded.log import EmbeddedLog, open_embedded
from eventstreams.positions import AtOffset, AtTime, Edge, Position
from eventstreams.records import NewRecord, Record, TopicPartition

P = TopicPartition("t", 0)


@pytest.fixture(params=["memory", "file"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EmbeddedLog]:
    path = ":memory:" if request.param == "memory" else str(tmp_path / "data" / "events.db")
    async with open_embedded(path) as opened:
        await opened.create_topic("t", 1)
        yield opened


async def add(log: EmbeddedLog, *timestamps: int, topic: str = "t") -> list[Record]:
    outcomes = await log.append([NewRecord(topic, b"%d" % i, None, ts) for i, ts in enumerate(timestamps)])
    return [outcome for outcome in outcomes if isinstance(outcome, Record)]


async def test_append_returns_the_records_as_stored(log: EmbeddedLog) -> None:
    outcomes = await log.append([NewRecord("t", b"a", b"k", 5), NewRecord("t", b"b", None, 6)])
    assert outcomes == [Record("t", 0, 0, 5, b"a", b"k"), Record("t", 0, 1, 6, b"b", None)]


async def test_append_gives_the_time_where_there_is_none(log: EmbeddedLog) -> None:
    (record,) = await log.append([NewRecord("t", b"a")])
    assert isinstance(record, Record)
    assert record.timestamp > 1_700_000_000_000


async def test_concurrent_appends_get_offsets_without_holes(log: EmbeddedLog) -> None:
    outcomes = await asyncio.gather(*(add(log, 1, 2, 3) for _ in range(50)))
    assert sorted(r.offset for records in outcomes for r in records) == list(range(150))


async def test_equal_keys_stay_in_one_partition(log: EmbeddedLog) -> None:
    await log.create_topic("many", 4)
    outcomes = await log.append([NewRecord("many", b"x", b"key%d" % (i % 7)) for i in range(70)])
    placed = {(r.key, r.partition) for r in outcomes if isinstance(r, Record)}
    assert len(placed) == 7


async def test_partitions_lists_none_of_an_unknown_topic(log: EmbeddedLog) -> None:
    await log.create_topic("many", 3)
    assert await log.partitions("many") == [TopicPartition("many", n) for n in range(3)]
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
async def test_resolve_finds_the_first_record_at_or_after(log: EmbeddedLog, position: Position, offset: int) -> None:
    await add(log, 100, 90, 95, 120, 150)
    cursor = await log.resolve({P: position})
    assert cursor[P].offset == offset
    assert cursor.cluster == log.cluster


async def test_resolve_refuses_an_unknown_partition(log: EmbeddedLog) -> None:
    with pytest.raises(UnknownTopic, match=r"no partition 9 of topic 't'"):
        await log.resolve({TopicPartition("t", 9): Edge.LATEST})


async def test_fetch_ends_at_stop_at_the_end_and_at_max_bytes(log: EmbeddedLog) -> None:
    stored = await add(log, 1, 2, 3, 4)
    assert await log.fetch(P, 1, 3, 1000) == (stored[1:3], 3)
    assert await log.fetch(P, 2, 99, 1000) == (stored[2:], 4)
    assert await log.fetch(P, 4, 99, 1000) == ([], 4)
    assert await log.fetch(P, 0, 99, 1) == (stored[:1], 1)


async def test_fetch_below_the_earliest_says_where_to_go_on(log: EmbeddedLog) -> None:
    await add(log, 1, 2, 3, 4)
    await log.delete_before(P, 3)
    with pytest.raises(OffsetOutOfRange) as caught:
        await log.fetch(P, 1, 9, 1000)
    assert (caught.value.partition, caught.value.offset, caught.value.earliest) == (P, 1, 3)


async def test_offsets_are_not_given_again_after_everything_was_removed(log: EmbeddedLog) -> None:
    await add(log, 1, 2)
    await log.delete_before(P, 2)
    assert (await log.extents([P]))[P] == (2, 2)
    assert (await add(log, 3))[0].offset == 2


async def test_last_timestamp_is_of_the_newest_record_before(log: EmbeddedLog) -> None:
    await add(log, 5, 9, 7)
    assert await log.last_timestamp(P, 3) == 7
    assert await log.last_timestamp(P, 2) == 9
    assert await log.last_timestamp(P, 0) is None


async def test_reader_waits_for_growth_and_keeps_order(log: EmbeddedLog) -> None:
    reader = await log.open_reader({P: 0})
    waiting = asyncio.create_task(reader.read(10, 30.0))
    await asyncio.sleep(0)
    stored = await add(log, 1, 2)
    assert await waiting == stored
    assert reader.positions() == {P: 2}
    assert await reader.read(10, 0.0) == []
    await reader.aclose()


async def test_reader_loses_nothing_when_a_read_is_cancelled(log: EmbeddedLog) -> None:
    reader = await log.open_reader({P: 0})
    waiting = asyncio.create_task(reader.read(10, 30.0))
    await asyncio.sleep(0)
    waiting.cancel()
    stored = await add(log, 1)
    await asyncio.gather(waiting, return_exceptions=True)
    assert await reader.read(10, 30.0) == stored


async def test_reader_takes_turns_between_partitions(log: EmbeddedLog) -> None:
    await log.create_topic("u", 1)
    await add(log, *range(20))
    await add(log, 1, topic="u")
    reader = await log.open_reader({P: 0, TopicPartition("u", 0): 0})
    first, second = await reader.read(5, 1.0), await reader.read(5, 1.0)
    assert "u" in {r.topic for r in [*first, *second]}


async def test_reader_says_when_retention_passed_it_and_goes_on(log: EmbeddedLog) -> None:
    await add(log, 1, 2, 3)
    reader = await log.open_reader({P: 0})
    await log.delete_before(P, 2)
    with pytest.raises(OffsetOutOfRange) as caught:
        await reader.read(10, 1.0)
    await reader.assign({P: caught.value.earliest})
    assert [r.offset for r in await reader.read(10, 1.0)] == [2]


async def test_reader_stops_with_what_is_unassigned(log: EmbeddedLog) -> None:
    await add(log, 1)
    reader = await log.open_reader({P: 0})
    await reader.unassign([P])
    assert await reader.read(10, 0.0) == []


async def test_check_returns_and_close_is_idempotent(log: EmbeddedLog) -> None:
    await log.check(5.0)
    await log.aclose()
    await log.aclose()
