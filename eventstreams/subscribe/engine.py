"""The subscription engine of one process: tail, pump, replay, groups; opened once, closed last.

Everything below runs on one event loop. A batch is appended to the tail and delivered to every head in one go, without
an await between: so whenever other code runs, each head stands at the end of arrival.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager

from eventstreams.errors import FilterError, LogRefused, UnknownTopic
from eventstreams.eventlog.base import EventLog, TopicDescription
from eventstreams.filters.compile import Filter
from eventstreams.metrics import Metrics
from eventstreams.positions import Cursor, Next
from eventstreams.records import TopicPartition
from eventstreams.subscribe.blocks import BlockCache
from eventstreams.subscribe.drain import say_goodbye
from eventstreams.subscribe.event_ids import EventIds
from eventstreams.subscribe.frames import Gap
from eventstreams.subscribe.group import Chunk, Group, Head, Shape
from eventstreams.subscribe.growth import Growth, Topics, no_topics
from eventstreams.subscribe.options import EngineOptions, Form
from eventstreams.subscribe.pump import Pump
from eventstreams.subscribe.recovery import Anew, Recovery
from eventstreams.subscribe.redaction import Redaction
from eventstreams.subscribe.rendering import Item, Renderer
from eventstreams.subscribe.replay import Replay
from eventstreams.subscribe.retries import Retries
from eventstreams.subscribe.subscription import Subscription
from eventstreams.subscribe.tail import Tail
from eventstreams.subscribe.wire import Wire

logger = logging.getLogger(__name__)


TICK = 1.0
"""Seconds between looks at idle groups; a heartbeat is late by at most this."""

GATHER_FROM = 0.001
"""Seconds that a delivery may take before the next one gathers: below it, an event goes out at once."""

GATHER_FACTOR = 2.0
"""Gathering lasts this many deliveries: a third of the time then goes into fixed costs, whatever the load."""


class Engine:
    """Serves subscriptions from one event log."""

    def __init__(
        self,
        log: EventLog,
        options: EngineOptions,
        metrics: Metrics,
        *,
        redaction: Redaction | None = None,
        topics: Topics = no_topics,
    ) -> None:
        self.log = log
        self.options = options
        self.metrics = metrics
        self.tail = Tail(options.tail_bytes)
        self.recovery = Recovery(log, self.tail, self, metrics, gone_after=options.gone_after)
        self.blocks = BlockCache(log, options.block_cache_bytes, metrics, self.recovery.identity)
        self.replay = Replay(self.blocks, self.tail, options.step_cache_bytes)
        self.pump = Pump(log, self.tail, metrics, self, self.recovery, grace=options.grace)
        self.closing = False
        self.growth = Growth(self, topics)
        self.retries = Retries(options.retry, options.retry_spread)
        self._slots: Iterator[int] | None = None
        self._renderer = Renderer(redaction, metrics)
        self._heads: dict[tuple[tuple[TopicPartition, ...], bool], Head] = {}
        self._groups: dict[Shape, Group] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._bell: asyncio.Future[None] | None = None
        self._emptied = asyncio.Event()

    # -- the open engine

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Engine]:
        """Run pump and heartbeats while the context lasts; on leaving, every connection is dropped."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            own = [tasks.create_task(job, name=name) for name, job in self._jobs()]
            try:
                yield self
            finally:
                self.closing = True
                for subscription in self.subscriptions():
                    subscription.abort()
                    subscription.close()
                for task in own:
                    task.cancel()
                await self.replay.aclose()
                await self.blocks.aclose()

    def _jobs(self) -> list[tuple[str, Coroutine[None, None, None]]]:
        return [
            ("pump", self.pump.run()),
            ("recovery", self.recovery.run()),
            ("heartbeats", self._tick()),
            ("partitions", self.growth.run()),
        ]

    def spawn(self, job: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run a subscription's task; it ends with the engine at the latest."""
        assert self._tasks is not None
        return self._tasks.create_task(job, name="subscription")

    @property
    def bell(self) -> asyncio.Future[None]:
        """Return what rings at the next batch. Take it before reading, wait on it after: no growth is missed."""
        if self._bell is None:
            self._bell = asyncio.get_running_loop().create_future()
        return self._bell

    def _ring(self) -> None:
        if self._bell is not None:
            bell, self._bell = self._bell, None
            bell.set_result(None)

    def groups(self) -> list[Group]:
        """Return all groups."""
        return list(self._groups.values())

    def subscriptions(self) -> list[Subscription]:
        """Return all that are open."""
        return [member for group in self._groups.values() for member in group.members]

    # -- coming and going

    async def subscribe(
        self,
        cursor: Cursor,
        wire: Wire,
        form: Form,
        *,
        filter_: Filter | None = None,
        gaps: Sequence[Gap] = (),
        streams: tuple[str, ...] = (),
    ) -> Subscription:
        """Open a subscription at `cursor` on `wire` and write its first bytes.

        `streams`: those whose partitions these are; unless the cursor is partial it goes on over new ones too.

        Raises: UnknownTopic, LogUnavailable.
        """
        await self.prepare(cursor)
        return self.begin(cursor, wire, form, filter_=filter_, gaps=gaps, streams=streams)

    async def prepare(self, cursor: Cursor) -> None:
        """Do what may fail before a subscription; then `begin` or `release` has to follow.

        Raises: UnknownTopic, LogUnavailable.
        """
        await self.pump.watch(tuple(cursor))

    async def know(self, described: Mapping[str, TopicDescription]) -> None:
        """Take note of which topics there are; return when nothing is held in memory of others."""
        await self.recovery.know(described)

    def is_away(self, topic: str) -> bool:
        """Whether a topic that is not there was there lately."""
        return self.recovery.is_away(topic)

    async def time_before(self, partition: TopicPartition, offset: int) -> int | None:
        """Return the time (ms) + 1 of the record just before an offset; None where there is none to be read.

        From memory, else from the log. Raises: TopicReplaced, LogUnavailable.
        """
        held = self.tail.time_before(partition, offset)
        if held is not None or offset <= 0:
            return held
        time_ = await self.blocks.time_of(partition, offset - 1)
        return None if time_ is None else time_ + 1

    def release(self, cursor: Cursor) -> None:
        """Take a `prepare` back."""
        self.pump.unwatch(tuple(cursor))

    def begin(
        self,
        cursor: Cursor,
        wire: Wire,
        form: Form,
        *,
        filter_: Filter | None = None,
        gaps: Sequence[Gap] = (),
        streams: tuple[str, ...] = (),
    ) -> Subscription:
        """Open a subscription that was prepared, and write its first bytes; see `subscribe`. Does not fail."""
        key = Shape(
            tuple(cursor),
            filter_.key if filter_ else None,
            form.canary,
            form.json_lines,
            form.positions,
            form.chunked,
            cursor.partial,
            streams,
        )
        subscription = Subscription(self, self.group(key, filter_), EventIds(self._with_times(cursor)), wire)
        subscription.start(list(gaps), self._replaced_since(cursor))
        if self._slots is not None:
            # It was let in just before the drain began.
            subscription.say_goodbye(next(self._slots))
        return subscription

    def group(self, shape: Shape, filter_: Filter | None) -> Group:
        """Return the group of this shape; made where there is none."""
        group = self._groups.get(shape)
        if group is None:
            group = self._groups[shape] = Group(shape, filter_, self._renderer)
        return group

    def _with_times(self, cursor: Cursor) -> Cursor:
        """Give each partition that has none the time of its last readable record, where the tail knows it."""
        full = cursor.copy()
        full.cluster = self.log.cluster
        full.identities = self.recovery.identities(cursor)
        for partition, next_ in cursor.items():
            held = self.tail.partitions.get(partition)
            if next_.timestamp is None and held is not None and next_.offset == held.end:
                full.move(partition, Next(next_.offset, held.timestamp))
        return full

    def _replaced_since(self, cursor: Cursor) -> Mapping[TopicPartition, Anew]:
        """Return where partitions begin whose topics were made anew after the log said where the cursor is."""
        then, now = cursor.identities, self.recovery.identities(cursor)
        replaced = {topic for topic, identity in then.items() if now.get(topic, identity) != identity}
        return {partition: Anew(0, replaced=True) for partition in cursor if partition.topic in replaced}

    def enter_head(self, subscription: Subscription, last_id: bytes | None) -> None:
        """Take a subscription that has caught up in, to be written to with its group."""
        group = subscription.group
        head = self._heads.get(group.shape.head)
        if head is None:
            head = self._heads[group.shape.head] = Head(subscription.ids.copy(), self.tail.next_seq)
        self._raise_head(head)
        if not group.at_head:
            if not group.lagging:
                group.forget_recent()
            group.last_write, group.id_sent = time.monotonic(), last_id
        head.groups.add(group)
        subscription.enter_head(head.ids)

    def _raise_head(self, head: Head) -> None:
        """Move a head where the tail has: past offsets without records, and to times learned since."""
        for partition in head.ids.partitions:
            held = self.tail.partitions[partition]
            here = head.ids[partition]
            if held.end > here.offset or (here.timestamp is None and held.timestamp is not None):
                head.ids.move(partition, held.next)

    def leave(self, subscription: Subscription) -> None:
        """Forget a subscription, and its group and head with the last one."""
        group = subscription.group
        group.members.discard(subscription)
        self.drop_if_empty(group)
        self.pump.unwatch(group.shape.partitions)

    def drop_if_empty(self, group: Group) -> None:
        """Forget a group without members, and its head with the last one."""
        if group.members:
            return
        self._groups.pop(group.shape, None)
        if not self._groups:
            self._emptied.set()
        head = self._heads.get(group.shape.head)
        if head is not None:
            head.groups.discard(group)
            if not head.groups:
                del self._heads[group.shape.head]

    # -- delivering

    def deliver(self, items: Sequence[Item]) -> float:
        """Deliver a batch to all at the head; see `Listener`."""
        started = time.monotonic()
        for head in self._heads.values():
            entries = head.advance(items, self.tail.next_seq)
            if entries:
                self._deliver_head(head, entries, started)
        for item in items:
            item.forget()
        self._ring()
        spent = time.monotonic() - started
        self.metrics.batch_delivered(len(items), spent)
        return 0.0 if spent < GATHER_FROM else min(self.options.flush_interval, GATHER_FACTOR * spent)

    def _deliver_head(self, head: Head, entries: list[tuple[Item, bytes]], now: float) -> None:
        ids: EventIds | None = None
        for group in head.groups:
            if not group.at_head and not group.lagging:
                continue
            body, last_id = group.render(entries)
            if not body:
                continue
            ids = ids or head.ids.copy()
            chunk = Chunk(group.envelope(body), head.seq, ids)
            group.keep(chunk)
            self._write_group(group, chunk, last_id, now)

    def _write_group(self, group: Group, chunk: Chunk, last_id: bytes | None, now: float) -> None:
        group.last_write, group.id_sent = now, last_id
        self.metrics.bytes_sent(len(chunk.body) * len(group.at_head))
        behind = group.write(chunk.body)
        if len(group.lane) < len(group.at_head):
            lane = set(group.lane.values())
            behind += [(subscription, 0) for subscription in group.at_head if subscription not in lane]
        for subscription, sent in behind:
            subscription.deliver(chunk, sent, last_id, now)

    def forget(self, topic: str) -> None:
        """Drop what is held of a topic; see `recovery.Subscribers`."""
        self.blocks.forget(topic)
        self.replay.forget(topic)

    def begun_anew(self, places: Mapping[TopicPartition, Anew]) -> None:
        """Have the subscribers of partitions go on by themselves, see the gap and come back; see `Subscribers`."""
        for subscription in {one for partition in places for one in self._subscribers(partition)}:
            subscription.detach()
            subscription.begin_anew(places)
            subscription.resume()
        for key in [key for key in self._heads if not places.keys().isdisjoint(key[0])]:
            del self._heads[key]
        self._ring()

    def gone(self, exc: UnknownTopic, partition: TopicPartition) -> None:
        """Tell the subscribers of a partition why they are ended; see `Subscribers`."""
        for subscription in self._subscribers(partition):
            subscription.fail(exc)

    def refused(self, exc: LogRefused) -> None:
        """The log refuses a topic for good: its subscribers are told, and ended; see `Listener`."""
        for subscription in self.subscriptions():
            if exc.topic is None or any(p.topic == exc.topic for p in subscription.group.shape.partitions):
                subscription.fail(exc)

    def _subscribers(self, partition: TopicPartition) -> list[Subscription]:
        return [one for group in self.groups() if partition in group.shape.partitions for one in group.members]

    # -- time

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            for head in list(self._heads.values()):
                for group in list(head.groups):
                    if group.at_head and now - group.last_write >= self.options.heartbeat:
                        self._beat(head, group, now)
            for group in list(self._groups.values()):
                if group.filter is not None and group.filter.over_budget:
                    self._end_costly(group)

    def _beat(self, head: Head, group: Group, now: float) -> None:
        body, last_id = group.heartbeat(head.ids, group.id_sent)
        chunk = Chunk(group.envelope(body), head.seq, head.ids.copy())
        group.keep(chunk)
        self._write_group(group, chunk, last_id, now)

    def _end_costly(self, group: Group) -> None:
        for subscription in list(group.members):
            subscription.fail(FilterError("this filter takes more than its share of the server's time"))

    # -- the end

    async def drain(self, window: float) -> None:
        """End every subscription cleanly within `window` seconds, each with its own time to come back."""
        self._emptied.clear()
        open_ones = self.subscriptions()
        self._slots = self.retries.slots(len(open_ones))
        await say_goodbye(open_ones, self._slots, window, self._wait_until_empty)

    async def _wait_until_empty(self) -> None:
        if self._groups:
            await self._emptied.wait()
