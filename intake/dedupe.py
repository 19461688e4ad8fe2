"""Ids seen lately: an event that comes again gets the outcome of the first, and is not stored again."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from eventstreams.errors import AppendTimeout, LogError
from eventstreams.records import Record
from intake.outcome import DUPLICATE, DUPLICATE_SPOOLED, EventOutcome, Kind

Claim = asyncio.Future[EventOutcome]


PRUNED = 4
"""Ids looked at for each that comes: more go than come, and none waits for long."""


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
        """Forget the oldest; one that is under way, or whose fate is open, is passed by: it may be for long."""
        for _ in range(PRUNED):
            key, oldest = next(iter(self._seen.items()))
            if oldest.until > now and len(self._seen) <= self._max_ids:
                return
            if oldest.claim.done():
                del self._seen[key]
            else:
                self._seen.move_to_end(key)

    def settle(self, key: Key, outcome: EventOutcome | None, began: int) -> None:
        """Say what became of the first; unless it was stored, the next one with its id is a first again.

        Where that will be told later the next one waits for it. Where it is not known (None: it was given up) the next
        one is told of this attempt, begun at `began` ms.
        """
        held = self._seen[key]
        if outcome is None:
            held.claim.cancel()
        elif outcome.kind is Kind.ACCEPTED:
            held.claim.set_result(DUPLICATE_SPOOLED if outcome.spooled else DUPLICATE)
            return
        else:
            held.claim.set_result(outcome)
        if outcome is not None and outcome.fate is not None:
            again: Claim = asyncio.get_running_loop().create_future()
            self._seen[key] = held._replace(claim=again)
            outcome.fate.add_done_callback(partial(self._decided, key, began))
        else:
            self._free(key, None if outcome is not None and outcome.error_type != "AppendTimeout" else began)

    def _decided(self, key: Key, began: int, fate: asyncio.Future[Record | LogError]) -> None:
        claim, outcome = self._seen[key].claim, fate.result()
        if isinstance(outcome, Record):
            claim.set_result(DUPLICATE)
        else:
            claim.cancel()
            self._free(key, began if isinstance(outcome, AppendTimeout) else None)

    def _free(self, key: Key, began: int | None) -> None:
        """Have the next one be a first, and tell it of an attempt begun at `began` that may have been stored."""
        held = self._seen[key]
        doubts = [doubt for doubt in (held.doubt, began) if doubt is not None]
        if not doubts:
            del self._seen[key]
            return
        # Cancelled is what tells that the next one is a first.
        again: Claim = asyncio.get_running_loop().create_future()
        again.cancel()
        self._seen[key] = _Seen(held.until, again, min(doubts))

    async def outcome(self, first: Claim, event: Callable[[], object], timeout: float) -> EventOutcome:
        """Wait for the first event's outcome and return it for this one; `event` tells the event where it is told."""
        await asyncio.wait([first], timeout=timeout)
        if not first.done():
            return _unknown(event, "it is not known yet whether an earlier event of this id is stored")
        if first.cancelled():
            return _unknown(event, "an earlier event of this id was given up")
        outcome = first.result()
        # Its fate is the first one's to follow.
        return outcome if outcome.kind is Kind.ACCEPTED else dataclasses.replace(outcome, event=event(), fate=None)


def _unknown(event: Callable[[], object], words: str) -> EventOutcome:
    return EventOutcome(Kind.FAILED, event(), words, error_type="AppendTimeout", status=503)
