"""The first answer of a cluster: waited for in the background, for as long as its owner lives."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Executor
from functools import partial

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from eventstreams.errors import LogRefused, LogUnavailable
from eventstreams.eventlog.kafka.options import Properties, refused_properties
from eventstreams.eventlog.kafka.reasons import Reasons

logger = logging.getLogger(__name__)

ASKED_TOPIC = "eventstreams"
"""What metadata is asked for: all topics would be megabytes on a large cluster. There need not be one."""

FIRST_STEP, LAST_STEP = 0.5, 2.0
"""Seconds of a try, doubled from the first to the last: a process ends no sooner than a try that is under way."""

PAUSE = 0.25
"""Seconds between tries: some fail at once."""

REFUSALS = 2
"""Tries in a row after which a refusal counts: of several brokers one may be set up wrongly."""

LOOK = 1.0
"""Seconds between looks at what the client was told: it keeps all of it until then."""


class Contact:
    """Learns the cluster's id as soon as a broker answers, and what keeps it from that. `start` it on the loop."""

    def __init__(self, properties: Properties, reasons: Reasons, threads: Executor) -> None:
        """Prepare; the callback of these properties notes the reasons."""
        self.cluster = ""
        """Empty until the cluster has answered."""
        self._properties = properties
        self._reasons = reasons
        self._threads = threads
        self._client: AdminClient | None = None
        self._made: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to ask. Raises: ConfigurationError for properties that librdkafka refuses."""
        with refused_properties():
            self._client = AdminClient(self._properties)
        self._made = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(self._client, self._made), name="kafka contact")

    @property
    def admin(self) -> AdminClient:
        """Return the client that asks. Raises: LogUnavailable while there is none."""
        if self._client is None:
            raise LogUnavailable("the event log is not open")
        return self._client

    async def wait(self, timeout: float | None = None) -> None:
        """Return when the cluster has answered once.

        Raises: LogRefused when it refuses us for good, LogUnavailable after `timeout` seconds; both with the reason.
        """
        if self._made is None:
            raise LogUnavailable("the event log is not open")
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(self._made)
        except TimeoutError as exc:
            raise LogUnavailable(self._reasons.sentence()) from exc

    def check(self) -> None:
        """Return where the cluster has answered once. Raises: LogUnavailable."""
        if not self.cluster:
            raise LogUnavailable(self._reasons.sentence())

    def look(self) -> None:
        """Have the client tell what it was told."""
        self.admin.poll(0)

    async def _run(self, admin: AdminClient, made: asyncio.Future[None]) -> None:
        await self._make(admin, made)
        while True:
            await asyncio.sleep(LOOK)
            admin.poll(0)

    async def _make(self, admin: AdminClient, made: asyncio.Future[None]) -> None:
        step, refusals = FIRST_STEP, 0
        while not self.cluster:
            refused = await self._try(admin, step)
            refusals = refusals + 1 if refused is not None else 0
            if refused is not None and refusals >= REFUSALS and not made.done():
                made.set_exception(refused)
                made.exception()  # nobody need be waiting
            step = min(2 * step, LAST_STEP)
            if not self.cluster:
                await asyncio.sleep(PAUSE)
        if not made.done():
            made.set_result(None)

    async def _try(self, admin: AdminClient, seconds: float) -> LogRefused | None:
        """Ask once; return the refusal where that is what came of it."""
        ask = partial(admin.list_topics, ASKED_TOPIC, timeout=seconds)
        try:
            metadata = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        except KafkaException:
            admin.poll(0)
            return self._reasons.refused
        if metadata.cluster_id:
            self.cluster = metadata.cluster_id
            self._reasons.forget()
        return None

    async def aclose(self) -> None:
        """Give up. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._client = None  # it has no end but that nobody holds it: its threads and connections go
