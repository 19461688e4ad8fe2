"""What the pump does when things happen in an order that only a busy machine brings about."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, cast

import pytest

from eventstreams.errors import TopicReplaced
from eventstreams.eventlog.base import Extent, LogReader
from eventstreams.eventlog.embedded.log import EmbeddedLog, open_embedded
from eventstreams.metrics import Metrics
from eventstreams.positions import NO_IDENTITIES, Cursor, Next
from eventstreams.records import NewRecord, Record, TopicPartition
from eventstreams.subscribe.engine import Engine
from eventstreams.subscribe.options import EngineOptions
from tests.subscribe.test_delivery import eventually
from tests.subscribe.test_engine import Client
from tests.support.away import AwayLog

A, B = TopicPartition("a", 0), TopicPartition("b", 0)


def numbered(topic: str, count: int) -> Sequence[NewRecord]:
    return [NewRecord(topic, json.dumps({"n": n, "meta": {}}).encode(), None, 1000 + n) for n in range(count)]


class EarlyReader:
    """Reads a partition that was just added before it says that it was added: three records that came meanwhile."""

    def __init__(self, log: EmbeddedLog, reader: LogReader) -> None:
        self._log = log
        self._reader = reader
        self._given = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    async def assign(
        self, offsets: Mapping[TopicPartition, int], identities: Mapping[str, str] = NO_IDENTITIES
    ) -> None:
        await self._reader.assign(offsets, identities)
        await self._log.append(numbered("b", 3))
        await self._given.wait()
        # Until the pump has them, and asks again.
        await asyncio.sleep(0)

    async def unassign(self, partitions: Collection[TopicPartition]) -> None:
        await self._reader.unassign(partitions)

    async def read(self, limit: int, timeout: float) -> Sequence[Record]:
        records = await self._reader.read(limit, timeout)
        if any(record.topic == "b" for record in records):
            asyncio.get_running_loop().call_soon(self._given.set)
        return records


class SlowLog:
    """A log that does not say what there is in a partition before `answers`."""

    def __init__(self, log: EmbeddedLog) -> None:
        self._log = log
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()
        self.times_asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def extents(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Extent]:
        self.asked.set()
        self.times_asked += 1
        await self.answers.wait()
        return await self._log.extents(partitions)


class WatchedLog:
    """A log whose readers are such as `wrap` makes of them; `reader` is the last one."""

    def __init__(self, log: EmbeddedLog, wrap: Callable[[LogReader], Any]) -> None:
        self._log = log
        self._wrap = wrap
        self.reader: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def open_reader(
        self, offsets: Mapping[TopicPartition, int], identities: Mapping[str, str] = NO_IDENTITIES
    ) -> LogReader:
        self.reader = self._wrap(await self._log.open_reader(offsets, identities))
        return cast("LogReader", self.reader)


class DoubtedReader:
    """As often as `doubts` says it finds out, while it is assigned partitions, that those are of another topic.

    It stands still there, as Kafka's does, until it is assigned them anew.
    """

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader
        self._standing: set[TopicPartition] = set()
        self._raised: asyncio.Event | None = None
        self.doubts = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    async def assign(
        self, offsets: Mapping[TopicPartition, int], identities: Mapping[str, str] = NO_IDENTITIES
    ) -> None:
        await self._reader.assign(offsets, identities)
        self._standing.difference_update(offsets)
        if self.doubts:
            self.doubts -= 1
            self._standing.update(offsets)
            self._raised = raised = asyncio.Event()
            await raised.wait()
            # Until the pump has been told, and asks again.
            await asyncio.sleep(0)

    async def read(self, limit: int, timeout: float) -> Sequence[Record]:
        if self._raised is not None:
            raised, self._raised = self._raised, None
            asyncio.get_running_loop().call_soon(raised.set)
            raise TopicReplaced(next(iter(self._standing)).topic)
        records = await self._reader.read(limit, min(timeout, 0.02))
        return [record for record in records if TopicPartition(*record[:2]) not in self._standing]


async def test_partition_that_is_in_doubt_while_it_is_started_is_read_all_the_same() -> None:
    async with open_embedded(":memory:") as memory:
        for topic in ("a", "b"):
            await memory.create_topic(topic, 1)
        log = WatchedLog(memory, DoubtedReader)
        async with Engine(log, EngineOptions(), Metrics()).open() as engine:
            first = await Client().connect(engine, Cursor([(A, Next(0, None))]))
            assert log.reader is not None
            log.reader.doubts = 1
            second = await Client().connect(engine, Cursor([(B, Next(0, None))]))
            assert log.reader.doubts == 0
            await memory.append(numbered("b", 3))
            await second.read(3)
            for client in (first, second):
                client.close()


async def test_partition_that_is_in_doubt_again_while_it_is_taken_up_is_taken_up_once_more() -> None:
    async with open_embedded(":memory:") as memory:
        await memory.create_topic("a", 1)
        await memory.append(numbered("a", 3))
        log = WatchedLog(memory, DoubtedReader)
        async with Engine(log, EngineOptions(), Metrics()).open() as engine:
            client = await Client().connect(engine, Cursor([(A, Next(0, None))]))
            await client.read(3)
            assert log.reader is not None
            log.reader.doubts = 1
            await memory.delete_topic("a")
            await memory.create_topic("a", 1)
            await eventually(lambda: log.reader is not None and not log.reader.doubts)
            await memory.append(numbered("a", 2))
            await client.read(5)
            assert [event["n"] for event in client.events] == [0, 1, 2, 0, 1]
            client.close()


async def test_end_that_only_a_stale_broker_tells_of_makes_nobody_begin_again() -> None:
    async with open_embedded(":memory:") as memory:
        await memory.create_topic("a", 1)
        await memory.append(numbered("a", 3))
        log = AwayLog(memory)
        async with Engine(log, EngineOptions(), Metrics()).open() as engine:
            client = await Client().connect(engine, Cursor([(A, Next(0, None))]))
            await client.read(3)
            log.stale = 2
            engine.recovery.doubt("a")
            await eventually(lambda: not log.stale)
            await memory.append(numbered("a", 5)[3:])
            await client.read(5)
            assert [event["n"] for event in client.events] == [0, 1, 2, 3, 4]
            client.close()


async def test_records_that_come_before_the_word_that_their_partition_is_read_are_delivered() -> None:
    async with open_embedded(":memory:") as log:
        for topic in ("a", "b"):
            await log.create_topic(topic, 1)
        async with Engine(WatchedLog(log, partial(EarlyReader, log)), EngineOptions(), Metrics()).open() as engine:
            first = await Client().connect(engine, Cursor([(A, Next(0, None))]))
            await log.append(numbered("a", 1))
            await first.read(1)
            second = await Client().connect(engine, Cursor([(B, Next(0, None))]))
            await second.read(3)
            assert [event["n"] for event in second.events] == [0, 1, 2]
            await log.append(numbered("b", 2))
            await second.read(5)
            assert [event["meta"]["offset"] for event in second.events] == [0, 1, 2, 3, 4]


async def test_start_that_is_slow_goes_on_though_who_asked_first_gives_up() -> None:
    """Else each one who comes begins it from the start, and has no more patience than the one before."""
    async with open_embedded(":memory:") as memory:
        await memory.create_topic("a", 1)
        await memory.append(numbered("a", 3))
        log = SlowLog(memory)
        async with Engine(log, EngineOptions(), Metrics()).open() as engine:
            first = asyncio.create_task(engine.prepare(Cursor([(A, Next(0, None))])))
            await log.asked.wait()
            second = asyncio.create_task(Client().connect(engine, Cursor([(A, Next(0, None))])))
            await asyncio.sleep(0)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            log.answers.set()
            client = await second
            await client.read(3)
            assert [event["n"] for event in client.events] == [0, 1, 2]
            assert log.times_asked == 1
            client.close()


async def test_partition_that_nobody_wants_any_more_once_it_is_read_is_left() -> None:
    async with open_embedded(":memory:") as memory:
        await memory.create_topic("a", 1)
        log = SlowLog(memory)
        async with Engine(log, EngineOptions(grace=0.01), Metrics()).open() as engine:
            first = asyncio.create_task(engine.prepare(Cursor([(A, Next(0, None))])))
            await log.asked.wait()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            log.answers.set()
            await eventually(lambda: A in engine.tail.partitions)
            await eventually(lambda: not engine.tail.partitions)


async def test_partition_that_waits_for_the_log_holds_up_no_other() -> None:
    async with open_embedded(":memory:") as memory:
        for topic in ("a", "b"):
            await memory.create_topic(topic, 1)
        await memory.append(numbered("a", 3))
        log = SlowLog(memory)
        log.answers.set()
        async with Engine(log, EngineOptions(), Metrics()).open() as engine:
            first = await Client().connect(engine, Cursor([(A, Next(0, None))]))
            second = await Client().connect(engine, Cursor([(B, Next(0, None))]))
            await first.read(3)
            log.answers.clear()
            log.asked.clear()
            await memory.delete_topic("a")
            await memory.create_topic("a", 1)
            await memory.append(numbered("a", 2))
            await log.asked.wait()
            for count in range(1, 6):
                await memory.append(numbered("b", 1))
                await second.read(count)
            log.answers.set()
            await first.read(5)
            assert [event["n"] for event in first.events] == [0, 1, 2, 0, 1]
            for client in (first, second):
                client.close()
