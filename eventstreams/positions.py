"""Where to start reading, and how far a reader has come.

A cursor is what an SSE frame's `id` says: for each partition of the subscription, in assignment order, the next
offset and the time of the last event + 1. The client holds it; any process can take it up.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from eventstreams.records import Record, TopicPartition


@dataclass(frozen=True, slots=True)
class AtOffset:
    """Start at this offset (>= 0)."""

    offset: int


@dataclass(frozen=True, slots=True)
class AtTime:
    """Start at the first record whose timestamp (ms) is at or after this one."""

    timestamp: int


class Edge(enum.Enum):
    """Start at an end of what the log holds."""

    EARLIEST = "earliest"
    LATEST = "latest"


Position = AtOffset | AtTime | Edge


class Next(NamedTuple):
    """The next offset of a partition, and the last read record's timestamp + 1 in ms (None: not known)."""

    offset: int
    timestamp: int | None = None


MARK_CHARACTERS = 6

NO_IDENTITIES: Mapping[str, str] = MappingProxyType({})


class Cursor(Mapping[TopicPartition, Next]):
    """The next offset in each partition of a subscription, in assignment order."""

    __slots__ = ("_next", "cluster", "identities", "partial")

    def __init__(
        self,
        entries: Iterable[tuple[TopicPartition, Next]] = (),
        *,
        cluster: str | None = None,
        identities: Mapping[str, str] = NO_IDENTITIES,
        partial: bool = False,
    ) -> None:
        self._next = dict(entries)
        self.cluster = cluster
        self.identities = identities
        """By topic, which one of its name the offsets are of; not of all where that is not known."""
        self.partial = partial
        """Whether the client asked for some of its streams' partitions only: others are not new, but not wanted."""

    def __getitem__(self, partition: TopicPartition) -> Next:
        return self._next[partition]

    def __iter__(self) -> Iterator[TopicPartition]:
        return iter(self._next)

    def __len__(self) -> int:
        return len(self._next)

    def __repr__(self) -> str:
        return f"Cursor({self._next!r}, cluster={self.cluster!r})"

    def copy(self) -> Cursor:
        """Return a cursor that moves on its own."""
        return Cursor(self._next.items(), cluster=self.cluster, identities=self.identities, partial=self.partial)

    def advance(self, record: Record) -> None:
        """Move just after `record`: the next offset is one more, and so is the time.

        The +1 on the timestamp is the original's rule: a resume by time must not repeat the last event.
        """
        partition = TopicPartition(record.topic, record.partition)
        self._next[partition] = Next(record.offset + 1, record.timestamp + 1)

    def move(self, partition: TopicPartition, next_: Next) -> None:
        """Set where `partition` goes on; adds it at the end when it is new."""
        self._next[partition] = next_


def mark(identity: str) -> str:
    """Return what an event id tells of a topic's identity: enough to tell it from one made later (36 random bits)."""
    return identity[:MARK_CHARACTERS]
