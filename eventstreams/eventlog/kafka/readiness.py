"""Whether a cluster would serve: not that a broker answers, but that the topics can be read, or appended to.

A bootstrap server may answer while the brokers that it names do not, or while no partition has a leader. So the leaders
are asked for an offset, one partition of each; the first answer is enough.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Executor
from functools import partial
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import ConfigResource, OffsetSpec, ResourceType

from eventstreams.errors import LogUnavailable
from eventstreams.eventlog.kafka.contact import ASKED_TOPIC, Contact
from eventstreams.eventlog.kafka.reasons import Reasons
from eventstreams.eventlog.kafka.refusing import refusing

FRESH_SECONDS = 1.0
"""How long an answer counts: however often and by however many it is asked, the cluster is asked once a second."""

MOST_LEADERS = 32
"""Leaders that are asked at once."""

SHOWN = 3
"""Topics that a sentence names."""

CONFIG_SECONDS = 60.0
"""How long a topic's `min.insync.replicas` counts."""

MIN_ISR = "min.insync.replicas"


class _Question(NamedTuple):
    """Of which topics it is asked (None: of none), and whether they are to be appended to."""

    topics: frozenset[str] | None
    writing: bool


class _Place(NamedTuple):
    """A partition with a leader: what is asked."""

    topic: str
    number: int
    leader: int
    in_sync: int
    replicas: int


class Readiness:
    """Asks a cluster whether it would serve."""

    def __init__(self, contact: Contact, reasons: Reasons, threads: Executor) -> None:
        self._contact = contact
        self._reasons = reasons
        self._threads = threads
        self._asking: dict[_Question, tuple[float, asyncio.Task[None]]] = {}
        """The last time that each was asked: when, and what came of it."""
        self._least: dict[str, tuple[float, int]] = {}
        self._may_describe = True
        """Whether the topics' configuration is told to us: it takes a right that nothing else needs."""

    async def check(self, timeout: float, topics: Collection[str] | None, *, writing: bool) -> None:
        """Return when one of the topics can be read or, where `writing`, appended to; None: when a broker answers.

        Raises: LogUnavailable, after `timeout` seconds at most.
        """
        question = _Question(None if topics is None else frozenset(topics), writing)
        began, asking = self._asking.get(question, (0.0, None))
        if asking is None or (asking.done() and time.monotonic() - began >= FRESH_SECONDS):
            asking = self._begin(question, timeout)
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(asking)
        except TimeoutError as exc:
            raise LogUnavailable(self._reasons.sentence(f"no answer in {timeout:g} s")) from exc

    def _begin(self, question: _Question, timeout: float) -> asyncio.Task[None]:
        # What is asked changes with the stream configuration: answers to what was asked before are not kept.
        self._asking = {one: asked for one, asked in self._asking.items() if not asked[1].done()}
        asking = asyncio.create_task(self._ask(timeout, question), name="kafka readiness")
        # Who asked may have gone.
        asking.add_done_callback(_take)
        self._asking[question] = time.monotonic(), asking
        return asking

    async def aclose(self) -> None:
        """Ask no more. Idempotent."""
        asking = [task for _, task in self._asking.values()]
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    async def _ask(self, timeout: float, question: _Question) -> None:
        deadline = time.monotonic() + timeout
        metadata = await self._metadata(question.topics, timeout)
        if question.topics is None:
            return
        places = places_of(metadata, question.topics)
        if question.writing:
            places = with_enough_replicas(places, await self._least_in_sync({p.topic for p in places}, deadline))
        leaders = list(dict.fromkeys(place.leader for place in places))[:MOST_LEADERS]
        asked = frozenset(leaders) - await refusing(metadata, leaders)
        await self._first_answer([place for place in places if place.leader in asked] or places[:1], deadline)

    async def _metadata(self, wanted: frozenset[str] | None, timeout: float) -> Any:
        """Return what a broker says of all topics, where it matters: one request, whatever their number."""
        ask = partial(self._contact.admin.list_topics, timeout=timeout)
        if wanted is None:
            ask = partial(ask, ASKED_TOPIC)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        except KafkaException as exc:
            self._contact.look()
            raise self._reasons.explain(exc) from exc

    async def _first_answer(self, places: list[_Place], deadline: float) -> None:
        """Return when the first leader has answered. Raises: LogUnavailable when none does."""
        by_leader = {place.leader: KafkaPartition(place.topic, place.number) for place in places}
        left = max(0.1, deadline - time.monotonic())
        asked: list[Any] = []
        for partition in by_leader.values():
            futures = self._contact.admin.list_offsets({partition: OffsetSpec.latest()}, request_timeout=left)
            asked += map(asyncio.wrap_future, futures.values())
        for answer in asked:
            answer.add_done_callback(_take)
        error: KafkaException | None = None
        for first in asyncio.as_completed(asked):
            try:
                # Deliberate: a leader that does not answer in time is told by no error, but by no offset.
                if (await first).offset >= 0:
                    return
            except KafkaException as exc:
                error = exc
        self._contact.look()
        if error is not None:
            raise self._reasons.explain(error, places[0].topic) from error
        raise LogUnavailable(self._reasons.sentence(f"no leader of {_named(p.topic for p in places)} answers"))

    # -- replicas

    async def _least_in_sync(self, topics: Collection[str], deadline: float) -> Mapping[str, int]:
        """Return how many in-sync replicas an append needs, where the rights let a topic's configuration be seen."""
        now = time.monotonic()
        self._least = {name: held for name, held in self._least.items() if now - held[0] < CONFIG_SECONDS}
        unknown = [ConfigResource(ResourceType.TOPIC, name) for name in topics if name not in self._least]
        if unknown and self._may_describe:
            futures = self._contact.admin.describe_configs(unknown, request_timeout=max(0.1, deadline - now))
            answers = await asyncio.gather(*map(asyncio.wrap_future, futures.values()), return_exceptions=True)
            for resource, answer in zip(futures, answers, strict=True):
                if not isinstance(answer, BaseException):
                    self._least[resource.name] = now, int(answer[MIN_ISR].value)
            # Asked once: each refusal is a line in the broker's log.
            self._may_describe = not all(map(_is_refusal, answers))
        return {name: least for name, (_, least) in self._least.items()}


