"""The producers of one writer: those that take records, and those on their way out.

Two things end producers. One that has met a fatal error (its idempotence cannot go on: fenced, or refused) would refuse
every record for good; it is broken, and what it has is given up. And when a topic was made anew they retire: librdkafka
goes by the epochs of the old topic's leaders and may never find the new one's (its issue 4898). Retired ones deliver
what they have of other topics.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer

from eventstreams.errors import LogUnavailable
from eventstreams.eventlog.kafka.lanes import Kind, Lane
from eventstreams.eventlog.kafka.options import Properties

FLUSH_TIMEOUT = 10.0
"""For what librdkafka still has when the log is closed: about an election's time. Its producers have their answers."""

PURGE_TIMEOUT = 1.0
"""In which librdkafka should have told of what it is made to give up."""

POLL_SECONDS = 0.001
"""Between looks for delivery reports while records are under way."""

RETIRED_SECONDS = 30.0
"""For what retired producers have of topics that were made anew: nobody waits for its answer any more."""

MAX_RETIRED = 4
"""Sets of producers; of more the oldest gives up what it has."""


class Retired(NamedTuple):
    """Producers that go on with what they have, and get nothing new."""

    producers: Sequence[Producer]
    lost: Sequence[Lane]
    """Whose records may never be delivered: the leaders that are known are those of a topic that is no more."""
    until: float

    def is_done(self, now: float) -> bool:
        """Whether they have nothing left, or only what may never be delivered, and that for long."""
        left = sum(map(len, self.producers))
        return not left or (now >= self.until and left <= sum(lane.sent - lane.done for lane in self.lost))


class Producers:
    """Used on the loop. `note` is told of a fatal error of those that take records."""

    def __init__(self, properties: Properties, note: Callable[[KafkaError], None]) -> None:
        self._properties = properties
        self._note = note
        self.made: Sequence[Producer] = ()
        """Those that take records, by kind; none before `make` and after `aclose`."""
        self.era = 0
        """How often there were new ones."""
        self._retired: list[Retired] = []
        self._broken: list[Producer] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="kafka close")

    def make(self) -> None:
        """Have new ones take records; they connect later, beside. Raises: LogUnavailable, for refused properties."""
        self._loop = asyncio.get_running_loop()
        try:
            self.made = [Producer(self._properties) for _ in Kind]
            self.era += 1
        except KafkaException as exc:
            raise LogUnavailable(f"no Kafka producer: {exc}") from exc

    def poll(self) -> None:
        """Serve delivery reports."""
        for producer in self._all():
            try:
                producer.poll(0)
            except KafkaException as exc:
                # A fatal error is told by raising, once.
                if producer in self.made:
                    self._note(exc.args[0])
                elif producer not in self._broken:
                    self._end(next(one for one in self._retired if producer in one.producers))

    def _all(self) -> Sequence[Producer]:
        if not (self._retired or self._broken):
            return self.made
        return [*self.made, *self._broken, *(producer for one in self._retired for producer in one.producers)]

    def retire(self, lost: Sequence[Lane], now: float) -> None:
        """Have new ones take records; those of `lost` are of topics that are no more. Raises: LogUnavailable."""
        old = self.made
        self.make()
        self._retired.append(Retired(old, lost, now + RETIRED_SECONDS))

    def look(self, now: float) -> None:
        """Let go of retired ones that are done."""
        while self._retired and (self._retired[0].is_done(now) or len(self._retired) > MAX_RETIRED):
            self._end(self._retired[0])

    def _end(self, retired: Retired) -> None:
        self._retired.remove(retired)
        self._give_up(retired.producers)

    def replace(self) -> None:
        """Have new ones take records; the others give up what they have, as reports say. Raises: LogUnavailable."""
        broken = self.made
        self.make()
        self._give_up(broken)

    def _give_up(self, producers: Sequence[Producer]) -> None:
        self._broken += producers
        for producer in producers:
            self._aside.submit(_purge, producer).add_done_callback(partial(self._purged, producer))

    def _purged(self, broken: Producer, _: object = None) -> None:
        """Let it go once its last reports have come; called beside the loop."""
        loop = self._loop
        assert loop is not None
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
            loop.call_soon_threadsafe(loop.call_later, PURGE_TIMEOUT, self._let_go, broken)

    def _let_go(self, broken: Producer) -> None:
        if self._closed:
            return
        if len(broken):
            # Somebody waits for what it has to tell.
            self._purged(broken)
        else:
            # Beside the loop: the end of a producer waits for its threads.
            self._aside.submit(self._broken.remove, broken)

    async def aclose(self) -> None:
        """Have delivered what they have, as far as it goes soon; then end them. Idempotent."""
        if self._closed:
            return
        self._closed = True
        await self._drained(FLUSH_TIMEOUT)
        loop = asyncio.get_running_loop()
        ended = list(self._all())
        await loop.run_in_executor(self._aside, lambda: [*map(_purge, ended)])
        await self._drained(PURGE_TIMEOUT)
        self.made = ()
        self._broken.clear()
        self._retired.clear()
        # Beside the loop: the end of a producer waits for its threads.
        await loop.run_in_executor(self._aside, ended.clear)
        self._aside.shutdown(wait=False)

    async def _drained(self, seconds: float) -> None:
        """Return when librdkafka has told of all it had, or when time is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while loop.time() < deadline and any(map(len, self._all())):
            self.poll()
            await asyncio.sleep(POLL_SECONDS)


def _purge(producer: Producer) -> None:
    """Have it tell what it has as not delivered."""
    with contextlib.suppress(KafkaException):
        producer.purge()
