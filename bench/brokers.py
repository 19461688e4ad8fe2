"""A real Kafka broker for a bench."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from bench import events
from eventstreams.eventlog.kafka.admin import TopicsAdmin, WantedTopic
from tests.support.kafka import Broker


@asynccontextmanager
async def kafka(
    folder: Path, config: Mapping[str, str] | None = None, *, topic: str = events.TOPIC
) -> AsyncIterator[str]:
    """Have a broker with a topic of one partition; yields the URL of the log. Raises: KafkaUnavailable."""
    broker = await asyncio.to_thread(Broker, folder / "kafka")
    await asyncio.to_thread(broker.start)
    try:
        await TopicsAdmin(broker.servers, {}).create(WantedTopic(topic, 1, config=config or {}))
        yield f"kafka://{broker.servers}"
    finally:
        await asyncio.to_thread(broker.kill)
