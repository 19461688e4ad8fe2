"""Whether the log holds a record already: for those of which it is not known what became of an append."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from eventstreams.eventlog.base import EventLog
from eventstreams.positions import AtTime
from eventstreams.records import NewRecord, Record

BLOCK_BYTES = 4 * 1024 * 1024


async def records_since(log: EventLog, topic: str, since: int) -> AsyncIterator[Record]:
    """Yield what a topic holds from a time (ms) on, up to its ends of this moment. Raises: LogError."""
    partitions = await log.partitions(topic)
    cursor = await log.resolve({partition: AtTime(max(0, since)) for partition in partitions})
    extents = await log.extents(partitions)
    for partition in partitions:
        at, end = cursor[partition].offset, extents[partition].end
        while at < end:
            block = await log.fetch(partition, at, end, BLOCK_BYTES)
            if block.next_offset <= at:
                break
            for record in block.records:
                yield record
            at = block.next_offset


async def stored_already(log: EventLog, records: Sequence[NewRecord], since: int) -> set[int]:
    """Return which of these, all of one topic, the log holds: their numbers. Raises: LogError.

    Two records of the same key and bytes are the same event: what intake appends has an id and a time of its own.
    """
    wanted: dict[tuple[bytes | None, bytes], list[int]] = {}
    for number, record in enumerate(records):
        wanted.setdefault((record.key, record.value), []).append(number)
    found: set[int] = set()
    if wanted:
        async for held in records_since(log, records[0].topic, since):
            numbers = wanted.get((held.key, held.value))
            if numbers:
                found.add(numbers.pop(0))
    return found
