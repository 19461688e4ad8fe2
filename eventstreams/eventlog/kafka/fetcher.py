"""Blocks of one partition for replay: a few consumers, each continued by whom it suits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from eventstreams.errors import LogUnavailable, OffsetOutOfRange, UnknownTopic
from eventstreams.eventlog.base import Block
from eventstreams.eventlog.kafka.errors import OUT_OF_RANGE, UNKNOWN, raised, translated
from eventstreams.eventlog.kafka.options import Properties
from eventstreams.eventlog.kafka.polling import look_at, poll
from eventstreams.records import Record, TopicPartition

POOL = 4
TIMEOUT = 10.0
POLL_LIMIT = 500
LOOK_AGAIN_SECONDS = 0.05
"""Between looks for a partition that the log has and a consumer does not know yet."""

MAX_SEEN = 10_000
"""Partitions of which a consumer remembers that it has looked at them."""

PREFETCH: Properties = {
    # What an idle consumer may hold: 8 MiB each.
    "queued.max.messages.kbytes": 8 * 1024,
    "queued.min.messages": 20_000,
    # A broker answers one fetch of a consumer after another: one that waits at an end holds up the next block's.
    "fetch.wait.max.ms": 10,
}


class Fetcher:
    """One consumer, and where it stands. Used by one thread at a time."""

    def __init__(self, consumer: Consumer, closing: threading.Event) -> None:
        self._consumer = consumer
        self._closing = closing
        self.at: tuple[TopicPartition, int] | None = None
        self._held: deque[Record] = deque()
        self._seen: set[TopicPartition] = set()
        self._identities: dict[str, str] = {}
        self._end: int | None = None
        self.worn = False
        """Whether it is not to be used any more."""

    def note(self, topic: str, identity: str) -> None:
        """Note which topic of a name is read. A consumer that knows another one may wait for its leaders for ever."""
        if identity and self._identities.setdefault(topic, identity) != identity:
            self.worn = True

    def fetch(self, partition: TopicPartition, start: int, stop: int, max_bytes: int) -> Block:
        """Return records; see `EventLog.fetch`. Blocks."""
        if self.at != (partition, start) or (self._end is not None and not self._held):
            # Deliberate: an end once met is not told again, so a consumer that stands there begins anew.
            self._begin(partition, start)
        records: list[Record] = []
        size, after = 0, start
        deadline = time.monotonic() + TIMEOUT
        while after < stop and (size < max_bytes or not records):
            if not self._held:
                if self._end is not None:
                    after = min(max(after, self._end), stop)
                    break
                self._poll(partition, after, deadline)
                continue
            record = self._held[0]
            if record.offset >= stop:
                after = stop
                break
            size += len(record.value)
            after = record.offset + 1
            records.append(self._held.popleft())
        self.at = partition, after
        return Block(records, after)

    def _begin(self, partition: TopicPartition, offset: int) -> None:
        if partition not in self._seen:
            look_at(self._consumer, partition.topic, TIMEOUT, self._closing.is_set)
            if len(self._seen) >= MAX_SEEN:
                self._seen.clear()
                self._identities.clear()
            self._seen.add(partition)
        self._consumer.assign([KafkaPartition(*partition, offset)])
        self._held.clear()
        self._end = None

    def _poll(self, partition: TopicPartition, offset: int, deadline: float) -> None:
        batch = poll(self._consumer, POLL_LIMIT, deadline - time.monotonic(), self._closing.is_set)
        if not batch:
            self.at = None
            # Its leader may be away, or the consumer take the wrong one for it: another consumer asks anew.
            self.worn = True
            raise LogUnavailable(f"no answer for {partition.topic}/{partition.partition} in {TIMEOUT:g} s")
        for _, error in batch.errors:
            if error.code() in UNKNOWN and not self._closing.is_set() and time.monotonic() < deadline:
                self._look_again(partition, offset, deadline)
                return
            self.at = None
            if error.code() in OUT_OF_RANGE:
                raise OffsetOutOfRange(partition, offset, self._earliest(partition, deadline))
            raise translated(error, partition.topic, right="READ")
        self._held.extend(record for record in batch.records if (record.topic, record.partition) == partition)
        self._end = batch.ends.get(partition, self._end)
        if self._end is not None:
            # Nothing more is wanted of it: else it would ask for more, a hundred times a second.
            self._consumer.unassign()

    def _look_again(self, partition: TopicPartition, offset: int, deadline: float) -> None:
        """Have the consumer learn of a partition that was added since it last looked, and begin anew.

        Raises: UnknownTopic, KafkaException.
        """
        self.at = None
        topic, number = partition
        if number not in look_at(self._consumer, topic, deadline - time.monotonic(), self._closing.is_set):
            raise UnknownTopic(f"there is no partition {number} of topic {topic!r}").at(partition)
        self._closing.wait(LOOK_AGAIN_SECONDS)
        self._begin(partition, offset)

    def _earliest(self, partition: TopicPartition, deadline: float) -> int:
        """Return where the log begins. Raises: LogUnavailable, KafkaException."""
        left = max(0.0, deadline - time.monotonic())
        bounds = self._consumer.get_watermark_offsets(KafkaPartition(*partition), timeout=left)
        if bounds is None:
            raise LogUnavailable(f"the bounds of {partition.topic}/{partition.partition} did not come in time")
        return int(bounds[0])

    def close(self) -> None:
        self._consumer.close()


class FetcherPool:
    """At most `POOL` fetches at once; the others wait their turn."""

    def __init__(self, properties: Properties) -> None:
        self._properties = properties | PREFETCH
        self._threads = ThreadPoolExecutor(POOL, thread_name_prefix="kafka fetch")
        self._turns = asyncio.Semaphore(POOL)
        self._idle: list[Fetcher] = []
        self._made = 0
        self._closing = threading.Event()
        self._lock = threading.Lock()

    async def fetch(
        self, partition: TopicPartition, start: int, stop: int, max_bytes: int, identity: str = ""
    ) -> Block:
        """Return records; see `EventLog.fetch`. `identity`: which topic of the name there is by now."""
        await self._turns.acquire()
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._threads, self._fetch, partition, start, stop, max_bytes, identity)
        # The turn ends when the thread is free, not when its caller has gone.
        work.add_done_callback(self._ended)
        return await asyncio.shield(work)

    def _ended(self, work: asyncio.Future[Block]) -> None:
        self._turns.release()
        if not work.cancelled():
            work.exception()  # its caller may have gone: else the event loop would tell of it

    def _fetch(self, partition: TopicPartition, start: int, stop: int, max_bytes: int, identity: str) -> Block:
        try:
            fetcher = self._take(partition, start, identity)
            try:
                return fetcher.fetch(partition, start, stop, max_bytes)
            finally:
                self._put_back(fetcher)
        except KafkaException as exc:
            raise raised(exc, partition.topic) from exc

    def _take(self, partition: TopicPartition, start: int, identity: str) -> Fetcher:
        while True:
            fetcher = self._pick(partition, start)
            fetcher.note(partition.topic, identity)
            if not fetcher.worn:
                return fetcher
            self._put_back(fetcher)

    def _pick(self, partition: TopicPartition, start: int) -> Fetcher:
        with self._lock:
            for number, fetcher in enumerate(self._idle):
                if fetcher.at == (partition, start):
                    return self._idle.pop(number)
            if self._made == POOL:
                # One is idle: fewer than POOL fetches are under way beside this one.
                return self._idle.pop(0)
            self._made += 1
        return Fetcher(Consumer(self._properties), self._closing)

    def _put_back(self, fetcher: Fetcher) -> None:
        if fetcher.worn:
            fetcher.close()
        with self._lock:
            if fetcher.worn:
                self._made -= 1
            else:
                self._idle.append(fetcher)

    async def aclose(self) -> None:
        """Close all consumers. Idempotent."""
        await asyncio.get_running_loop().run_in_executor(None, self._close)

    def _close(self) -> None:
        # With the broker away a fetch would hold the end up for all of its time.
        self._closing.set()
        self._threads.shutdown(wait=True)
        with self._lock:
            idle, self._idle = self._idle, []
        for fetcher in idle:
            fetcher.close()
