"""Sending on what the spool keeps, when the log is back.

Once: a record leaves the spool when the log has acknowledged it. Where an append was begun and its end is not known (a
timeout, a crash), the log is searched before the record is sent again; while it may still be told, it is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Sequence

import apsw

from eventstreams.errors import LogError, RecordTooLarge
from eventstreams.eventlog.base import EventLog
from eventstreams.metrics import Metrics
from eventstreams.records import Record
from intake.lookback import stored_already
from intake.spool import Spool, SpoolOptions
from intake.spool_file import Kept, SpoolFile
from intake.spool_store import SpoolStore

logger = logging.getLogger(__name__)

CHECK_TIMEOUT = 2.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
SKEW = 5_000
"""Milliseconds by which clocks of brokers may differ from ours, where they stamp records."""

LONG_AGO = 3_600_000
"""Milliseconds before its arrival from which on a record is looked for at most: its own time may be years back."""


class Replay:
    """Empties a spool, topic by topic. Run by one task."""

    def __init__(self, spool: Spool, metrics: Metrics) -> None:
        self._spool = spool
        self._store = spool.store
        self._metrics = metrics
        self._held: dict[str, tuple[float, float]] = {}
        """Until when a topic rests that took nothing, and for how long."""
        self._closing = asyncio.Event()

    def end(self) -> None:
        """Have `run` return after the batch that is being sent."""
        self._closing.set()
        self._spool.filled.set()

    async def run(self) -> None:
        """Send on whatever is kept, until `end`."""
        pause = FIRST_PAUSE
        while not self._closing.is_set():
            await self._spool.filled.wait()
            if await self._went():
                pause = FIRST_PAUSE
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _went(self) -> bool:
        try:
            return await self._reachable() and await self._send_some()
        except Exception:
            logger.exception("the spool could not be sent on")
            self._metrics.intake_background_failed()
            return False

    async def _reachable(self) -> bool:
        try:
            await self._spool.log.check(CHECK_TIMEOUT)
        except LogError:
            self._spool.away = bool(self._store.topics)
            return False
        self._spool.away = False
        return True

    async def _send_some(self) -> bool:
        """Send a batch of each topic; return whether anything went."""
        went = False
        for topic in list(self._store.topics):
            until, pause = self._held.get(topic, (0.0, FIRST_PAUSE))
            if time.monotonic() < until or self._closing.is_set():
                continue
            if await self._moved(topic):
                self._held.pop(topic, None)
                went = True
            else:
                self._held[topic] = time.monotonic() + pause, min(2 * pause, LONGEST_PAUSE)
        if not self._store.topics and not self._closing.is_set():
            self._spool.filled.clear()
            await self._store.shrink()
        return went

    async def _moved(self, topic: str) -> bool:
        try:
            file, kept = await self._store.first(topic)
            if file is None:
                return False
            if len(kept) < self._store.count(topic):
                return await self._send(file, kept)
            with self._spool.handover(topic):
                return await self._send(file, kept)
        except (LogError, apsw.Error) as exc:
            logger.warning("spooled events wait", extra={"topic": topic, "cause": str(exc)})
            return False

    async def _send(self, file: SpoolFile, kept: Sequence[Kept]) -> bool:
        """Send a topic's oldest records; return whether they went. Raises: LogError, apsw.Error."""
        stored, kept = self._store.fates.sorted(file, kept)
        if stored:
            await self._store.forget(file, stored)
        kept = await self._without_stored(file, kept)
        if not kept:
            return bool(stored)
        await self._store.mark_tried(file, kept)
        outcomes = await self._spool.log.append([one.record for one in kept])
        await self._note(file, list(zip(kept, outcomes, strict=True)))
        return True

    async def _note(self, file: SpoolFile, sent: Sequence[tuple[Kept, Record | LogError]]) -> None:
        """Forget what is stored or refused for good. Raises: LogError for the first of the others."""
        stored = [one for one, outcome in sent if isinstance(outcome, Record)]
        refused = [(one, outcome.message) for one, outcome in sent if isinstance(outcome, RecordTooLarge)]
        failed = [
            (one, outcome)
            for one, outcome in sent
            if isinstance(outcome, LogError) and not isinstance(outcome, RecordTooLarge)
        ]
        for one, outcome in failed:
            self._store.fates.note(file, one.seq, outcome)
        await self._store.forget(file, stored, refused)
        if failed:
            raise failed[0][1]

    async def _without_stored(self, file: SpoolFile, kept: Sequence[Kept]) -> Sequence[Kept]:
        """Forget those that the log holds already; return the others."""
        tried = [one for one in kept if one.tried]
        if not tried:
            return kept
        since = min(map(self._since, tried))
        numbers = await stored_already(self._spool.log, [one.record for one in tried], since)
        stored = [tried[number] for number in sorted(numbers)]
        await self._store.forget(file, stored)
        gone = {one.seq for one in stored}
        return [one for one in kept if one.seq not in gone]

    def _since(self, kept: Kept) -> int:
        begun = kept.arrived - int(self._spool.options.produce_timeout * 1000) - SKEW
        stamped = begun if kept.record.timestamp is None else kept.record.timestamp
        return max(min(begun, stamped), kept.arrived - LONG_AGO)


@contextlib.asynccontextmanager
async def open_spool(log: EventLog, options: SpoolOptions, metrics: Metrics) -> AsyncIterator[Spool]:
    """Keep and send on while the context lasts. Raises: ConfigurationError for a directory that cannot be used.

    On leaving, the batch that is being sent is waited for; what is still kept is sent on after the next start.
    """
    store = SpoolStore(options.directory, metrics)
    await store.open()
    spool = Spool(log, store, options)
    if store.topics:
        logger.info("events were left in the spool", extra={"events": sum(map(store.count, store.topics))})
        spool.filled.set()
    replay = Replay(spool, metrics)
    replaying = asyncio.create_task(replay.run(), name="spool replay")
    try:
        yield spool
    finally:
        replay.end()
        _, late = await asyncio.wait([replaying], timeout=options.produce_timeout + 1.0)
        for task in late:
            task.cancel()
        await asyncio.gather(replaying, return_exceptions=True)
        await store.close()
