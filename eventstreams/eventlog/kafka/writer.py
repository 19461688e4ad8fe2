"""Appends to Kafka: one idempotent producer, delivery confirmed by all in-sync replicas.

Delivery reports are served on the event loop, each millisecond while records are under way. librdkafka calls back
record by record: on a thread of its own each call would wait for the interpreter's lock, up to five milliseconds each
while the loop is busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from eventstreams.errors import AppendTimeout, LogError, LogFull, LogUnavailable
from eventstreams.eventlog.kafka.errors import translated
from eventstreams.eventlog.kafka.options import Properties
from eventstreams.records import NewRecord, Record

Outcome = Record | LogError

logger = logging.getLogger(__name__)

FLUSH_TIMEOUT = 10.0
"""Longer than librdkafka may hold a record: what it still has then is not to be delivered."""


POLL_SECONDS = 0.001
"""Between looks for delivery reports while records are under way."""

IDLE_SECONDS = 0.1
"""The same while there are none: errors of the producer are told then too."""


class _Batch:
    """The outcomes of one append, filled in by delivery reports: on the loop, or as a producer is ended, beside it."""

    __slots__ = ("_left", "_loop", "_thread", "new", "reports", "settled")

    def __init__(self, new: Sequence[NewRecord], loop: asyncio.AbstractEventLoop) -> None:
        self.new = new
        self.reports: list[Any] = [None] * len(new)
        """librdkafka's message where a record is stored, else the error; None while neither."""
        self._left = len(new)
        self._loop = loop
        self._thread = threading.get_ident()
        self.settled: asyncio.Future[None] = loop.create_future()

    def settle(self, number: int, error: Any, message: Any) -> None:
        """Note what became of a record; the last one wakes who waits."""
        self.reports[number] = message if error is None else error
        self._left -= 1
        if self._left:
            return
        if threading.get_ident() == self._thread:
            _resolve(self.settled)
        else:
            self._loop.call_soon_threadsafe(_resolve, self.settled)

    def outcomes(self, late: LogError) -> list[Outcome]:
        """Return the outcomes in the records' order; `late` for those that are not known."""
        return [
            late if report is None else _outcome(report, record)
            for report, record in zip(self.reports, self.new, strict=True)
        ]


def _outcome(report: Any, record: NewRecord) -> Outcome:
    if isinstance(report, LogError):
        return report
    if isinstance(report, KafkaError):
        return translated(report, record.topic)
    return Record(record.topic, report.partition(), report.offset(), report.timestamp()[1], record.value, record.key)


class KafkaWriter:
    """One producer at a time, served by the loop that opened it. `open` it on that loop before use.

    A producer that has met a fatal error (its idempotence cannot go on: fenced, or refused) is replaced: it would
    refuse every record for good.
    """

    def __init__(self, properties: Properties) -> None:
        self._properties = properties
        self._producer: Producer | None = None
        self._fatal = False
        self._closed = False
        self._pending = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._serving: asyncio.TimerHandle | None = None
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="kafka close")

    def open(self) -> None:
        """Make the producer; connects in the background. Raises: LogUnavailable for properties that it refuses."""
        try:
            self._producer = Producer(self._properties)
        except KafkaException as exc:
            raise LogUnavailable(f"no Kafka producer: {exc}") from exc
        self._fatal = False
        if self._serving is None:
            # Kept: on Python 3.11 each asking for the running loop is a system call.
            self._loop = asyncio.get_running_loop()
            self._serve(self._loop)

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve delivery reports, and come again."""
        self._poll()
        self._serving = loop.call_later(POLL_SECONDS if self._pending else IDLE_SECONDS, self._serve, loop)

    def _poll(self) -> None:
        producer = self._producer
        assert producer is not None
        try:
            producer.poll(0)
        except KafkaException as exc:
            # A fatal error is told by raising, once.
            self._note(producer, exc.args[0])

    def _note(self, producer: Producer, error: KafkaError) -> None:
        """Have a producer replaced that can't go on."""
        if producer is self._producer and (error.fatal() or error.code() == KafkaError._FATAL):
            logger.error("the Kafka producer met a fatal error and is replaced", extra={"cause": error.str()})
            self._fatal = True

    async def append(self, new: Sequence[NewRecord], timeout: float) -> Sequence[Outcome]:
        """Append records of topics that exist; see `EventLog.append`. Returns after `timeout` seconds at most."""
        loop = self._loop
        if self._producer is None or self._closed or loop is None:
            return [LogUnavailable("the event log is closed")] * len(new)
        if not new:
            return []
        if self._fatal:
            self._replace(self._producer)
        batch = _Batch(new, loop)
        self._pending += 1
        late = loop.call_later(timeout, _resolve, batch.settled)
        try:
            self._send(self._producer, batch)
            self._hurry(loop)
            # A caller that goes leaves the records to their fate: they are on their way.
            await batch.settled
        finally:
            late.cancel()
            self._pending -= 1
        return batch.outcomes(AppendTimeout(f"no acknowledgement in {timeout:.1f} s"))

    def _send(self, producer: Producer, batch: _Batch) -> None:
        for number, record in enumerate(batch.new):
            try:
                producer.produce(
                    record.topic,
                    record.value,
                    record.key,
                    timestamp=record.timestamp or 0,
                    on_delivery=partial(batch.settle, number),
                )
            except BufferError:
                batch.settle(number, LogFull("Local: Queue full"), None)
            except KafkaException as exc:
                self._note(producer, exc.args[0])
                batch.settle(number, exc.args[0], None)

    def _hurry(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look for delivery reports soon, where the next look was to be an idle one."""
        if self._pending == 1 and self._serving is not None:
            self._serving.cancel()
            self._serving = loop.call_later(POLL_SECONDS, self._serve, loop)

    def _replace(self, broken: Producer) -> None:
        self.open()
        self._aside.submit(_end, broken, 0.0)

    async def aclose(self) -> None:
        """Deliver what is under way, then stop. Idempotent."""
        producer = self._producer
        if producer is None or self._closed:
            return
        self._closed = True
        self._pending += 1  # until all is delivered the looks are frequent
        deadline = time.monotonic() + FLUSH_TIMEOUT
        while len(producer) and time.monotonic() < deadline:
            self._poll()
            await asyncio.sleep(POLL_SECONDS)
        if self._serving is not None:
            self._serving.cancel()
        await asyncio.get_running_loop().run_in_executor(self._aside, _end, producer, 1.0)
        self._aside.shutdown(wait=False)


def _end(producer: Producer, seconds: float) -> None:
    """Have what is left told as not delivered, so that nobody waits for it."""
    with contextlib.suppress(KafkaException):
        producer.purge()
        producer.flush(seconds)


def _resolve(settled: asyncio.Future[None]) -> None:
    if not settled.done():
        settled.set_result(None)
