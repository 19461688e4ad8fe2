"""The newest records of every watched partition, in arrival order, bounded by bytes.

Beside each partition's own offsets every item has an arrival sequence over all partitions: a subscriber at the head is
no more than one number.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from eventstreams.positions import Next
from eventstreams.records import Record, TopicPartition
from eventstreams.subscribe.rendering import Item

COMPACT_AFTER = 1024
COMPACT_SHARE = 8
"""Evicted places at the front of a list, and their share in it, before it is cut: deleting one by one would move the
rest each time. The places are empty: they cost eight bytes, not the item.
"""

FORGOTTEN = TopicPartition("", -1)
"""The partition of items that nobody is to be sent any more."""


class PartitionTail:
    """What the tail holds of one partition: offsets >= `start` that arrived, up to `end`."""

    __slots__ = ("end", "offsets", "partition", "seqs", "start", "timestamp")

    def __init__(self, partition: TopicPartition, start: int, timestamp: int | None) -> None:
        self.partition = partition
        """All its items name this one: each record comes with a name of its own, which would stay with it."""
        self.start = start
        self.end = start
        self.timestamp = timestamp
        # Numbers of eight bytes: in a list each would be an object of forty.
        self.offsets = array("q")
        self.seqs = array("q")

    @property
    def next(self) -> Next:
        """Return the arrival cursor of this partition."""
        return Next(self.end, self.timestamp)


class Tail:
    """Items by arrival sequence; `base` is the oldest one's, `next_seq` the one that comes next."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._items: list[Item | None] = []
        self._first = 0  # index in _items of the item with sequence `base`
        self.base = 0
        self.next_seq = 0
        self.bytes = 0
        self.partitions: dict[TopicPartition, PartitionTail] = {}

    def watch(self, partition: TopicPartition, start: int, timestamp: int | None) -> None:
        """Begin a partition at this offset."""
        self.partitions[partition] = PartitionTail(partition, start, timestamp)

    def begin_anew(self, partition: TopicPartition, start: int, *, forget: bool) -> None:
        """Begin a partition at another offset after records were missed.

        `forget`: what is held of it is of a log that is no more, and its offsets mean other records now.
        """
        held = self.partitions[partition]
        self.partitions[partition] = PartitionTail(held.partition, start, held.timestamp if forget else None)
        if forget:
            self._forget(held)

    def unwatch(self, partition: TopicPartition) -> None:
        """Forget a partition; its items go with the next eviction."""
        held = self.partitions.pop(partition, None)
        if held is not None:
            # It may be watched again, and its topic may be another one by then.
            self._forget(held)

    def _forget(self, held: PartitionTail) -> None:
        for seq in held.seqs:
            item = self._item(seq)
            if item is not None:
                item.partition = FORGOTTEN

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
            item = Item(record, held.partition, self)
            held.offsets.append(record.offset)
            held.seqs.append(self.next_seq)
            held.end, held.timestamp = record.offset + 1, record.timestamp + 1
            self.next_seq += 1
            self._items.append(item)
            self.bytes += item.size
            arrived.append(item)
        self._evict()
        return arrived

    def grow(self, size: int) -> None:
        """Count what an item grew by; what that is too much goes with the next arrival."""
        self.bytes += size

    def _evict(self) -> None:
        while self.bytes > self._max_bytes and self._first < len(self._items) - 1:
            item = self._items[self._first]
            assert item is not None
            self._items[self._first] = None
            self._first += 1
            self.base += 1
            self.bytes -= item.size
            held = self.partitions.get(item.partition)
            if held is not None and held.offsets and item.offset >= held.start:
                held.start = item.offset + 1
        if self._first > COMPACT_AFTER and self._first * COMPACT_SHARE > len(self._items):
            del self._items[: self._first]
            self._first = 0
            for held in self.partitions.values():
                gone = bisect_left(held.seqs, self.base)
                del held.offsets[:gone], held.seqs[:gone]

    def covers(self, partition: TopicPartition, offset: int) -> bool:
        """Whether everything of a partition from `offset` on is here or still to arrive."""
        held = self.partitions.get(partition)
        return held is not None and offset >= held.start

    def time_before(self, partition: TopicPartition, offset: int) -> int | None:
        """Return the time (ms) + 1 of the last record before `offset`, where that record is here; else None."""
        held = self.partitions.get(partition)
        if held is None:
            return None
        if offset == held.end:
            return held.timestamp
        index = bisect_left(held.offsets, offset) - 1
        item = self._item(held.seqs[index]) if index >= 0 and held.offsets[index] == offset - 1 else None
        return None if item is None else item.timestamp + 1

    def _item(self, seq: int) -> Item | None:
        """Return the item of a sequence; None where it is not here any more."""
        return self._items[seq - self.base + self._first] if seq >= self.base else None

    def slice(self, start: int, stop: int) -> Iterator[Item]:
        """Return the items with start <= sequence < stop that are still here."""
        shift = self._first - self.base
        for index in range(max(start, self.base) + shift, min(stop, self.next_seq) + shift):
            item = self._items[index]
            assert item is not None
            yield item

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
