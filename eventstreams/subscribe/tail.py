"""The newest records of every watched partition, in arrival order, bounded by bytes.

Beside each partition's own offsets every item has an arrival sequence over all partitions: a subscriber at the head is
no more than one number.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from eventstreams.positions import Next
from eventstreams.records import Record, TopicPartition
from eventstreams.subscribe.rendering import Item

COMPACT_AFTER = 1024
"""Evicted places at the front of a list before it is cut: deleting one by one would move the rest each time."""

FORGOTTEN = TopicPartition("", -1)
"""The partition of items that nobody is to be sent any more."""


class PartitionTail:
    """What the tail holds of one partition: offsets >= `start` that arrived, up to `end`."""

    __slots__ = ("end", "offsets", "seqs", "start", "timestamp")

    def __init__(self, start: int, timestamp: int | None) -> None:
        self.start = start
        self.end = start
        self.timestamp = timestamp
        self.offsets: list[int] = []
        self.seqs: list[int] = []

    @property
    def next(self) -> Next:
        """Return the arrival cursor of this partition."""
        return Next(self.end, self.timestamp)


class Tail:
    """Items by arrival sequence; `base` is the oldest one's, `next_seq` the one that comes next."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._items: list[Item] = []
        self._first = 0  # index in _items of the item with sequence `base`
        self.base = 0
        self.next_seq = 0
        self.bytes = 0
        self.partitions: dict[TopicPartition, PartitionTail] = {}

    def watch(self, partition: TopicPartition, start: int, timestamp: int | None) -> None:
        """Begin a partition at this offset."""
        self.partitions[partition] = PartitionTail(start, timestamp)

    def begin_anew(self, partition: TopicPartition, start: int, *, forget: bool) -> None:
        """Begin a partition at another offset after records were missed.

        `forget`: what is held of it is of a log that is no more, and its offsets mean other records now.
        """
        held = self.partitions[partition]
        self.partitions[partition] = PartitionTail(start, held.timestamp if forget else None)
        if forget:
            for item in self.slice(self.base, self.next_seq):
                if item.partition == partition:
                    item.partition = FORGOTTEN

    def unwatch(self, partition: TopicPartition) -> None:
        """Forget a partition; its items go with the next eviction."""
        self.partitions.pop(partition, None)

    def skip_to(self, partition: TopicPartition, offset: int) -> None:
        """Move a partition's end where the log holds nothing between (compaction, control records)."""
        held = self.partitions.get(partition)
        if held is not None and offset > held.end:
            held.end = offset
            if not held.offsets:
                held.start = offset

    def extend(self, records: Sequence[Record]) -> list[Item]:
        """Append records in the order of arrival; return their items. Records before a partition's end are dropped."""
        arrived: list[Item] = []
        for record in records:
            partition = TopicPartition(record.topic, record.partition)
            held = self.partitions.get(partition)
            if held is None or record.offset < held.end:
                continue
            item = Item(record, partition, self.next_seq)
            held.offsets.append(record.offset)
            held.seqs.append(self.next_seq)
            held.end, held.timestamp = record.offset + 1, record.timestamp + 1
            self.next_seq += 1
            self._items.append(item)
            self.bytes += item.size
            arrived.append(item)
        self._evict()
        return arrived

    def _evict(self) -> None:
        while self.bytes > self._max_bytes and self._first < len(self._items) - 1:
            item = self._items[self._first]
            self._first += 1
            self.base += 1
            self.bytes -= item.size
            held = self.partitions.get(item.partition)
            if held is not None and held.offsets and item.offset >= held.start:
                held.start = item.offset + 1
        if self._first > COMPACT_AFTER and self._first * 2 > len(self._items):
            del self._items[: self._first]
            self._first = 0
            for held in self.partitions.values():
                gone = bisect_left(held.seqs, self.base)
                del held.offsets[:gone], held.seqs[:gone]

    def covers(self, partition: TopicPartition, offset: int) -> bool:
        """Whether everything of a partition from `offset` on is here or still to arrive."""
        held = self.partitions.get(partition)
        return held is not None and offset >= held.start

    def slice(self, start: int, stop: int) -> Iterator[Item]:
        """Return the items with start <= sequence < stop that are still here."""
        shift = self._first - self.base
        for index in range(max(start, self.base) + shift, min(stop, self.next_seq) + shift):
            yield self._items[index]

    def seam(self, wanted: Iterable[tuple[TopicPartition, int]]) -> tuple[int, int]:
        """Find where a cursor lies in arrival order: (first, settled).

        From sequence `first` on there are items that the cursor has not passed; from `settled` on there are no items
        that it has passed. All its partitions must be covered.
        """
        first, settled = self.next_seq, self.base
        for partition, offset in wanted:
            held = self.partitions[partition]
            index = bisect_left(held.offsets, offset)
            if index < len(held.seqs):
                first = min(first, held.seqs[index])
            if index > 0:
                settled = max(settled, held.seqs[index - 1] + 1)
        return max(first, self.base), max(settled, self.base)
