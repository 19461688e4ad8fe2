"""While the log is away events are kept on local disk, and sent on in their order when it is back.

Order: while the spool holds something of a topic, new events of it go behind it. So an event that was sent after
another one had been answered never overtakes it. That holds within one process: each has a spool file of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw

from eventstreams.errors import AppendTimeout, LogError, LogFull, LogUnavailable, SpoolFull
from eventstreams.eventlog.base import EventLog
from eventstreams.records import NewRecord, Record
from intake.spool_file import size_of
from intake.spool_store import SpoolStore

AWAY = (LogUnavailable, AppendTimeout, LogFull)
"""After which an event is kept: the log may take it later."""

PATIENCE = 1.0
"""Seconds that new events wait for the last of those before them to be stored: then they are kept too."""


@dataclass(frozen=True, slots=True)
class SpoolOptions:
    """Where events are kept, and how many bytes of them."""

    directory: Path
    max_bytes: int = 1024**3
    produce_timeout: float = 20.0
    """Seconds that an append may take: so long before it was kept a record may have been stored."""


@dataclass(frozen=True, slots=True)
class Spooled:
    """The outcome of a record that is on local disk."""


SPOOLED = Spooled()
Outcome = Record | LogError | Spooled


class Spool:
    """Stands before a log: appends what it takes, keeps what it does not."""

    def __init__(self, log: EventLog, store: SpoolStore, options: SpoolOptions) -> None:
        self.log = log
        self.store = store
        self.options = options
        self.away = False
        """Whether the log as a whole is away: then nothing is tried but by the replay."""
        self.filled = asyncio.Event()
        """Set while there is something to send on."""
        self._handovers: dict[str, asyncio.Future[None]] = {}

    def holds(self, topic: str) -> bool:
        """Whether new events of a topic go behind what is kept."""
        return self.away or topic in self.store.topics

    @property
    def has_room(self) -> bool:
        """Whether more would be kept."""
        return self.store.size < self.options.max_bytes

    async def append(self, new: Sequence[NewRecord]) -> Sequence[Outcome]:
        """Append to the log, or keep; for each record what became of it. A failure stays one where the disk is full."""
        outcomes: list[Outcome] = [SPOOLED] * len(new)
        waited = await self._handed_over({record.topic for record in new})
        behind = [number for number, record in enumerate(new) if waited or self.holds(record.topic)]
        direct = sorted(set(range(len(new))).difference(behind))
        await self._keep(new, behind, outcomes)
        for number, stored in zip(direct, await self.log.append([new[n] for n in direct]), strict=True):
            outcomes[number] = stored
        failed = [number for number in direct if isinstance(outcomes[number], AWAY)]
        if await self._keep(new, failed, outcomes):
            self.away = True
        return outcomes

    async def _keep(self, new: Sequence[NewRecord], numbers: Sequence[int], outcomes: list[Outcome]) -> bool:
        """Keep some of a batch's records and note what became of them; return whether they are kept."""
        records = [new[number] for number in numbers]
        late = [outcome if isinstance(outcome := outcomes[number], AppendTimeout) else None for number in numbers]
        tried = [one is not None for one in late]
        failure: LogError | None = None
        if self.store.size + sum(map(size_of, records)) > self.options.max_bytes:
            held, limit = self.store.size, self.options.max_bytes
            failure = SpoolFull(f"the log is away, and {held} bytes are kept already: at most {limit} are")
        elif records:
            try:
                await self.store.put(records, tried, [None if one is None else one.fate for one in late])
                self.filled.set()
            except apsw.Error as exc:
                reason = "the disk is full" if isinstance(exc, apsw.FullError) else str(exc)
                failure = LogUnavailable(f"the log is away, and the spool cannot be written: {reason}")
        for number, may_be_stored in zip(numbers, tried, strict=True):
            if failure is None or not may_be_stored:
                outcomes[number] = failure or SPOOLED
        return bool(records) and failure is None

    # -- the hand-over back to the log

    @contextlib.contextmanager
    def handover(self, topic: str) -> Iterator[None]:
        """Have new events of a topic wait while the last of those before them are sent.

        Without it a busy topic would never leave the spool: something always comes behind.
        """
        gate = self._handovers[topic] = asyncio.get_running_loop().create_future()
        try:
            yield
        finally:
            del self._handovers[topic]
            gate.set_result(None)

    async def _handed_over(self, topics: Collection[str]) -> bool:
        """Wait until no topic is being handed over; return whether patience ended before."""
        deadline = time.monotonic() + PATIENCE
        while gates := [self._handovers[topic] for topic in topics if topic in self._handovers]:
            left = deadline - time.monotonic()
            if left <= 0:
                return True
            await asyncio.wait(gates, timeout=left)
        return False
