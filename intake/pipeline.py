"""From parsed events to outcomes: look up, stamp, check, route, append. No HTTP here.

Way of a batch: cold schemas are loaded first, then every event is prepared without waiting, then all go to the log in
one append. What is appended is what was checked: nothing touches an event after its validation.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Sequence
from functools import lru_cache
from typing import Any

from eventstreams.catalog.streams import StreamCatalog
from eventstreams.eventlog.base import EventLog
from eventstreams.metrics import Metrics
from eventstreams.records import Record
from eventstreams.schemas.validation import Validators
from intake.counting import Counting
from intake.envelope import Caller
from intake.error_events import error_event
from intake.in_flight import InFlight, Reservation
from intake.options import IntakeOptions
from intake.outcome import ACCEPTED, BatchOutcome, EventOutcome, Kind
from intake.preparing import Preparation, Prepared
from intake.spool import Spool
from intake.storing import Storage

logger = logging.getLogger(__name__)

BREATH = 200
"""Events prepared in one go: others get their turn after some milliseconds of a large batch."""


TELL_SECONDS = 1.0
"""Between two log lines of lost hasty events."""


class Intake:
    """Takes events for an event log. Open it before use; closing waits for what is in flight."""

    def __init__(
        self,
        log: EventLog,
        validators: Validators,
        catalog: StreamCatalog | None,
        options: IntakeOptions,
        metrics: Metrics,
        spool: Spool | None = None,
    ) -> None:
        self.options = options
        self._metrics = metrics
        self._preparation = Preparation(validators, catalog, options)
        self._storage = Storage(log, spool, options)
        self._counting = Counting(metrics, validators, catalog, options)
        self._background: set[asyncio.Task[None]] = set()
        self._untold = 0
        self._telling: asyncio.TimerHandle | None = None
        self.in_flight = InFlight(options.max_in_flight_bytes, metrics)

    @contextlib.asynccontextmanager
    async def open(self, grace: float) -> AsyncIterator[Intake]:
        """Take events while the context lasts; on leaving wait `grace` seconds for what was begun."""
        try:
            yield self
        finally:
            await self._finish(grace)
            self._tell_lost()

    async def drain(self, grace: float) -> None:
        """Refuse new requests, and return when those under way are settled, hasty ones too, or after `grace` s."""
        self.in_flight.draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self.in_flight.settled()
                if self._background:
                    await asyncio.wait(self._background)

    async def _finish(self, grace: float) -> None:
        deadline = time.monotonic() + grace
        while self._background:
            left = deadline - time.monotonic()
            _, pending = await asyncio.wait(self._background, timeout=max(left, 0.0))
            if pending and left <= 0:
                logger.error("events in flight were given up", extra={"tasks": len(pending)})
                for task in pending:
                    task.cancel()
                await asyncio.wait(pending)
                return

    async def submit(self, events: list[Any], caller: Caller, *, dry_run: bool = False) -> BatchOutcome:
        """Return what became of each event, when all is settled: never raises for what an event holds.

        The events are taken out of the list as they are prepared: while they wait for the log their bytes are enough.
        With `dry_run` the outcomes are those up to the log, and nothing is stored.
        """
        now = _now()
        batch = await self._settle(events, caller, now, dry_run=dry_run)
        if not dry_run:
            self._tell_error_stream(batch, caller, now)
        return batch

    def submit_later(self, events: list[Any], caller: Caller, reserved: Reservation) -> None:
        """Take events in the background, where their room is held on to; losses are counted and logged."""
        self._spawn(self._submit_hasty(events, caller, reserved.hand_on()), "hasty events")

    async def _submit_hasty(self, events: list[Any], caller: Caller, reserved: Reservation) -> None:
        lost = len(events)
        try:
            with reserved:
                batch = await self.submit(events, caller)
            lost = len(batch.undecided)
            self._lost(batch.counts[Kind.FAILED] - lost)
            lost = await _not_stored(batch)
        finally:
            # Who is not waited for to the end is taken for lost.
            self._lost(lost)

    def _lost(self, events: int) -> None:
        """Count lost hasty events; the log tells once in a while: while Kafka is away there are many."""
        if not events:
            return
        self._metrics.hasty_lost(events)
        self._untold += events
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(TELL_SECONDS, self._tell_lost)

    def _tell_lost(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
            logger.error("hasty events were lost", extra={"events": self._untold})
            self._untold = 0

    def _spawn(self, work: Any, name: str) -> None:
        task = asyncio.create_task(self._guarded(work), name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _guarded(self, work: Any) -> None:
        try:
            await work
        except Exception:
            logger.exception("background work failed")
            self._metrics.intake_background_failed()

    async def _settle(self, events: list[Any], caller: Caller, now: int, *, dry_run: bool) -> BatchOutcome:
        uris = self._preparation.schema_uris(events, caller)
        validators = await self._preparation.load_all(uris)
        stamp = _iso(now)
        found: list[Prepared | EventOutcome] = []
        for number, uri in enumerate(uris):
            event, events[number] = events[number], None
            validator = validators.get(uri) if isinstance(uri, str) else None
            found.append(self._preparation.prepare(event, caller, uri, validator, stamp, now))
            if number % BREATH == BREATH - 1:
                await asyncio.sleep(0)
        prepared = [one for one in found if isinstance(one, Prepared)]
        outcomes = iter([ACCEPTED] * len(prepared) if dry_run else await self._storage.append(prepared))
        batch = BatchOutcome([next(outcomes) if isinstance(one, Prepared) else one for one in found])
        self._counting.count(found, batch)
        return batch

    def _tell_error_stream(self, batch: BatchOutcome, caller: Caller, now: int) -> None:
        if self.options.error_stream is None:
            return
        told = [
            outcome
            for outcome in batch.outcomes
            if outcome.kind is not Kind.ACCEPTED and outcome.error_type in self.options.error_reasons
        ]
        if told:
            self._spawn(self._append_error_events(told, caller, now), "error events")

    async def _append_error_events(self, told: Sequence[EventOutcome], caller: Caller, now: int) -> None:
        events = [error_event(outcome, _iso(now), self.options) for outcome in told]
        batch = await self._settle(events, caller, _now(), dry_run=False)
        lost = [outcome for outcome in batch.outcomes if outcome.kind is not Kind.ACCEPTED]
        if lost:
            self._metrics.error_events_lost(len(lost))
            logger.error("error events were lost", extra={"events": len(lost), "cause": lost[0].message[:500]})


async def _not_stored(batch: BatchOutcome) -> int:
    """Wait until the log has told of what it did not acknowledge in time; return how many are not stored."""
    if not batch.undecided:
        return 0
    await asyncio.wait(batch.undecided)
    return sum(not isinstance(fate.result(), Record) for fate in batch.undecided)


def _now() -> int:
    return time.time_ns() // 1_000_000


def _iso(ms: int) -> str:
    seconds, rest = divmod(ms, 1000)
    return f"{_iso_second(seconds)}.{rest:03d}Z"


@lru_cache(maxsize=4)
def _iso_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
