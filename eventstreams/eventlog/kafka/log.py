"""The event log on Apache Kafka."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from confluent_kafka import Consumer, IsolationLevel, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from eventstreams.errors import ConfigurationError, LogError, LogRefused, LogUnavailable, UnknownTopic
from eventstreams.eventlog.base import Block, Extent, LogReader
from eventstreams.eventlog.kafka.errors import STALE_LEADER, UNKNOWN, raised, translated
from eventstreams.eventlog.kafka.fetcher import FetcherPool
from eventstreams.eventlog.kafka.options import (
    ASKING_SECONDS,
    BASE,
    CONSUMER,
    PRODUCER,
    KafkaOptions,
    delivery_seconds,
    properties,
)
from eventstreams.eventlog.kafka.reader import KafkaReader
from eventstreams.eventlog.kafka.writer import KafkaWriter
from eventstreams.positions import AtOffset, AtTime, Cursor, Edge, Next, Position
from eventstreams.records import NewRecord, Record, TopicPartition

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT = 10.0
OPEN_TIMEOUT = 15.0
METADATA_SECONDS = 1.0
"""How long what is known of a topic counts: new partitions are seen that soon, a crowd of clients costs one request."""

ABSENCE_SECONDS = 0.2
"""The same for a topic that is not there: it may have been made just now."""

LEADER_RETRY = 0.1
"""Seconds until offsets are asked for again after their partition's leader was not whom we took for it."""

METADATA_THREADS = 4
LAST_STEPS = (1, 16, 256, 4096, 65536)
MAX_LAST_BYTES = 1024 * 1024


