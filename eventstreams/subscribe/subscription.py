"""One client's way through the log: on its own while it is behind, in its group once it has caught up.

A subscription is a cursor and a wire. At the head it has neither task nor cursor of its own: the group writes to it,
and where it stands is where the head does.
One whose bytes wait leaves the head and reads on at its own pace: the group's recent chunks, the tail, or the log,
whichever still holds what comes next. That is all the flow control there is.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import orjson

from eventstreams.errors import EventStreamsError, LogError, OffsetOutOfRange, TopicReplaced
from eventstreams.positions import Next
from eventstreams.records import TopicPartition
from eventstreams.subscribe import frames
from eventstreams.subscribe.event_ids import EventIds
from eventstreams.subscribe.following import Following
from eventstreams.subscribe.frames import Gap
from eventstreams.subscribe.group import Chunk, Group
from eventstreams.subscribe.recovery import Anew
from eventstreams.subscribe.replay import Step, tail_step
from eventstreams.subscribe.wire import Wire

if TYPE_CHECKING:
    from eventstreams.subscribe.engine import Engine

logger = logging.getLogger(__name__)

QUIET_POLL = 0.1
"""Seconds until the log is asked again where it has nothing yet that the tail does not cover (an open transaction)."""

LOG_RETRY = 1.0
"""Seconds between attempts of one client while the log is away."""


class Subscription:
    """A client of one group. Begins with `start`, ends with `close`."""

    __slots__ = (
        "_closed",
        "_ended",
        "_engine",
        "_following",
        "_last_id",
        "_last_write",
        "_task",
        "_wire",
        "group",
        "ids",
    )

    def __init__(self, engine: Engine, group: Group, ids: EventIds, wire: Wire) -> None:
        self._engine = engine
        self.group = group
        self.ids = ids
        self._wire = wire
        self._task: asyncio.Task[None] | None = None
        self._following: Following | None = None
        self._last_id: bytes | None = None
        self._last_write = 0.0
        self._ended = False
        self._closed = False
        group.members.add(self)

    def start(self, gaps: list[Gap], places: Mapping[TopicPartition, Anew]) -> None:
        """Write the first bytes and go on from the starting cursor; from `places` where partitions were begun since."""
        shape = self.group.shape
        for gap in gaps:
            self._engine.metrics.gap(gap.offsets)
        if shape.json_lines:
            body = frames.FIRST_BYTES_JSON
        else:
            self._last_id = self.ids.id()
            body = frames.FIRST_BYTES_SSE + frames.retry_line(self._engine.retries.draw())
            if gaps:
                # Before the position, which is past the gap: a client cut in between would never be told.
                body += frames.named_frame(b"gap", self._last_id, frames.gap_body(gaps))
            body += self.group.position_block(self._last_id)
        self._write(body)
        self.begin_anew(places)
        self.resume()

    def resume(self) -> None:
        """Go on reading in a task of its own, until the head is reached."""
        if self._closed or self._ended or self._task is not None:
            return
        self._task = self._engine.spawn(self._run())

    # -- writing

    def _write(self, body: bytes) -> bool:
        return self._write_ready(self.group.envelope(body))

    def _write_ready(self, chunk: bytes) -> bool:
        self._last_write = time.monotonic()
        self._engine.metrics.bytes_sent(len(chunk))
        return self._wire.write(chunk)

    def enter_head(self, ids: EventIds) -> None:
        """Be at the head from now on, whose ids these are: in the group's lane where the wire can."""
        self.ids, self._last_id = ids, None
        self.group.at_head.add(self)
        self._wire.enter(self.group.lane, self)

    def _leave_head(self) -> None:
        self._wire.leave()
        self.group.at_head.discard(self)

    def deliver(self, chunk: Chunk, sent: int, last_id: bytes | None, now: float) -> None:
        """Take the group's chunk at the head, of which so many bytes are sent; leaves the head when the rest waits."""
        if not self._wire.rest(chunk.body, sent):
            self._fall_behind(chunk, last_id, now)

    def _fall_behind(self, chunk: Chunk, last_id: bytes | None, now: float) -> None:
        self._last_write, self._last_id = now, last_id
        self._leave_head()
        self._following = Following(self.group, chunk)
        self.resume()

    # -- reading on its own

    async def _run(self) -> None:
        try:
            while not self._closed and not self._wire.closed:
                await self._drained()
                if self._closed or self._wire.closed or await self._advance():
                    break
        except EventStreamsError as exc:
            self.fail(exc)
        except Exception:
            logger.exception("a subscription failed")
            self._engine.metrics.client_dropped("internal_error")
            self._wire.abort()
        finally:
            if self._task is asyncio.current_task():
                self._task = None

    def move_to(self, group: Group, ids: EventIds) -> None:
        """Go on in another group (the partitions became more), from this cursor."""
        self.detach()
        self._stop_reading()
        self.group.members.discard(self)
        self.group, self.ids = group, ids
        group.members.add(self)
        self.resume()

    async def _advance(self) -> bool:
        """Read on by one chunk; return whether the head is reached."""
        if self._following is not None:
            return self._follow(self._following)
        bell = self._engine.bell
        if not self._covered():
            await self._read_log()
        elif not self._read_tail():
            if self._arrived():
                self._join()
                return True
            await self._wait(bell)
        return False

    async def _drained(self) -> None:
        """Wait until the wire takes more; a client that takes nothing for the send timeout is closed."""
        wire, left = self._wire, self._wire.waiting_bytes()
        while True:
            try:
                async with asyncio.timeout(self._engine.options.send_timeout):
                    await wire.drained()
                return
            except TimeoutError:
                before, left = left, wire.waiting_bytes()
                if left >= before:
                    self._engine.metrics.client_dropped("stalled")
                    logger.info("closed a client that took nothing for the send timeout")
                    wire.abort()
                    return

    def _follow(self, following: Following) -> bool:
        """Write the next of the group's recent chunks; return whether that was the last."""
        if following.overtaken:
            # From the tail, or the log, by the own cursor.
            self.ids = following.ids
            self._stop_following()
            return False
        chunk = following.next()
        if chunk is not None:
            self._write_ready(chunk.body)
            return False
        self._stop_following()
        self._join()
        return True

    def _stop_following(self) -> None:
        if self._following is not None:
            self._following.stop()
            self._following = None

    def _covered(self) -> bool:
        tail, ids = self._engine.tail, self.ids
        return all(tail.covers(p, next_.offset) for p, next_ in zip(ids.partitions, ids.next, strict=True))

    def _read_tail(self) -> bool:
        """Write what the tail has past the own cursor, at most a step; False when there was nothing to pass."""
        step = tail_step(self._engine.tail, self.group, self.ids)
        self._take(step)
        return step.moved

    def _take(self, step: Step) -> None:
        self.ids = step.ids
        if step.body:
            self._last_id = step.last_id
            self._write_ready(step.body)

    def _arrived(self) -> bool:
        """Whether arrival has reached the own cursor in every partition: else the head's ids would fall below it."""
        tails = self._engine.tail.partitions
        return all(tails[p].end >= next_.offset for p, next_ in zip(self.ids.partitions, self.ids.next, strict=True))

    def _join(self) -> None:
        self._engine.enter_head(self, self._last_id)

    async def _read_log(self) -> None:
        before, bell = self.ids, self._engine.bell
        try:
            step = await self._engine.replay.step(self.group, before)
        except LogError as exc:
            if not self._over and self.ids is before:
                await self._meet(exc, bell)
            return
        if self._over or self.ids is not before:
            return
        self._take(step)
        if not step.moved:
            await self._wait(None, QUIET_POLL)
        self._beat_if_idle()
        await asyncio.sleep(0)

    async def _meet(self, exc: LogError, bell: asyncio.Future[None]) -> None:
        """Go on after an error of the log at the own place. Raises: LogError, for what does not get better."""
        if isinstance(exc, OffsetOutOfRange):
            if exc.earliest > self.ids[exc.partition].offset:
                self._jump({exc.partition: exc.earliest}, lambda place: place - 1)
        elif isinstance(exc, TopicReplaced):
            # Who brings topics back tells where to go on, and rings.
            self._engine.recovery.doubt(exc.topic)
            await self._wait(bell, LOG_RETRY)
        elif exc.status == 503:
            await self._wait(None, LOG_RETRY)
        else:
            raise exc

    def begin_anew(self, places: Mapping[TopicPartition, Anew]) -> None:
        """Go on in logs that were made anew, or have lost the own place, and say that they were."""
        self._stop_reading()
        mine = {partition: anew for partition, anew in places.items() if partition in self.ids and anew.replaced}
        if not mine:
            return
        identities = self._engine.recovery.identities(self.ids.partitions)
        stay = {p for p, anew in mine.items() if anew.offset >= self.ids[p].offset}
        if identities != self.ids.identities:
            self.ids = self.ids.moved({p: self.ids[p]._replace(offset=mine[p].offset) for p in stay}, identities)
        self._jump({partition: mine[partition].offset for partition in mine if partition not in stay}, lambda _: None)

    def _jump(self, places: Mapping[TopicPartition, int], last: Callable[[int], int | None]) -> None:
        """Go on elsewhere, and tell of the gaps; `last` tells by its place with which offset one ends; see `Gap`."""
        if not places:
            return
        before, self.ids = self.ids, self.ids.copy()
        gaps: list[Gap] = []
        for partition, place in places.items():
            here = before[partition]
            self.ids.move(partition, Next(place, here.timestamp))
            after = None if here.timestamp is None else here.timestamp - 1
            gaps.append(Gap(partition, here.offset, last(place), after))
            self._engine.metrics.gap(gaps[-1].offsets)
        if not self.group.shape.json_lines:
            self._last_id = self.ids.id()
            self._write(frames.named_frame(b"gap", self._last_id, frames.gap_body(gaps)))

    async def _wait(self, bell: asyncio.Future[None] | None, timeout: float | None = None) -> None:
        """Wait for the bell or the time, not longer than until the next heartbeat."""
        until_beat = self._engine.options.heartbeat - (time.monotonic() - self._last_write)
        wait = max(0.0, until_beat if timeout is None else min(timeout, until_beat))
        if bell is None:
            await asyncio.sleep(wait)
        else:
            await asyncio.wait([bell], timeout=wait)
        self._beat_if_idle()

    def _beat_if_idle(self) -> None:
        if time.monotonic() - self._last_write >= self._engine.options.heartbeat:
            body, self._last_id = self.group.heartbeat(self.ids, self._last_id)
            self._write(body)

    # -- ending

    @property
    def closed(self) -> bool:
        """Whether it has left the engine."""
        return self._closed

    @property
    def _over(self) -> bool:
        return self._closed or self._ended or self._wire.closed

    def position(self) -> EventIds:
        """Return the cursor after what was written so far."""
        if self._following is not None:
            return self._following.ids
        if self in self.group.at_head:
            return self.ids.copy()
        return self.ids

    def detach(self) -> None:
        """Leave the group's shared way: go on by the own cursor."""
        if self in self.group.at_head:
            self._last_id = self.group.id_sent
        self.ids = self.position()
        self._stop_following()
        self._leave_head()

    def fail(self, exc: EventStreamsError) -> None:
        """Say why the stream ends, and end it."""
        if self._over:
            return
        body = frames.error_body(exc)
        if self.group.shape.json_lines:
            self.end(orjson.dumps(body) + b"\n")
        else:
            self.end(frames.named_frame(b"error", self.position().id(), body))
        self._engine.metrics.client_dropped(exc.code)

    def end(self, last: bytes = b"") -> None:
        """Write the last bytes and end the response cleanly: nothing comes after them."""
        if self._over:
            return
        self.detach()
        if last:
            self._write(last)
        self._ended = True
        self._cancel()
        self._wire.finish()

    def say_goodbye(self, retry: int) -> None:
        """End for a drain: a final id, and when to come back (ms)."""
        self.end(self.group.goodbye(retry, self.position()))

    def abort(self) -> None:
        """Drop the connection."""
        self._wire.abort()

    def _stop_reading(self) -> None:
        """Give up what is being read: it is of another place."""
        self._cancel()
        self._task = None

    def _cancel(self) -> None:
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    def close(self) -> None:
        """Leave the engine: the connection is gone. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._stop_following()
        self._leave_head()
        self._cancel()
        self._engine.leave(self)
