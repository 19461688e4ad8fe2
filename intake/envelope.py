"""What an event says of itself, and what intake fills in: decided once for a schema and a stream, done for each event.

Order (spec eventgate 10, 11): id, time, legacy time, header fields, client address; then experiments; each only where
the schema declares the field. Only the time of arrival replaces what a producer sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eventstreams.catalog.streams import StreamConfig
from eventstreams.ids import new_id
from eventstreams.schemas.validation import Validator
from intake import paths
from intake.options import IntakeOptions
from intake.paths import MISSING, Path

LEGACY_TITLE = "analytics/legacy"
DEFAULT_ENRICHMENT = {"meta.request_id": "x-request-id"}
MAX_HEADER_CHARACTERS = 400
CLIENT_IP: Path = ("http", "client_ip")
UNKNOWN = "unknown"
UNPREFIXED = "eventlogging_"


@dataclass(frozen=True, slots=True)
class Caller:
    """What the request says beside its events. Header names are lower case."""

    headers: Mapping[str, str]
    client_ip: str
    request_id: str
    query: Mapping[str, str]


def event_label(event: Any, options: IntakeOptions) -> str:
    """Return how messages call an event: its id, schema and stream as far as it tells them."""
    identity = paths.get(event, options.id_field)
    schema = paths.find(event, options.schema_uri_fields)
    stream = paths.find(event, options.stream_fields)
    label = "event" if identity is MISSING else f"event {_text(identity)}"
    uri = "unknown" if schema is MISSING else _text(schema)
    return f"{label} of schema at {uri} destined to stream {'unknown' if stream is MISSING else _text(stream)}"


def _text(value: object) -> str:
    return value[:500] if isinstance(value, str) else repr(value)[:500]


Find = Callable[[Any], Any]


class Plan:
    """What is to be done with the events of one schema in one stream.

    `refusal` is why none may go there; `label` is a configured name, for metrics: a pattern's for all its streams.
    """

    __slots__ = (
        "_fills_ip",
        "_find_id",
        "_headers",
        "_legacy",
        "_put_dt",
        "_put_id",
        "deduplication",
        "edge_uniques",
        "keys",
        "label",
        "name",
        "refusal",
        "stamps_time",
        "test_kitchen",
        "topic",
        "validator",
    )

    def __init__(self, validator: Validator, name: str, config: StreamConfig | None, options: IntakeOptions) -> None:
        self.validator = validator
        self.name = name
        self.label = UNKNOWN if config is None else config.name
        self.topic = name if name.startswith(UNPREFIXED) else options.topic_prefix + name
        keys = (config.message_key_fields if config is not None else None) or {}
        self.keys = [(paths.dotted(key), paths.dotted(field), key) for key, field in keys.items()]
        stamps = "defaults" in options.transforms
        self._put_id = paths.setter(options.id_field) if stamps and validator.has_field(options.id_field) else None
        self._find_id = paths.finder([options.id_field])
        self._put_dt = paths.setter(options.dt_field) if stamps and validator.has_field(options.dt_field) else None
        self._legacy = stamps and (validator.title or "").startswith(LEGACY_TITLE) and validator.has_field(("dt",))
        self.stamps_time = self._put_dt is not None
        self._fills_ip = stamps and validator.has_field(CLIENT_IP)
        producers = _settings(config, "producers", "eventgate")
        self._headers = _header_fields(validator, producers, stamps)
        self.edge_uniques = "edge_uniques" in options.transforms and producers.get("use_edge_uniques") is True
        kitchen = _settings(config, "producers", "test_kitchen").get("is_test_kitchen_stream") is True
        self.test_kitchen = kitchen and "test_kitchen" in options.transforms
        window = producers.get("deduplication_window")
        self.deduplication = float(window) if isinstance(window, (int, float)) and window > 0 else 0.0
        self.refusal = _refusal(validator, name, config)

    def stamp(self, event: dict[str, Any], caller: Caller, now: str) -> None:
        """Fill fields in; `now` is the time of arrival in ISO 8601, UTC, with milliseconds."""
        if self._put_id is not None and self._find_id(event) is MISSING:
            self._put_id(event, new_id())
        if self._put_dt is not None:
            self._put_dt(event, now)
        if self._legacy and "dt" not in event:
            event["dt"] = now
        for path, find, header in self._headers:
            value = caller.request_id if header == "x-request-id" else caller.headers.get(header)
            if value and find(event) is MISSING:
                paths.put(event, path, value[:MAX_HEADER_CHARACTERS])
        if self._fills_ip and caller.client_ip and paths.get(event, CLIENT_IP) is MISSING:
            paths.put(event, CLIENT_IP, caller.client_ip)

    def key(self, event: dict[str, Any]) -> dict[str, Any] | None:
        """Return the record's key; None where the stream has none. Raises: KeyError with the key's name."""
        if not self.keys:
            return None
        key: dict[str, Any] = {}
        for path, field, name in self.keys:
            value = paths.get(event, field)
            if value is MISSING:
                raise KeyError(name)
            paths.put(key, path, value)
        return key


def _settings(config: StreamConfig | None, *names: str) -> Mapping[str, Any]:
    value: Any = config.settings if config is not None else {}
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _header_fields(validator: Validator, producer: Mapping[str, Any], stamps: bool) -> Sequence[tuple[Path, Find, str]]:
    if not stamps:
        return ()
    given = producer.get("enrich_fields_from_http_headers", {})
    mapping = DEFAULT_ENRICHMENT | (dict(given) if isinstance(given, Mapping) else {})
    if given is False:
        return ()
    fields = [(paths.dotted(field), header) for field, header in mapping.items() if isinstance(header, str)]
    return [
        (path, paths.finder([path]), header.lower())
        for path, header in fields
        if validator.has_field(path) or validator.accepts_entry(path)
    ]


def _refusal(validator: Validator, name: str, config: StreamConfig | None) -> str | None:
    """Return what follows `<event> is not allowed in stream; `, None when the schema's events may go there."""
    if config is None:
        return None
    if not config.settings:
        return f"{name} is configured but does not have any settings."
    if config.schema_title is None:
        return f"{name} does not have a schema_title setting."
    if config.schema_title != validator.title:
        return f"schema title must be {config.schema_title}."
    return None
