"""Subscribers beside the kill rig of the cluster: topics grow and are made anew under them, while brokers die.

In the end each has seen every event of the topic that grew, once and in order, from the first of each partition on. Of
the topic that is made anew it has seen each time a beginning without holes, all of the last one, and a gap notice
before each that came after one it had seen. Which one an event is of is what its id tells: a broker that has not heard
of a deletion yet takes events for the old one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient

from eventstreams.errors import EventStreamsError
from eventstreams.eventlog.kafka.admin import TopicsAdmin, WantedTopic
from eventstreams.eventlog.open import open_log
from eventstreams.subscribe.options import EngineOptions
from tests.support.oracle_client import Client
from tests.support.oracle_log import values
from tests.support.processes import GatewayProcess
from tests.support.sse import Message, Place, SseReader

GENERATION = 10**9
"""Numbers of one topic's life: the next one's begin beyond them."""

FIRST_PARTITIONS, MOST_PARTITIONS = 2, 24
PATIENCE = EngineOptions().gone_after - 5.0
"""Seconds for which a topic may be away without a word to its streams; somewhat less, since machines are busy."""

STANDSTILL = 60.0
"""Seconds in which some client must have come further, once nothing is troubled any more."""

SETTINGS = ("gateway.tail_bytes=1000000", "gateway.replay_bytes=3000000", "gateway.drain_timeout=2", "log_level=error")
"""A tail so small that clients pass from the log to the tail and back all the time."""


class Watcher(Client):
    """A client that takes gap notices for what they are."""

    def __init__(self, gateway: GatewayProcess, streams: Sequence[str], rng: random.Random, *, whole: bool) -> None:
        super().__init__(gateway, streams, rng, whole=whole)
        self.gaps: Counter[Place] = Counter()
        self.lives: dict[Place, list[str]] = defaultdict(list)
        """Of which topic of its name each event was, as its id tells."""
        self.last: Mapping[Place, tuple[int, int]] = {}
        """The last event of each partition: offset and number."""

    def behind(self, ends: Mapping[Place, int]) -> dict[Place, tuple[int, int]]:
        """Return where it has not seen the last event: an offset alone may be one of an earlier life of the topic."""
        mine = [place for place in ends if place[0] in self.streams]
        late = [place for place in mine if self.seen[place][-1:] != [self.last.get(place)]]
        return {place: (min(self.ids.offsets.get(place, -1), ends[place] - 1), ends[place]) for place in late}

    def _take(self, reader: SseReader, content: bytes) -> None:
        told = len(self.surprises)
        super()._take(reader, content)
        for surprise in self.surprises[told:]:
            name, _, data = surprise.partition(": ")
            if name == "gap":
                self.surprises.remove(surprise)
                self._note(json.loads(data))

        self._look()

    def _see(self, message: Message) -> None:
        super()._see(message)
        meta = json.loads(message.data)["meta"]
        marks = {entry["topic"]: entry["log"] for entry in json.loads(message.last_event_id) if "log" in entry}
        self.lives[meta["topic"], meta["partition"]].append(marks[meta["topic"]])

    def _note(self, body: Mapping[str, Any]) -> None:
        for gap in body["partitions"]:
            self.gaps[gap["topic"], gap["partition"]] += 1


class Watching:
    """A companion of the rig; `grow` and `remake` are the seconds between two of each, drawn at random."""

    def __init__(
        self,
        servers: str,
        folder: Path,
        *,
        clients: int,
        seed: int,
        rate: float = 40.0,
        grow: tuple[float, float] = (10.0, 30.0),
        remake: tuple[float, float] = (5.0, 20.0),
        replicas: int = 3,
    ) -> None:
        self.surprises: list[str] = []
        self.grown = 0
        self.remade = 0
        self.received = 0
        self.longest = 0.0
        """Seconds for which the remade topic was not there."""
        self._servers = servers
        self._url = f"kafka://{servers}"
        self._rng = random.Random(seed)
        self._rate = rate
        self._grow, self._remake = grow, remake
        self._replicas = replicas
        self._growing, self._anew = f"watched{seed}.grows", f"watched{seed}.anew"
        streams = folder / "watched.yaml"
        streams.write_bytes(orjson.dumps({"streams": {t: {"topics": [t]} for t in (self._growing, self._anew)}}))
        self._gateway = GatewayProcess(self._url, streams, *SETTINGS)
        # One for all: where librdkafka's own thread were the last to let go of it, the process would end.
        self._admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
        self._clients = [self._client(number) for number in range(clients)]
        self._stopped = asyncio.Event()
        self._producers: dict[str, Producer] = {}
        self._generation = 0
        self._sent: Counter[str] = Counter()

    def _client(self, number: int) -> Watcher:
        topics = ([self._growing, self._anew], [self._anew], [self._growing])[number % 3]
        return Watcher(self._gateway, topics, random.Random(self._rng.random()), whole=True)

    def __str__(self) -> str:
        cuts = sum(client.cuts for client in self._clients)
        gaps = sum(client.gaps.total() for client in self._clients)
        changes = f"grown={self.grown} remade={self.remade} away={self.longest:.0f}s"
        found = f"received={self.received} cuts={cuts} gaps={gaps} surprises={len(self.surprises)}"
        return f"watchers={len(self._clients)} {changes} {found}"

    def stop(self) -> None:
        """Have `run` come to its end."""
        self._stopped.set()

    async def run(self) -> None:
        """Go on until `stop`, and return when all is checked."""
        for topic in (self._growing, self._anew):
            await self._make(topic, FIRST_PARTITIONS)
        async with self._gateway.running(), asyncio.TaskGroup() as tasks:
            reading = [tasks.create_task(client.run()) for client in self._clients]
            jobs = [self._growing_up(), self._making_anew(), *(map(self._produce, (self._growing, self._anew)))]
            await asyncio.gather(*jobs)
            truth = await self._truth()
            last = {place: events[-1] for place, events in truth.items() if events}
            for client in self._clients:
                client.last = last
            await self._catch_up({place: offset + 1 for place, (offset, _) in last.items()})
            for task in reading:
                task.cancel()
        for number, client in enumerate(self._clients):
            found = [words for words in (*client.surprises, *judged(client, truth)) if not self._is_expected(words)]
            self.surprises += [f"watcher {number}: {words}" for words in found]
            self.received += sum(map(len, client.seen.values()))

    def _is_expected(self, words: str) -> bool:
        """Whether this is what becomes of streams whose topic is gone for longer than a gateway waits for it.

        With two of three brokers dead nobody makes topics, and a deleted one stays away until they are back.
        """
        return self.longest > PATIENCE and self._anew in words

    # -- what happens to the topics

    async def _pause(self, seconds: tuple[float, float]) -> bool:
        """Wait for some time; return whether to go on."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), self._rng.uniform(*seconds))
        return not self._stopped.is_set()

    async def _growing_up(self) -> None:
        partitions = FIRST_PARTITIONS
        while await self._pause(self._grow) and partitions < MOST_PARTITIONS:
            partitions += self._rng.randint(1, 2)
            await self._insist(TopicsAdmin(self._servers, {}).grow, self._growing, partitions)
            self._producers.pop(self._growing, None)
            self.grown += 1

    async def _making_anew(self) -> None:
        while await self._pause(self._remake):
            old = self._producers.pop(self._anew, None)
            self._sent[self._anew] = -1
            if old is not None:
                old.purge()
            gone = time.monotonic()
            await self._delete(self._anew)
            if self._rng.random() < 0.5:
                await asyncio.sleep(self._rng.random() * 1.5)
            await self._make(self._anew, FIRST_PARTITIONS)
            self.longest = max(self.longest, time.monotonic() - gone)
            self._generation += 1
            self._sent[self._anew] = 0
            self.remade += 1

    async def _make(self, topic: str, partitions: int) -> None:
        config = {"retention.ms": "-1"}
        wanted = WantedTopic(topic, partitions, self._replicas, config)
        await self._insist(TopicsAdmin(self._servers, {}).create, wanted, done="already exists")

    async def _delete(self, topic: str) -> None:
        async def delete() -> None:
            try:
                await asyncio.wrap_future(self._admin.delete_topics([topic], request_timeout=10)[topic])
            except KafkaException as exc:
                raise EventStreamsError(exc.args[0].str()) from exc

        await self._insist(delete, done="Unknown topic")

    @staticmethod
    async def _insist(job: Callable[..., Any], *arguments: Any, done: str = "\0") -> None:
        """Try until it is done: brokers die meanwhile."""
        while True:
            try:
                await job(*arguments)
            except EventStreamsError as exc:
                if done in str(exc) or "already has" in str(exc):
                    return
                await asyncio.sleep(0.2)
            else:
                return

    # -- events

    async def _produce(self, topic: str) -> None:
        """Write numbered events until it is stopped; a new topic gets at once about as many as the old one had."""
        burst = 0
        while not self._stopped.is_set():
            if self._sent[topic] < 0:
                await asyncio.sleep(0.02)
                continue
            if self._sent[topic] == 0 and topic == self._anew:
                burst = self._rng.choice((1, 20, 200, 400))
            self._send(topic, max(1, burst))
            burst = 0
            await asyncio.sleep(self._rng.expovariate(self._rate))
        for producer in self._producers.values():
            await asyncio.to_thread(producer.flush, 60.0)

    def _send(self, topic: str, count: int) -> None:
        producer = self._producers.get(topic)
        if producer is None:
            properties = {"bootstrap.servers": self._servers, "enable.idempotence": True, "log_level": 0}
            producer = self._producers[topic] = Producer(properties)
        base = self._generation * GENERATION if topic == self._anew else 0
        for _ in range(count):
            number = base + self._sent[topic]
            self._sent[topic] += 1
            value = orjson.dumps({"n": number, "meta": {"stream": topic}, "padding": "x" * self._rng.randrange(600)})
            with contextlib.suppress(BufferError, KafkaException):
                producer.produce(topic, value, b"%d" % self._rng.randrange(1000))
        producer.poll(0)

    # -- the end

    async def _truth(self) -> Mapping[Place, Sequence[tuple[int, int]]]:
        truth: dict[Place, Sequence[tuple[int, int]]] = {}
        async with open_log(self._url, writable=False) as log:
            for topic in (self._growing, self._anew):
                for partition in await log.partitions(topic):
                    held = await values(log, partition)
                    truth[partition.topic, partition.partition] = [
                        (offset, orjson.loads(value)["n"]) for offset, value in held
                    ]
        return truth

    async def _catch_up(self, ends: Mapping[Place, int]) -> None:
        """Wait until every client has come to the end, as long as one comes further."""
        reaching = [asyncio.ensure_future(client.reach(ends)) for client in self._clients]
        left, deadline = -1, time.monotonic() + 10 * STANDSTILL
        while left != (left := sum(client.left(ends) for client in self._clients)) and time.monotonic() < deadline:
            await asyncio.wait(reaching, timeout=STANDSTILL)
            if all(one.done() for one in reaching):
                return
        for one in reaching:
            one.cancel()
        for number, client in enumerate(self._clients):
            if client.behind(ends):
                self.surprises.append(f"watcher {number} is behind: {client.where(ends)}")


