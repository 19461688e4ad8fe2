"""A gate before each partition: librdkafka is given one batch of it at a time.

With two under way an election may store records twice. The first is answered by a broker that does not lead yet, the
second by the same one that leads by now: for it a number of the sequence is missing. Then librdkafka begins a new epoch
and sends again, of all partitions, what it has no answer for, and some of that is stored already. One batch at a time
leaves no such pair, as long as it goes in one request.

What librdkafka has cannot be taken back: it sends it when a leader is found, however late. What is held here can be
given back as certainly not stored. So an outage of any length leaves one batch of each partition whose fate is open.

A record that the topic may refuse goes by another producer than those that it takes for sure, and by a third one where
the topic has refused before: a refusal makes librdkafka begin a new epoch, too.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Collection
from enum import IntEnum
from functools import partial
from typing import Any
from zlib import crc32

from confluent_kafka import KafkaError, Producer

from eventstreams.eventlog.kafka.batch import HELD, Batch
from eventstreams.eventlog.kafka.errors import TOO_LARGE
from eventstreams.records import NewRecord

STALL_SECONDS = 1.0
"""Longer than a healthy cluster takes by far, much shorter than an election (10 s)."""

BATCH_RECORDS = 250
"""Records given at a time: in less than the `linger.ms` for which librdkafka waits for more, so they go together."""

BATCH_BYTES = 900_000
"""The same for bytes: somewhat below librdkafka's `batch.size`."""

RECORD_BYTES = 100
"""What a record takes of these beside its value."""

JOIN_SECONDS = 0.0005
"""For so long others may join those that were given: half of the time for which librdkafka waits for more."""

STICKY_SECONDS = 0.01
"""For so long records without a key go to one partition: librdkafka makes fewer and larger requests of them."""

SURE_BYTES = 64 * 1024
"""A topic that takes anything takes records of this size, or of twice the largest that it took, up to `LARGE_BYTES`."""

LARGE_BYTES = 900_000
"""Somewhat below Kafka's default of a topic's largest batch, and of librdkafka's: what is larger is never sure."""

ANY_PARTITION = -1
"""Leaves the choice to librdkafka."""


class Kind(IntEnum):
    """What is known of a record before it is sent: taken for sure, unsure, or unsure of a topic that has refused."""

    SURE = 0
    UNSURE = 1
    RISKY = 2


