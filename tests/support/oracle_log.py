"""What a partition holds, read whole."""

from __future__ import annotations

from collections.abc import Sequence

from eventstreams.eventlog.base import EventLog
from eventstreams.records import TopicPartition

FETCH_BYTES = 1 << 22


async def values(log: EventLog, partition: TopicPartition) -> Sequence[tuple[int, bytes]]:
    """Return offset and value of all records of a partition."""
    found: list[tuple[int, bytes]] = []
    extent = (await log.extents([partition]))[partition]
    at = extent.earliest
    while at < extent.end:
        block = await log.fetch(partition, at, extent.end, FETCH_BYTES)
        found += [(record.offset, record.value) for record in block.records]
        at = block.next_offset
    return found
