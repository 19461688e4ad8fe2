"""What streams get while clients are connected: partitions added to a topic, topics added to a stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from eventstreams.errors import EventStreamsError
from eventstreams.positions import AtTime, Edge, Next, Position
from eventstreams.records import TopicPartition
from eventstreams.subscribe.frames import EventIds
from eventstreams.subscribe.group import Group, Shape

if TYPE_CHECKING:
    from eventstreams.subscribe.engine import Engine

logger = logging.getLogger(__name__)

Topics = Callable[[str], Sequence[str]]
"""Tells which topics a stream has now; none for a stream that there is not any more."""


NEW_TOPIC_MARGIN = 600_000
"""Milliseconds before a client's place from which a topic is read that was added to its streams."""


def first_position(partition: TopicPartition, known: Collection[str], oldest: int | None) -> Position:
    """Return where a partition is begun that a client does not know of yet; `oldest` is its oldest place (ms).

    A new partition of a topic that it knows begins at its earliest record. One of another topic was added to the
    stream, or its stream to the request: it begins about where the client is, not weeks ago.
    """
    if partition.topic in known or oldest is None:
        return Edge.EARLIEST
    return AtTime(max(0, oldest - NEW_TOPIC_MARGIN))


def no_topics(stream: str) -> Sequence[str]:
    """Know no stream: only partitions of known topics are found."""
    return ()


class Growth:
    """Looks for new partitions of what is subscribed to, and takes the subscribers of whole streams there."""

    def __init__(self, engine: Engine, topics: Topics) -> None:
        self._engine = engine
        self._topics = topics

    async def run(self) -> None:
        """Look from time to time until cancelled."""
        while True:
            await asyncio.sleep(self._engine.options.partition_refresh)
            try:
                await self.refresh()
            except EventStreamsError as exc:
                logger.warning("looking for new partitions failed: %s", exc)

    async def refresh(self) -> None:
        """Look for new and missing partitions now. Raises: LogUnavailable, UnknownTopic.

        Who subscribes to all of a stream goes on over the new ones too, from their earliest.
        """
        engine = self._engine
        shapes = [group.shape for group in engine.groups()]
        held = {partition for shape in shapes for partition in shape.partitions}
        topics = {partition.topic for partition in held}.union(*(self._topics(s) for sh in shapes for s in sh.streams))
        now = {topic: tuple(await engine.log.partitions(topic)) for topic in topics}
        engine.pump.missing([partition for partition in held if partition not in now[partition.topic]])
        for group in engine.groups():
            new = self._new_partitions(group.shape, now)
            if new:
                await self._widen(group, new)

    def _new_partitions(self, shape: Shape, now: Mapping[str, Sequence[TopicPartition]]) -> tuple[TopicPartition, ...]:
        """Return what these subscribers are to be given beside; who asked for some partitions is left with them."""
        if shape.partial:
            return ()
        named = [topic for stream in shape.streams for topic in self._topics(stream)]
        topics = dict.fromkeys([*(partition.topic for partition in shape.partitions), *named])
        held = set(shape.partitions)
        return tuple(p for topic in topics for p in now.get(topic, ()) if p not in held)

    async def _widen(self, group: Group, new: tuple[TopicPartition, ...]) -> None:
        engine = self._engine
        shape = group.shape._replace(partitions=group.shape.partitions + new)
        known = {partition.topic for partition in group.shape.partitions}
        for subscription in list(group.members):
            times = [next_.timestamp for next_ in subscription.position().next if next_.timestamp is not None]
            oldest = min(times, default=None)
            starts = await engine.log.resolve({p: first_position(p, known, oldest) for p in new})
            await engine.pump.watch(new)
            if subscription not in group.members:
                # Its client went meanwhile, and what it had is given back already.
                engine.pump.unwatch(new)
                continue
            cursor = subscription.position().cursor()
            for partition in new:
                cursor.move(partition, Next(starts[partition].offset))
            subscription.move_to(engine.group(shape, group.filter), EventIds(cursor))
        engine.drop_if_empty(group)
