"""Where a subscription begins: from what a client asked for, and what the log holds now; or an error status."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from eventstreams.errors import InvalidAssignment, LogUnavailable, NoTopics, TopicNotAvailable
from eventstreams.eventlog.base import EventLog, Extent, TopicDescription
from eventstreams.positions import AtOffset, AtTime, Cursor, Edge, Next, Position, mark
from eventstreams.records import TopicPartition
from eventstreams.subscribe.event_id import (
    OFFSET_EARLIEST,
    OFFSET_TAIL,
    LastEventId,
    PartitionEntry,
    TopicEntry,
    bad_shape,
)
from eventstreams.subscribe.frames import Gap
from eventstreams.subscribe.growth import first_position
from eventstreams.subscribe.request import StreamRequest

SECOND_LOOKS = (0.05, 0.1, 0.0)
"""Seconds after each look at topics that are not the ones of an id, before the next."""

END_LOOKS = (0.5, 1.5)
"""The same for the end of a log that is before an id of ours: a broker that has stood still tells for a moment of a
partition as it was then."""

NO_ID = LastEventId([], None)


class Memory(Protocol):
    """What a process knows of the log beside what it asks."""

    async def know(self, described: Mapping[str, TopicDescription]) -> None:
        """Take note of which topics there are; return when nothing is held in memory of others."""
        ...

    def is_away(self, topic: str) -> bool:
        """Whether a topic that is not there was there lately: it may be about to be made anew."""
        ...

    async def time_before(self, partition: TopicPartition, offset: int) -> int | None:
        """Return the time (ms) + 1 of the record just before an offset; None where there is none to be read.

        Raises: TopicReplaced, LogUnavailable.
        """
        ...


@dataclass(frozen=True, slots=True)
class Start:
    """Where a subscription begins, and what it has missed for good."""

    cursor: Cursor
    gaps: Sequence[Gap]
    streams: tuple[str, ...] = ()
    """The names of the streams that these partitions are of."""


class _Wanted(NamedTuple):
    """Positions by partition in the id's order, and the times (ms, + 1) that the id tells; what it lost for good."""

    positions: dict[TopicPartition, Position]
    times: dict[TopicPartition, int]
    gaps: list[Gap]


async def find_start(request: StreamRequest, log: EventLog, memory: Memory, *, resume_skew: float) -> Start:
    """Ask the log where the subscription begins.

    An id of this cluster is taken by offset, any other by timestamp where it has one: across clusters a record within
    `resume_skew` seconds before it may come again, none is lost. An offset of a topic that was made anew since means
    nothing: its partitions begin at their earliest record.

    Raises: TopicNotAvailable, NoTopics, InvalidAssignment, TopicReplaced, LogUnavailable.
    """
    if not request.topics:
        # Streams that are configured with an empty list: there is nothing to be assigned.
        raise bad_shape([])
    allowed = list(dict.fromkeys((*request.topics, *(request.more_topics if request.last_event_id else ()))))
    given = request.last_event_id or NO_ID
    ours = given.cluster is not None and given.cluster == log.cluster
    described = await _describe(log, allowed, given if ours else NO_ID)
    await memory.know(described)
    held = {topic: list(described[topic].partitions) if topic in described else [] for topic in allowed}
    replaced = _replaced(given, described) if ours else frozenset()
    try:
        wanted = _positions(request, held, log.cluster, resume_skew, replaced)
    except (NoTopics, TopicNotAvailable) as exc:
        away = [topic for topic in allowed if topic not in described and memory.is_away(topic)]
        if away:
            raise LogUnavailable(f"topics {', '.join(away)} are not there just now") from exc
        raise
    known = {p for p in wanted.positions if ours and p in wanted.times and p.topic not in replaced}
    extents = await _extents(wanted, log, ours=ours)
    await _move_within(wanted, extents, memory if ours else None, known, resume_skew)
    cursor = await log.resolve(wanted.positions)
    cursor.identities = {topic: found.identity for topic, found in described.items() if found.identity}
    cursor.partial = not {partition for topic in request.topics for partition in held[topic]} <= wanted.positions.keys()
    for partition, time in wanted.times.items():
        if partition in cursor:
            cursor.move(partition, Next(cursor[partition].offset, time))
    return Start(cursor, wanted.gaps, request.streams)


