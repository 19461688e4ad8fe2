"""Which topics there are, asked in one question for all who want to know; and whether one is still the same.

A consumer goes on at its offset in a topic that was deleted and made anew, as if nothing had happened: of the records
before that offset nobody is told. Only the topic's id tells the two apart, and no message carries it. So what was read
is believed once the topic has been looked at after it came, or so shortly before that the topic cannot have been made
anew and have got so many records since.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from confluent_kafka import KafkaException

from eventstreams.errors import LogError, LogRefused, LogUnavailable, TopicReplaced, UnknownTopic
from eventstreams.eventlog.base import TopicDescription
from eventstreams.eventlog.kafka.asking import PAUSE, TIMEOUT, Asking
from eventstreams.eventlog.kafka.errors import UNKNOWN
from eventstreams.records import TopicPartition

MAKING_SECONDS = 0.05
"""To delete a topic and make it anew takes longer than this: 60 ms at the least on one idle broker."""

RECORDS_PER_SECOND = 1_000_000
"""No partition takes more: so much longer does it take to fill a new one up to an offset."""

LONGEST_TRUST = 10.0

ASK_AHEAD = 0.7
"""The part of the time for which an answer counts, after which the next one is asked for while records come."""

METADATA_SECONDS = 1.0
"""How long what is known of a topic counts where a moment does not matter: a crowd of clients costs one question."""

ABSENCE_SECONDS = 0.2
"""The same for a topic that is not there: it may have been made just now."""

LAG_SECONDS = 15.0
"""No broker that answers lags further behind: it would be out by then. One that goes on telling the older is right."""

MAX_PAST = 16
"""Identities of a topic that are remembered."""

MAX_KNOWN = 20_000
"""Topics that are remembered: names may come from events."""


class Known(NamedTuple):
    """What was told of a topic by a question of that time (monotonic); `error`: why it is not told."""

    asked: float
    found: TopicDescription | None
    error: LogError | None = None
    last: TopicDescription | None = None
    """The newest that was there."""
    past: tuple[tuple[str, float], ...] = ()
    """The identities of those before it, with the time (monotonic) at which each was the newest."""


class Topics:
    """What is known of the topics of a cluster. One question is under way at a time, for all that are wanted then."""

    def __init__(self, asking: Asking, explain: Callable[[KafkaException, str], LogError]) -> None:
        self._asking = asking
        self._explain = explain
        self._known: dict[str, Known] = {}
        self._wanted: set[str] = set()
        self._question: asyncio.Task[None] | None = None

    def count(self, topic: str) -> int:
        """Return how many partitions a topic had when it was last asked for; 0 where there was none."""
        known = self._known.get(topic)
        return 0 if known is None or known.found is None else len(known.found.partitions)

    def identity(self, topic: str) -> str:
        """Return which topic of its name was the newest that was told of; empty where none was."""
        known = self._known.get(topic)
        return "" if known is None or known.last is None else known.last.identity

    def is_older(self, topic: str, since: float) -> bool:
        """Whether what is known of a topic was told by a question before `since` (monotonic)."""
        known = self._known.get(topic)
        return known is not None and known.asked < since

    def told(
        self, topics: Collection[str], *, since: float, absent_since: float
    ) -> Mapping[str, TopicDescription] | None:
        """Return those that there are, by what is known already; None where some is older, or not known.

        A question counts that was begun at `since` (monotonic) or later; at `absent_since`, for a topic that was not
        there.
        """
        found: dict[str, TopicDescription] = {}
        for topic in topics:
            known = self._known.get(topic)
            if known is None or known.error is not None:
                return None
            if known.asked < (absent_since if known.found is None else since):
                return None
            if known.found is not None:
                found[topic] = known.found
        return found

    async def recent(self, topics: Collection[str]) -> Mapping[str, TopicDescription]:
        """Return those of the topics that there are, as they were a moment ago."""
        now = time.monotonic()
        told = self.told(topics, since=now - METADATA_SECONDS, absent_since=now - ABSENCE_SECONDS)
        return await self.describe(topics, since=now) if told is None else told

    async def check_known(self, wanted: Collection[TopicPartition]) -> None:
        """Raises: UnknownTopic where there is no such topic, or no such partition of it."""
        topics = {partition.topic for partition in wanted}
        missing = _missing(wanted, await self.recent(topics))
        if missing is not None:
            # It may have been added since.
            missing = _missing(wanted, await self.describe(topics, since=time.monotonic()))
        if missing is not None:
            words = f"there is no partition {missing.partition} of topic {missing.topic!r}"
            raise UnknownTopic(words).at(missing)

    async def describe(self, topics: Collection[str], *, since: float) -> Mapping[str, TopicDescription]:
        """Return those that there are, told by questions begun at `since` (monotonic) or later.

        Raises: LogUnavailable, LogRefused.
        """
        await self._ask_for(topics, since)
        found: dict[str, TopicDescription] = {}
        for topic in topics:
            known = self._known[topic]
            if known.error is not None:
                raise known.error
            if known.found is not None:
                found[topic] = known.found
        return found

    async def _ask_for(self, topics: Collection[str], since: float) -> None:
        """Return when all are known by questions begun at `since` or later. Raises: LogUnavailable."""
        deadline = time.monotonic() + TIMEOUT
        asked: set[str] = set()
        while late := [topic for topic in topics if not self._is_told(topic, since)]:
            if not asked.isdisjoint(late):
                # By a broker that lags behind: another one may know more, or the same one in a moment.
                if time.monotonic() >= deadline:
                    raise LogUnavailable(f"brokers do not agree which topic {late[0]!r} is")
                self._asking.turn()
                await asyncio.sleep(PAUSE)
            began = self._question is None
            # Shielded: the answer is everybody's, one caller's going must not end it.
            await asyncio.shield(self._want(late))
            asked.update(late if began else ())

    def _want(self, topics: Collection[str]) -> asyncio.Task[None]:
        """Return the question that is under way; these topics are in the next one, if not in it."""
        self._wanted.update(topics)
        if self._question is None:
            self._question = asyncio.create_task(self._put_question(), name="kafka topics")
            self._question.add_done_callback(_retrieved)
        return self._question

    def _is_told(self, topic: str, since: float) -> bool:
        known = self._known.get(topic)
        return known is not None and known.asked >= since

    async def _put_question(self) -> None:
        names, self._wanted = sorted(self._wanted), set()
        asked = time.monotonic()
        try:
            answers = await self._asking.describe(names)
        finally:
            self._question = None
        for topic, answer in answers.items():
            self._note(topic, asked, answer)
        self._prune()

    def _note(self, topic: str, asked: float, answer: Any) -> None:
        before = self._known.get(topic, Known(0.0, None))
        if not isinstance(answer, BaseException):
            self._known[topic] = newer(before, asked, _description(topic, answer))
        elif isinstance(answer, KafkaException):
            unknown = answer.args[0].code() in UNKNOWN
            error = None if unknown else self._explain(answer, topic)
            self._known[topic] = before._replace(asked=asked, found=None, error=error)
        else:
            raise answer

    def _prune(self) -> None:
        while len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]

    async def aclose(self) -> None:
        """End the question that is under way. Idempotent."""
        if self._question is not None:
            self._question.cancel()
            await asyncio.gather(self._question, return_exceptions=True)

    # -- still the same?

    async def check_same(self, places: Mapping[str, tuple[str, int]]) -> Mapping[str, LogError]:
        """Return which topics are not the ones they are taken for, of those read from just now, with the error.

        `places`: by topic, the identity that it is taken for, and the lowest offset at which something was read.
        Raises: LogUnavailable: it cannot be told just now.
        """
        now = time.monotonic()
        ages = {topic: self._age(topic, identity, offset) for topic, (identity, offset) in places.items()}
        doubtful = [topic for topic, age in ages.items() if age > 1.0]
        if not doubtful:
            if self._question is None and max(ages.values(), default=0.0) > ASK_AHEAD:
                # Where records come all the time none of them waits for an answer.
                self._want(places)
            return {}
        await self._ask_for(doubtful, now)
        wrong: dict[str, LogError] = {}
        for topic in doubtful:
            known = self._known[topic]
            if isinstance(known.error, LogRefused):
                wrong[topic] = known.error
            elif known.error is not None:
                raise known.error
            elif known.found is None or known.found.identity != places[topic][0]:
                # One that is gone may be made anew in the next moment: what was read just before stays in doubt.
                wrong[topic] = TopicReplaced(topic)
        return wrong

    def _age(self, topic: str, identity: str, offset: int) -> float:
        """Return how old what is known of a topic is, in what it may be: over 1 it may have been made anew since."""
        known = self._known.get(topic)
        if known is None or known.found is None or known.found.identity != identity:
            return math.inf
        seconds = min(LONGEST_TRUST, MAKING_SECONDS + offset / RECORDS_PER_SECOND)
        return (time.monotonic() - known.asked) / seconds


def _missing(wanted: Collection[TopicPartition], found: Mapping[str, TopicDescription]) -> TopicPartition | None:
    """Return the first partition that there is not; None when all are there."""
    held = {partition for topic in found.values() for partition in topic.partitions}
    return next((partition for partition in wanted if partition not in held), None)


def newer(before: Known, asked: float, found: TopicDescription) -> Known:
    """Return what is known of a topic after an answer. Brokers may lag behind: what was newer already stays."""
    last = before.last
    if last is None or not found.identity:
        return Known(asked, found, last=found)
    if found.identity == last.identity:
        # It never has fewer partitions.
        widest = max(found, last, key=lambda one: len(one.partitions))
        return Known(asked, widest, last=widest, past=before.past)
    past = tuple(one for one in before.past if asked - one[1] < LAG_SECONDS)
    if found.identity in dict(past):
        # Nothing is told by that: it is as old as before.
        return before
    return Known(asked, found, last=found, past=(*past, (last.identity, asked))[-MAX_PAST:])


def _description(topic: str, told: Any) -> TopicDescription:
    most, least = told.topic_id.get_most_significant_bits(), told.topic_id.get_least_significant_bits()
    # Brokers before 2.8 have no ids: nought.
    identity = str(told.topic_id) if most or least else ""
    numbers = sorted(partition.id for partition in told.partitions)
    return TopicDescription(identity, [TopicPartition(topic, number) for number in numbers])


def _retrieved(question: asyncio.Task[None]) -> None:
    if not question.cancelled():
        # Who asked may have gone.
        question.exception()
