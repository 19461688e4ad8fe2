"""Reads records forward over several partitions: one consumer on one thread, crossing into the loop once a batch."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from eventstreams.errors import LogError, LogUnavailable, OffsetOutOfRange, TopicReplaced
from eventstreams.eventlog.kafka.errors import OUT_OF_RANGE, raised, translated
from eventstreams.eventlog.kafka.options import Properties
from eventstreams.eventlog.kafka.polling import Batch, look_at, poll
from eventstreams.eventlog.kafka.standstill import LOOK_SECONDS, Ends, Standstill
from eventstreams.eventlog.kafka.topics import Topics
from eventstreams.positions import NO_IDENTITIES
from eventstreams.records import Record, TopicPartition

LOOK_TIMEOUT = 1.0
"""Seconds for which a look at a topic may hold up the other partitions."""

LOOK_TOPICS = 8
"""Topics that are looked at one by one: of more that are new, librdkafka asks for all in one question."""

ASK_AGAIN_SECONDS = 0.5
"""Between attempts to learn where a partition begins."""

Earliest = Callable[[TopicPartition], Awaitable[int]]
"""Tells where a partition begins."""


class KafkaReader:
    """A `LogReader`. `open` it before use."""

    def __init__(
        self,
        properties: Properties,
        topics: Topics,
        earliest: Earliest,
        ends: Ends,
        *,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._properties = properties
        self._topics = topics
        self._earliest = earliest
        self._identities: dict[str, str] = {}
        """Which topics the offsets are of, where that is known."""
        self._unchecked: Batch | None = None
        """What was polled, and is not known yet to be of the topics that were assigned."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kafka reader")
        self._consumer: Consumer | None = None
        self._next: dict[TopicPartition, int] = {}
        self._moves = 0
        self._moved: dict[TopicPartition, int] = {}
        """The last change of assignment that each partition was in: what was polled before it is of no use."""
        self._done = 0
        """The last one that the thread has come to."""
        self._stopped: dict[TopicPartition, asyncio.Task[None]] = {}
        """Where the consumer stands still, out of the log's range, and who asks where that begins."""
        self._held: deque[Record] = deque()
        self._errors: dict[tuple[TopicPartition | None, type[LogError]], LogError] = {}
        """What is to be raised: of each kind once for a partition. librdkafka repeats itself each half second, and who
        waits between two readings would be raised more than it ever comes to."""
        self._filling: asyncio.Task[None] | None = None
        self._interrupt = threading.Event()
        self._told = threading.Event()
        self._down: KafkaError | None = None
        self._waiting_jobs = 0
        self._seen: set[TopicPartition] = set()
        """Partitions that the consumer has looked at. Used on its thread."""
        self._worn = False
        """Whether another consumer is to be made: this one knows a topic that was made anew as the old one."""
        self._standstill = Standstill(ends)
        self._look_seconds = look_seconds
        self._watching: asyncio.Task[None] | None = None

    async def open(self, offsets: Mapping[TopicPartition, int], identities: Mapping[str, str] = NO_IDENTITIES) -> None:
        """Make the consumer and assign what it reads. Raises: LogUnavailable."""
        await self._on_thread(self._make)
        await self.assign(offsets, identities)
        watching = self._standstill.run(self._look_seconds, self._settled, self._renew)
        self._watching = asyncio.create_task(watching, name="kafka standstill")

    def _make(self) -> None:
        try:
            self._consumer = Consumer({**self._properties, "error_cb": self._note_error})
        except KafkaException as exc:
            raise raised(exc) from exc

    def _note_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._down = error

    async def assign(
        self, offsets: Mapping[TopicPartition, int], identities: Mapping[str, str] = NO_IDENTITIES
    ) -> None:
        """Add partitions, or move there; see `LogReader`."""
        if not offsets:
            return
        if any(self._identities.get(topic, identity) != identity for topic, identity in identities.items()):
            self._worn = True
        self._identities.update(identities)
        before = {partition: self._next.get(partition) for partition in offsets}
        # Now, not after: the first records may be here before the word that the assignment is made.
        self._next.update(offsets)
        try:
            await self._move(offsets.keys(), lambda: self._assign(offsets))
        except BaseException:
            for partition, offset in before.items():
                if offset is None:
                    self._next.pop(partition, None)
                else:
                    self._next[partition] = offset
            raise

    async def unassign(self, partitions: Collection[TopicPartition]) -> None:
        """Stop reading these; see `LogReader`."""
        known = [partition for partition in partitions if partition in self._next]
        for partition in known:
            del self._next[partition]
        if known:
            await self._move(known, lambda: self._unassign(known))

    async def _move(self, partitions: Collection[TopicPartition], job: Callable[[], None]) -> None:
        """Run a change of assignment; what was read of these partitions before it is dropped."""
        self._moves = number = self._moves + 1
        # What another consumer polled, and nobody has taken yet, comes again.
        self._moved.update(dict.fromkeys([*partitions, *(self._next if self._worn else ())], number))
        for partition in partitions:
            self._stop_asking(partition)
            for key in [key for key in self._errors if key[0] == partition]:
                del self._errors[key]
        self._held = deque(record for record in self._held if TopicPartition(*record[:2]) not in partitions)

        def run() -> None:
            self._done = number
            job()

        await self._on_thread(run)

    def _is_current(self, partition: TopicPartition, batch: Batch) -> bool:
        """Whether a partition is still read as it was when a batch was polled."""
        return partition in self._next and batch.moves >= self._moved.get(partition, 0)

    def _assign(self, offsets: Mapping[TopicPartition, int]) -> None:
        consumer = self._open_consumer()
        if self._worn:
            self._make()
            consumer.close()
            consumer = self._open_consumer()
            self._seen.clear()
            self._worn = False
            offsets = dict(self._next)
        self._look_at_new(consumer, offsets)
        held = {(p.topic, p.partition) for p in consumer.assignment()}
        again = [KafkaPartition(*p) for p in offsets if tuple(p) in held]
        if again:
            consumer.incremental_unassign(again)
        consumer.incremental_assign([KafkaPartition(*p, offset) for p, offset in offsets.items()])

    def _look_at_new(self, consumer: Consumer, partitions: Collection[TopicPartition]) -> None:
        """Have the consumer learn of partitions that it has not read yet."""
        new = {partition.topic for partition in partitions if partition not in self._seen}
        seen = {partition.topic for partition in self._seen}
        for topic in new if len(new) <= LOOK_TOPICS else new & seen:
            with contextlib.suppress(KafkaException):  # later, then, by itself
                look_at(consumer, topic, LOOK_TIMEOUT, lambda: False)
        self._seen.update(partitions)

    def _unassign(self, partitions: Sequence[TopicPartition]) -> None:
        consumer = self._open_consumer()
        held = {(p.topic, p.partition) for p in consumer.assignment()}
        consumer.incremental_unassign([KafkaPartition(*p) for p in partitions if tuple(p) in held])

    def _open_consumer(self) -> Consumer:
        if self._consumer is None:
            raise LogUnavailable("the reader is closed")
        return self._consumer

    async def _on_thread(self, job: Any) -> Any:
        """Run a job on the consumer's thread, after a poll that is cut short for it."""
        self._waiting_jobs += 1
        self._interrupt.set()
        try:
            return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, job))
        except KafkaException as exc:
            raise raised(exc) from exc
        finally:
            self._waiting_jobs -= 1
            if not self._waiting_jobs:
                self._interrupt.clear()

    async def read(self, limit: int, timeout: float) -> Sequence[Record]:
        """Return the next records; see `LogReader`."""
        deadline = time.monotonic() + timeout
        while not self._held:
            if self._errors:
                raise self._errors.pop(next(iter(self._errors)))
            if self._filling is None:
                left = max(0.0, deadline - time.monotonic())
                self._filling = asyncio.create_task(self._fill(limit, left), name="kafka poll")
            await asyncio.shield(self._filling)
            if not self._held and not self._errors and time.monotonic() >= deadline:
                return []
        return [self._held.popleft() for _ in range(min(limit, len(self._held)))]

    async def _fill(self, limit: int, timeout: float) -> None:
        """Poll once; what comes is held, so that a cancelled read loses nothing."""
        loop = asyncio.get_running_loop()
        try:
            batch = self._unchecked
            if batch is None:
                batch = self._unchecked = await loop.run_in_executor(self._thread, self._poll_now, limit, timeout)
            wrong = await self._topics.check_same(self._places(batch))
        except KafkaException as exc:
            self._hold(None, raised(exc))
            return
        except LogError as exc:
            # What was polled is looked at again with the next call.
            self._hold(exc.partition, exc)
            return
        finally:
            self._filling = None
        self._unchecked = None
        self._take(batch, wrong)

    def _places(self, batch: Batch) -> Mapping[str, tuple[str, int]]:
        """Return which topics a batch is taken to be of, with the lowest offset of each: see `Topics.check_same`."""
        lowest: dict[str, int] = {}
        for topic, _, offset, *_ in batch.records:
            if offset < lowest.get(topic, sys.maxsize):
                lowest[topic] = offset
        for partition, end in batch.ends.items():
            if end > self._next.get(partition, end):
                lowest[partition.topic] = min(end, lowest.get(partition.topic, end))
        known = self._identities
        return {topic: (identity, offset) for topic, offset in lowest.items() if (identity := known.get(topic))}

    def _take(self, batch: Batch, wrong: Mapping[str, LogError]) -> None:
        """Hold what a batch brought, but for the topics that are not the ones that were assigned."""
        for one in self._next:
            refused = wrong.get(one.topic)
            if refused is not None and self._is_current(one, batch):
                self._hold(one, TopicReplaced(one.topic) if isinstance(refused, TopicReplaced) else refused)
        self._keep(batch, wrong)
        for partition, error in batch.errors:
            if partition is None:
                self._hold(None, translated(error))
            elif self._is_current(partition, batch):
                if error.code() in OUT_OF_RANGE:
                    self._ask_earliest(partition)
                else:
                    self._hold(partition, translated(error, partition.topic, right="READ"))
        if self._down is not None and not batch:
            self._hold(None, translated(self._down))
        self._down = None

    def _hold(self, partition: TopicPartition | None, error: LogError) -> None:
        error.partition = partition
        self._errors[partition, type(error)] = error

    def _poll_now(self, limit: int, timeout: float) -> Batch:
        moves = self._done
        batch = self._poll(limit, timeout)
        batch.moves = moves
        return batch

    def _poll(self, limit: int, timeout: float) -> Batch:
        self._told.clear()
        stop = lambda: self._interrupt.is_set() or self._told.is_set() or self._down is not None  # noqa: E731
        return poll(self._open_consumer(), limit, timeout, stop)

    def _keep(self, batch: Batch, wrong: Mapping[str, LogError]) -> None:
        for record in batch.records:
            partition = TopicPartition(record.topic, record.partition)
            if partition.topic not in wrong and self._is_current(partition, batch):
                self._next[partition] = record.offset + 1
                self._held.append(record)
        for partition, end in batch.ends.items():
            if partition.topic not in wrong and self._is_current(partition, batch):
                self._next[partition] = max(self._next[partition], end)

    def _ask_earliest(self, partition: TopicPartition) -> None:
        """Raise, once it is known where the log begins, that a place is out of range; others are read meanwhile."""
        if partition not in self._stopped:
            asking = asyncio.create_task(self._tell_stopped(partition), name="kafka earliest")
            self._stopped[partition] = asking

    def _stop_asking(self, partition: TopicPartition) -> None:
        asking = self._stopped.pop(partition, None)
        if asking is not None:
            asking.cancel()

    async def _tell_stopped(self, partition: TopicPartition) -> None:
        while True:
            try:
                earliest = await self._earliest(partition)
                break
            except LogError as exc:
                self._hold(partition, exc)
            self._interrupt_poll()
            await asyncio.sleep(ASK_AGAIN_SECONDS)
        del self._stopped[partition]
        self._hold(partition, OffsetOutOfRange(partition, self._next[partition], earliest))
        self._interrupt_poll()

    def _settled(self) -> Mapping[TopicPartition, int]:
        """Return where it is in what should come; nothing while what has come is not taken."""
        if self._held or self._errors or self._unchecked is not None:
            return {}
        return {partition: at for partition, at in self._next.items() if partition not in self._stopped}

    async def _renew(self) -> None:
        self._worn = True
        await self._move((), lambda: self._assign({}))

    def _interrupt_poll(self) -> None:
        """Have the poll that is under way end soon: there is something to raise."""
        self._told.set()

    def positions(self) -> Mapping[TopicPartition, int]:
        """Return the next offset of each partition; see `LogReader`."""
        behind = dict(self._next)
        for record in reversed(self._held):
            partition = TopicPartition(record.topic, record.partition)
            behind[partition] = record.offset
        return behind

    async def aclose(self) -> None:
        """Close the consumer and its thread. Idempotent."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        for partition in list(self._stopped):
            self._stop_asking(partition)
        if self._consumer is not None:
            await self._on_thread(self._close)
        self._thread.shutdown(wait=False)

    def _close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