async def _extents(wanted: _Wanted, log: EventLog, *, ours: bool) -> Mapping[TopicPartition, Extent]:
    """Return what the partitions hold; where an id of ours is beyond that, after other looks: see `END_LOOKS`."""
    given = {p: position.offset for p, position in wanted.positions.items() if isinstance(position, AtOffset)}
    extents = await log.extents(wanted.positions)
    for pause in END_LOOKS if ours else ():
        if all(offset <= extents[partition].end for partition, offset in given.items()):
            break
        await asyncio.sleep(pause)
        extents = await log.extents(wanted.positions)
    return extents


async def _describe(log: EventLog, topics: Collection[str], given: LastEventId) -> Mapping[str, TopicDescription]:
    """Return the topics that there are; where the id is of others, or of more partitions, after a second look.

    What an id of ours tells was so: a broker that lags behind has not heard of it yet. Raises: LogUnavailable.
    """
    for pause in SECOND_LOOKS:
        described = await log.describe(topics)
        if not _replaced(given, described) and not _unheard(given, described):
            return described
        await asyncio.sleep(pause)
    unheard = _unheard(given, described)
    if unheard:
        raise LogUnavailable(f"partitions of {', '.join(unheard)} are not there just now")
    return described


def _unheard(given: LastEventId, described: Mapping[str, TopicDescription]) -> Sequence[str]:
    """Return the topics of which the id names partitions that are not told, though it was made over these topics."""
    same = [t for t, told in given.marks.items() if t in described and mark(described[t].identity) == told]
    held = {partition for topic in same for partition in described[topic].partitions}
    named = {(one.topic, one.partition) for one in given.entries if isinstance(one, PartitionEntry)}
    return sorted({topic for topic, partition in named - held if topic in same})


def _replaced(given: LastEventId, described: Mapping[str, TopicDescription]) -> frozenset[str]:
    """Return the topics that are not the ones that the id was made over."""
    return frozenset(
        topic
        for topic, told in given.marks.items()
        if topic in described and described[topic].identity and mark(described[topic].identity) != told
    )


async def _move_within(
    wanted: _Wanted,
    extents: Mapping[TopicPartition, Extent],
    memory: Memory | None,
    known: Collection[TopicPartition],
    resume_skew: float,
) -> None:
    """Move offsets into what the log holds, noting what is missing. `memory`: None for an id that is not ours."""
    given = {p: position.offset for p, position in wanted.positions.items() if isinstance(position, AtOffset)}
    doubtful = [p for p in given if p in known and extents[p].earliest < given[p] <= extents[p].end]
    others: set[TopicPartition] = set()
    if memory is not None:
        found = await asyncio.gather(*(memory.time_before(p, given[p]) for p in doubtful))
        others = {p for p, time in zip(doubtful, found, strict=True) if time is not None and time > wanted.times[p]}
    for partition, offset in given.items():
        time = wanted.times.get(partition)
        position, gap = _within(extents[partition], partition, offset, time)
        if partition in others:
            # A later record stands where the one was that the client saw last.
            gap = Gap(partition, offset, None, None if time is None else time - 1)
        wanted.positions[partition] = position
        if gap is not None:
            wanted.gaps.append(gap)
            if gap.last is None:
                wanted.positions[partition] = _anew(time, ours=memory is not None, resume_skew=resume_skew)


def _within(extent: Extent, partition: TopicPartition, offset: int, time: int | None) -> tuple[AtOffset, Gap | None]:
    """Return where an offset lies in what the log holds, and what is missing before that.

    `last` of the gap is None for an offset beyond the end: the log was made anew, or the offset is another's.
    """
    after = None if time is None else time - 1
    if offset <= OFFSET_TAIL:
        return AtOffset(max(extent.earliest, extent.end + offset - OFFSET_TAIL)), None
    if offset > extent.end:
        return AtOffset(offset), Gap(partition, offset, None, after)
    if offset < extent.earliest:
        return AtOffset(extent.earliest), Gap(partition, offset, extent.earliest - 1, after)
    return AtOffset(offset), None


def _anew(time: int | None, *, ours: bool, resume_skew: float) -> Position:
    """Return where a log that was made anew is begun: its records are other ones, by other numbers.

    By time, as on another cluster; without one a client of ours has seen nothing of it, and of others nothing is known.
    """
    if time is not None:
        return AtTime(max(0, time - 1 - int(resume_skew * 1000)))
    return Edge.EARLIEST if ours else Edge.LATEST