def places_of(metadata: Any, wanted: Collection[str]) -> list[_Place]:
    """Return what has a leader. Raises: LogUnavailable when nothing does."""
    found = [metadata.topics[name] for name in sorted(wanted) if name in metadata.topics]
    places = [
        _Place(topic.topic, number, partition.leader, len(partition.isrs), len(partition.replicas))
        for topic in found
        for number, partition in topic.partitions.items()
        if partition.leader >= 0
    ]
    if places:
        return places
    if any(topic.partitions for topic in found):
        raise LogUnavailable(f"no partition of {_named(topic.topic for topic in found)} has a leader")
    raise LogUnavailable(
        f"there is no topic {_named(wanted)}, or the rights do not let it be seen (DESCRIBE on the topic)"
    )


def with_enough_replicas(places: list[_Place], least: Mapping[str, int]) -> list[_Place]:
    """Leave out what would refuse an append for too few in-sync replicas. Raises: LogUnavailable for all of it."""
    # A broker asks for no more replicas than there are.
    enough = [place for place in places if place.in_sync >= min(least.get(place.topic, 0), place.replicas)]
    if enough:
        return enough
    few = places[0]
    raise LogUnavailable(
        f"no partition of {_named(place.topic for place in places)} has the in-sync replicas that an append needs:"
        f" {few.topic}/{few.number} has {few.in_sync}, {MIN_ISR} is {least[few.topic]}"
    )


def _take(answer: asyncio.Future[Any]) -> None:
    """Have an answer's error count as seen: the event loop would tell of it."""
    if not answer.cancelled():
        answer.exception()


def _is_refusal(answer: Any) -> bool:
    return isinstance(answer, KafkaException) and answer.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


def _named(topics: Iterable[str]) -> str:
    names = sorted(set(topics))
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
