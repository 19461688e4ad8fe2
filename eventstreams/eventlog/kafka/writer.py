"""Appends to Kafka: by idempotent producers, delivery confirmed by all in-sync replicas.

librdkafka never gives a record up: one that it gave up while a leader is elected would have it send again, under a new
epoch of the producer, what other requests have under way, and that is stored twice. So the deadline is ours alone, and
`lanes` bounds what is in librdkafka's hands when it passes.

Delivery reports are served on the event loop, each millisecond while records are under way. librdkafka calls back
record by record: on a thread of its own each call would wait for the interpreter's lock, up to five milliseconds each
while the loop is busy.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence

from confluent_kafka import KafkaError, KafkaException

from eventstreams.errors import AppendTimeout, LogFull, LogRefused, LogUnavailable
from eventstreams.eventlog.kafka.batch import Batch, Outcome
from eventstreams.eventlog.kafka.errors import REFUSED, refusal
from eventstreams.eventlog.kafka.lanes import ANY_PARTITION, Lane, Lanes, Topic
from eventstreams.eventlog.kafka.options import Properties
from eventstreams.eventlog.kafka.producers import POLL_SECONDS, Producers
from eventstreams.records import NewRecord, Record

logger = logging.getLogger(__name__)

IDLE_SECONDS = 0.1
"""The same while there are none: errors of the producer are told then too."""

RELEASE_SECONDS = 0.02
"""Between looks whether held records may go that no report has told of, and whether somebody still waits for them."""

LOOK_SECONDS = 1.0
"""Between looks whether topics are still the same."""

CLOSED = "the event log is closed"


class KafkaWriter:
    """Served by the loop that opened it; `open` it on that loop before use.

    A producer for each kind of record, see `lanes`; why and how others take their place, see `producers`.
    """

    def __init__(
        self,
        properties: Properties,
        count: Callable[[str], int],
        identity: Callable[[str], str],
        doubt: Callable[[Collection[str]], None],
    ) -> None:
        """`identity` tells which topic of a name there is by now, `doubt` has it looked up of some."""
        self._count = count
        self._identity = identity
        self._doubt = doubt
        self._producers = Producers(properties, self._note)
        self._lanes = Lanes(count)
        self._fatal = False
        self._refusal: int | None = None
        """The code with which the last producers were refused for good; until one has stored something."""
        self._closed = False
        self._pending = 0
        self._turn = 0
        self._waiting: dict[Lane, None] = {}
        """The lanes that hold records."""
        self._next_release = 0.0
        self._next_look = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._serving: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Make the producers; they connect later, beside. Raises: LogUnavailable for properties that are refused."""
        self._producers.make()
        # Kept: on Python 3.11 each asking for the running loop is a system call.
        self._loop = asyncio.get_running_loop()
        self._serve(self._loop)

    async def append(self, new: Sequence[NewRecord], timeout: float) -> Sequence[Outcome]:
        """Append records of topics that exist; see `EventLog.append`. Returns after `timeout` seconds at most."""
        loop = self._loop
        if self._closed or loop is None:
            return [LogUnavailable(CLOSED)] * len(new)
        if not new:
            return []
        batch = Batch(new, loop)
        self._pending += 1
        late = loop.call_later(timeout, batch.end)
        try:
            self._send(batch, loop.time())
            self._hurry(loop)
            # A caller that goes leaves to their fate the records that librdkafka has: they are on their way.
            await batch.settled
        finally:
            batch.over = True
            late.cancel()
            self._pending -= 1
        outcomes = batch.outcomes(timeout)
        if self._refusal is None:
            return outcomes
        if any(isinstance(outcome, Record) for outcome in outcomes):
            self._refusal = None
            return outcomes
        return list(map(self._refused, new, outcomes))

    def _refused(self, record: NewRecord, outcome: Outcome) -> Outcome:
        """Tell of the rights: who may write to no topic gets no producer's number, and its records just go."""
        if self._refusal is None or not isinstance(outcome, LogUnavailable | AppendTimeout):
            return outcome
        if isinstance(outcome, AppendTimeout) and outcome.fate is not None:
            return outcome
        return LogRefused(refusal(self._refusal, record.topic, "WRITE"), topic=record.topic, errno=self._refusal)

    def _send(self, batch: Batch, now: float) -> None:
        lanes = self._lanes
        self._turn = turn = self._turn + 1
        for number, record in enumerate(batch.new):
            lane = lanes.lane(record, turn, now)
            if lane.turn != turn:
                lane.enter(turn, now)
            if lane.shut or not lane.takes(len(record.value), self._producers.era):
                self._hold(lane, batch, number)
            else:
                self._hand_over(lane, batch, number)

    def _hold(self, lane: Lane, batch: Batch, number: int) -> None:
        lane.hold(batch, number)
        lane.shut = True
        self._waiting[lane] = None

    def _hand_over(self, lane: Lane, batch: Batch, number: int, *, anywhere: bool = False) -> None:
        try:
            lane.produce(self._producers.made[lane.kind], batch, number, ANY_PARTITION if anywhere else lane.partition)
        except BufferError:
            batch.settle(number, LogFull("Local: Queue full"))
        except KafkaException as exc:
            error = exc.args[0]
            self._note(error)
            if self._fatal:
                # The next producer takes it.
                self._hold(lane, batch, number)
            elif error.code() == KafkaError._UNKNOWN_PARTITION and not anywhere:
                # The topic has grown, which librdkafka has not heard of.
                self._hand_over(lane, batch, number, anywhere=True)
            else:
                batch.settle(number, error)

    # -- delivery reports

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve delivery reports, hand over what was held, and come again."""
        try:
            self._producers.poll()
            if self._fatal and not self._closed:
                self._replace()
            now = loop.time()
            if now >= self._next_look and not self._closed:
                self._next_look = now + LOOK_SECONDS
                self._producers.look(now)
                self._look_at_topics(now)
            lanes = self._lanes
            if lanes.ready:
                ready = lanes.ready.copy()
                lanes.ready.clear()
                self._release(ready, now)
            elif self._waiting and now >= self._next_release:
                self._next_release = now + RELEASE_SECONDS
                self._release(list(self._waiting), now)
        finally:
            self._serving = loop.call_later(POLL_SECONDS if self._pending else IDLE_SECONDS, self._serve, loop)

    def _note(self, error: KafkaError) -> None:
        """Have the producer replaced where it can't go on."""
        if not self._fatal and (error.fatal() or error.code() == KafkaError._FATAL):
            logger.error("the Kafka producer met a fatal error and is replaced", extra={"cause": error.str()})
            self._fatal = True
            self._refusal = error.code() if error.code() in REFUSED else None

    def _release(self, lanes: Collection[Lane], now: float) -> None:
        """Hand over what lanes hold that have nothing under way, up to a batch."""
        for lane in lanes:
            if lane.opens(now):
                while lane.held:
                    batch, number = lane.held[0]
                    if not batch.over and not lane.takes(len(batch.new[number].value), self._producers.era):
                        break
                    lane.held.popleft()
                    if not batch.over:
                        batch.reports[number] = None
                        self._hand_over(lane, batch, number)
                    if self._fatal:
                        # It was held again: it is still the first.
                        lane.held.rotate(1)
                        return
            if not lane.held:
                self._waiting.pop(lane, None)

    def _hurry(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look for delivery reports soon, where the next look was to be an idle one."""
        if self._pending == 1 and self._serving is not None:
            self._serving.cancel()
            self._serving = loop.call_later(POLL_SECONDS, self._serve, loop)

    # -- topics made anew

    def _look_at_topics(self, now: float) -> None:
        anew: list[Topic] = []
        stalled: list[str] = []
        for topic in self._lanes.topics:
            identity = self._identity(topic.name)
            if identity and topic.identity and identity != topic.identity:
                anew.append(topic)
                continue
            topic.identity = topic.identity or identity
            if any(lane.stalled(now) for lane in topic.lanes):
                stalled.append(topic.name)
        if anew:
            self._retire(anew, now)
        if stalled:
            self._doubt(stalled)

    def _retire(self, anew: Sequence[Topic], now: float) -> None:
        """Go on with new producers. Each other lane does as soon as nothing of it is under way."""
        logger.info("the Kafka producers retire: topics were made anew", extra={"topics": [one.name for one in anew]})
        lost = [lane for topic in anew for lane in topic.lanes]
        self._producers.retire(lost, now)
        for topic in anew:
            self._lanes.drop(topic)
        held = [lane for lane in lost if lane in self._waiting]
        for lane in held:
            del self._waiting[lane]
        self._hold_again(held)

    # -- ends

    def _replace(self) -> None:
        """Go on with new producers; what the broken ones have is given up, which their reports say."""
        self._producers.replace()
        self._fatal = False
        held, self._waiting = self._waiting, {}
        self._lanes = Lanes(self._count)
        self._hold_again(held)

    def _hold_again(self, held: Collection[Lane]) -> None:
        """Hold what lanes held that are no more."""
        for old in held:
            lane = self._lanes.place(old.topic.name, old.partition)
            lane.held.extend(old.held)
            old.held.clear()
            self._waiting[lane] = None

    async def aclose(self) -> None:
        """Give back what is held, have delivered what librdkafka has, then stop. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for lane in self._waiting:
            for batch, number in lane.held:
                batch.settle(number, LogUnavailable(CLOSED))
        self._waiting.clear()
        self._pending += 1  # until all is delivered the looks are frequent
        await self._producers.aclose()
        if self._serving is not None:
            self._serving.cancel()
