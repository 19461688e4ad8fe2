"""The embedded log's writing thread."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import apsw

from eventstreams.errors import LogError
from eventstreams.eventlog.embedded import storage
from eventstreams.records import NewRecord, Record

_Job = Callable[[], None]
_Outcomes = list[Record | LogError]
_Pending = tuple[Sequence[NewRecord], asyncio.Future[_Outcomes]]


class EmbeddedWriter:
    """One thread that writes, and gathers what arrives meanwhile into one transaction."""

    def __init__(
        self,
        connection: apsw.Connection,
        turn: contextlib.AbstractContextManager[object],
        *,
        tell_others: Callable[[], None],
        ring: Callable[[], None],
    ) -> None:
        """Prepare to write on this connection, in turn with who else uses it; `start` begins.

        Args:
            connection: the writer's alone, or shared by all who take the turn.
            turn: held while a transaction is open.
            tell_others: called after each transaction with records, on the thread.
            ring: called after each append, on the loop.
        """
        self._connection = connection
        self._turn = turn
        self._appender = storage.Appender(connection)
        self._tell_others = tell_others
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Pending | _Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def aclose(self) -> None:
        """Write what was given, and end the thread."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    async def append(self, new: Sequence[NewRecord]) -> Sequence[Record | LogError]:
        """Append in one transaction, with what others append meanwhile. Raises: LogError; nothing is stored then."""
        future: asyncio.Future[_Outcomes] = self._loop.create_future()
        self._queue.put((new, future))
        # Shielded: what is in the queue is written, whether or not its caller still waits.
        return await asyncio.shield(future)

    async def run(self, job: Callable[[apsw.Connection], None]) -> None:
        """Run a job in a transaction of its own. Raises: LogError."""
        done: asyncio.Future[None] = self._loop.create_future()

        def run() -> None:
            error: LogError | None = None
            try:
                with self._transaction():
                    job(self._connection)
            except apsw.Error as exc:
                error = storage.unavailable(exc)
            self._loop.call_soon_threadsafe(_resolve, done, error)

        self._queue.put(run)
        await asyncio.shield(done)

    def _run(self) -> None:
        while True:
            first = self._queue.get()
            batch: list[_Pending] = []
            jobs: list[_Job] = []
            last = self._take(first, batch, jobs)
            while not last:
                try:
                    last = self._take(self._queue.get_nowait(), batch, jobs)
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
        outcome: list[_Outcomes] | LogError
        try:
            with self._transaction():
                outcome = [self._appender.append(new, now) for new, _ in batch]
            self._tell_others()
        except apsw.Error as exc:
            outcome = storage.unavailable(exc)
        self._loop.call_soon_threadsafe(self._settle, batch, outcome)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        connection = self._connection
        with self._turn:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _settle(self, batch: Sequence[_Pending], outcome: list[_Outcomes] | LogError) -> None:
        for number, (_, future) in enumerate(batch):
            if future.done():
                continue
            if isinstance(outcome, LogError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome[number])
        self._ring()


def _resolve(future: asyncio.Future[None], error: LogError | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
