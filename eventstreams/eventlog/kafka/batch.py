"""The records of one append, and what became of each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from confluent_kafka import KafkaError

from eventstreams.errors import AppendTimeout, LogError, LogUnavailable
from eventstreams.eventlog.kafka.errors import translated
from eventstreams.records import NewRecord, Record

Outcome = Record | LogError

HELD: Final = object()
"""Stands for the report of a record that librdkafka has not been given."""


class Batch:
    """Filled in by delivery reports, on the loop; `settled` is done when all have come, or when time is over."""

    __slots__ = ("_fates", "_left", "_loop", "new", "over", "reports", "settled")

    def __init__(self, new: Sequence[NewRecord], loop: asyncio.AbstractEventLoop) -> None:
        self.new = new
        self.reports: list[Any] = [None] * len(new)
        """librdkafka's message where a record is stored, else the error; None while it has it, `HELD` before."""
        self.over = False
        """Whether nobody waits any more: what is held then is not handed over."""
        self._left = len(new)
        self._loop = loop
        self._fates: dict[int, asyncio.Future[Outcome]] = {}
        self.settled: asyncio.Future[None] = loop.create_future()

    def settle(self, number: int, report: Any) -> None:
        """Note what became of a record; the last one wakes who waits."""
        self.reports[number] = report
        self._left -= 1
        if not self._left:
            self.end()
        if self._fates and number in self._fates:
            self._fates.pop(number).set_result(_outcome(report, self.new[number]))

    def end(self) -> None:
        """Wake who waits."""
        if not self.settled.done():
            self.settled.set_result(None)

    def outcomes(self, timeout: float) -> list[Outcome]:
        """Return the outcomes in the records' order: what was held is not stored, of what was sent nobody knows yet."""
        return [
            self._undecided(number, report, timeout)
            if report is None or report is HELD
            else _outcome(report, self.new[number])
            for number, report in enumerate(self.reports)
        ]

    def _undecided(self, number: int, report: Any, timeout: float) -> LogError:
        topic = self.new[number].topic
        if report is HELD:
            return LogUnavailable(f"Kafka took no records of topic {topic!r} in {timeout:.1f} s: this one was not sent")
        fate: asyncio.Future[Outcome] = self._loop.create_future()
        self._fates[number] = fate
        return AppendTimeout(f"no acknowledgement in {timeout:.1f} s (topic {topic!r})", fate)


def _outcome(report: Any, record: NewRecord) -> Outcome:
    if isinstance(report, LogError):
        return report
    if not isinstance(report, KafkaError):
        place, offset = report.partition(), report.offset()
        return Record(record.topic, place, offset, report.timestamp()[1], record.value, record.key)
    error = translated(report, record.topic, right="WRITE")
    # An earlier attempt of librdkafka's may have been stored, unless the error says that no attempt can be.
    return AppendTimeout(error.message) if isinstance(error, LogUnavailable) else error