class KafkaLog:
    """An `EventLog`. Made by `open_kafka`."""

    def __init__(self, options: KafkaOptions) -> None:
        given = options.properties
        self._base = properties(options.servers, given, BASE)
        self._consuming = properties(options.servers, given, CONSUMER)
        self._producing = properties(
            options.servers,
            given,
            PRODUCER,
            {
                "delivery.timeout.ms": int(delivery_seconds(options.produce_timeout) * 1000),
                "message.max.bytes": options.max_record_bytes,
            },
        )
        self._options = options
        self._cluster = ""
        self._threads = ThreadPoolExecutor(METADATA_THREADS, thread_name_prefix="kafka metadata")
        self._known: dict[str, tuple[float, Sequence[TopicPartition]]] = {}
        self._asking: dict[str, asyncio.Task[Sequence[TopicPartition]]] = {}
        self._closed = False
        self._asker: Consumer | None = None
        self._admin: AdminClient | None = None
        self._pool = FetcherPool(self._consuming)
        self._writer = KafkaWriter(self._producing)

    async def open(self, timeout: float) -> None:
        """Connect. Raises: LogUnavailable, ConfigurationError for properties that librdkafka refuses."""
        try:
            self._asker = asker = Consumer(self._consuming)
            self._admin = AdminClient(self._base)
        except (KafkaException, ValueError, TypeError) as exc:
            raise ConfigurationError(f"kafka: {exc}") from exc
        try:
            metadata = await self._ask(lambda: asker.list_topics("eventstreams", timeout=timeout))
        except LogUnavailable as exc:
            unreachable = LogUnavailable(f"Kafka at {self._options.servers} cannot be reached: {exc.message}")
            if not self._options.may_be_away:
                raise unreachable from exc
            logger.warning("opened without a broker", extra={"cause": unreachable.message})
        else:
            self._cluster = metadata.cluster_id or ""
        if self._options.writable:
            self._writer.open()

    @property
    def servers(self) -> str:
        """Return the bootstrap servers."""
        return self._options.servers

    @property
    def cluster(self) -> str:
        """Return the cluster's id."""
        return self._cluster

    def _consumer(self) -> Consumer:
        if self._asker is None:
            raise LogUnavailable("the event log is not open")
        return self._asker

    def _admin_client(self) -> AdminClient:
        if self._admin is None:
            raise LogUnavailable("the event log is not open")
        return self._admin

    async def _ask(self, job: Any, topic: str | None = None) -> Any:
        if self._closed:
            raise LogUnavailable("the event log is closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, job)
        except KafkaException as exc:
            raise raised(exc, topic) from exc

    # -- topics

    async def partitions(self, topic: str) -> Sequence[TopicPartition]:
        """Return a topic's partitions; see `EventLog`."""
        known = self._known.get(topic)
        if known is not None and time.monotonic() - known[0] < (METADATA_SECONDS if known[1] else ABSENCE_SECONDS):
            return known[1]
        asking = self._asking.get(topic)
        if asking is None:
            asking = self._asking[topic] = asyncio.create_task(self._ask_partitions(topic), name="kafka metadata")
            asking.add_done_callback(partial(self._answered, topic))
        return await asyncio.shield(asking)

    def _answered(self, topic: str, asking: asyncio.Task[Sequence[TopicPartition]]) -> None:
        self._asking.pop(topic, None)
        if not asking.cancelled():
            # Who asked may have gone.
            asking.exception()

    async def _ask_partitions(self, topic: str) -> Sequence[TopicPartition]:
        metadata = await self._ask(lambda: self._consumer().list_topics(topic, timeout=REQUEST_TIMEOUT), topic)
        found = metadata.topics.get(topic)
        error = found.error if found is not None else None
        if error is not None and error.code() not in UNKNOWN:
            raise translated(error, topic)
        partitions: list[TopicPartition] = []
        if found is not None and error is None:
            partitions = [TopicPartition(topic, number) for number in sorted(found.partitions)]
        self._known[topic] = time.monotonic(), partitions
        return partitions

    async def _check_known(self, wanted: Collection[TopicPartition]) -> None:
        for topic in {partition.topic for partition in wanted}:
            held = await self.partitions(topic)
            for partition in wanted:
                if partition.topic == topic and partition not in held:
                    raise UnknownTopic(f"there is no partition {partition.partition} of topic {topic!r}")

    # -- offsets

    async def _offsets(self, specs: Mapping[TopicPartition, Any]) -> Mapping[TopicPartition, int]:
        """Return what ListOffsets tells, -1 for a time after the last record."""
        if not specs:
            return {}
        deadline = time.monotonic() + REQUEST_TIMEOUT
        while True:
            try:
                return await self._list_offsets(specs)
            except KafkaException as exc:
                partition = next(iter(specs))
                if exc.args[0].code() not in STALE_LEADER or time.monotonic() >= deadline:
                    raise raised(exc, partition.topic) from exc
            # The admin client keeps what it knows of leaders for minutes, and does not look again by itself.
            for topic in {partition.topic for partition in specs}:
                await self._ask(partial(self._admin_client().list_topics, topic, timeout=REQUEST_TIMEOUT), topic)
            await asyncio.sleep(LEADER_RETRY)

    async def _list_offsets(self, specs: Mapping[TopicPartition, Any]) -> Mapping[TopicPartition, int]:
        asked = {KafkaPartition(*partition): spec for partition, spec in specs.items()}
        futures = self._admin_client().list_offsets(
            asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=REQUEST_TIMEOUT
        )
        results = await asyncio.gather(*map(asyncio.wrap_future, futures.values()), return_exceptions=True)
        found: dict[TopicPartition, int] = {}
        for partition, result in zip(futures, results, strict=True):
            if isinstance(result, BaseException):
                raise result
            found[TopicPartition(partition.topic, partition.partition)] = result.offset
        return found

    async def extents(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Extent]:
        """Return what each partition holds; see `EventLog`."""
        await self._check_known(partitions)
        earliest = await self._offsets({partition: OffsetSpec.earliest() for partition in partitions})
        end = await self._offsets({partition: OffsetSpec.latest() for partition in partitions})
        return {partition: Extent(earliest[partition], end[partition]) for partition in partitions}

    async def resolve(self, positions: Mapping[TopicPartition, Position]) -> Cursor:
        """Turn positions into offsets; see `EventLog`."""
        await self._check_known(positions.keys())
        specs = {partition: _spec(position) for partition, position in positions.items()}
        # The ends are asked first: a record that comes in between is then behind the cursor, not lost before it.
        late = {p: OffsetSpec.latest() for p, position in positions.items() if isinstance(position, AtTime)}
        ends = await self._offsets(late)
        found = await self._offsets({partition: spec for partition, spec in specs.items() if spec is not None})
        cursor = Cursor(cluster=self._cluster)
        for partition, position in positions.items():
            offset = position.offset if isinstance(position, AtOffset) else found[partition]
            cursor.move(partition, Next(ends[partition] if offset < 0 else offset, None))
        return cursor

    async def last_timestamp(self, partition: TopicPartition, before: int) -> int | None:
        """Return the newest record's time before an offset; see `EventLog`."""
        earliest = (await self._offsets({partition: OffsetSpec.earliest()}))[partition]
        stop = before
        for step in LAST_STEPS:
            start = max(earliest, before - step)
            if start >= stop:
                break
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

    async def fetch(self, partition: TopicPartition, start: int, stop: int, max_bytes: int) -> Block:
        """Return records at once; see `EventLog`."""
        if start >= stop:
            return Block([], start)
        await self._check_known([partition])
        return await self._pool.fetch(partition, start, stop, max_bytes)

    async def open_reader(self, offsets: Mapping[TopicPartition, int]) -> LogReader:
        """Open a reader; see `EventLog`."""
        reader = KafkaReader(self._consuming)
        try:
            await reader.open(offsets)
        except BaseException:
            await reader.aclose()
            raise
        return reader

    async def append(self, new: Sequence[NewRecord]) -> Sequence[Record | LogError]:
        """Append records; see `EventLog`. A topic that does not exist is not made."""
        if not self._options.writable:
            return [LogRefused("the event log was opened for reading")] * len(new)
        deadline = time.monotonic() + self._options.produce_timeout
        refused = await self._refused({record.topic for record in new})
        if not refused:
            return await self._writer.append(new, deadline - time.monotonic())
        accepted = [record for record in new if record.topic not in refused]
        stored = iter(await self._writer.append(accepted, deadline - time.monotonic()))
        return [refused[record.topic] if record.topic in refused else next(stored) for record in new]

    async def _refused(self, topics: Collection[str]) -> Mapping[str, LogError]:
        """Return the topics that take no records now, with the reason; one that once was is left to the producer."""
        unseen = [topic for topic in topics if not self._known.get(topic, (0.0, ()))[1]]
        if not unseen:
            return {}
        seconds = min(ASKING_SECONDS, self._options.produce_timeout / 4)
        answers: Sequence[Sequence[TopicPartition] | LogError]
        try:
            async with asyncio.timeout(seconds):
                answers = await asyncio.gather(*map(self._asked, unseen))
        except TimeoutError:
            words = f"Kafka at {self._options.servers} did not say in {seconds:g} s whether there is topic"
            return {topic: LogUnavailable(f"{words} {topic!r}") for topic in unseen}
        refused: dict[str, LogError] = {}
        for topic, answer in zip(unseen, answers, strict=True):
            if isinstance(answer, LogError):
                refused[topic] = answer
            elif not answer:
                refused[topic] = UnknownTopic(f"there is no topic {topic!r}")
        return refused

    async def _asked(self, topic: str) -> Sequence[TopicPartition] | LogError:
        try:
            return await self.partitions(topic)
        except LogError as exc:
            return exc

    async def check(self, timeout: float) -> None:
        """Return when the log answers; see `EventLog`."""
        await self._ask(lambda: self._consumer().list_topics("eventstreams", timeout=timeout))

    async def aclose(self) -> None:
        """Deliver what is under way, then close. Idempotent."""
        if self._closed:
            return
        self._closed = True
        await self._writer.aclose()
        await self._pool.aclose()
        if self._asker is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._asker.close)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._admin = None  # it has no end but that nobody holds it: four threads and their connections go


def _spec(position: Position) -> Any:
    if position is Edge.EARLIEST:
        return OffsetSpec.earliest()
    if position is Edge.LATEST:
        return OffsetSpec.latest()
    if isinstance(position, AtTime):
        return OffsetSpec.for_timestamp(position.timestamp)
    return None


@asynccontextmanager
async def open_kafka(options: KafkaOptions, *, open_timeout: float = OPEN_TIMEOUT) -> AsyncIterator[KafkaLog]:
    """Connect to a cluster while the context lasts. Raises: ConfigurationError, LogUnavailable."""
    log = KafkaLog(options)
    try:
        await log.open(open_timeout)
        yield log
    finally:
        await log.aclose()
