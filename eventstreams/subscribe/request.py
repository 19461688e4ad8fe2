"""From an HTTP request to what is wanted: streams, since when, in which form; or an error status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import unquote

from starlette.requests import Request

from eventstreams.catalog.streams import StreamCatalog, StreamConfig
from eventstreams.errors import BadRequest, UnknownStream
from eventstreams.filters.compile import Filter, compile_filters
from eventstreams.positions import Position
from eventstreams.subscribe.event_id import LastEventId, parse_last_event_id
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
