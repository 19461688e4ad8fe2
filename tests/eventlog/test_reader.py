"""What the reader of Kafka makes of what librdkafka says, without a broker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from confluent_kafka import KafkaError

from eventstreams.errors import LogRefused, LogUnavailable
from eventstreams.eventlog.kafka.polling import Batch
from eventstreams.eventlog.kafka.reader import KafkaReader
from eventstreams.records import Record, TopicPartition

A, B = TopicPartition("a", 0), TopicPartition("b", 0)


class ToldReader(KafkaReader):
    """A reader whose consumer says what the test gives."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        super().__init__({"bootstrap.servers": "127.0.0.1:1", "group.id": "test"})
        self._batches = list(batches)

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
