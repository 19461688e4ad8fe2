"""What the reader of Kafka makes of what librdkafka says, without a broker."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from confluent_kafka import KafkaError

from eventstreams.errors import LogError, LogRefused, LogUnavailable, OffsetOutOfRange
from eventstreams.eventlog.kafka.asking import Asking
from eventstreams.eventlog.kafka.contact import Contact
from eventstreams.eventlog.kafka.polling import Batch
from eventstreams.eventlog.kafka.reader import KafkaReader
from eventstreams.eventlog.kafka.reasons import Reasons
from eventstreams.eventlog.kafka.topics import Topics
from eventstreams.records import Record, TopicPartition

A, B = TopicPartition("a", 0), TopicPartition("b", 0)


def topics() -> Topics:
    """Return what nobody asks: no topic has an identity here."""

    reasons, threads = Reasons("127.0.0.1:1"), ThreadPoolExecutor(1)
    return Topics(Asking({}, Contact({}, reasons, threads), reasons, threads), reasons.explain)


class ToldReader(KafkaReader):
    """A reader whose consumer says what the test gives."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        properties = {"bootstrap.servers": "127.0.0.1:1", "group.id": "test"}
        super().__init__(properties, topics(), self.begins, self.ends)
        self._batches = list(batches)

    async def begins(self, partition: TopicPartition) -> int:
        return 0

    async def ends(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return {}

    def _poll(self, limit: int, timeout: float) -> Batch:
        return self._batches.pop(0) if self._batches else Batch()


async def test_error_that_is_repeated_is_raised_once_and_holds_up_no_records() -> None:
    fault = KafkaError(KafkaError.INVALID_MSG)
    refused = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    record = Record("b", 0, 7, 1000, b"{}", None)
    said: list[tuple[TopicPartition | None, KafkaError]]
    said = [(A, fault)] * 50 + [(B, fault), (A, refused)] + [(A, fault)] * 50
    reader = ToldReader([Batch(errors=said), Batch([record])])
    await reader.open({A: 0, B: 7})
    try:
        async with asyncio.timeout(10):
            raised = []
            for _ in range(3):
                with pytest.raises((LogUnavailable, LogRefused)) as caught:
                    await reader.read(10, 5.0)
                raised.append(str(caught.value))
            assert await reader.read(10, 5.0) == [record]
    finally:
        await reader.aclose()
    assert [words.count("(a)") for words in raised] == [1, 0, 0]
    assert "authorization" in raised[2]


class SlowlyToldReader(ToldReader):
    """One whose caller hears of a change of assignment only after the batch that was polled behind it was taken."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        super().__init__(batches)
        self.slow = False
        self._taken = asyncio.Event()

    async def _on_thread(self, job: Any) -> Any:
        result = await super()._on_thread(job)
        if self.slow:
            await self._taken.wait()
        return result

    def _keep(self, batch: Batch, wrong: Mapping[str, LogError]) -> None:
        super()._keep(batch, wrong)
        if batch.records:
            self._taken.set()


async def test_records_that_come_before_the_word_of_their_assignment_are_kept() -> None:
    record = Record("a", 0, 5, 1000, b"{}", None)
    reader = SlowlyToldReader([Batch(), Batch([record])])
    await reader.open({B: 0})
    try:
        reader.slow = True
        async with asyncio.timeout(10):
            assigning = asyncio.create_task(reader.assign({A: 5}))
            await asyncio.sleep(0)
            assert await reader.read(10, 5.0) == [record]
            await assigning
        assert reader.positions() == {A: 6, B: 0}
    finally:
        reader.slow = False
        await reader.aclose()


async def test_records_of_an_earlier_assignment_are_dropped() -> None:
    old, new = (Record("a", 0, offset, 1000, b"{}", None) for offset in (3, 5))

    class Reader(ToldReader):
        """One that is moved while it polls."""

        polling = asyncio.Event()
        loop = asyncio.get_running_loop()

        def _poll(self, limit: int, timeout: float) -> Batch:
            batch = super()._poll(limit, timeout)
            if batch.records == [old]:
                self.loop.call_soon_threadsafe(self.polling.set)
                assert self._interrupt.wait(10)
            return batch

    reader = Reader([Batch([old]), Batch([new])])
    await reader.open({A: 3})
    try:
        async with asyncio.timeout(10):
            reading = asyncio.create_task(reader.read(10, 5.0))
            await reader.polling.wait()
            await reader.assign({A: 5})
            assert await reading == [new]
    finally:
        await reader.aclose()


async def test_partition_out_of_range_is_told_once_the_log_answers() -> None:
    """Until then the consumer stands still there: an error of another kind must not be the last word."""

    class Reader(ToldReader):
        """One whose log does not answer at first."""

        answers = 0

        async def begins(self, partition: TopicPartition) -> int:
            self.answers += 1
            if self.answers == 1:
                raise LogUnavailable("away")
            return 7

    reader = Reader([Batch(errors=[(A, KafkaError(KafkaError._AUTO_OFFSET_RESET))])])
    await reader.open({A: 0})
    try:
        async with asyncio.timeout(10):
            with pytest.raises(LogUnavailable, match="away"):
                await reader.read(10, 5.0)
            with pytest.raises(OffsetOutOfRange) as caught:
                await reader.read(10, 5.0)
        assert (caught.value.partition, caught.value.offset, caught.value.earliest) == (A, 0, 7)
        assert await reader.read(10, 0.0) == []
    finally:
        await reader.aclose()
