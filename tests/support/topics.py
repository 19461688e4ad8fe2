"""Embedded logs with topics, which no service makes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from eventstreams.eventlog.embedded.log import EmbeddedLog, open_embedded


@asynccontextmanager
async def log_with(*topics: str, path: Path | str = ":memory:") -> AsyncIterator[EmbeddedLog]:
    """Open a log that has these topics, of one partition each."""
    async with open_embedded(str(path)) as log:
        for topic in topics:
            await log.create_topic(topic)
        yield log


async def make_topics(path: Path | str, *topics: str) -> str:
    """Make topics in a file; return its URL."""
    async with log_with(*topics, path=path):
        return f"embedded:{path}"
