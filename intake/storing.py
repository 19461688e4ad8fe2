"""Prepared events to the log, and what became of each: one append a batch, repeated ids left out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

import orjson

from eventstreams.errors import LogError, LogUnavailable
from eventstreams.eventlog.base import EventLog
from eventstreams.records import Record
from intake import paths
from intake.dedupe import Claim, Deduplication, Key
from intake.lookback import records_since
from intake.options import IntakeOptions
from intake.outcome import ACCEPTED, DUPLICATE, SPOOLED, EventOutcome, failed
from intake.preparing import Prepared
from intake.spool import Outcome, Spool

SKEW = 5_000
"""Milliseconds by which clocks of brokers may differ from ours, where they stamp records."""

SEARCH_SECONDS = 3.0
"""In which the log must have been searched for an earlier attempt: its producer waits."""


class Storage:
    """Appends to the log, by way of the spool where there is one."""

    def __init__(self, log: EventLog, spool: Spool | None, options: IntakeOptions) -> None:
        self._log = log
        self._sink = spool or log
        self.options = options
        self._seen = Deduplication(options.deduplication_ids)

    async def append(self, prepared: Sequence[Prepared]) -> Sequence[EventOutcome]:
        """Return what became of each, in their order, once all is settled."""
        if not any(one.plan.deduplication for one in prepared):
            return await self._store(prepared)
        deadline = time.monotonic() + self.options.produce_timeout + SEARCH_SECONDS
        keys = {number: key for number, one in enumerate(prepared) if (key := self._key(one)) is not None}
        outcomes: dict[int, EventOutcome] = {}
        repeated, doubts, began = self._claim(prepared, keys)
        try:
            outcomes.update(await self._found(prepared, keys, doubts))
            fresh = [number for number in range(len(prepared)) if number not in repeated and number not in outcomes]
            stored = await self._store([prepared[number] for number in fresh])
            outcomes.update(zip(fresh, stored, strict=True))
        finally:
            for number in keys.keys() - repeated.keys():
                self._seen.settle(keys[number], outcomes.get(number), began)
        for number, first in repeated.items():
            left = max(0.0, deadline - time.monotonic())
            outcomes[number] = await self._seen.outcome(first, prepared[number].event, left)
        return [outcomes[number] for number in range(len(prepared))]

    def _key(self, one: Prepared) -> Key | None:
        return Key(one.plan.name, one.identity) if isinstance(one.identity, str) else None

    def _claim(
        self, prepared: Sequence[Prepared], keys: Mapping[int, Key]
    ) -> tuple[dict[int, Claim], dict[int, int], int]:
        """Return the numbers that repeat an earlier event, those whose earlier attempt is in doubt, and the time."""
        repeated: dict[int, Claim] = {}
        doubts: dict[int, int] = {}
        for number, key in keys.items():
            first, doubt = self._seen.claim(key, prepared[number].plan.deduplication)
            if first is not None:
                repeated[number] = first
            elif doubt is not None:
                doubts[number] = doubt
        return repeated, doubts, time.time_ns() // 1_000_000

    async def _found(
        self, prepared: Sequence[Prepared], keys: Mapping[int, Key], doubts: Mapping[int, int]
    ) -> Mapping[int, EventOutcome]:
        """Return the outcomes of those that the log holds by an earlier attempt, or that it cannot be asked for."""
        outcomes: dict[int, EventOutcome] = {}
        for topic in {prepared[number].record.topic for number in doubts}:
            numbers = [number for number in doubts if prepared[number].record.topic == topic]
            wanted = {keys[number].identity: number for number in numbers}
            since = min(doubts[number] for number in numbers) - SKEW
            try:
                async with asyncio.timeout(SEARCH_SECONDS):
                    outcomes |= dict.fromkeys(await self._held(topic, since, wanted), DUPLICATE)
            except (LogError, TimeoutError) as exc:
                cause = exc.message if isinstance(exc, LogError) else f"not searched in {SEARCH_SECONDS:g} s"
                away = LogUnavailable(f"an earlier attempt may have been stored, and the log cannot be asked: {cause}")
                outcomes.update({number: failed(prepared[number].event(), away) for number in numbers})
        return outcomes

    async def _held(self, topic: str, since: int, wanted: Mapping[str, int]) -> set[int]:
        """Return the numbers of the ids that a topic holds. Raises: LogError."""
        found: set[int] = set()
        async for record in records_since(self._log, topic, since):
            number = wanted.get(self._identity(record) or "")
            if number is not None:
                found.add(number)
        return found

    def _identity(self, record: Record) -> str | None:
        try:
            identity = paths.get(orjson.loads(record.value), self.options.id_field)
        except orjson.JSONDecodeError:
            return None
        return identity if isinstance(identity, str) else None

    async def _store(self, prepared: Sequence[Prepared]) -> Sequence[EventOutcome]:
        results: Sequence[Outcome] = []
        if prepared:
            results = await self._sink.append([one.record for one in prepared])
        return [
            ACCEPTED if isinstance(result, Record) else _outcome(one, result)
            for one, result in zip(prepared, results, strict=True)
        ]


def _outcome(one: Prepared, result: Outcome) -> EventOutcome:
    return failed(one.event(), result, "Error") if isinstance(result, LogError) else SPOOLED
