"""How much a process grows by what it holds, in a process of its own.

`python -m tests.support.memory WHAT JSON FOLDER`.
Prints what the process grew by, divided by what is counted, at several moments once that is full and turning over.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from eventstreams.metrics import Metrics
from eventstreams.positions import Cursor, Next
from eventstreams.records import NewRecord, Record, TopicPartition
from eventstreams.runtime import collect_less
from eventstreams.subscribe.blocks import BlockCache
from eventstreams.subscribe.event_ids import EventIds
from eventstreams.subscribe.group import Group, Shape
from eventstreams.subscribe.rendering import Renderer
from eventstreams.subscribe.replay import Replay
from eventstreams.subscribe.tail import Tail
from tests.support.topics import log_with

MIB = 2**20
PAGE = 4096
BATCH_BYTES = 200_000
TOPIC = "mediawiki.recentchange"
FULL = 0.95
MOMENTS = 40


def grown() -> int:
    """Return the process's memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def values(size: int, *, ascii_only: bool = True, domain: str = "") -> Iterator[bytes]:
    """Yield events without end, of about this size."""
    rng, letter = random.Random(1), "x" if ascii_only else "é"
    for n in count():
        event = {"n": n, "meta": {"stream": TOPIC, "domain": domain}}
        room = int(size * rng.uniform(0.6, 1.4)) - len(json.dumps(event)) - 10
        text = json.dumps({**event, "pad": letter * (room // len(letter.encode()))}, ensure_ascii=False)
        yield text.replace(", ", ",").replace(": ", ":").encode()


class Moments:
    """What the process has grown by, as a share of what is counted; from the time on when it is full."""

    def __init__(self, most: int, counted: Callable[[], int], every: int) -> None:
        collect_less()
        self._before = grown()
        self._most, self._counted, self._every = most, counted, every
        self._seen = 0
        self.found: list[float] = []

    @property
    def enough(self) -> bool:
        """Take one now and then; return whether it is time to end."""
        if self._counted() >= FULL * self._most:
            self._seen += 1
            if self._seen % self._every == 0:
                self.found.append((grown() - self._before) / self._counted())
        return len(self.found) >= MOMENTS


def tail(size: int, mib: int, *, keys: bool, rendered: bool, partitions: int, ascii_only: bool) -> list[float]:
    """Fill a tail, and turn it over twice."""
    renderer, events = Renderer(None, Metrics()), values(size, ascii_only=ascii_only)
    batch = max(1, BATCH_BYTES // size)
    numbers = count()

    def feed(into: Tail) -> None:
        records = []
        for _ in range(batch):
            # Everything of a record is its own, as a client of the log gives it.
            n = next(numbers)
            key = b"key-%032d" % n if keys else None
            topic = f"topic.{n % partitions}"
            records.append(Record(topic, 0, 10**6 + n, 1_700_000_000_000 + n, next(events), key))
        for item in into.extend(records):
            if rendered:
                item.data(renderer)
            item.forget()

    def watching(most: int) -> Tail:
        made = Tail(most)
        for n in range(partitions):
            made.watch(TopicPartition(f"topic.{n}", 0), 0, None)
        return made

    warm = watching(MIB)
    for _ in range(20):
        feed(warm)
    gc.collect()
    full = watching(mib * MIB)
    moments = Moments(mib * MIB, lambda: full.bytes, max(1, 2 * mib * MIB // (batch * (size + 240)) // MOMENTS))
    while not moments.enough:
        feed(full)
    return moments.found


async def blocks(folder: Path, size: int, mib: int, *, keys: bool, rendered: bool) -> list[float]:
    """Fill a cache of blocks from a file, and turn it over."""
    partition, events, renderer = TopicPartition(TOPIC, 0), values(size), Renderer(None, Metrics())
    total = 3 * mib * MIB // (size + 240)
    async with log_with(TOPIC, path=folder / "events.db") as log:
        for first in range(0, total, 500):
            batch = [(b"key-%032d" % n if keys else None, n) for n in range(first, first + 500)]
            await log.append([NewRecord(TOPIC, next(events), key, n) for key, n in batch])

        async def read(cache: BlockCache, stop: Callable[[], bool]) -> None:
            at = 0
            while not stop():
                block = await cache.get(partition, at)
                for item in block.items:
                    if rendered:
                        item.data(renderer)
                    item.forget()
                at = block.next_offset if block.items else 0

        steps = iter(range(40))
        await read(BlockCache(log, MIB, Metrics()), lambda: next(steps, None) is None)
        gc.collect()
        cache = BlockCache(log, mib * MIB, Metrics())
        moments = Moments(mib * MIB, lambda: cache.bytes, 1)
        await read(cache, lambda: moments.enough)
        return moments.found


async def steps(folder: Path, size: int, mib: int, *, seen: bool) -> list[float]:
    """Fill a cache of steps, over events that are seen or left out."""
    partition, events = TopicPartition(TOPIC, 0), values(size, domain="canary")
    async with log_with(TOPIC, path=folder / "events.db") as log:
        await log.append([NewRecord(TOPIC, next(events), None, 1_700_000_000_000 + n) for n in range(2000)])
        tail, blocks = Tail(MIB), BlockCache(log, 4 * MIB, Metrics())
        shape = Shape((partition,), None, seen, json_lines=False, positions="id", chunked=True)
        group = Group(shape, None, Renderer(None, Metrics()))

        async def read(replay: Replay, stop: Callable[[], bool]) -> None:
            for start in count():
                step = await replay.step(group, EventIds(Cursor([(partition, Next(start % 500, start))])))
                while step.moved and not stop():
                    step = await replay.step(group, step.ids)
                if stop():
                    return

        warm = iter(range(100))
        await read(Replay(blocks, tail, 100_000), lambda: next(warm, None) is None)
        gc.collect()
        replay = Replay(blocks, tail, mib * MIB)
        moments = Moments(mib * MIB, lambda: replay.bytes, 2)
        await read(replay, lambda: moments.enough)
        return moments.found


def main(what: str, given: Mapping[str, Any], folder: Path) -> None:
    """Print what was found."""
    if what == "tail":
        found = tail(**given)
    else:
        found = asyncio.run(blocks(folder, **given) if what == "blocks" else steps(folder, **given))
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3]))
