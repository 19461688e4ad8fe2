"""What is kept on local disk, from the event loop: counted, written together, forgotten once the log has it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import apsw

from eventstreams.metrics import Metrics
from eventstreams.records import NewRecord
from intake.spool_fates import Fates
from intake.spool_file import Fate, Kept, SpoolFile, open_files, size_of

logger = logging.getLogger(__name__)

T = TypeVar("T")

BATCH = 5000
BATCH_BYTES = 4 * 1024 * 1024


class SpoolStore:
    """The files of one process: those left behind by others, oldest first, then its own, which is written to."""

    def __init__(self, directory: Path, metrics: Metrics) -> None:
        self._directory = directory
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._files: Sequence[SpoolFile] = ()
        self._events: dict[str, int] = {}
        self.size = 0
        """Bytes that are kept."""
        self.fates = Fates()
        self._waiting: list[tuple[Sequence[Kept], asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Take over what is left. Raises: ConfigurationError for a directory that cannot be used."""
        self._files = await self._run(lambda: open_files(self._directory))
        for held in await self._run(lambda: [file.held() for file in self._files]):
            for topic, (events, size) in held.items():
                self._events[topic] = self._events.get(topic, 0) + events
                self.size += size
        self._tell()
        await self._tell_age()

    @property
    def topics(self) -> Collection[str]:
        """The topics of which something is kept."""
        return self._events.keys()

    def count(self, topic: str) -> int:
        """Return how many events of a topic are kept, or being written."""
        return self._events.get(topic, 0)

    async def put(self, new: Sequence[NewRecord], tried: Sequence[bool], fates: Sequence[Fate | None]) -> None:
        """Keep records; on disk on return, all or none. `fates` tell how attempts of them end. Raises: apsw.Error.

        They are counted before they are written: what comes in between goes behind them.
        """
        now = time.time_ns() // 1_000_000
        kept = [Kept(record, now, mark, fate=fate) for record, mark, fate in zip(new, tried, fates, strict=True)]
        self._add(kept, 1)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((kept, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="spool writer")
        # Shielded: what is in the queue is written, whether or not its caller still waits.
        await asyncio.shield(done)

    async def _write(self) -> None:
        """Write what waits: that of many callers in one transaction."""
        while self._waiting:
            batch, self._waiting = self._waiting, []
            error: apsw.Error | None = None
            try:
                await self._run(partial(self._put, self._files[-1], [one for kept, _ in batch for one in kept]))
            except apsw.Error as exc:
                error = exc
            for kept, done in batch:
                if error is None:
                    self._metrics.spooled(len(kept))
                    done.set_result(None)
                else:
                    self._add(kept, -1)
                    done.set_exception(error)
            await self._tell_age()

    def _put(self, file: SpoolFile, kept: Sequence[Kept]) -> None:
        """Write, and have the fates known before anybody can read what is written: in the spool's thread."""
        for one, seq in zip(kept, file.put(kept), strict=True):
            if one.fate is not None:
                self.fates.expect(file, seq, one.fate)

    async def first(self, topic: str) -> tuple[SpoolFile | None, Sequence[Kept]]:
        """Return a topic's oldest records and their file; None where they are only being written. Raises: apsw.Error"""

        def look() -> tuple[SpoolFile | None, Sequence[Kept]]:
            for file in self._files:
                kept = file.first(topic, BATCH, BATCH_BYTES)
                if kept:
                    return file, kept
            return None, []

        return await self._run(look)

    async def mark_tried(self, file: SpoolFile, kept: Sequence[Kept]) -> None:
        """Note durably that an append of these is begun. Raises: apsw.Error."""
        await self._run(partial(file.mark_tried, [one for one in kept if not one.tried]))

    async def forget(self, file: SpoolFile, stored: Sequence[Kept], refused: Sequence[tuple[Kept, str]] = ()) -> None:
        """Let go what the log has; put aside what it refuses for good, with the reason. Raises: apsw.Error."""
        await self._run(partial(file.remove, stored, refused))
        gone = [*stored, *(one for one, _ in refused)]
        self.fates.forget(file, gone)
        self._add(gone, -1)
        self._metrics.spool_replayed(len(stored))
        if refused:
            self._metrics.spool_refused(len(refused))
            logger.error("the log refuses spooled events", extra={"events": len(refused), "cause": refused[0][1]})
        await self._tell_age()

    async def shrink(self) -> None:
        """Give disk back. Raises: apsw.Error."""
        for file in self._files:
            await self._run(file.shrink)

    async def close(self) -> None:
        """Write what waits, then close; files that hold nothing are removed."""
        if self._writing is not None:
            await self._writing
        for file in self._files:
            await self._run(file.close)
        self._thread.shutdown(wait=False)

    async def _run(self, job: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, job)

    def _add(self, kept: Sequence[Kept], sign: int) -> None:
        for one in kept:
            topic = one.record.topic
            self._events[topic] = self._events.get(topic, 0) + sign
            self.size += sign * size_of(one.record)
            if not self._events[topic]:
                del self._events[topic]
        self._tell()

    def _tell(self) -> None:
        self._metrics.spool_holds(sum(self._events.values()), self.size)

    async def _tell_age(self) -> None:
        ages = [age for age in await self._run(lambda: [file.oldest() for file in self._files]) if age is not None]
        self._metrics.spool_oldest(min(ages) / 1000 if ages else None)
