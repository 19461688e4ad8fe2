"""How much one client may send: events and bytes a second, by token buckets."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from eventstreams.errors import TooManyEvents

MAX_CLIENTS = 50_000
BURST_SECONDS = 10.0
"""A client may send at once what it may send in so many seconds."""


class RateLimits:
    """Two buckets a client; 0 is no limit. What is over the limit is refused whole, and costs nothing."""

    def __init__(
        self, *, events_per_second: float, bytes_per_second: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rates = events_per_second, bytes_per_second
        self._clock = clock
        self._clients: OrderedDict[str, tuple[float, list[float]]] = OrderedDict()

    def spend(self, client: str, events: int, size: int) -> None:
        """Take a request's events and bytes from the client's buckets. Raises: TooManyEvents."""
        if not any(self._rates):
            return
        now = self._clock()
        then, levels = self._clients.pop(client, (now, [rate * BURST_SECONDS for rate in self._rates]))
        levels = [
            min(level + rate * (now - then), rate * BURST_SECONDS)
            for level, rate in zip(levels, self._rates, strict=True)
        ]
        wait = 0.0
        for level, rate, spent in zip(levels, self._rates, (events, size), strict=True):
            # A request larger than a whole bucket is taken from a full one, and leaves a debt.
            if rate and level < min(spent, rate * BURST_SECONDS):
                wait = max(wait, (min(spent, rate * BURST_SECONDS) - level) / rate)
        if not wait:
            levels = [level - spent for level, spent in zip(levels, (events, size), strict=True)]
        self._clients[client] = now, levels
        while len(self._clients) > MAX_CLIENTS:
            self._clients.popitem(last=False)
        if wait:
            raise TooManyEvents(
                f"this client may send {_rates(self._rates)}: come back in {wait:.0f} s", retry_after=wait
            )


def _rates(rates: tuple[float, float]) -> str:
    words = [f"{rate:g} {unit}" for rate, unit in zip(rates, ("events/s", "bytes/s"), strict=True) if rate]
    return " and ".join(words)
