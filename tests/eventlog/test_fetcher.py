"""Fetches whose callers go away, without a broker."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError

from eventstreams.errors import LogUnavailable
from eventstreams.eventlog.kafka.fetcher import POOL, Fetcher, FetcherPool
from eventstreams.records import TopicPartition
from tests.support.kafka import free_port


async def test_fetch_that_fails_when_its_callers_have_gone_is_told_to_nobody() -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    pool = FetcherPool({"bootstrap.servers": f"127.0.0.1:{free_port()}", "group.id": "none", "log_level": 0})
    # More than there are threads: each turn is held until its thread is free.
    fetches = [asyncio.create_task(pool.fetch(TopicPartition("t", n), 0, 1, 1)) for n in range(POOL + 2)]
    async with asyncio.timeout(5):
        while sum(thread.name.startswith("kafka fetch") for thread in threading.enumerate()) < POOL:
            await asyncio.to_thread(time.sleep, 0.01)
    for _ in range(2):
        for fetch in fetches:
            fetch.cancel()
        for _ in range(5):  # turns of the loop until each waits again, or has ended
            await asyncio.sleep(0)
    assert all(
        isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*fetches, return_exceptions=True)
    )
    await pool.aclose()
    await asyncio.sleep(0)
    del fetches, fetch  # their tracebacks hold what nobody asked for
    gc.collect()
    assert told == []


class Telling:
    """Stands for librdkafka's consumer: out of range, and silent about where the partition begins."""

    def list_topics(self, topic: str, timeout: float) -> Any:
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions={0: None})})

    def assign(self, partitions: Sequence[Any]) -> None:
        """Take it."""

    def poll(self, timeout: float) -> Any:
        error = KafkaError(KafkaError._AUTO_OFFSET_RESET)
        return SimpleNamespace(error=lambda: error, topic=lambda: "t", partition=lambda: 0)

    def consume(self, count: int, timeout: float) -> Sequence[Any]:
        return []

    def get_watermark_offsets(self, partition: Any, timeout: float) -> None:
        """Tell nothing in time."""


def test_partition_whose_bounds_do_not_come_is_told_as_away() -> None:
    fetcher = Fetcher(cast(Consumer, Telling()), threading.Event())
    with pytest.raises(LogUnavailable, match="the bounds of t/0 did not come in time"):
        fetcher.fetch(TopicPartition("t", 0), 9, 10, 1)
