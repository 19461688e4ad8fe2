"""Where partitions begin and end, and where in them a time is: asked of their leaders, whoever leads by now."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

from confluent_kafka import IsolationLevel, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import OffsetSpec

from eventstreams.errors import LogError, LogUnavailable
from eventstreams.eventlog.base import Extent
from eventstreams.eventlog.kafka.contact import Contact
from eventstreams.eventlog.kafka.errors import STALE_LEADER, UNKNOWN
from eventstreams.eventlog.kafka.reasons import UNREACHED, Reasons
from eventstreams.eventlog.kafka.refusing import refusing
from eventstreams.eventlog.kafka.topics import Topics
from eventstreams.positions import AtOffset, AtTime, Edge, Next, Position
from eventstreams.records import TopicPartition

TIMEOUT = 10.0
"""Seconds after which a partition is taken to have no leader."""

ATTEMPT_SECONDS = 2.5
"""What a leader has for an answer: after that another one may lead."""

LOOK_TIMEOUT = 1.0
"""Seconds for a look who leads."""

NONE_LATER = -1
"""What is told of a time after the last record."""

NO_ANSWER = -1001
"""What librdkafka says of a leader that does not answer in time: no error, but no offset (RD_KAFKA_OFFSET_INVALID)."""

LEADER_RETRY = 0.1
"""Seconds until offsets are asked for again after their partition's leader was not whom we took for it."""


class Offsets:
    """Asks for offsets."""

    def __init__(self, contact: Contact, topics: Topics, reasons: Reasons, threads: Executor) -> None:
        self._contact = contact
        self._topics = topics
        self._reasons = reasons
        self._threads = threads
        self._doubtful = False
        """Whether the last question had no answer: then it is looked first whether the leaders can be asked."""

    async def _ask(self, specs: Mapping[TopicPartition, Any]) -> Mapping[TopicPartition, int]:
        """Return what ListOffsets tells, -1 for a time after the last record."""
        if not specs:
            return {}
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                return await self._list_offsets(specs)
            except KafkaException as exc:
                partition = next(iter(specs))
                if exc.args[0].code() not in STALE_LEADER | UNKNOWN | UNREACHED or time.monotonic() >= deadline:
                    raise self._reasons.explain(exc, partition.topic) from exc
            except LogUnavailable:
                if time.monotonic() >= deadline:
                    raise
            await self._topics.check_known(specs)
            await asyncio.sleep(LEADER_RETRY)

    async def _refused(self, partitions: Collection[TopicPartition]) -> frozenset[TopicPartition]:
        """Return the partitions whose leaders refuse connections; as a side effect the client knows who leads now.

        It keeps what it knows of partitions and leaders for minutes, and does not look again by itself.
        """
        refused: set[TopicPartition] = set()
        for topic in {partition.topic for partition in partitions}:
            look = partial(self._contact.admin.list_topics, topic, timeout=LOOK_TIMEOUT)
            try:
                metadata = await asyncio.get_running_loop().run_in_executor(self._threads, look)
            except KafkaException:
                continue  # then once more, soon
            known = metadata.topics[topic].partitions
            leaders = {p: known[p.partition].leader for p in partitions if p.topic == topic and p.partition in known}
            dead = await refusing(metadata, leaders.values())
            refused |= {partition for partition, leader in leaders.items() if leader in dead}
        return frozenset(refused)

    async def _list_offsets(self, specs: Mapping[TopicPartition, Any]) -> Mapping[TopicPartition, int]:
        found: dict[TopicPartition, int] = {}
        for partition, answer in (await self._answers(specs)).items():
            if isinstance(answer, BaseException):
                raise answer
            if answer < NONE_LATER:
                self._contact.look()
                raise LogUnavailable(self._reasons.sentence(f"no answer for {partition.topic}"))
            found[partition] = answer
        return found

    async def _answers(self, specs: Mapping[TopicPartition, Any]) -> Mapping[TopicPartition, int | BaseException]:
        """Ask once; of partitions whose leaders refuse connections the answer is none.

        Raises: LogUnavailable where no broker has answered yet.
        """
        self._contact.check()
        refused = await self._refused(specs) if self._doubtful else frozenset()
        told = await self._told({partition: spec for partition, spec in specs.items() if partition not in refused})
        answers = {partition: told.get(partition, NO_ANSWER) for partition in specs}
        self._doubtful = any(isinstance(one, BaseException) or one < NONE_LATER for one in answers.values())
        return answers

    async def _told(self, specs: Mapping[TopicPartition, Any]) -> Mapping[TopicPartition, int | BaseException]:
        if not specs:
            return {}
        asked = {KafkaPartition(*partition): spec for partition, spec in specs.items()}
        futures = self._contact.admin.list_offsets(
            asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=ATTEMPT_SECONDS
        )
        results = await asyncio.gather(*map(asyncio.wrap_future, futures.values()), return_exceptions=True)
        return {
            TopicPartition(partition.topic, partition.partition): result
            if isinstance(result, BaseException)
            else result.offset
            for partition, result in zip(futures, results, strict=True)
        }

    async def extents(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Extent]:
        """Return what each partition holds; see `EventLog`."""
        await self._topics.check_known(partitions)
        earliest = await self._ask({partition: OffsetSpec.earliest() for partition in partitions})
        end = await self._ask({partition: OffsetSpec.latest() for partition in partitions})
        return {partition: Extent(earliest[partition], end[partition]) for partition in partitions}

    async def ends(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return the end of each partition of which it is told at the first try."""
        if not partitions:
            return {}
        specs = {partition: OffsetSpec.latest() for partition in partitions}
        with contextlib.suppress(LogError, KafkaException):
            told = await self._answers(specs)
            return {partition: offset for partition, offset in told.items() if isinstance(offset, int) and offset >= 0}
        return {}

    async def earliest(self, partition: TopicPartition) -> int:
        """Return where a partition begins. Raises: UnknownTopic, LogUnavailable, LogRefused."""
        return (await self._ask({partition: OffsetSpec.earliest()}))[partition]

    async def resolve(self, positions: Mapping[TopicPartition, Position]) -> Sequence[tuple[TopicPartition, Next]]:
        """Turn positions into offsets; see `EventLog`."""
        await self._topics.check_known(positions.keys())
        specs = {partition: _spec(position) for partition, position in positions.items()}
        # The ends are asked first: a record that comes in between is then behind the cursor, not lost before it.
        late = {p: OffsetSpec.latest() for p, position in positions.items() if isinstance(position, AtTime)}
        ends = await self._ask(late)
        found = await self._ask({partition: spec for partition, spec in specs.items() if spec is not None})
        resolved: list[tuple[TopicPartition, Next]] = []
        for partition, position in positions.items():
            offset = position.offset if isinstance(position, AtOffset) else found[partition]
            resolved.append((partition, Next(ends[partition] if offset < 0 else offset, None)))
        return resolved


def _spec(position: Position) -> Any:
    if position is Edge.EARLIEST:
        return OffsetSpec.earliest()
    if position is Edge.LATEST:
        return OffsetSpec.latest()
    if isinstance(position, AtTime):
        return OffsetSpec.for_timestamp(position.timestamp)
    return None
