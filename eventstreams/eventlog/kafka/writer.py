"""Appends to Kafka: one idempotent producer, delivery confirmed by all in-sync replicas, one crossing a batch."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
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


class _Batch:
    """The outcomes of one append, filled in by the producer's thread."""

    def __init__(self, new: Sequence[NewRecord], done: Callable[[], None]) -> None:
        self.outcomes: list[Outcome | None] = [None] * len(new)
        self._left = len(new)
        self._done = done
        self._lock = threading.Lock()

    def settle(self, number: int, outcome: Outcome) -> None:
        """Note an outcome; the last one wakes who waits."""
        with self._lock:
            self.outcomes[number] = outcome
            self._left -= 1
            left = self._left
        if not left:
            self._done()


class KafkaWriter:
    """One producer at a time and the thread that serves its delivery reports. `open` it before use.

    A producer that has met a fatal error (its idempotence cannot go on: fenced, or refused) is replaced: it would
    refuse every record for good.
    """

    def __init__(self, properties: Properties) -> None:
        self._properties = properties
        self._producer: Producer | None = None
        self._fatal = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="kafka close")

    def open(self) -> None:
        """Make the producer; connects in the background. Raises: LogUnavailable for properties that it refuses."""
        try:
            self._producer = Producer(self._properties)
        except KafkaException as exc:
            raise LogUnavailable(f"no Kafka producer: {exc}") from exc
        self._fatal.clear()
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="kafka delivery", daemon=True)
            self._thread.start()

    def _serve(self) -> None:
        while not self._stop.is_set():
            producer = self._producer
            assert producer is not None
            try:
                producer.poll(0.1)
            except KafkaException as exc:
                # A fatal error is told by raising, once.
                self._note(producer, exc.args[0])

    def _note(self, producer: Producer, error: KafkaError) -> None:
        """Have a producer replaced that can't go on."""
        if producer is self._producer and (error.fatal() or error.code() == KafkaError._FATAL):
            logger.error("the Kafka producer met a fatal error and is replaced", extra={"cause": error.str()})
            self._fatal.set()

    async def append(self, new: Sequence[NewRecord], timeout: float) -> Sequence[Outcome]:
        """Append records of topics that exist; see `EventLog.append`. Returns after `timeout` seconds at most."""
        if self._producer is None or self._stop.is_set():
            return [LogUnavailable("the event log is closed")] * len(new)
        if not new:
            return []
        if self._fatal.is_set():
            self._replace(self._producer)
        loop = asyncio.get_running_loop()
        settled = loop.create_future()
        batch = _Batch(new, partial(_wake, loop, settled))
        self._send(self._producer, new, batch)
        late_at = loop.call_later(timeout, _resolve, settled)
        try:
            # A caller that goes leaves the records to their fate: they are on their way.
            await settled
        finally:
            late_at.cancel()
        late = AppendTimeout(f"no acknowledgement in {timeout:.1f} s")
        return [late if outcome is None else outcome for outcome in batch.outcomes]

    def _send(self, producer: Producer, new: Sequence[NewRecord], batch: _Batch) -> None:
        for number, record in enumerate(new):
            try:
                producer.produce(
                    record.topic,
                    record.value,
                    record.key,
                    timestamp=record.timestamp or 0,
                    on_delivery=_report(batch, number, record),
                )
            except BufferError:
                batch.settle(number, LogFull("Local: Queue full"))
            except KafkaException as exc:
                self._note(producer, exc.args[0])
                batch.settle(number, translated(exc.args[0], record.topic))

    def _replace(self, broken: Producer) -> None:
        self.open()
        self._aside.submit(_end, broken, 0.0)

    async def aclose(self) -> None:
        """Deliver what is under way, then stop. Idempotent."""
        if self._producer is None or self._stop.is_set():
            return
        await asyncio.get_running_loop().run_in_executor(self._aside, self._close, self._producer)
        self._aside.shutdown(wait=False)

    def _close(self, producer: Producer) -> None:
        with contextlib.suppress(KafkaException):
            producer.flush(FLUSH_TIMEOUT)
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        _end(producer, 1.0)


def _end(producer: Producer, seconds: float) -> None:
    """Have what is left told as not delivered, so that nobody waits for it."""
    with contextlib.suppress(KafkaException):
        producer.purge()
        producer.flush(seconds)


def _wake(loop: asyncio.AbstractEventLoop, settled: asyncio.Future[None]) -> None:
    loop.call_soon_threadsafe(_resolve, settled)


def _resolve(settled: asyncio.Future[None]) -> None:
    if not settled.done():
        settled.set_result(None)


def _report(batch: _Batch, number: int, record: NewRecord) -> Callable[[Any, Any], None]:
    def report(error: Any, message: Any) -> None:
        if error is not None:
            batch.settle(number, translated(error, record.topic))
            return
        _, timestamp = message.timestamp()
        batch.settle(
            number,
            Record(record.topic, message.partition(), message.offset(), timestamp, record.value, record.key),
        )

    return report
