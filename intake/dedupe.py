"""Ids seen lately: an event that comes again gets the outcome of the first, and is not stored again."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from intake.outcome import DUPLICATE, DUPLICATE_SPOOLED, EventOutcome, Kind

Claim = asyncio.Future[EventOutcome]


class Key(NamedTuple):
    """What is not to be stored twice."""

    stream: str
    identity: str


class _Seen(NamedTuple):
    until: float
    claim: Claim
    doubt: int | None = None
    """When an attempt began of which it is not known whether it was stored: ms since the epoch."""


class Deduplication:
    """Remembers ids for the window of their stream, within this process.

    At most `max_ids`, of which about 3 million fit into 1 GB: the oldest go first, but for those still under way.
    """

    def __init__(self, max_ids: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_ids = max_ids
        self._clock = clock
        self._seen: OrderedDict[Key, _Seen] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def claim(self, key: Key, window: float) -> tuple[Claim | None, int | None]:
        """Return the outcome-to-be of an earlier event of this id; else None: the caller's is the first.

        The caller settles it. It is told since when (ms) an earlier attempt may have been stored, or None.
        """
        now = self._clock()
        held = self._seen.pop(key, None)
        if held is not None and held.until <= now and held.claim.done():
            held = None
        if held is not None and not held.claim.cancelled():
            self._seen[key] = held
            return held.claim, None
        doubt = None if held is None else held.doubt
        self._seen[key] = _Seen(now + window, asyncio.get_running_loop().create_future(), doubt)
        self._prune(now)
        return None, doubt

    def _prune(self, now: float) -> None:
        while self._seen:
            oldest = next(iter(self._seen.values()))
            if not oldest.claim.done() or (oldest.until > now and len(self._seen) <= self._max_ids):
                return
            self._seen.popitem(last=False)

    def settle(self, key: Key, outcome: EventOutcome | None, began: int) -> None:
        """Say what became of the first; unless it was stored, the next one with its id is a first again.

        Where that is not known (None: it was given up) the next one is told of this attempt, begun at `began` ms.
        """
        held = self._seen[key]
        if outcome is not None and outcome.kind is Kind.ACCEPTED:
            held.claim.set_result(DUPLICATE_SPOOLED if outcome.spooled else DUPLICATE)
            return
        if outcome is None:
            held.claim.cancel()
        else:
            held.claim.set_result(outcome)
        known = outcome is not None and outcome.error_type != "AppendTimeout"
        doubt = held.doubt if known else min(began, held.doubt or began)
        if doubt is None:
            del self._seen[key]
        else:
            # Cancelled is what tells that the next one is a first.
            again: Claim = asyncio.get_running_loop().create_future()
            again.cancel()
            self._seen[key] = _Seen(held.until, again, doubt)

    async def outcome(self, first: Claim, event: Callable[[], object]) -> EventOutcome:
        """Wait for the first event's outcome and return it for this one; `event` tells the event where it is told."""
        await asyncio.wait([first])
        if first.cancelled():
            return EventOutcome(
                Kind.FAILED, event(), "an earlier event of this id was given up", error_type="AppendTimeout", status=503
            )
        outcome = first.result()
        return outcome if outcome.kind is Kind.ACCEPTED else dataclasses.replace(outcome, event=event())