def _positions(
    request: StreamRequest,
    held: Mapping[str, Sequence[TopicPartition]],
    cluster: str,
    resume_skew: float,
    replaced: Collection[str],
) -> _Wanted:
    existing = [topic for topic, partitions in held.items() if partitions]
    if not existing:
        raise NoTopics(
            "No topics available for consumption. This likely means that the configured allowedTopics do not"
            " currently exist.",
            allowedTopics=list(held),
        )
    since = request.since or Edge.LATEST
    wanted = _Wanted({}, {}, [])
    given = request.last_event_id
    entries = [TopicEntry(topic) for topic in request.topics] if given is None else given.entries
    whole = given is not None and given.cluster is not None and not given.partial
    if whole and any(entry.topic in held for entry in entries):
        # An id of ours from when the streams had more topics: the others go on.
        entries = [entry for entry in entries if entry.topic in held]
    _check_topics([entry.topic for entry in entries], existing)
    # The contract's order of an id: what the log had to look up by time comes last.
    for entry in sorted(entries, key=lambda entry: _is_by_time(entry, request.since)):
        if isinstance(entry, TopicEntry):
            wanted.positions.update(dict.fromkeys(held[entry.topic], since))
        elif entry.topic in replaced:
            _add_replaced(wanted, entry, held)
        else:
            _add(wanted, entry, held, _entry_position(entry, given.cluster if given else None, cluster, resume_skew))
    if whole:
        _add_new(wanted, request.topics, held, replaced)
    return wanted


def _add(
    wanted: _Wanted, entry: PartitionEntry, held: Mapping[str, Sequence[TopicPartition]], position: Position
) -> None:
    partition = TopicPartition(entry.topic, entry.partition)
    if partition not in held[entry.topic]:
        raise InvalidAssignment(
            f"partition {entry.partition} of {entry.topic} in Last-Event-ID: there is no such partition",
            originalName="Error",
            assignments=[{"topic": entry.topic, "partition": entry.partition}],
        )
    wanted.positions[partition] = position
    if entry.timestamp is not None and entry.timestamp > 0:
        wanted.times[partition] = entry.timestamp


def _add_replaced(wanted: _Wanted, entry: PartitionEntry, held: Mapping[str, Sequence[TopicPartition]]) -> None:
    """Add a partition of a topic that was made anew: from its beginning, with what the old one had as a gap."""
    partition = TopicPartition(entry.topic, entry.partition)
    if entry.offset is not None and entry.offset > 0:
        wanted.gaps.append(Gap(partition, entry.offset, None, None if entry.timestamp is None else entry.timestamp - 1))
    if partition in held[entry.topic]:
        _add(wanted, entry, held, Edge.EARLIEST)


def _is_by_time(entry: TopicEntry | PartitionEntry, since: Position | None) -> bool:
    return since is not None if isinstance(entry, TopicEntry) else entry.offset is None


def _add_new(
    wanted: _Wanted,
    topics: Sequence[str],
    held: Mapping[str, Sequence[TopicPartition]],
    replaced: Collection[str],
) -> None:
    """Add what an id of ours does not name, though it named all partitions that there were; see `first_position`."""
    known = {partition.topic for partition in wanted.positions}.union(replaced)
    oldest = min(wanted.times.values(), default=None)
    for topic in topics:
        for partition in held[topic]:
            wanted.positions.setdefault(partition, first_position(partition, known, oldest))


def _entry_position(entry: PartitionEntry, theirs: str | None, ours: str, resume_skew: float) -> Position:
    foreign = theirs is not None and theirs != ours
    if entry.offset is not None and not (foreign and entry.timestamp is not None):
        if OFFSET_TAIL < entry.offset < 0:
            return Edge.EARLIEST if entry.offset == OFFSET_EARLIEST else Edge.LATEST
        return AtOffset(entry.offset)
    time = entry.timestamp or 0
    if time < 0:
        return Edge.LATEST if time == -1 else Edge.EARLIEST
    if foreign:
        time -= 1 + int(resume_skew * 1000)
    return AtTime(time) if time > 0 else Edge.EARLIEST


def _check_topics(wanted: Sequence[str], existing: Sequence[str]) -> None:
    missing = [topic for topic in dict.fromkeys(wanted) if topic not in existing]
    if missing:
        raise TopicNotAvailable(
            f"Topics {', '.join(missing)} are not available for consumption.", availableTopics=list(existing)
        )
