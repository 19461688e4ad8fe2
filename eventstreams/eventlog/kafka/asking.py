"""Asking which topics there are, of a cluster in which brokers die: by two clients, the second where the first is slow.

librdkafka asks one broker of its choice, which it holds to be the controller. One that has died is named as such for as
long as its session lasts, and one that stands still is waited for: a client that has met it is of no use for seconds,
while another one's broker answers in milliseconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from concurrent.futures import Executor
from functools import partial
from typing import Any

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from eventstreams.errors import LogUnavailable
from eventstreams.eventlog.kafka.contact import ASKED_TOPIC, Contact
from eventstreams.eventlog.kafka.options import Properties
from eventstreams.eventlog.kafka.reasons import UNREACHED, Reasons
from eventstreams.eventlog.kafka.refusing import refusing

TIMEOUT = 10.0
"""Seconds after which the cluster is taken to be away."""

FIRST_SECONDS = 0.25
"""What one client has for an answer: a broker that is well takes milliseconds.

Not more: see `refusing`. Whom a client holds to be the controller is known after it has failed.
"""

ATTEMPT_SECONDS = 1.0
"""The same where the broker is there, and slow."""

UNMET = "waiting for controller"
"""What librdkafka says then."""

FIRST_REST, LONGEST_REST = 0.1, 1.0
"""Seconds in which a client is left alone that has met nobody; doubled each time."""

HEDGE_SECONDS = 0.15
"""After which the second one is asked too."""

PAUSE = 0.05
"""Seconds between two rounds, where both fail at once."""

Answers = Mapping[str, Any]
"""By topic, librdkafka's description, or the error."""


class Client:
    """One client, and what became of the last questions."""

    __slots__ = ("admin", "seconds", "unmet")

    def __init__(self, admin: AdminClient) -> None:
        self.admin = admin
        self.seconds = FIRST_SECONDS
        """What it has for an answer."""
        self.unmet = 0
        """How often it has met nobody, more or less in a row."""

    def answered(self) -> None:
        """Note that somebody did."""
        self.seconds = FIRST_SECONDS
        # Not forgotten at once: with some brokers dead it is by chance whom it meets.
        self.unmet = max(0, self.unmet - 1)

    def failed(self, answers: Collection[Any]) -> None:
        """Note that nobody did, with what librdkafka says."""
        if all(isinstance(one, KafkaException) and UNMET in one.args[0].str() for one in answers):
            self.unmet += 1
        else:
            self.seconds = ATTEMPT_SECONDS

    @property
    def rest(self) -> float:
        """Return for how long it is left alone before it is asked again."""
        return min(FIRST_REST * 2.0**self.unmet, LONGEST_REST) if self.unmet else 0.0


class Asking:
    """Two clients, the one that answered last asked first. `open` it before use."""

    def __init__(self, properties: Properties, contact: Contact, reasons: Reasons, threads: Executor) -> None:
        self._properties = properties
        self._contact = contact
        self._reasons = reasons
        self._threads = threads
        self._clients: list[Client] = []
        self._under_way: set[asyncio.Task[Answers | None]] = set()

    async def describe(self, topics: Collection[str]) -> Answers:
        """Return what the cluster says of each. Raises: LogUnavailable."""
        self._contact.check()
        if not self._clients:
            self._clients = [Client(self._contact.admin), Client(AdminClient(self._properties))]
        deadline = time.monotonic() + TIMEOUT
        while True:
            answers = await self._round(topics)
            if answers is not None:
                return answers
            if time.monotonic() >= deadline:
                raise LogUnavailable(self._reasons.sentence(f"no answer in {TIMEOUT:g} s"))
            await asyncio.sleep(PAUSE)

    async def _round(self, topics: Collection[str]) -> Answers | None:
        """Ask both, the second after a while; return what came first, None where neither answered."""
        asked: dict[asyncio.Task[Answers | None], Client] = {}
        for number, client in enumerate(list(self._clients)):
            asked[self._begin(client, topics)] = client
            patience = HEDGE_SECONDS if number == 0 else 2 * ATTEMPT_SECONDS
            for task in await _ended(asked, patience):
                answers = task.result()
                if answers is not None:
                    best = asked[task]
                    self._clients = [best, *(one for one in self._clients if one is not best)]
                    return answers
        return None

    def _begin(self, client: Client, topics: Collection[str]) -> asyncio.Task[Answers | None]:
        task = asyncio.create_task(self._ask(client, sorted(topics)), name="kafka topics")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    async def _ask(self, client: Client, topics: list[str]) -> Answers | None:
        """Ask one client; None where it reached nobody: it looks then whom it may ask next."""
        loop = asyncio.get_running_loop()
        if client.unmet and await self._is_refused(client):
            client.unmet += 1
            await asyncio.sleep(client.rest)
            return None
        ask = partial(client.admin.describe_topics, TopicCollection(topics), request_timeout=client.seconds)
        try:
            futures = await loop.run_in_executor(self._threads, ask)
        except KafkaException:
            return None
        answers = await asyncio.gather(*map(asyncio.wrap_future, futures.values()), return_exceptions=True)
        if not all(isinstance(one, KafkaException) and one.args[0].code() in UNREACHED for one in answers):
            client.answered()
            return dict(zip(futures, answers, strict=True))
        client.failed(answers)
        await self._look(client)
        await asyncio.sleep(client.rest)
        return None

    async def _is_refused(self, client: Client) -> bool:
        """Whether whom it would ask is known to take no connections."""
        metadata = await self._look(client)
        return metadata is not None and bool(await refusing(metadata, [metadata.controller_id]))

    async def _look(self, client: Client) -> Any | None:
        look = partial(client.admin.list_topics, ASKED_TOPIC, timeout=ATTEMPT_SECONDS)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, look)
        except KafkaException:
            client.admin.poll(0)
            return None

    def turn(self) -> None:
        """Have the other one be asked first: what this one's broker says is old."""
        self._clients.reverse()

    async def aclose(self) -> None:
        """End what is under way. Idempotent."""
        tasks = list(self._under_way)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._clients = []  # a client has no end but that nobody holds it


async def _ended(
    tasks: Collection[asyncio.Task[Answers | None]], patience: float
) -> list[asyncio.Task[Answers | None]]:
    """Return those that have ended, as soon as one has an answer; all have ended, or time is over, otherwise."""
    deadline = time.monotonic() + patience
    while True:
        left = [task for task in tasks if not task.done()]
        done = [task for task in tasks if task.done()]
        if not left or any(task.result() is not None for task in done) or time.monotonic() >= deadline:
            return done
        await asyncio.wait(left, timeout=deadline - time.monotonic(), return_when=asyncio.FIRST_COMPLETED)
