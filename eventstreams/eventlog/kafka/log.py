"""The event log on Apache Kafka."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from confluent_kafka import Consumer, Producer

from eventstreams.errors import (
    LogError,
    LogRefused,
    LogUnavailable,
    OffsetOutOfRange,
    UnknownTopic,
)
from eventstreams.eventlog.base import Block, Extent, LogReader, TopicDescription
from eventstreams.eventlog.kafka.asking import Asking
from eventstreams.eventlog.kafka.contact import Contact
from eventstreams.eventlog.kafka.fetcher import FetcherPool
from eventstreams.eventlog.kafka.offsets import LEADER_RETRY, TIMEOUT, Offsets
from eventstreams.eventlog.kafka.options import (
    ASKING,
    BASE,
    CONSUMER,
    GROWTH_SECONDS,
    PRODUCER,
    SENDING_SECONDS,
    KafkaOptions,
    Properties,
    properties,
    refused_properties,
)
from eventstreams.eventlog.kafka.reader import KafkaReader
from eventstreams.eventlog.kafka.readiness import Readiness
from eventstreams.eventlog.kafka.reasons import Reasons
from eventstreams.eventlog.kafka.topics import Topics
from eventstreams.eventlog.kafka.writer import KafkaWriter
from eventstreams.positions import NO_IDENTITIES, Cursor, Position
from eventstreams.records import NewRecord, Record, TopicPartition

logger = logging.getLogger(__name__)

OPEN_TIMEOUT = 6.0
"""Seconds in which a broker must answer at the start, where nobody waits for it."""

METADATA_THREADS = 6
LAST_STEPS = (1, 16, 256, 4096, 65536)
MAX_LAST_BYTES = 1024 * 1024


class KafkaLog:
    """An `EventLog`. Made by `open_kafka`."""

    def __init__(self, options: KafkaOptions) -> None:
        given = options.properties
        self._reasons = Reasons(options.servers)
        told: Properties = {"error_cb": self._reasons.note}
        self._base = properties(options.servers, given, BASE, ASKING, told)
        self._consuming = properties(options.servers, given, CONSUMER, told, kind="consumer")
        self._producing = properties(
            options.servers,
            given,
            PRODUCER,
            told,
            {"message.max.bytes": options.max_record_bytes},
            kind="producer",
        )
        self._options = options
        self._threads = ThreadPoolExecutor(METADATA_THREADS, thread_name_prefix="kafka metadata")
        self._contact = Contact(self._base, self._reasons, self._threads)
        self._readiness = Readiness(self._contact, self._reasons, self._threads)
        self._asking = Asking(self._base, self._contact, self._reasons, self._threads)
        self._topics = Topics(self._asking, self._reasons.explain)
        self._offsets = Offsets(self._contact, self._topics, self._reasons, self._threads)
        self._closed = False
        self._pool = FetcherPool(self._consuming)
        self._growing: asyncio.Task[object] | None = None
        self._next_look = 0.0
        self._doubting: asyncio.Task[None] | None = None
        self._writer = KafkaWriter(self._producing, self._count, self._topics.identity, self._doubt)

    async def open(self, timeout: float) -> None:
        """Connect. Raises: LogUnavailable, LogRefused, ConfigurationError for properties that librdkafka refuses."""
        with refused_properties():
            # All are tried at once, by a process too that has a use for one of them later, or never.
            Consumer({**self._consuming, "bootstrap.servers": ""}).close()
            Producer({**self._producing, "bootstrap.servers": ""})
        self._contact.start()
        try:
            await self._contact.wait(timeout)
        except LogUnavailable as exc:
            if not self._options.may_be_away:
                raise
            logger.warning("opened without a broker", extra={"cause": exc.message})
        if self._options.writable:
            self._writer.open()

    @property
    def servers(self) -> str:
        """Return the bootstrap servers."""
        return self._options.servers

    @property
    def cluster(self) -> str:
        """Return the cluster's id; empty until a broker has answered, and until then nothing is read."""
        return self._contact.cluster

    async def reached(self) -> None:
        """Return when the log has answered once; see `EventLog`."""
        await self._contact.wait()

    # -- topics

    async def describe(self, topics: Collection[str]) -> Mapping[str, TopicDescription]:
        """Return those of the topics that there are; see `EventLog`."""
        return await self._topics.describe(topics, since=time.monotonic())

    async def partitions(self, topic: str) -> Sequence[TopicPartition]:
        """Return a topic's partitions; see `EventLog`."""
        found = (await self._topics.recent([topic])).get(topic)
        return found.partitions if found else []

    # -- offsets

    async def extents(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Extent]:
        """Return what each partition holds; see `EventLog`."""
        return await self._offsets.extents(partitions)

    async def resolve(self, positions: Mapping[TopicPartition, Position]) -> Cursor:
        """Turn positions into offsets; see `EventLog`."""
        return Cursor(await self._offsets.resolve(positions), cluster=self.cluster)

    async def last_timestamp(self, partition: TopicPartition, before: int) -> int | None:
        """Return the newest record's time before an offset; see `EventLog`."""
        earliest, stop = 0, before
        for step in LAST_STEPS:
            start = max(earliest, before - step)
            if start >= stop:
                break
            try:
                records = (await self.fetch(partition, start, stop, MAX_LAST_BYTES)).records
            except OffsetOutOfRange as exc:
                earliest = exc.earliest
                if earliest >= stop:
                    break
                start = earliest
                records = (await self.fetch(partition, start, stop, MAX_LAST_BYTES)).records
            if records:
                return await self._newest(partition, records[-1], stop)
            stop = start
        return None

    async def _newest(self, partition: TopicPartition, last: Record, stop: int) -> int:
        """Read on to `stop` where the block ended before it."""
        while last.offset + 1 < stop:
            block = await self.fetch(partition, last.offset + 1, stop, MAX_LAST_BYTES)
            if not block.records:
                break
            last = block.records[-1]
        return last.timestamp

    # -- records

    async def fetch(
        self, partition: TopicPartition, start: int, stop: int, max_bytes: int, identity: str = ""
    ) -> Block:
        """Return records at once; see `EventLog`."""
        if start >= stop:
            return Block([], start)
        await self._topics.check_known([partition])
        try:
            known = self._topics.identity(partition.topic)
            block = await self._pool.fetch(partition, start, stop, max_bytes, known)
        except OffsetOutOfRange:
            # A topic made anew that is shorter says so too.
            await self._check_same(partition, identity, 0)
            raise
        if block.next_offset > start:
            await self._check_same(partition, identity, start)
        return block

    async def _check_same(self, partition: TopicPartition, identity: str, offset: int) -> None:
        """Check what was read just now. Raises: TopicReplaced, LogUnavailable."""
        if identity:
            for error in (await self._topics.check_same({partition.topic: (identity, offset)})).values():
                raise error.at(partition)

    async def open_reader(
        self, offsets: Mapping[TopicPartition, int], identities: Mapping[str, str] = NO_IDENTITIES
    ) -> LogReader:
        """Open a reader; see `EventLog`."""
        self._contact.check()
        reader = KafkaReader(self._consuming, self._topics, self._offsets.earliest, self._offsets.ends)
        try:
            await reader.open(offsets, identities)
        except BaseException:
            await reader.aclose()
            raise
        return reader

    async def append(self, new: Sequence[NewRecord]) -> Sequence[Record | LogError]:
        """Append records; see `EventLog`. A topic that does not exist is not made."""
        if not self._options.writable:
            return [LogRefused("the event log was opened for reading")] * len(new)
        deadline = time.monotonic() + self._options.produce_timeout
        topics = {record.topic for record in new}
        refused = await self._refused(topics, deadline - min(SENDING_SECONDS, self._options.produce_timeout / 4))
        self._look_for_growth(topics)
        if not refused:
            return await self._writer.append(new, deadline - time.monotonic())
        accepted = [record for record in new if record.topic not in refused]
        stored = iter(await self._writer.append(accepted, deadline - time.monotonic()))
        return [refused[record.topic] if record.topic in refused else next(stored) for record in new]

    def _count(self, topic: str) -> int:
        """Return over how many partitions records are spread here: 0 where the operator has another partitioner."""
        ours = self._producing["partitioner"] == PRODUCER["partitioner"]
        return self._topics.count(topic) if ours else 0

    def _look_for_growth(self, topics: Collection[str]) -> None:
        """Ask anew, beside the append, for a topic whose partitions were counted long ago: one topic at a time."""
        now = time.monotonic()
        if now < self._next_look or (self._growing is not None and not self._growing.done()):
            return
        old = now - GROWTH_SECONDS
        topic = next((topic for topic in topics if self._topics.is_older(topic, old)), None)
        if topic is not None:
            self._growing = asyncio.create_task(self._asked(topic, now + TIMEOUT))
        self._next_look = now + LEADER_RETRY

    def _doubt(self, topics: Collection[str]) -> None:
        """Ask anew, beside the appends, for topics that take nothing: they may have been made anew."""
        if self._doubting is None or self._doubting.done():
            self._doubting = asyncio.create_task(self._ask_again(topics), name="kafka doubt")

    async def _ask_again(self, topics: Collection[str]) -> None:
        with contextlib.suppress(LogError):  # the next look comes soon
            await self._topics.describe(topics, since=time.monotonic())

    async def _refused(self, topics: Collection[str], deadline: float) -> Mapping[str, LogError]:
        """Return the topics that take no records now, with the reason; one that once was is left to the producer."""
        unseen = [topic for topic in topics if not self._topics.count(topic)]
        if not unseen:
            return {}
        refused: dict[str, LogError] = {}
        answers = await asyncio.gather(*(self._asked(topic, deadline) for topic in unseen))
        for topic, answer in zip(unseen, answers, strict=True):
            if isinstance(answer, LogError):
                refused[topic] = answer
            elif not answer:
                refused[topic] = UnknownTopic.of(topic)
        return refused

    async def _asked(self, topic: str, deadline: float) -> Sequence[TopicPartition] | LogError:
        """Return a topic's partitions, asked for again and again while no broker says: leaders may be elected."""
        seconds = deadline - time.monotonic()
        cause = "no answer"
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        return await self.partitions(topic)
                    except LogUnavailable as exc:
                        cause = exc.message
                    await asyncio.sleep(LEADER_RETRY)
        except LogError as exc:
            return exc
        except TimeoutError:
            words = f"Kafka at {self._options.servers} did not say in {seconds:.1f} s whether there is topic"
            return LogUnavailable(f"{words} {topic!r}: {cause}")

    async def check(self, timeout: float, topics: Collection[str] | None = None, *, writing: bool = False) -> None:
        """Return when the log would serve; see `EventLog`."""
        if self._closed:
            raise LogUnavailable("the event log is closed")
        self._contact.check()
        await self._readiness.check(timeout, topics, writing=writing)

    async def aclose(self) -> None:
        """Deliver what is under way, then close. Idempotent."""
        if self._closed:
            return
        self._closed = True
        await self._readiness.aclose()
        for task in (self._growing, self._doubting):
            if task is not None:
                task.cancel()
        await self._writer.aclose()
        await self._topics.aclose()
        await self._asking.aclose()
        await self._pool.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._contact.aclose()


@asynccontextmanager
async def open_kafka(options: KafkaOptions, *, open_timeout: float = OPEN_TIMEOUT) -> AsyncIterator[KafkaLog]:
    """Connect to a cluster while the context lasts. Raises: ConfigurationError, LogUnavailable."""
    log = KafkaLog(options)
    try:
        await log.open(open_timeout)
        yield log
    finally:
        await log.aclose()
