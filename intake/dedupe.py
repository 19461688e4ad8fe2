"""Ids seen lately: an event that comes again gets the outcome of the first, and is not stored again."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import OrderedDict
from typing import Any

from intake.outcome import DUPLICATE, EventOutcome, Kind

MAX_IDS = 1_000_000
"""About 300 MB at most; the oldest go first."""

Claim = asyncio.Future[EventOutcome]


class Deduplication:
    """Remembers ids for the window of their stream, within this process."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, str], tuple[float, Claim]] = OrderedDict()
        self._keys: dict[Claim, tuple[str, str]] = {}

    def claim(self, stream: str, identity: str, window: float) -> tuple[Claim | None, Claim]:
        """Return the outcome-to-be of an earlier event of this id, or None and a claim to be settled."""
        key = stream, identity
        now = time.monotonic()
        held = self._seen.get(key)
        if held is not None and (held[0] > now or not held[1].done()):
            return held[1], held[1]
        claim: Claim = asyncio.get_running_loop().create_future()
        self._seen[key] = now + window, claim
        self._seen.move_to_end(key)
        self._keys[claim] = key
        while len(self._seen) > MAX_IDS:
            self._seen.popitem(last=False)
        return None, claim

    def settle(self, claim: Claim, outcome: EventOutcome | None) -> None:
        """Say what became of the first; unless it was stored, the next one with its id is a first again."""
        key = self._keys.pop(claim)
        if outcome is None:
            claim.cancel()
        else:
            claim.set_result(DUPLICATE if outcome.kind is Kind.ACCEPTED else outcome)
        held = self._seen.get(key)
        if (outcome is None or outcome.kind is not Kind.ACCEPTED) and held is not None and held[1] is claim:
            del self._seen[key]

    async def outcome(self, first: Claim, event: Any) -> EventOutcome:
        """Wait for the first event's outcome and return it for this one."""
        try:
            outcome = await asyncio.shield(first)
        except asyncio.CancelledError:
            if not first.cancelled():
                raise
            return EventOutcome(
                Kind.FAILED, event, "an earlier event of this id was given up", error_type="Error", status=503
            )
        return outcome if outcome.kind is Kind.ACCEPTED else dataclasses.replace(outcome, event=event)
