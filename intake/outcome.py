"""What became of events: outcomes are values, the HTTP status follows from their counts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from eventstreams.errors import AppendTimeout, EventStreamsError, LogError
from eventstreams.records import Record

RETRY_AFTER = 1.0
"""Seconds told to a producer when the log or our memory is full for the moment."""


class Kind(Enum):
    """Accepted: stored. Invalid: the event breaks its schema. Failed: anything else."""

    ACCEPTED = "accepted"
    INVALID = "invalid"
    FAILED = "error"


@dataclass(frozen=True, slots=True)
class EventOutcome:
    """What became of one event; `event` is as it was checked, with what intake filled in."""

    kind: Kind
    event: Any = None
    message: str = ""
    errors: Sequence[Any] = ()
    """AJV's list, for an invalid one."""
    error_type: str = ""
    """The class of error, as metrics and error events name it."""
    status: int = 500
    """What a batch of nothing but this failure is answered with: 400, 500 or 503."""
    duplicate: bool = False
    """Acknowledged with the outcome of an earlier event of the same id, and not stored again."""
    spooled: bool = False
    """Kept on local disk until the log is back."""
    fate: asyncio.Future[Record | LogError] | None = None
    """What will tell whether a failed one is stored after all; see `AppendTimeout`."""

    def body(self) -> dict[str, Any]:
        """Return the item as an answer shows it."""
        if self.kind is Kind.INVALID:
            context: dict[str, Any] = {"errors": list(self.errors), "errorsText": self.message}
        else:
            context = {"message": self.message}
        return {"status": self.kind.value, "event": self.event, "context": context}


ACCEPTED = EventOutcome(Kind.ACCEPTED)
DUPLICATE = EventOutcome(Kind.ACCEPTED, duplicate=True)
SPOOLED = EventOutcome(Kind.ACCEPTED, spooled=True)
DUPLICATE_SPOOLED = EventOutcome(Kind.ACCEPTED, duplicate=True, spooled=True)


def failed(event: object, exc: EventStreamsError | str, error_type: str = "Error") -> EventOutcome:
    """Return the outcome of an event that could not be taken, through no fault against its schema."""
    if isinstance(exc, str):
        return EventOutcome(Kind.FAILED, event, exc, error_type=error_type)
    fate = exc.fate if isinstance(exc, AppendTimeout) else None
    return EventOutcome(Kind.FAILED, event, exc.message, error_type=type(exc).__name__, status=exc.status, fate=fate)


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """The outcomes of a request's events, in their order."""

    outcomes: Sequence[EventOutcome]
    counts: dict[Kind, int] = field(init=False)

    def __post_init__(self) -> None:
        stored = sum(outcome is ACCEPTED for outcome in self.outcomes)
        counts = {Kind.ACCEPTED: stored, Kind.INVALID: 0, Kind.FAILED: 0}
        if stored < len(self.outcomes):
            for outcome in self.outcomes:
                counts[outcome.kind] += outcome is not ACCEPTED
        object.__setattr__(self, "counts", counts)

    @property
    def undecided(self) -> Sequence[asyncio.Future[Record | LogError]]:
        """What will tell of the failed ones that may be stored after all."""
        return [outcome.fate for outcome in self.outcomes if outcome.fate is not None]

    @property
    def status(self) -> int:
        """201 all stored; 202 all accepted, some on local disk; 400 all theirs; 207 some stored; else 500 or 503."""
        accepted, invalid = self.counts[Kind.ACCEPTED], self.counts[Kind.INVALID]
        total = len(self.outcomes)
        if accepted == total:
            return 202 if any(outcome.spooled for outcome in self.outcomes) else 201
        if accepted:
            return 207
        if invalid == total:
            return 400
        statuses = {outcome.status for outcome in self.outcomes if outcome.kind is Kind.FAILED}
        if 503 in statuses:
            return 503
        return 400 if statuses == {400} else 500

    @property
    def reason(self) -> str:
        """The sentence for logs, and for a reason phrase where the server can send one."""
        total, accepted = len(self.outcomes), self.counts[Kind.ACCEPTED]
        invalid, errored = self.counts[Kind.INVALID], self.counts[Kind.FAILED]
        if accepted == total:
            return f"All {accepted} out of {total} events were accepted."
        if invalid == total:
            return f"{invalid} out of {total} events were invalid and not accepted."
        parts = f"({invalid} invalid and {errored} errored)."
        if accepted:
            return f"{accepted} out of {total} events were accepted, but {invalid + errored} failed {parts}"
        return f"{invalid + errored} out of {total} events had failures and were not accepted. {parts}"

    def body(self) -> dict[str, Any] | None:
        """Return the envelope; None where the answer has no body."""
        total = len(self.outcomes)
        if self.counts[Kind.ACCEPTED] == total:
            return None
        envelope: dict[str, Any] = {
            "invalid": [o.body() for o in self.outcomes if o.kind is Kind.INVALID],
            "error": [o.body() for o in self.outcomes if o.kind is Kind.FAILED],
        }
        if self.counts[Kind.INVALID] == total:
            del envelope["error"]
        return envelope
