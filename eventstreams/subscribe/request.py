"""From an HTTP request to what is wanted: streams, since when, in which form; or an error status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import unquote

from starlette.requests import Request
from starlette.types import Scope

from eventstreams.asgi import FIELD_OVERHEAD_BYTES, quality, uri_as_sent, weight
from eventstreams.catalog.streams import StreamCatalog, StreamConfig
from eventstreams.errors import BadRequest, UnknownStream
from eventstreams.filters.compile import Filter, compile_filters
from eventstreams.positions import Position
from eventstreams.subscribe.event_id import LastEventId, parse_last_event_id
from eventstreams.subscribe.options import Form
from eventstreams.subscribe.since import given_since, parse_since

T = TypeVar("T")

JSON_LINES = "application/json"
EVENT_STREAM = "text/event-stream"
LAST_EVENT_ID = "last-event-id"
IN_QUERY = frozenset({"lasteventid", "last-event-id"})
"""Parameters of libraries that can set no header, in lower case."""
EMPTY_NAME = " ('' is an empty name: there is a comma too many)"
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
        json_lines=wants_json_lines(",".join(request.headers.getlist("accept"))),
        canary=_choice(query.get("canary", ""), {"": canaries, **CANARY}, "canary"),
        positions=_choice(query.get("positions", ""), {"": "id" if id_blocks else "off", **POSITIONS}, "positions"),
    )
    filters = [*query.getlist("filter"), *query.getlist("filter[]")]
    topics = topics_of(configs)
    more_topics = tuple(dict.fromkeys(topic for config in configs for topic in config.topics_allowed))
    given = _last_event_id(request)
    return StreamRequest(
        topics=topics,
        more_topics=more_topics,
        since=since,
        last_event_id=None if given is None else parse_last_event_id(given, (*topics, *more_topics)),
        form=form,
        filter=compile_filters(filters) if filters else None,
        streams=tuple(dict.fromkeys(config.name for config in configs)),
    )


def wants_json_lines(accept: str) -> bool:
    """Whether a client that says `Accept: accept` is sent JSON lines: it gives them more weight than an event stream.

    Of equal weight the event stream goes first where it is named, else what the original does: JSON lines to who begins
    with them. Any type that begins with theirs is theirs, in small letters, as there.
    """
    ranges = [given.strip() for given in accept.split(",")]
    lines = max((weight(given) for given in ranges if given.startswith(JSON_LINES)), default=0.0)
    events = quality(EVENT_STREAM, accept)
    named = any(given.partition(";")[0].strip().lower() == EVENT_STREAM for given in ranges)
    return lines > events or (lines == events > 0 and not named and ranges[0].startswith(JSON_LINES))


def _last_event_id(request: Request) -> str | None:
    """Return the header's text, else that of a parameter in its stead."""
    header = request.headers.getlist(LAST_EVENT_ID)
    if header:
        return ", ".join(header)
    return next((text for name, text in request.query_params.multi_items() if name.lower() in IN_QUERY and text), None)


def head_beside_id(scope: Scope) -> int:
    """Return the bytes that a request's head has beside the id, as `MAX_HEAD_BYTES` counts them."""
    fields = [(name, value) for name, value in scope["headers"] if name != LAST_EVENT_ID.encode()]
    head = len(uri_as_sent(scope)) + sum(len(name) + len(value) + FIELD_OVERHEAD_BYTES for name, value in fields)
    ids = [part for part in scope["query_string"].decode("latin-1").split("&") if _name(part) in IN_QUERY]
    return head - sum(map(len, ids))


def _name(parameter: str) -> str:
    return unquote(parameter.partition("=")[0]).lower()


def find_streams(names: Sequence[str], catalog: StreamCatalog) -> list[StreamConfig]:
    """Return the streams of these names. Raises: UnknownStream."""
    found = [(name, catalog.public(name)) for name in names]
    unknown = [name for name, config in found if config is None]
    if unknown:
        hint = EMPTY_NAME if "" in unknown else ""
        raise UnknownStream(f"Invalid streams: {','.join(name or repr(name) for name in unknown)}{hint}")
    return [config for _, config in found if config is not None]


def topics_of(configs: Sequence[StreamConfig]) -> tuple[str, ...]:
    """Return the topics of several streams, each once."""
    return tuple(dict.fromkeys(topic for config in configs for topic in config.topics))


def _choice(value: str, choices: Mapping[str, T], name: str) -> T:
    if value not in choices:
        raise BadRequest(f"{name}={value!r}: expected one of {', '.join(filter(None, choices))}")
    return choices[value]
