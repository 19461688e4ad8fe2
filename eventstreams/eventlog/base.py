"""What every event log promises; `embedded` and `kafka` implement it, one contract suite holds both to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from eventstreams.errors import LogError
from eventstreams.positions import NO_IDENTITIES, Cursor, Position
from eventstreams.records import NewRecord, Record, TopicPartition


class Extent(NamedTuple):
    """What a partition holds now: offsets from `earliest` (inclusive) to `end` (exclusive)."""

    earliest: int
    end: int


class TopicDescription(NamedTuple):
    """Which topic this is, and its partitions, ascending.

    `identity` tells a topic from one that is made later under the same name; empty where the log cannot tell.
    """

    identity: str
    partitions: Sequence[TopicPartition]


class Block(NamedTuple):
    """Consecutive records of one partition, and the offset up to which the log was looked through.

    `next_offset` is past the last record; it is further where compaction or a transaction's control
    records leave offsets without a record.
    """

    records: Sequence[Record]
    next_offset: int


class LogReader(Protocol):
    """Reads records forward, over several partitions. Owned by one task."""

    async def assign(
        self, offsets: Mapping[TopicPartition, int], identities: Mapping[str, str] = NO_IDENTITIES
    ) -> None:
        """Add partitions to what is read, each from its offset (one already read jumps there).

        `identities`: by topic, which one the offsets are of; nothing of another is returned. Where none is given
        nobody looks.
        """
        ...

    async def unassign(self, partitions: Collection[TopicPartition]) -> None:
        """Stop reading these; records already fetched of them are not returned any more."""
        ...

    async def read(self, limit: int, timeout: float) -> Sequence[Record]:
        """Return the next records, at most `limit`, in offset order within a partition.

        Waits up to `timeout` seconds for the first, then returns what is there; empty
        if nothing came. Safe to cancel: what was not returned comes with the next call.

        Raises:
            OffsetOutOfRange: retention removed the next offset of a partition before it was read;
                assign it anew to go on. The others are not affected.
            UnknownTopic: a topic was deleted; unassign it to go on.
            TopicReplaced: a topic is not the one that was assigned; assign it anew to go on.
            LogUnavailable: the log cannot be reached; the reader may be used again.

        An error that concerns one partition names it (`partition`), and holds up no other.
        """
        ...

    def positions(self) -> Mapping[TopicPartition, int]:
        """Return the next offset of each partition, past compacted and control records where known."""
        ...

    async def aclose(self) -> None:
        """Give up what the reader holds. Idempotent."""
        ...


class EventLog(Protocol):
    """Topics of ordered, numbered records. Safe to use from one event loop, by many tasks."""

    @property
    def cluster(self) -> str:
        """The id of the cluster: two logs with the same id number the same records alike.

        Empty until the log was reached; nothing is read of it before.
        """
        ...

    async def reached(self) -> None:
        """Return when the log has answered for the first time; waits for that without end.

        Raises: LogRefused when it never will: a wrong password, a certificate that is not known.
        """
        ...

    async def append(self, new: Sequence[NewRecord]) -> Sequence[Record | LogError]:
        """Append records; return for each, in order, the stored record or why it was not stored.

        A returned record is acknowledged: on disk (embedded), by all in-sync replicas (Kafka). Records of
        one partition keep their order. An outcome that cannot be known in time is `AppendTimeout`: the
        record may or may not come to be stored, once at most, and its `fate` tells. After any other error
        it is not stored, and will not be. A topic that is not there is not made: its records fail with
        `UnknownTopic`, the others are stored.
        """
        ...

    async def describe(self, topics: Collection[str]) -> Mapping[str, TopicDescription]:
        """Return those of the topics that there are, as they are now: asked in one question, begun after the call.

        Raises: LogUnavailable, LogRefused.
        """
        ...

    async def partitions(self, topic: str) -> Sequence[TopicPartition]:
        """Return a topic's partitions, ascending; empty when there is no such topic. May be a second old.

        Raises: LogUnavailable, LogRefused.
        """
        ...

    async def extents(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Extent]:
        """Return what each partition holds now. Raises: UnknownTopic, LogUnavailable."""
        ...

    async def resolve(self, positions: Mapping[TopicPartition, Position]) -> Cursor:
        """Turn positions into next offsets, in the order given; `cluster` set to this log's.

        AtTime: the first record with timestamp >= it; past the last record the end offset *of this moment*.
        AtOffset is taken as it is, also outside the extent (the caller looks for gaps). The timestamps of
        the cursor are None.

        Raises:
            UnknownTopic: no such topic, or no such partition of it.
            LogUnavailable: the log did not answer.
        """
        ...

    async def fetch(
        self, partition: TopicPartition, start: int, stop: int, max_bytes: int, identity: str = ""
    ) -> Block:
        """Return the records with start <= offset < stop, at once: no waiting for growth.

        `identity`: which topic the offsets are of; empty where it is not known.

        May end early (end of log, `max_bytes` of values, a batch's bounds); `next_offset` says where to go on.
        At least one record comes if one is there. Many may be under way at once; an implementation bounds its own
        resources.

        Raises: OffsetOutOfRange (start < earliest), UnknownTopic, TopicReplaced, LogUnavailable.
        """
        ...

    async def last_timestamp(self, partition: TopicPartition, before: int) -> int | None:
        """Return the timestamp (ms) of the newest record with offset < `before`; None when there is none."""
        ...

    async def open_reader(
        self, offsets: Mapping[TopicPartition, int], identities: Mapping[str, str] = NO_IDENTITIES
    ) -> LogReader:
        """Open a reader at these offsets (possibly none yet); see `LogReader.assign`."""
        ...

    async def check(self, timeout: float, topics: Collection[str] | None = None, *, writing: bool = False) -> None:
        """Return when the log would serve.

        Without topics: when it answers. With topics: when one of them at least can be read, or, where `writing`,
        appended to; an implementation without parts that can be away takes them all alike. Callers share one look.

        Raises: LogUnavailable (after `timeout` seconds at most) with the reason.
        """
        ...

    async def aclose(self) -> None:
        """Flush and close; readers are closed first by their owners. Idempotent."""
        ...


class TopicAdmin(Protocol):
    """A rarer ability: making topics. Implemented beside the log, used by `streams apply`."""

    async def topics(self) -> Mapping[str, int]:
        """Return the topics there are, with the number of their partitions."""
        ...
