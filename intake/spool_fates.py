"""What this process knows of the appends of kept records that it has begun itself.

A record whose first attempt is still in the Kafka client's hands must not be sent beside it: it would be stored twice.
A process that starts anew knows nothing of such attempts: they ended with the other process, and the log is searched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from eventstreams.errors import AppendTimeout, LogError
from eventstreams.records import Record
from intake.spool_file import Fate, Kept, SpoolFile


class Fates:
    """By file and number. Written from the spool's thread as well: each step is one of a dictionary's."""

    def __init__(self) -> None:
        self._known: dict[tuple[SpoolFile, int], Fate | LogError] = {}

    def note(self, file: SpoolFile, seq: int, outcome: LogError) -> None:
        """Note how an append ended that was not acknowledged."""
        if not isinstance(outcome, AppendTimeout):
            self._known[file, seq] = outcome
        elif outcome.fate is not None:
            self._known[file, seq] = outcome.fate
        else:
            self._known.pop((file, seq), None)

    def expect(self, file: SpoolFile, seq: int, fate: Fate) -> None:
        """Note that an append's end will be told."""
        self._known[file, seq] = fate

    def forget(self, file: SpoolFile, gone: Collection[Kept]) -> None:
        """Let go of records that are kept no more."""
        for one in gone:
            self._known.pop((file, one.seq), None)

    def sorted(self, file: SpoolFile, kept: Sequence[Kept]) -> tuple[Sequence[Kept], Sequence[Kept]]:
        """Return those that are stored, and those that may be sent: in order, up to the first that is undecided.

        `tried` of the latter says whether the log may have them.
        """
        stored: list[Kept] = []
        free: list[Kept] = []
        for one in kept:
            known = self._known.get((file, one.seq))
            if isinstance(known, asyncio.Future) and not known.done():
                break
            outcome = known.result() if isinstance(known, asyncio.Future) else known
            if isinstance(outcome, Record):
                stored.append(one)
            elif outcome is None:
                free.append(one)
            else:
                free.append(one._replace(tried=isinstance(outcome, AppendTimeout)))
        return stored, free
