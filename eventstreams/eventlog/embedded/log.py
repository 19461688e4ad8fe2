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
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import apsw

from eventstreams.errors import ConfigurationError, LogError, LogUnavailable
from eventstreams.eventlog.base import Block, Extent, TopicDescription
from eventstreams.eventlog.embedded import queries, storage
from eventstreams.eventlog.embedded.bell import Bell, listening
from eventstreams.eventlog.embedded.reader import EmbeddedReader
from eventstreams.eventlog.embedded.writer import EmbeddedWriter
from eventstreams.positions import NO_IDENTITIES, Cursor, Next, Position
from eventstreams.records import NewRecord, Record, TopicPartition

logger = logging.getLogger(__name__)
T = TypeVar("T")

READERS = 2
"""Reading threads: SQLite releases the interpreter only within its calls, more would not be faster."""

EXPIRE_EVERY = 60.0
POLL_OTHERS = 0.02
"""Seconds between looks for what other processes appended, where they cannot tell: one pragma, a few microseconds."""

LOOK_ANYWAY = 1.0
"""The same where they do: for who dies between its commit and the bell."""

CHECKPOINT_PAGES = 4000

CHECK_SECONDS = 1.0
"""How long it counts that something could be written: each try is a synced write."""


@dataclass(frozen=True, slots=True)
class EmbeddedOptions:
    """Retention by the time of appending (seconds) and by each partition's bytes."""

    retention_age: float = 7 * 86400.0
    retention_bytes: int = 4 * 1024**3


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
        self._reads = ThreadPoolExecutor(READERS if self._shared else 1, "log reader", self._connect_reader)
        self._local = threading.local()
        self._connections: list[apsw.Connection] = []
        self._own: apsw.Connection | None = None
        """Of the event loop's thread: it waits for nobody."""
        self._bell: asyncio.Future[None] | None = None
        self._others: Bell | None = None
        self._closed = False
        self._file: tuple[int, int] | None = None
        """Device and inode of the file that is open."""
        self._file_is_gone = False
        self._lock: int | None = None
        self._checking: tuple[float, asyncio.Task[None] | None] = 0.0, None
        """When it was last tried to write something, and what came of it."""

    # -- open and close

    async def start(self) -> None:
        """Open the file, and the threads. Raises: ConfigurationError."""
        connection = self._connect()
        if self._shared:
            self._file = _file_at(self.path)
            self._others = Bell(self.path)
            self._own = self._connect()
            self._own.set_busy_timeout(0)
        self.cluster = storage.cluster(connection)
        connection.wal_autocheckpoint(CHECKPOINT_PAGES)
        tell_others = self._others.ring if self._others is not None else _no_others
        self._writer = EmbeddedWriter(connection, self._turn, tell_others=tell_others, ring=self.ring)
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
        await self._writer.aclose()
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
            self._look_at_file()
            now = connection.pragma("data_version")
            if now != version:
                version = now
                self.ring()

        # Deliberate: who rings has appended, there is no need to look.
        with listening(self.path, self.ring) as told:
            while True:
                await asyncio.sleep(LOOK_ANYWAY if told else POLL_OTHERS)
                look()

    def _look_at_file(self) -> None:
        """Notice that the file was removed, or another one put in its place.

        SQLite goes on with what it has open, which nobody else sees and which is gone with this process.
        """
        if not self._file_is_gone and _file_at(self.path) != self._file:
            logger.error("the log's file was removed or replaced", extra={"path": self.path})
            self._file_is_gone = True

    def _check_usable(self) -> None:
        """Raises: LogUnavailable."""
        if self._closed:
            raise LogUnavailable("the event log is closed")
        if self._file_is_gone:
            raise LogUnavailable(f"log file {self.path} was removed or replaced: start this process again")

    # -- writing

    async def append(self, new: Sequence[NewRecord]) -> Sequence[Record | LogError]:
        """Append in one transaction, together with what others append meanwhile: all stored, or none.

        But for those whose topic is not there: they are left out. See `EventLog`.
        """
        if not new:
            return []
        try:
            self._check_usable()
            return await self._writer.append(new)
        except LogError as exc:
            return [exc] * len(new)

    async def create_topic(self, topic: str, partitions: int = 1) -> None:
        """Make a topic; one that is there gets the partitions that it lacks."""
        await self._writer.run(lambda connection: storage.create_topic(connection, topic, partitions))

    async def delete_topic(self, topic: str) -> None:
        """Remove a topic with its records. One that is made under this name later has another identity."""
        await self._writer.run(lambda connection: storage.delete_topic(connection, topic))
        self.ring()

    async def delete_before(self, partition: TopicPartition, offset: int) -> None:
        """Remove the records of a partition below an offset."""
        partition_id = (await self.read(lambda connection: queries.known(connection, partition))).id
        await self._writer.run(lambda connection: storage.delete_before(connection, partition_id, offset))

    async def expire(self) -> None:
        """Apply the retention now."""
        before = int((time.time() - self.options.retention_age) * 1000)
        await self._writer.run(lambda connection: storage.expire(connection, before, self.options.retention_bytes))

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

        self._check_usable()
        return await asyncio.get_running_loop().run_in_executor(self._reads, run)

    async def describe(self, topics: Collection[str]) -> Mapping[str, TopicDescription]:
        """Return those of the topics that there are; see `EventLog`."""

        def query(connection: apsw.Connection) -> dict[str, TopicDescription]:
            found = ((topic, storage.describe(connection, topic)) for topic in topics)
            return {topic: one for topic, one in found if one is not None}

        return await self.read(query)

    async def partitions(self, topic: str) -> Sequence[TopicPartition]:
        """Return a topic's partitions, ascending; empty when there is no such topic."""
        found = (await self.describe([topic])).get(topic)
        return found.partitions if found else []

    async def extents(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Extent]:
        """Return what each partition holds now."""

        def query(connection: apsw.Connection) -> dict[TopicPartition, Extent]:
            rows = {partition: queries.known(connection, partition) for partition in partitions}
            return {partition: Extent(row.earliest, row.next) for partition, row in rows.items()}

        return await self.read(query)

    async def resolve(self, positions: Mapping[TopicPartition, Position]) -> Cursor:
        """Turn positions into next offsets."""

        def query(connection: apsw.Connection) -> list[tuple[TopicPartition, Next]]:
            return [(p, Next(queries.offset_of(connection, p, position))) for p, position in positions.items()]

        return Cursor(await self.read(query), cluster=self.cluster)

    async def fetch(
        self, partition: TopicPartition, start: int, stop: int, max_bytes: int, identity: str = ""
    ) -> Block:
        """Return the records with start <= offset < stop, at once; see `EventLog`."""
        return await self.read(
            lambda connection: queries.fetch(connection, partition, start, stop, max_bytes, identity)
        )

    def fetch_fresh(
        self, partition: TopicPartition, start: int, stop: int, max_bytes: int, identity: str = ""
    ) -> Block | None:
        """Return what `fetch` does, from this thread; None where that would have to wait for others.

        For a few records just appended, which the system holds in memory: a thread would cost several times the
        query, in switches alone.

        Raises: UnknownTopic, TopicReplaced, OffsetOutOfRange, LogUnavailable.
        """
        if self._own is None or self._closed or self._file_is_gone:
            return None
        try:
            return queries.fetch(self._own, partition, start, stop, max_bytes, identity)
        except (apsw.BusyError, apsw.LockedError):
            return None
        except apsw.Error as exc:
            raise storage.unavailable(exc) from exc

    async def last_timestamp(self, partition: TopicPartition, before: int) -> int | None:
        """Return the timestamp of the newest record with offset < `before`."""

        def query(connection: apsw.Connection) -> int | None:
            row = connection.execute(
                'SELECT timestamp FROM records WHERE partition = ? AND "offset" < ? ORDER BY "offset" DESC LIMIT 1',
                (queries.known(connection, partition).id, before),
            ).fetchone()
            return None if row is None else int(row[0])

        return await self.read(query)

    async def open_reader(
        self, offsets: Mapping[TopicPartition, int], identities: Mapping[str, str] = NO_IDENTITIES
    ) -> EmbeddedReader:
        """Open a reader at these offsets; see `EventLog`."""
        reader = EmbeddedReader(self)
        await reader.assign(offsets, identities)
        return reader

    async def reached(self) -> None:
        """Return at once: a file is there, or it was not opened."""

    async def check(self, timeout: float, topics: Collection[str] | None = None, *, writing: bool = False) -> None:
        """Return when the log can be read and, where `writing`, written to; its topics are all in one file."""
        try:
            async with asyncio.timeout(timeout):
                await self.read(lambda connection: connection.execute("SELECT 1 FROM partitions LIMIT 1").get)
                if writing:
                    await self._writable()
        except TimeoutError as exc:
            raise LogUnavailable(f"the event log did not answer within {timeout} s") from exc

    async def _writable(self) -> None:
        """Write something, for all who ask within `CHECK_SECONDS` once. Raises: LogUnavailable."""
        began, checking = self._checking
        if checking is None or (checking.done() and time.monotonic() - began >= CHECK_SECONDS):
            checking = asyncio.create_task(self._writer.run(storage.write_something), name="log check")
            checking.add_done_callback(_take)
            self._checking = time.monotonic(), checking
        await asyncio.shield(checking)


def _take(checking: asyncio.Task[None]) -> None:
    """Have an error count as seen: who asked may have gone."""
    if not checking.cancelled():
        checking.exception()


def _file_at(path: str) -> tuple[int, int] | None:
    """Return device and inode of what is at a path; None where nothing is."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _no_others() -> None:
    """A log in memory has one process."""


@contextlib.asynccontextmanager
async def open_embedded(path: str, options: EmbeddedOptions | None = None) -> AsyncIterator[EmbeddedLog]:
    """Open the log in this file (made if missing, its folder too), or `:memory:`; closed when the context ends.

    Raises: ConfigurationError.
    """
    if path != ":memory:":
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise ConfigurationError(f"folder of log file {path} cannot be made: {exc.strerror}") from exc
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
