"""What reader and fetcher share: batches from a consumer, on a thread of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaError

from eventstreams.records import Record, TopicPartition

SLICE = 0.05
"""Seconds for which a poll holds its thread: a change of assignment waits no longer."""


@dataclass(slots=True)
class Batch:
    """Records, partitions read to their end (with the offset there), and what went wrong with others.

    `moves`: which change of assignment it was polled after; set by who makes them.
    """

    records: list[Record] = field(default_factory=list)
    ends: dict[TopicPartition, int] = field(default_factory=dict)
    errors: list[tuple[TopicPartition | None, KafkaError]] = field(default_factory=list)
    moves: int = 0

    def __bool__(self) -> bool:
        return bool(self.records or self.ends or self.errors)


def poll(consumer: Consumer, limit: int, timeout: float, stop: Callable[[], bool]) -> Batch:
    """Return what comes first, and all that is there with it; blocks up to `timeout` seconds or until `stop`."""
    deadline = time.monotonic() + timeout
    batch = Batch()
    while not batch:
        left = deadline - time.monotonic()
        # Deliberate: one poll, then what is there already. consume() alone waits until it has all that it may return.
        first = consumer.poll(max(0.0, min(left, SLICE)))
        if first is None:
            if left <= 0 or stop():
                break
            continue
        _take(batch, [first])
        if limit > 1:
            _take(batch, consumer.consume(limit - 1, 0.0))
    return batch


def _take(batch: Batch, messages: list[Any]) -> None:
    for message in messages:
        error = message.error()
        topic, partition = message.topic(), message.partition()
        if error is None:
            value = message.value()
            _, timestamp = message.timestamp()
            offset = message.offset()
            batch.records.append(
                Record(topic, partition, offset, timestamp, b"" if value is None else value, message.key())
            )
        elif error.code() == KafkaError._PARTITION_EOF:
            batch.ends[TopicPartition(topic, partition)] = message.offset()
        else:
            batch.errors.append((None if topic is None else TopicPartition(topic, partition), error))
