"""When clients come back whose stream ends or cannot begin: each at a time of its own, not all at once."""

from __future__ import annotations

import random
from collections.abc import Iterator


class Retries:
    """Times to come back, in milliseconds as `retry:` has them: at least `least` seconds, at most `spread` more."""

    __slots__ = ("_least", "_spread")

    def __init__(self, least: float, spread: float) -> None:
        self._least = round(1000 * least)
        self._spread = round(1000 * spread)

    def draw(self) -> int:
        """Return one by chance."""
        return self._least + random.randint(0, self._spread)

    def slots(self, count: int) -> Iterator[int]:
        """Yield times spread evenly for `count` clients, in no order; then any."""
        yield from (self._least + slot * self._spread // count for slot in random.sample(range(count), count))
        while True:
            yield self.draw()
