"""Prepared events to the log, and what became of each: one append a batch, repeated ids left out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from eventstreams.errors import LogError
from eventstreams.eventlog.base import EventLog
from intake import paths
from intake.dedupe import Deduplication
from intake.options import IntakeOptions
from intake.outcome import ACCEPTED, EventOutcome, failed
from intake.preparing import Prepared


class Storage:
    """Appends to the log."""

    def __init__(self, log: EventLog, options: IntakeOptions) -> None:
        self._log = log
        self.options = options
        self._seen = Deduplication()

    async def append(self, prepared: Sequence[Prepared]) -> Sequence[EventOutcome]:
        """Return what became of each, in their order, once all is settled."""
        repeated: dict[int, asyncio.Future[EventOutcome]] = {}
        fresh: list[int] = []
        claims: dict[int, asyncio.Future[EventOutcome]] = {}
        for number, one in enumerate(prepared):
            identity = paths.get(one.event, self.options.id_field) if one.plan.deduplication else None
            if not isinstance(identity, str):
                fresh.append(number)
                continue
            first, claim = self._seen.claim(one.plan.name, identity, one.plan.deduplication)
            if first is not None:
                repeated[number] = first
            else:
                fresh.append(number)
                claims[number] = claim
        outcomes: dict[int, EventOutcome] = {}
        try:
            stored = await self._store([prepared[number] for number in fresh])
            outcomes.update(zip(fresh, stored, strict=True))
        finally:
            for number, claim in claims.items():
                self._seen.settle(claim, outcomes.get(number))
        for number, first in repeated.items():
            outcomes[number] = await self._seen.outcome(first, prepared[number].event)
        return [outcomes[number] for number in range(len(prepared))]

    async def _store(self, prepared: Sequence[Prepared]) -> Sequence[EventOutcome]:
        results = await self._log.append([one.record for one in prepared]) if prepared else []
        return [
            failed(one.event, result, "Error") if isinstance(result, LogError) else ACCEPTED
            for one, result in zip(prepared, results, strict=True)
        ]
