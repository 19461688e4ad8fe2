"""What streams get while clients are connected: partitions added to a topic, topics added to a stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from eventstreams.errors import BadRequest, EventStreamsError
from eventstreams.positions import AtTime, Cursor, Edge, Next, Position
from eventstreams.records import TopicPartition
from eventstreams.subscribe.event_ids import EventIds
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


def _kind(group: Group) -> tuple[object, ...]:
    """Return what groups have in common that grow alike."""
    return group.shape.partitions, group.shape.streams, group.shape.partial


class Growth:
    """Looks for new partitions of what is subscribed to, and takes the subscribers of whole streams there."""

    def __init__(self, engine: Engine, topics: Topics) -> None:
        self._engine = engine
        self._topics = topics

    async def run(self) -> None:
        """Look from time to time until cancelled."""
        failing = False
        while True:
            await asyncio.sleep(self._engine.options.partition_refresh)
            try:
                await self.refresh()
                failing = False
            except EventStreamsError as exc:
                if not failing:
                    logger.warning("looking for new partitions failed: %s", exc)
                failing = True

    async def refresh(self) -> None:
        """Look for new and missing partitions, and for topics made anew, now. Raises: LogUnavailable, UnknownTopic.

        Who subscribes to all of a stream goes on over the new ones too, from their earliest.
        """
        engine = self._engine
        # Of thousands of groups with a filter each, most are over the same partitions.
        kinds = {_kind(group): group.shape for group in engine.groups()}
        shapes = kinds.values()
        held = {partition for shape in shapes for partition in shape.partitions}
        topics = {partition.topic for partition in held}.union(*(self._topics(s) for sh in shapes for s in sh.streams))
        described = await engine.log.describe(topics)
        now = {topic: tuple(found.partitions) for topic, found in described.items()}
        engine.recovery.note(described)
        engine.recovery.set_aside([partition for partition in held if partition not in now.get(partition.topic, ())])
        grown = {kind: new for kind, shape in kinds.items() if (new := self._new_partitions(shape, now))}
        for group in engine.groups() if grown else ():
            if _kind(group) in grown:
                await self._widen(group, grown[_kind(group)])

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
        found: dict[tuple[Position, ...], Cursor] = {}
        for subscription in list(group.members):
            times = [next_.timestamp for next_ in subscription.position().next if next_.timestamp is not None]
            oldest = min(times, default=None)
            positions = {p: first_position(p, known, oldest) for p in new}
            starts = found.get(tuple(positions.values()))
            if starts is None:
                starts = found[tuple(positions.values())] = await engine.log.resolve(positions)
            await engine.pump.watch(new)
            if subscription not in group.members:
                # Its client went meanwhile, and what it had is given back already.
                engine.pump.unwatch(new)
                continue
            cursor = subscription.position().cursor()
            for partition in new:
                cursor.move(partition, Next(starts[partition].offset))
            cursor.identities = engine.recovery.identities(cursor)
            ids = EventIds(cursor)
            try:
                if not shape.json_lines:
                    ids.check_fit(0)
            except BadRequest as exc:
                engine.pump.unwatch(new)
                subscription.fail(exc)
                continue
            subscription.move_to(engine.group(shape, group.filter), ids)
        engine.drop_if_empty(group)
