"""The embedded event log: SQLite in WAL mode, one file for several processes, or memory for one.

One thread writes and gathers what arrives meanwhile into one transaction; a few read. Growth rings a bell, in the
process that appended and in the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import apsw

from eventstreams.errors import ConfigurationError, LogError, LogUnavailable, OffsetOutOfRange, UnknownTopic
from eventstreams.eventlog.base import Block, Extent
from eventstreams.eventlog.embedded import storage
from eventstreams.eventlog.embedded.bell import Bell, listening
from eventstreams.eventlog.embedded.reader import EmbeddedReader
from eventstreams.positions import AtOffset, AtTime, Cursor, Edge, Next, Position
from eventstreams.records import NewRecord, Record, TopicPartition

logger = logging.getLogger(__name__)
T = TypeVar("T")

READERS = 2
"""Reading threads: SQLite releases the interpreter only within its calls, more would not be faster."""

FETCH_ROWS = 4096
"""Rows one fetch takes at the most, so that read transactions stay short."""

EXPIRE_EVERY = 60.0
POLL_OTHERS = 0.02
"""Seconds between looks for what other processes appended, where they cannot tell: one pragma, a few microseconds."""

LOOK_ANYWAY = 1.0
"""The same where they do: for who dies between its commit and the bell."""

CHECKPOINT_PAGES = 4000


@dataclass(frozen=True, slots=True)
class EmbeddedOptions:
    """Retention by the time of appending (seconds) and by each partition's bytes; partitions of a new topic."""

    retention_age: float = 7 * 86400.0
    retention_bytes: int = 4 * 1024**3
    partitions: int = 1


_Job = Callable[[], None]
_Pending = tuple[Sequence[NewRecord], "asyncio.Future[list[Record]]"]


