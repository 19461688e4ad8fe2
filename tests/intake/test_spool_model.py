"""The spool against whatever may happen to it: a model says what the log must hold in the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from eventstreams.metrics import Metrics
from eventstreams.records import NewRecord, Record
from intake.spool import SPOOLED, Spool, SpoolOptions
from intake.spool_replay import Replay
from intake.spool_store import SpoolStore
from tests.support.away import AwayLog
from tests.support.oracle_log import values
from tests.support.topics import log_with

TOPICS = ("a", "b")

ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.sampled_from(TOPICS), min_size=1, max_size=5)),
        st.tuples(st.just("log"), st.sampled_from(("here", "away", "silent", "lost", "hangs", "late"))),
        st.tuples(st.just("crash"), st.integers(0, 8)),
        st.tuples(st.just("decide"), st.sampled_from(("stored", "refused", "unknown"))),
        st.tuples(st.just("turns"), st.integers(0, 30)),
    ),
    max_size=40,
)


class World:
    """A log, a spool over it that may crash, and what was acknowledged."""

    def __init__(self, log: AwayLog, folder: Path) -> None:
        self.log = log
        self._options = SpoolOptions(folder, produce_timeout=0.5)
        self._number = 0
        self.acknowledged: dict[str, list[int]] = defaultdict(list)

    async def start(self) -> None:
        self.store = SpoolStore(self._options.directory, Metrics())
        await self.store.open()
        self._spool = Spool(self.log, self.store, self._options)
        self._spool.filled.set()
        self._replaying = asyncio.create_task(Replay(self._spool, Metrics()).run())

    async def crash(self, turns: int) -> None:
        """End as a process does that is killed, after so many turns of the loop: nothing is put in order."""
        await self.turns(turns)
        # The client ends with the process: what was under way comes to be stored at once, or never.
        await self.log.decide("stored" if turns % 2 else "refused")
        self._replaying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._replaying
        self.store._thread.shutdown()
        for file in self.store._files:
            file._db.close()
            os.close(file._lock)
        await self.start()

    async def stop(self) -> None:
        await self.crash(0)
        self._replaying.cancel()
        await asyncio.gather(self._replaying, return_exceptions=True)
        await self.store.close()

    @staticmethod
    async def turns(count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    def be(self, how: str) -> None:
        for name in ("away", "silent", "lost", "hangs", "late"):
            setattr(self.log, name, how == name)

    async def append(self, topics: list[str]) -> None:
        numbers = range(self._number, self._number + len(topics))
        self._number += len(topics)
        now = time.time_ns() // 1_000_000
        new = [NewRecord(topic, b"%d" % number, None, now) for topic, number in zip(topics, numbers, strict=True)]
        for record, number, outcome in zip(new, numbers, await self._spool.append(new), strict=True):
            assert isinstance(outcome, Record) or outcome is SPOOLED
            self.acknowledged[record.topic].append(number)

    async def settle(self) -> None:
        self.be("here")
        # An append that hangs is for nobody to wait for.
        await self.crash(0)
        async with asyncio.timeout(20):
            while self.store.topics:  # noqa: ASYNC110
                await asyncio.sleep(0.001)


async def scenario(actions: list[tuple[str, object]], folder: Path) -> None:
    async with log_with(*TOPICS) as memory:
        world = World(AwayLog(memory), folder)
        await world.start()
        for action, given_to in actions:
            if action == "append" and world.log.hangs:
                # The replay gets so far as to have appended what it is never told of.
                await asyncio.sleep(0.01)
            elif action == "append":
                assert isinstance(given_to, list)
                await world.append(given_to)
            elif action == "log":
                world.be(str(given_to))
            elif action == "decide":
                await world.log.decide(str(given_to))
            elif action == "crash":
                assert isinstance(given_to, int)
                await world.crash(given_to)
            else:
                assert isinstance(given_to, int)
                await world.turns(given_to)
        await world.settle()
        await world.stop()
        for topic in TOPICS:
            held = list(await memory.partitions(topic))
            stored = [int(value) for p in held for _, value in await values(memory, p)]
            assert stored == world.acknowledged[topic]


@settings(max_examples=60, deadline=None)
@given(ACTIONS)
def test_log_holds_every_acknowledged_event_once_and_in_order(actions: list[tuple[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(actions, Path(folder)))
