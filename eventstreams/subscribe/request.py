"""From an HTTP request to what is wanted: streams, where to start, in which form; or an error status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import unquote

from starlette.requests import Request

from eventstreams.catalog.streams import StreamCatalog, StreamConfig
from eventstreams.errors import (
    BadRequest,
    InvalidAssignment,
    NoTopics,
    TopicNotAvailable,
    UnknownStream,
)
from eventstreams.eventlog.base import EventLog, Extent
from eventstreams.filters.compile import Filter, compile_filters
from eventstreams.positions import AtOffset, AtTime, Cursor, Edge, Next, Position
from eventstreams.records import TopicPartition
from eventstreams.subscribe.event_id import (
    OFFSET_EARLIEST,
    OFFSET_TAIL,
    LastEventId,
    PartitionEntry,
    TopicEntry,
    bad_shape,
    parse_last_event_id,
)
from eventstreams.subscribe.frames import Gap
from eventstreams.subscribe.growth import first_position
from eventstreams.subscribe.options import Form
from eventstreams.subscribe.since import given_since, parse_since

T = TypeVar("T")

JSON_LINES = "application/json"
POSITIONS = {"true": "id", "false": "off", "event": "event"}
CANARY = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """What a client asked for, before the log was asked."""

    topics: tuple[str, ...]
    more_topics: tuple[str, ...]
    """Those that Last-Event-ID may name beside `topics`."""
    since: Position | None
    last_event_id: LastEventId | None
    form: Form
    filter: Filter | None = None
    streams: tuple[str, ...] = ()
    """The names of the streams, none twice; of an alias its own."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where a subscription begins, and what it has missed for good."""

    cursor: Cursor
    gaps: Sequence[Gap]
    streams: tuple[str, ...] = ()
    """The names of the streams that these partitions are of."""


def read_request(
    request: Request, streams: str, catalog: StreamCatalog, *, canaries: bool = True, id_blocks: bool = True
) -> StreamRequest:
    """Check a request in the contract's order: streams, `since`, the other parameters, Last-Event-ID.

    `streams` is the path's part, not decoded; `canaries` and `id_blocks` are for who does not say.

    Raises: RequestError, InvalidAssignment.
    """
    configs = find_streams(unquote(streams).split(","), catalog)
    query = request.query_params
    since = parse_since(*given_since(query.multi_items()))
    form = Form(
        json_lines=request.headers.get("accept", "").startswith(JSON_LINES),
        canary=_choice(query.get("canary", ""), {"": canaries, **CANARY}, "canary"),
        positions=_choice(query.get("positions", ""), {"": "id" if id_blocks else "off", **POSITIONS}, "positions"),
    )
    filters = [*query.getlist("filter"), *query.getlist("filter[]")]
    header = request.headers.getlist("last-event-id")
    return StreamRequest(
        topics=topics_of(configs),
        more_topics=tuple(dict.fromkeys(topic for config in configs for topic in config.topics_allowed)),
        since=since,
        last_event_id=parse_last_event_id(", ".join(header)) if header else None,
        form=form,
        filter=compile_filters(filters) if filters else None,
        streams=tuple(dict.fromkeys(config.name for config in configs)),
    )


def find_streams(names: Sequence[str], catalog: StreamCatalog) -> list[StreamConfig]:
    """Return the streams of these names. Raises: UnknownStream."""
    found = [(name, catalog.public(name)) for name in names]
    unknown = [name for name, config in found if config is None]
    if unknown:
        raise UnknownStream(f"Invalid streams: {','.join(unknown)}")
    return [config for _, config in found if config is not None]


def topics_of(configs: Sequence[StreamConfig]) -> tuple[str, ...]:
    """Return the topics of several streams, each once."""
    return tuple(dict.fromkeys(topic for config in configs for topic in config.topics))


def _choice(value: str, choices: Mapping[str, T], name: str) -> T:
    if value not in choices:
        raise BadRequest(f"{name}={value!r}: expected one of {', '.join(filter(None, choices))}")
    return choices[value]


async def find_start(request: StreamRequest, log: EventLog, *, resume_skew: float) -> Start:
    """Ask the log where the subscription begins.

    An id of this cluster is taken by offset, any other by timestamp where it has one: across clusters a record within
    `resume_skew` seconds before it may come again, none is lost.

    Raises: TopicNotAvailable, NoTopics, InvalidAssignment, LogUnavailable.
    """
    if not request.topics:
        # Streams that are configured with an empty list: there is nothing to be assigned.
        raise bad_shape([])
    allowed = list(dict.fromkeys((*request.topics, *(request.more_topics if request.last_event_id else ()))))
    held = {topic: list(await log.partitions(topic)) for topic in allowed}
    existing = [topic for topic, partitions in held.items() if partitions]
    if not existing:
        raise NoTopics(
            "No topics available for consumption. This likely means that the configured allowedTopics do not"
            " currently exist.",
            allowedTopics=allowed,
        )
    positions, times = _positions(request, held, existing, log.cluster, resume_skew)
    extents = await log.extents(positions)
    ours = request.last_event_id is not None and request.last_event_id.cluster == log.cluster
    gaps: list[Gap] = []
    for partition, position in list(positions.items()):
        if isinstance(position, AtOffset):
            time = times.get(partition)
            positions[partition], gap = _within(extents[partition], partition, position.offset, time)
            if gap is not None:
                gaps.append(gap)
            if gap is not None and gap.last is None:
                positions[partition] = _anew(time, ours=ours, resume_skew=resume_skew)
    cursor = await log.resolve(positions)
    wanted = {partition for topic in request.topics for partition in held[topic]}
    cursor.partial = not wanted <= positions.keys()
    for partition, time in times.items():
        cursor.move(partition, Next(cursor[partition].offset, time))
    return Start(cursor, gaps, request.streams)


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
    existing: Sequence[str],
    cluster: str,
    resume_skew: float,
) -> tuple[dict[TopicPartition, Position], dict[TopicPartition, int]]:
    since = request.since or Edge.LATEST
    positions: dict[TopicPartition, Position] = {}
    times: dict[TopicPartition, int] = {}
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
            positions.update(dict.fromkeys(held[entry.topic], since))
            continue
        partition = TopicPartition(entry.topic, entry.partition)
        if partition not in held[entry.topic]:
            raise InvalidAssignment(
                f"partition {entry.partition} of {entry.topic} in Last-Event-ID: there is no such partition",
                originalName="Error",
                assignments=[{"topic": entry.topic, "partition": entry.partition}],
            )
        positions[partition] = _entry_position(entry, given.cluster if given else None, cluster, resume_skew)
        if entry.timestamp is not None and entry.timestamp > 0:
            times[partition] = entry.timestamp
    if whole:
        _add_new(positions, request.topics, held, min(times.values(), default=None))
    return positions, times


def _is_by_time(entry: TopicEntry | PartitionEntry, since: Position | None) -> bool:
    return since is not None if isinstance(entry, TopicEntry) else entry.offset is None


def _add_new(
    positions: dict[TopicPartition, Position],
    topics: Sequence[str],
    held: Mapping[str, Sequence[TopicPartition]],
    oldest: int | None,
) -> None:
    """Add what an id of ours does not name, though it named all partitions that there were; see `first_position`."""
    known = {partition.topic for partition in positions}
    for topic in topics:
        for partition in held[topic]:
            positions.setdefault(partition, first_position(partition, known, oldest))


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
