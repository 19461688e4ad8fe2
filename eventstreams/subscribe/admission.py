"""Who may open a stream: limits per client and in all, counted by one context manager."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv6Address
from typing import Self

from eventstreams.addresses import parse_address
from eventstreams.errors import ServiceUnavailable, TooManyConnections
from eventstreams.metrics import Metrics

RETRY_AFTER = 30.0
"""Seconds told to a client over its limit: long enough for one of its connections to end."""

DRAIN_RETRY_AFTER = 5.0

IPV6_PREFIX_BITS = 64
"""A home or a host has a /64 at least: addresses within count as one client."""

REMEMBERED_REFUSALS = 10_000

REFUSAL_PAUSE = 1.0
"""Seconds: a client that was refused within the last one is answered late, since some clients come back at once."""


class Place:
    """A stream that is counted, until `give_back` or the end of the context."""

    __slots__ = ("_admission", "_key")

    def __init__(self, admission: Admission, key: str) -> None:
        self._admission: Admission | None = admission
        self._key = key

    def give_back(self) -> None:
        """Count the stream no more. Idempotent."""
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.uncount(self._key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.give_back()


class Admission:
    """Counts open streams. Draining refuses all."""

    def __init__(self, metrics: Metrics, *, per_client: int = 0, in_all: int = 0) -> None:
        self._metrics = metrics
        self._per_client = per_client
        self._in_all = in_all
        self._open: dict[str, int] = {}
        self._refused: OrderedDict[str, float] = OrderedDict()
        self._waits: set[asyncio.Timeout] = set()
        self.draining = False
        self.count = 0

    def enter(self, client: str) -> Place:
        """Count a stream of this client while the context lasts that this returns.

        Raises: TooManyConnections, ServiceUnavailable.
        """
        key = client_key(client)
        self._check(key)
        self._open[key] = self._open.get(key, 0) + 1
        self.count += 1
        self._metrics.connections_open(self.count)
        return Place(self, key)

    def uncount(self, key: str) -> None:
        """Take a place back; called by `Place`, once."""
        self.count -= 1
        self._metrics.connections_open(self.count)
        left = self._open[key] - 1
        if left:
            self._open[key] = left
        else:
            del self._open[key]

    def drain(self) -> None:
        """Refuse all from now on, those too that wait for the log."""
        self.draining = True
        now = asyncio.get_running_loop().time()
        for wait in self._waits:
            # One whose time is over ends by itself, and may not be moved any more.
            if not wait.expired():
                wait.reschedule(now)

    @asynccontextmanager
    async def wait(self, seconds: float) -> AsyncIterator[None]:
        """Bound what a request waits for before its stream begins.

        Raises: TimeoutError, and ServiceUnavailable when a drain has begun meanwhile.
        """
        try:
            async with asyncio.timeout(seconds) as wait:
                self._waits.add(wait)
                try:
                    yield
                finally:
                    self._waits.discard(wait)
        except TimeoutError as exc:
            self._check_draining(exc)
            raise

    def _check_draining(self, cause: Exception | None = None) -> None:
        if self.draining:
            message = "this server is shutting down; another one answers"
            raise ServiceUnavailable(message, retry_after=DRAIN_RETRY_AFTER) from cause

    def _check(self, key: str) -> None:
        self._check_draining()
        if self._in_all and self.count >= self._in_all:
            raise ServiceUnavailable(f"all {self._in_all} places are taken", retry_after=RETRY_AFTER)
        if self._per_client and self._open.get(key, 0) >= self._per_client:
            raise TooManyConnections(
                "Your HTTP client is likely opening too many concurrent connections.", retry_after=RETRY_AFTER
            )

    async def pause_if_hasty(self, client: str) -> None:
        """Wait before refusing a client again that was refused a moment ago."""
        key = client_key(client)
        now = time.monotonic()
        last = self._refused.pop(key, 0.0)
        self._refused[key] = now
        while len(self._refused) > REMEMBERED_REFUSALS:
            self._refused.popitem(last=False)
        if now - last < REFUSAL_PAUSE:
            self._refused[key] = now + REFUSAL_PAUSE
            await asyncio.sleep(REFUSAL_PAUSE)


def client_key(client: str) -> str:
    """Return what is counted as one client: the address, for IPv6 its /64."""
    try:
        address = parse_address(client)
    except ValueError:
        return client
    if isinstance(address, IPv6Address):
        return f"{IPv6Address(int(address) >> (128 - IPV6_PREFIX_BITS) << (128 - IPV6_PREFIX_BITS))}/{IPV6_PREFIX_BITS}"
    return str(address)
