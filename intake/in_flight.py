"""What of requests is held in memory: counted from the first byte of a body to the answer, and bounded."""

from __future__ import annotations

import asyncio
from typing import Self

from eventstreams.errors import ServiceUnavailable
from eventstreams.metrics import Metrics
from intake.outcome import RETRY_AFTER


class InFlight:
    """The requests under way and their bytes."""

    def __init__(self, max_bytes: int, metrics: Metrics) -> None:
        self._max_bytes = max_bytes
        self._size = 0
        self._requests = 0
        self._idle = asyncio.Event()
        self._idle.set()
        metrics.intake_in_flight(lambda: self._size)
        self.draining = False
        """Whether new requests are refused."""

    def check(self) -> None:
        """Return when requests are taken. Raises: ServiceUnavailable."""
        if self.draining:
            raise ServiceUnavailable("this process is stopping: send it again", retry_after=RETRY_AFTER)

    def reserve(self, size: int = 0) -> Reservation:
        """Return room for a request, to be entered at once. Raises: ServiceUnavailable."""
        self.check()
        self._room(size, 0)
        return Reservation(self, size)

    async def settled(self) -> None:
        """Return when no request is under way."""
        await self._idle.wait()

    def _room(self, size: int, own: int) -> None:
        # One alone is always taken, however large: its body has a limit of its own.
        if self._size > own and self._size + size > self._max_bytes:
            raise ServiceUnavailable(
                f"{self._size} bytes of events wait for the log: more than {self._max_bytes} are not held",
                retry_after=RETRY_AFTER,
            )

    def _add(self, requests: int, size: int) -> None:
        self._requests += requests
        self._size += size
        if not requests:
            return
        if self._requests:
            self._idle.clear()
        else:
            self._idle.set()


class Reservation:
    """Room for one request while it is entered."""

    def __init__(self, in_flight: InFlight, size: int) -> None:
        self._in_flight = in_flight
        self._size = size
        self._held = False

    def __enter__(self) -> Self:
        if not self._held:
            self._held = True
            self._in_flight._add(1, self._size)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._held:
            self._held = False
            self._in_flight._add(-1, -self._size)

    def grow(self, size: int) -> None:
        """Take more room. Raises: ServiceUnavailable."""
        self._in_flight._room(size, self._size)
        self._size += size
        self._in_flight._add(0, size)

    def hand_on(self) -> Reservation:
        """Return the same room for who goes on with the request and enters it; leaving this one then means nothing."""
        self._held = False
        other = Reservation(self._in_flight, self._size)
        other._held = True
        return other