class Lane:
    """One partition: what librdkafka has of it, and what is held before it."""

    __slots__ = (
        "_began",
        "_room",
        "_room_bytes",
        "done",
        "era",
        "held",
        "kind",
        "partition",
        "sent",
        "shut",
        "topic",
        "turn",
    )

    def __init__(self, topic: Topic, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.sent = 0
        self.done = 0
        self.held: deque[tuple[Batch, int]] = deque()
        self.turn = 0
        """The append that came last."""
        self.shut = False
        """Whether that one's records are held."""
        self.kind = Kind.SURE
        """Of what is under way."""
        self.era = 0
        """Of which producers that is: a number, so that a lane at rest holds none that have retired."""
        self._began = 0.0
        """When the batch was begun that is under way."""
        self._room = 0
        """How many records may still join it, and bytes."""
        self._room_bytes = 0

    def enter(self, turn: int, now: float) -> None:
        """Decide whether an append's records are held: behind others that are, and behind a batch under way."""
        self.turn = turn
        if self.sent == self.done:
            self.shut = bool(self.held)
            self._began = now
        else:
            self.shut = bool(self.held) or now - self._began > JOIN_SECONDS

    def stalled(self, now: float) -> bool:
        """Whether what librdkafka has waits for too long."""
        return self.done != self.sent and now - self._began > STALL_SECONDS

    def takes(self, size: int, era: int) -> bool:
        """Whether a record of this size may join what is under way: of this kind, of these producers, with room."""
        kind = Kind.SURE if size <= self.topic.sure_bytes else self.topic.unsure
        if self.sent == self.done:
            self.kind, self.era = kind, era
            self._room, self._room_bytes = BATCH_RECORDS, max(BATCH_BYTES, size + RECORD_BYTES)
        return kind is self.kind and era == self.era and self._room > 0 and self._room_bytes >= size + RECORD_BYTES

    def hold(self, batch: Batch, number: int) -> None:
        """Keep a record back, behind the others."""
        batch.reports[number] = HELD
        self.held.append((batch, number))

    def produce(self, producer: Producer, batch: Batch, number: int, partition: int) -> None:
        """Hand a record over. Raises: BufferError, KafkaException."""
        record = batch.new[number]
        producer.produce(
            record.topic,
            record.value,
            record.key,
            partition,
            on_delivery=partial(self._report, batch, number),
            timestamp=record.timestamp or 0,
        )
        self.sent += 1
        self._room -= 1
        self._room_bytes -= len(record.value) + RECORD_BYTES

    def _report(self, batch: Batch, number: int, error: Any, message: Any) -> None:
        self.done += 1
        if error is not None or self.kind is not Kind.SURE:
            self.topic.learn(len(batch.new[number].value), error)
        batch.settle(number, message if error is None else error)
        if self.held and self.sent == self.done:
            self.topic.ready.append(self)

    def opens(self, now: float) -> bool:
        """Whether records that are held may be given now; drops those that nobody waits for any more."""
        held = self.held
        while held and held[0][0].over:
            held.popleft()
        if self.sent != self.done:
            return False
        self._began = now
        return bool(held)


class Topic:
    """The lanes of a topic, that of records without a key for now, and what is known of what the topic takes."""

    __slots__ = ("identity", "lanes", "name", "ready", "sticky", "sure_bytes", "turn", "unsure", "until")

    def __init__(self, name: str, ready: list[Lane]) -> None:
        self.name = name
        self.ready = ready
        """Takes the lanes that hold records and have nothing under way any more."""
        self.identity = ""
        """Which topic of this name it was first, where that is known."""
        self.sure_bytes = -1
        """The size of value up to which a record is not refused."""
        self.unsure = Kind.UNSURE
        """What larger ones are."""
        self.lanes: list[Lane] = []
        self.sticky: Lane | None = None
        self.until = 0.0
        self.turn = 0

    def learn(self, size: int, error: KafkaError | None) -> None:
        """Take from a report what the topic takes."""
        if error is None:
            self.sure_bytes = max(self.sure_bytes, min(LARGE_BYTES, max(SURE_BYTES, 2 * size)))
            return
        self.unsure = Kind.RISKY
        self.sure_bytes = min(self.sure_bytes, size - 1) if error.code() in TOO_LARGE else -1


class Lanes:
    """The lanes of one producer. `count` tells how many partitions a topic has; 0 leaves the choice to librdkafka."""

    def __init__(self, count: Callable[[str], int]) -> None:
        self._count = count
        self._topics: dict[str, Topic] = {}
        self.ready: list[Lane] = []
        """Lanes that hold records and have nothing under way any more: whoever hands those over empties it."""

    def lane(self, record: NewRecord, turn: int, now: float) -> Lane:
        """Return a record's lane.

        By CRC32 of its key, as librdkafka's `consistent_random` and the original do. Without a key any will do, so one
        that stalls is passed by where another does not: nobody waits for an election then.
        """
        topic = self._topics.get(record.topic)
        if topic is None or topic.turn != turn:
            topic = self._enter(record.topic, turn, now)
        lanes, key = topic.lanes, record.key
        if key and len(lanes) > 1:
            return lanes[crc32(key) % len(lanes)]
        assert topic.sticky is not None
        return topic.sticky

    @property
    def topics(self) -> Collection[Topic]:
        """Return the topics that records were placed in."""
        return self._topics.values()

    def drop(self, topic: Topic) -> None:
        """Forget a topic's lanes: the next record gets others."""
        del self._topics[topic.name]

    def place(self, topic: str, partition: int) -> Lane:
        """Return the lane of a partition, be it one that the topic is not known to have."""
        lanes = self._lanes(self._topic(topic))
        return lanes[partition] if 0 <= partition < len(lanes) else lanes[0]

    def _topic(self, name: str) -> Topic:
        topic = self._topics.get(name)
        if topic is None:
            topic = self._topics[name] = Topic(name, self.ready)
        return topic

    def _enter(self, name: str, turn: int, now: float) -> Topic:
        topic = self._topic(name)
        topic.turn = turn
        lanes = self._lanes(topic)
        if now >= topic.until or topic.sticky not in lanes or topic.sticky.held or topic.sticky.stalled(now):
            going = [lane for lane in lanes if not lane.held and not lane.stalled(now)]
            topic.sticky = random.choice(going or lanes)
            topic.until = now + STICKY_SECONDS
        return topic

    def _lanes(self, topic: Topic) -> list[Lane]:
        """Return a topic's lanes, as many as it has partitions by now."""
        count, lanes = self._count(topic.name), topic.lanes
        if not lanes:
            numbers = range(count) if count else [ANY_PARTITION]
            topic.lanes = lanes = [Lane(topic, number) for number in numbers]
        elif count and lanes[0].partition == ANY_PARTITION:
            topic.lanes = []
            return self._lanes(topic)
        elif count and len(lanes) != count:
            del lanes[count:]
            lanes += [Lane(topic, number) for number in range(len(lanes), count)]
        return lanes