class EmbeddedLog:
    """An EventLog in one file. Opened by `open_embedded`."""

    def __init__(self, path: str, options: EmbeddedOptions) -> None:
        self.path = path
        self.options = options
        self.cluster = ""
        self._shared = path != ":memory:"
        # Memory is one connection for both threads: a read must not see, nor end, the writer's transaction.
        self._turn: contextlib.AbstractContextManager[object] = (
            contextlib.nullcontext() if self._shared else threading.Lock()
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writes: queue.SimpleQueue[_Pending | _Job | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_loop, name="log writer", daemon=True)
        self._reads = ThreadPoolExecutor(READERS if self._shared else 1, "log reader", self._connect_reader)
        self._local = threading.local()
        self._connections: list[apsw.Connection] = []
        self._bell: asyncio.Future[None] | None = None
        self._others: Bell | None = None
        self._closed = False
        self._lock: int | None = None

    # -- open and close

    async def start(self) -> None:
        """Open the file, and the threads. Raises: ConfigurationError."""
        self._loop = asyncio.get_running_loop()
        self._write_connection = self._connect()
        if self._shared:
            self._others = Bell(self.path)
        self.cluster = storage.cluster(self._write_connection)
        self._appender = storage.Appender(self._write_connection, self.options.partitions)
        self._write_connection.wal_autocheckpoint(CHECKPOINT_PAGES)
        self._writer.start()

    def _connect(self) -> apsw.Connection:
        if not self._shared and self._connections:
            return self._connections[0]
        connection = storage.connect(self.path)
        self._connections.append(connection)
        return connection

    def _connect_reader(self) -> None:
        self._local.connection = self._connect()

    async def aclose(self) -> None:
        """Write what was given, then close. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._writes.put(None)
        await asyncio.to_thread(self._writer.join)
        self._reads.shutdown()
        for connection in self._connections:
            connection.close()
        if self._others is not None:
            self._others.close()
        self._release_lock()
        self.ring()

    # -- the bell

    @property
    def bell(self) -> asyncio.Future[None]:
        """Return what rings when records were added. Take it before reading, wait on it after."""
        if self._bell is None:
            self._bell = asyncio.get_running_loop().create_future()
        return self._bell

    def ring(self) -> None:
        """Wake all who wait for growth."""
        if self._bell is not None:
            bell, self._bell = self._bell, None
            if not bell.done():
                bell.set_result(None)

    async def watch_others(self) -> None:
        """Ring for what other processes append, until cancelled."""
        if not self._shared:
            return
        connection = self._connect()
        version = connection.pragma("data_version")

        def look() -> None:
            nonlocal version
            now = connection.pragma("data_version")
            if now != version:
                version = now
                self.ring()

        with listening(self.path, look) as told:
            while True:
                await asyncio.sleep(LOOK_ANYWAY if told else POLL_OTHERS)
                look()

    # -- writing

    async def append(self, new: Sequence[NewRecord]) -> Sequence[Record | LogError]:
        """Append in one transaction, together with what others append meanwhile: all stored, or none."""
        if not new:
            return []
        if self._closed:
            return [LogUnavailable("the event log is closed")] * len(new)
        future: asyncio.Future[list[Record]] = asyncio.get_running_loop().create_future()
        self._writes.put((new, future))
        try:
            # Shielded: what is in the queue is written, whether or not its caller still waits.
            return await asyncio.shield(future)
        except LogError as exc:
            return [exc] * len(new)

    def _write_loop(self) -> None:
        while True:
            first = self._writes.get()
            batch: list[_Pending] = []
            jobs: list[_Job] = []
            last = self._take(first, batch, jobs)
            while not last:
                try:
                    last = self._take(self._writes.get_nowait(), batch, jobs)
                except queue.Empty:
                    break
            if batch:
                self._write(batch)
            for job in jobs:
                job()
            if last:
                return

    @staticmethod
    def _take(item: _Pending | _Job | None, batch: list[_Pending], jobs: list[_Job]) -> bool:
        if item is None:
            return True
        if isinstance(item, tuple):
            batch.append(item)
        else:
            jobs.append(item)
        return False

    def _write(self, batch: Sequence[_Pending]) -> None:
        now = time.time_ns() // 1_000_000
        outcome: list[list[Record]] | LogError
        try:
            with self._transaction():
                outcome = [self._appender.append(new, now) for new, _ in batch]
            if self._others is not None:
                self._others.ring()
        except apsw.Error as exc:
            outcome = storage.unavailable(exc)
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._settle, batch, outcome)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        connection = self._write_connection
        with self._turn:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _settle(self, batch: Sequence[_Pending], outcome: list[list[Record]] | LogError) -> None:
        for number, (_, future) in enumerate(batch):
            if future.done():
                continue
            if isinstance(outcome, LogError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome[number])
        self.ring()

    async def _on_writer(self, job: Callable[[apsw.Connection], None]) -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def run() -> None:
            error: LogError | None = None
            try:
                with self._transaction():
                    job(self._write_connection)
            except apsw.Error as exc:
                error = storage.unavailable(exc)
            loop.call_soon_threadsafe(_resolve, done, error)

        self._writes.put(run)
        await asyncio.shield(done)

    async def create_topic(self, topic: str, partitions: int = 1) -> None:
        """Make a topic; one that is there gets the partitions that it lacks."""
        await self._on_writer(lambda connection: storage.create_topic(connection, topic, partitions))

    async def delete_before(self, partition: TopicPartition, offset: int) -> None:
        """Remove the records of a partition below an offset."""
        partition_id = (await self._row(partition))[0]
        await self._on_writer(lambda connection: storage.delete_before(connection, partition_id, offset))

    async def expire(self) -> None:
        """Apply the retention now."""
        before = int((time.time() - self.options.retention_age) * 1000)
        await self._on_writer(lambda connection: storage.expire(connection, before, self.options.retention_bytes))

    async def expire_regularly(self) -> None:
        """Apply the retention until cancelled; of several processes on a file, the one with the lock does."""
        while True:
            if self._acquire_lock():
                try:
                    await self.expire()
                except LogError as exc:
                    logger.warning("expiring old records failed: %s", exc)
            await asyncio.sleep(EXPIRE_EVERY)

    def _acquire_lock(self) -> bool:
        if not self._shared or self._lock is not None:
            return True
        handle = os.open(self.path + ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return False
        self._lock = handle
        return True

    def _release_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # -- reading

    async def read(self, query: Callable[[apsw.Connection], T]) -> T:
        """Run a query on a reading thread. Raises: LogUnavailable."""

        def run() -> T:
            try:
                with self._turn:
                    return query(self._local.connection)
            except apsw.Error as exc:
                raise storage.unavailable(exc) from exc

        if self._closed:
            raise LogUnavailable("the event log is closed")
        return await asyncio.get_running_loop().run_in_executor(self._reads, run)

    async def _row(self, partition: TopicPartition) -> tuple[int, int, int]:
        return await self.read(lambda connection: known(connection, partition))

    async def partitions(self, topic: str) -> Sequence[TopicPartition]:
        """Return a topic's partitions, ascending; empty when there is no such topic."""
        numbers = await self.read(lambda connection: storage.partition_numbers(connection, topic))
        return [TopicPartition(topic, number) for number in numbers]

    async def extents(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Extent]:
        """Return what each partition holds now."""

        def query(connection: apsw.Connection) -> dict[TopicPartition, Extent]:
            return {p: Extent(*known(connection, p)[1:]) for p in partitions}

        return await self.read(query)

    async def resolve(self, positions: Mapping[TopicPartition, Position]) -> Cursor:
        """Turn positions into next offsets."""

        def query(connection: apsw.Connection) -> list[tuple[TopicPartition, Next]]:
            return [(p, Next(_offset_of(connection, p, position))) for p, position in positions.items()]

        return Cursor(await self.read(query), cluster=self.cluster)

    async def fetch(self, partition: TopicPartition, start: int, stop: int, max_bytes: int) -> Block:
        """Return the records with start <= offset < stop, at once."""
        return await self.read(lambda connection: fetch(connection, partition, start, stop, max_bytes))

    async def last_timestamp(self, partition: TopicPartition, before: int) -> int | None:
        """Return the timestamp of the newest record with offset < `before`."""

        def query(connection: apsw.Connection) -> int | None:
            row = connection.execute(
                'SELECT timestamp FROM records WHERE partition = ? AND "offset" < ? ORDER BY "offset" DESC LIMIT 1',
                (known(connection, partition)[0], before),
            ).fetchone()
            return None if row is None else int(row[0])

        return await self.read(query)

    async def open_reader(self, offsets: Mapping[TopicPartition, int]) -> EmbeddedReader:
        """Open a reader at these offsets."""
        reader = EmbeddedReader(self)
        await reader.assign(offsets)
        return reader

    async def check(self, timeout: float) -> None:
        """Return when the log can be read."""
        try:
            async with asyncio.timeout(timeout):
                await self.read(lambda connection: connection.execute("SELECT 1 FROM partitions LIMIT 1").get)
        except TimeoutError as exc:
            raise LogUnavailable(f"the event log did not answer within {timeout} s") from exc


def known(connection: apsw.Connection, partition: TopicPartition) -> tuple[int, int, int]:
    """Return (id, earliest, next) of a partition. Raises: UnknownTopic."""
    row = storage.partition_row(connection, partition)
    if row is None:
        raise UnknownTopic(f"no partition {partition.partition} of topic {partition.topic!r} in the log")
    return row


def fetch(connection: apsw.Connection, partition: TopicPartition, start: int, stop: int, max_bytes: int) -> Block:
    """Read a block on this connection. Raises: UnknownTopic, OffsetOutOfRange."""
    with connection:
        # One read transaction: what retention removes meanwhile is either all here or out of range.
        block = _fetch(connection, partition, start, stop, max_bytes)
    return block  # noqa: RET504 - a return within the context is one that mypy takes for swallowed


def _fetch(connection: apsw.Connection, partition: TopicPartition, start: int, stop: int, max_bytes: int) -> Block:
    partition_id, earliest, end = known(connection, partition)
    if start < earliest:
        raise OffsetOutOfRange(partition, start, earliest)
    topic, number = partition
    records: list[Record] = []
    size = 0
    for offset, timestamp, value, key in storage.select(connection, partition_id, start, stop, FETCH_ROWS):
        records.append(Record(topic, number, offset, timestamp, value, key))
        size += len(value)
        if size >= max_bytes:
            return Block(records, offset + 1)
    if len(records) == FETCH_ROWS:
        return Block(records, records[-1].offset + 1)
    return Block(records, max(start, min(stop, end)))


def _offset_of(connection: apsw.Connection, partition: TopicPartition, position: Position) -> int:
    partition_id, earliest, end = known(connection, partition)
    match position:
        case AtOffset(offset):
            return offset
        case AtTime(timestamp):
            found = storage.offset_at_time(connection, partition_id, timestamp)
            return end if found is None else found
        case Edge.EARLIEST:
            return earliest
        case _:
            return end


def _resolve(future: asyncio.Future[None], error: LogError | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


@contextlib.asynccontextmanager
async def open_embedded(path: str, options: EmbeddedOptions | None = None) -> AsyncIterator[EmbeddedLog]:
    """Open the log in this file (made if missing, its folder too), or `:memory:`; closed when the context ends.

    Raises: ConfigurationError.
    """
    if path != ":memory:":
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise ConfigurationError(f"folder of log file {path} cannot be made: {exc}") from exc
    log = EmbeddedLog(path, options or EmbeddedOptions())
    await log.start()
    jobs = [asyncio.create_task(log.watch_others()), asyncio.create_task(log.expire_regularly())]
    try:
        yield log
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        await log.aclose()
