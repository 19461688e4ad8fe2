"""Finding out that a consumer stands still: librdkafka may, without an error, where the log has more.

It does where a topic was made anew: the leaders of the new one count their epochs from nought, librdkafka takes what it
is told of them for outdated, and asks with the old one's epoch for ever. Where that is known another consumer is made
at once; this is for what is not known, whatever else may be the cause.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping

from eventstreams.errors import LogError
from eventstreams.records import TopicPartition

logger = logging.getLogger(__name__)

LOOK_SECONDS = 10.0
"""Between two looks: what stands still is found with the third at the latest, and a quiet log costs one question."""

LONGEST_REST = 32
"""Looks that are left out after a find that was of no use; doubled each time up to this."""

NAMED = 10
"""Partitions that a warning names at most."""

Ends = Callable[[Collection[TopicPartition]], Awaitable[Mapping[TopicPartition, int]]]
"""Tells the ends of partitions, of those of which it can."""


class Standstill:
    """Compares where a consumer is with the log's ends, from look to look."""

    def __init__(self, ends: Ends) -> None:
        self._ends = ends
        self._before: Mapping[TopicPartition, int] = {}
        self._late: Mapping[TopicPartition, int] = {}
        self._found: Mapping[TopicPartition, int] = {}
        """What stood still at the last find."""
        self._rest = 0
        self._resting = 0

    async def run(
        self,
        seconds: float,
        positions: Callable[[], Mapping[TopicPartition, int]],
        renew: Callable[[], Awaitable[None]],
    ) -> None:
        """Look every so many seconds, and have another consumer made where one stands still; until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            standing = await self.look(positions())
            if standing:
                places = ", ".join(f"{topic}/{partition}" for topic, partition in sorted(standing)[:NAMED])
                logger.warning("a consumer stands still, another one takes over", extra={"places": places})
                with contextlib.suppress(LogError):  # then with the next change, or the next find
                    await renew()

    async def look(self, positions: Mapping[TopicPartition, int]) -> Collection[TopicPartition]:
        """Return those that have not moved since the last look, nor before, though the log had more already then."""
        if self._resting:
            self._resting -= 1
            return ()
        before, self._before = self._before, dict(positions)
        quiet = {partition: at for partition, at in positions.items() if before.get(partition) == at}
        ends = await self._ends(quiet.keys())
        held, self._late = self._late, {p: at for p, at in quiet.items() if ends.get(p, at) > at}
        standing = [partition for partition, at in self._late.items() if held.get(partition) == at]
        if not any(positions.get(partition) == at for partition, at in self._found.items()):
            self._found, self._rest = {}, 0
        if standing:
            self._found = {partition: positions[partition] for partition in standing}
            self._before = self._late = {}
            self._resting = self._rest
            self._rest = min(2 * self._rest + 1, LONGEST_REST)
        return standing
