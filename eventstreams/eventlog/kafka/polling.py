"""What reader and fetcher share: batches from a consumer, and looks at topics, on a thread of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException

from eventstreams.records import Record, TopicPartition

SLICE = 0.05
"""Seconds for which a poll holds its thread: a change of assignment waits no longer."""


LOOK_SLICE = 0.5
"""The same for a look at a topic: an end waits no longer."""


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


def look_at(consumer: Consumer, topic: str, timeout: float, stop: Callable[[], bool]) -> Collection[int]:
    """Have a consumer learn of a topic's partitions; return their numbers, none where there is no such topic.

    It would learn of them by itself, but once a second at the most, and after that every five minutes. Blocks up to
    `timeout` seconds or until `stop`. Raises: KafkaException.
    """
    deadline = time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        try:
            found = consumer.list_topics(topic, timeout=max(0.0, min(left, LOOK_SLICE))).topics.get(topic)
        except KafkaException:
            if left <= LOOK_SLICE or stop():
                raise
        else:
            return () if found is None or found.error is not None else tuple(found.partitions)


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
        elif error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
            # Deliberate: librdkafka looks for its group's coordinator, unasked and for nothing: no group is joined.
            batch.errors.append((None if topic is None else TopicPartition(topic, partition), error))