def judged(client: Watcher, truth: Mapping[Place, Sequence[tuple[int, int]]]) -> Sequence[str]:
    """Return in words what a client should not have seen, or should have."""
    return [words for place in truth if place[0] in client.streams for words in _judged(client, place, truth[place])]


def _judged(client: Watcher, place: Place, events: Sequence[tuple[int, int]]) -> list[str]:
    lives: dict[str, list[tuple[int, int]]] = defaultdict(list)
    order = [life for life, _ in groupby(client.lives[place])]
    for event, life in zip(client.seen[place], client.lives[place], strict=True):
        lives[life].append(event)
    found = [f"{place}: lives in the order {order}"] if len(set(order)) < len(order) else []
    for life, seen in lives.items():
        offsets = [offset for offset, _ in seen]
        if offsets != list(range(len(offsets))):
            odd = next(n for n, offset in enumerate(offsets) if offset != n)
            found.append(f"{place}: of life {life} it saw {offsets[max(0, odd - 3) : odd + 3]} at {odd}")
    if events and (not order or lives[order[-1]] != list(events)):
        last = len(lives[order[-1]]) if order else 0
        found.append(f"{place}: {last} of {len(events)} events of the last life")
    if client.gaps[place] < len(order) - 1:
        found.append(f"{place}: {client.gaps[place]} gap notices for {len(order)} lives")
    return found
