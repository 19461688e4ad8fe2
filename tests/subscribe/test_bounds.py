"""What the gateway holds in memory for everybody stays within its bounds, whatever the sizes of events."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from hypothesis import given
from hypothesis import strategies as st

from eventstreams.eventlog.embedded.log import EmbeddedLog, open_embedded
from eventstreams.metrics import Metrics
from eventstreams.positions import Edge
from eventstreams.records import NewRecord, Record, TopicPartition
from eventstreams.subscribe.blocks import BLOCK_BYTES, BLOCK_OFFSETS, BlockCache
from eventstreams.subscribe.engine import Engine
from eventstreams.subscribe.options import EngineOptions
from eventstreams.subscribe.replay import STEP_BYTES
from eventstreams.subscribe.tail import COMPACT_AFTER, Tail
from tests.subscribe.test_engine import Client, assert_each_once_in_order

A = TopicPartition("a", 0)
LARGEST = 300_000


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5000)), max_size=60), max_size=40),
    st.integers(1, 60_000),
)
def test_tail_holds_at_most_its_bytes_or_one_item(batches: Sequence[Sequence[tuple[int, int]]], most: int) -> None:
    tail, ends = Tail(most), [0, 0, 0]
    for number in range(3):
        tail.watch(TopicPartition("a", number), 0, None)
    for batch in batches:
        records = []
        for number, size in batch:
            records.append(Record("a", number, ends[number], 0, b"x" * size))
            ends[number] += 1
        tail.extend(records)
        held = list(tail.slice(tail.base, tail.next_seq))
        assert tail.bytes == sum(item.size for item in held)
        assert tail.bytes <= most or len(held) == 1
        for number, end in enumerate(ends):
            partition = TopicPartition("a", number)
            offsets = [item.offset for item in held if item.partition == partition]
            start = tail.partitions[partition].start
            assert offsets == list(range(start, end))
            assert tail.covers(partition, start)
            assert not tail.covers(partition, start - 1)
        assert sum(len(held.offsets) for held in tail.partitions.values()) <= 2 * len(held) + COMPACT_AFTER + 1


@asynccontextmanager
async def log_of(sizes: Sequence[int]) -> AsyncIterator[EmbeddedLog]:
    async with open_embedded(":memory:") as log:
        await log.create_topic("a")
        for first in range(0, len(sizes), 50):
            batch = enumerate(sizes[first : first + 50], first)
            await log.append([NewRecord("a", json.dumps({"n": n, "pad": "x" * size}).encode()) for n, size in batch])
        yield log


def mixed(count: int) -> Sequence[int]:
    rng = random.Random(5)
    return [rng.choice([10, 10, 10, 50_000, LARGEST]) for _ in range(count)]


async def test_blocks_hold_at_most_their_bytes_or_one_block_and_large_events_make_small_blocks() -> None:
    count, most = 2 * BLOCK_OFFSETS + 100, 3 * BLOCK_BYTES
    rng = random.Random(7)
    async with log_of(mixed(count)) as log:
        blocks = BlockCache(log, most, Metrics())
        for offset in [*range(0, count, 30), *rng.choices(range(count), k=300)]:
            block = await blocks.get(A, offset)
            assert block.start <= offset < block.next_offset
            assert block.offsets == list(range(block.start, block.next_offset))
            assert block.size <= BLOCK_BYTES + 2 * BLOCK_BYTES + 2 * LARGEST
            assert blocks.bytes <= most
        end = await blocks.get(A, count)
        assert end.next_offset == count
        blocks.forget(A.topic)
        assert blocks.bytes == 0
        await blocks.aclose()


async def test_large_events_are_replayed_whole_within_the_bounds_and_read_about_once() -> None:
    count = 600
    metrics = Metrics()
    async with log_of(mixed(count)) as log:
        options = EngineOptions(tail_bytes=10**6, block_cache_bytes=8 * BLOCK_BYTES, step_cache_bytes=10**6)
        async with Engine(log, options, metrics).open() as engine:
            start = await log.resolve({A: Edge.EARLIEST})
            clients = [await Client().connect(engine, start) for _ in range(5)]
            reading = asyncio.gather(*(client.read(count) for client in clients))
            while not reading.done():
                assert engine.blocks.bytes <= options.block_cache_bytes
                assert engine.replay.bytes <= max(options.step_cache_bytes, STEP_BYTES + 2 * LARGEST)
                await asyncio.sleep(0)
            await reading
            for client in clients:
                assert_each_once_in_order(client.events, count)
                client.close()
    read = metrics.registry.get_sample_value("eventstreams_replay_read_records_total") or 0.0
    assert read <= 1.5 * count
