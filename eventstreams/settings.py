"""Settings: a name, a default, a unit and a sentence each; from the command line, the environment and a YAML file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from eventstreams.origins import named_origins
from eventstreams.public_address import parse_public_url
from eventstreams.setting_types import (
    Age,
    Bytes,
    Count,
    Expected,
    FieldPath,
    FieldPaths,
    HeaderName,
    HeaderValue,
    Hosts,
    Log,
    LogLevel,
    Network,
    Place,
    Properties,
    Rate,
    Regex,
    SchemaUriText,
    SchemaVersion,
    Seconds,
    Secret,
    StreamOrPattern,
    TopicName,
    TopicPrefix,
)
from eventstreams.settings_given import from_assignments, from_environment, from_file
from eventstreams.settings_reading import read_settings

STRICT = ConfigDict(extra="forbid", frozen=True)

DEFAULT_CSP = "default-src 'self'; object-src 'none'; media-src *; img-src *; style-src *; frame-ancestors 'self'"


def _public_url(text: str) -> str:
    parse_public_url(text)
    return text


def _origins(given: list[str]) -> list[str]:
    named_origins(given)
    return given


Cors = Annotated[
    list[HeaderValue], AfterValidator(_origins), Expected("* or origins such as https://wiki.example, without a path")
]
PublicUrl = Annotated[str, AfterValidator(_public_url), Expected("an http or https URL, with a path at most")]


class RedactionCondition(BaseModel):
    """A field that holds one of some values."""

    model_config = STRICT

    field: list[FieldPath]
    """Dotted path; of several the first that is there counts."""
    one_of: Annotated[list[Any] | dict[str, list[Any]], Expected("a list of values, or lists of them by name")]
    """Values, or lists of them by the value of the field `by`."""
    by: FieldPath | None = None
    compare: Literal["exact", "title"] = "exact"


class RedactionRule(BaseModel):
    """What to hide of which events."""

    model_config = STRICT

    streams: StreamOrPattern | None = None
    when: list[RedactionCondition] = []
    remove: list[FieldPath] = []
    empty: list[FieldPath] = []
    require: list[FieldPath] = []
    withhold: bool = False
    last: bool = False


class GatewaySettings(BaseModel):
    """The public gateway."""

    model_config = STRICT

    host: Hosts = Field(
        ["127.0.0.1"],
        description="Where to listen: an address or a list of them; `unix:PATH` is a socket's file.",
    )
    port: int = Field(8092, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    public_url: PublicUrl | None = Field(
        None, description="Address by which clients reach it through proxies, with a path prefix; null: as they say."
    )
    connections_per_client: Count = Field(0, ge=0, description="Streams that one client may have open; 0 is no limit.")
    connections: Count = Field(0, ge=0, description="Streams that may be open in all; 0 is no limit.")
    client_address: Literal["peer", "forwarded", "x-client-ip"] = Field(
        "forwarded", description="What counts as a client: what trusted proxies say, its connection, or that header."
    )
    browsers_come_back: bool = Field(
        True, description="Whether a browser over a limit gets a 200 that tells it when to come back."
    )
    canaries: bool = Field(True, description="Whether canary events are sent to who does not say.")
    no_id_blocks: list[str] = Field(
        ["python-httpx/", "Go-http-client/"],
        description="Beginnings of user agents that get `positions=false`: they take such blocks for messages.",
    )
    redaction: list[RedactionRule] = Field([], description="What is hidden of events: rules, tried in order.")
    redacted_pages: dict[str, list[Any]] = Field(
        {}, description="Titles by domain of pages whose performers are hidden; rules made from it go first."
    )
    title: str = Field("Event streams", description="Name of the service, in its descriptions and pages.")
    terms: str | None = Field(None, description="Address of the terms of use, there; null names none.")
    home: str = Field("/?doc", description="Address of the service's home page, in `/_info` and its descriptions.")
    ui: bool = Field(True, description="Whether `/` leads to the page for people; else to `/?doc`.")
    cors: Cors | None = Field(
        ["*"], description="Access-Control-Allow-Origin: `*`, or origins, with credentials; null sends no CORS headers."
    )
    csp: HeaderValue | None = Field(DEFAULT_CSP, description="Content-Security-Policy; null sends no security headers.")
    schema_version: SchemaVersion = Field(
        "latest", description="Version of the schemas in descriptions: latest, or X.Y.Z."
    )
    heartbeat: Seconds = Field(15.0, gt=0, description="Seconds without bytes after which an open stream gets some.")
    retry: Seconds = Field(
        20.0, gt=0, le=86_400, description="Seconds after which clients come back that were cut; see retry_spread."
    )
    retry_spread: Seconds = Field(
        10.0, ge=0, le=86_400, description="Seconds more after which the last of them comes back."
    )
    send_timeout: Seconds = Field(60.0, gt=0, description="Seconds after which a client that takes nothing is closed.")
    drain_timeout: Seconds = Field(8.0, ge=0, description="Seconds in which a stopping process ends its streams.")
    resume_skew: Seconds = Field(1.0, ge=0, description="Seconds repeated when a client comes from another cluster.")
    tail_bytes: Bytes = Field(64 * 2**20, gt=0, description="Bytes of the newest records kept in memory.")
    replay_bytes: Bytes = Field(64 * 2**20, gt=0, description="Bytes of blocks that replaying clients share.")


class IntakeSettings(BaseModel):
    """Event intake."""

    model_config = STRICT

    host: Hosts = Field(
        ["127.0.0.1"],
        description="Where to listen: an address or a list of them; `unix:PATH` is a socket's file.",
    )
    port: int = Field(8192, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    public_url: PublicUrl | None = Field(
        None, description="Address by which clients reach it through proxies, with a path prefix; null: as they say."
    )
    service: str = Field("eventstreams-intake", description="Name of the service, in metrics and `/_info`.")
    home: str = Field("/?doc", description="Address of the service's home page, in `/_info`.")
    user_agent: str = Field("eventstreams-intake", description="`emitter_id` of error events.")
    topic_prefix: TopicPrefix = Field(
        "", description="Put before a stream's name to make its topic; `eqiad.` for instance."
    )
    check_streams: bool = Field(True, description="Whether a stream must be configured, with the schema's title.")
    schema_uri_fields: FieldPaths = Field(
        ["$schema"], description="Fields of the schema's URI; the first there counts."
    )
    stream_fields: FieldPaths = Field(["meta.stream"], description="Fields of the stream; the first there counts.")
    id_field: FieldPath = Field("meta.id", description="Field of the event's id.")
    dt_field: FieldPath = Field("meta.dt", description="Field of the time of arrival, which is the record's time too.")
    schema_uri_query_param: str | None = Field(None, description="Query parameter that is `$schema` to events without.")
    stream_query_param: str | None = Field(None, description="Query parameter that is the stream to events without.")
    transforms: list[Literal["defaults", "edge_uniques", "test_kitchen"]] = Field(
        ["defaults"], description="Steps before validation: stamping, subjects of experiments, refused user agents."
    )
    denied_user_agents: list[Regex] = Field(
        [], description="Regular expressions of user agents that `test_kitchen` refuses."
    )
    formats: Literal["production", "strict"] = Field(
        "production", description="Formats as today's validators take them, or as their RFCs say."
    )
    insecure_schemas: bool = Field(False, description="Whether schemas with unbounded patterns are used.")
    error_stream: TopicName | None = Field(
        None, description="Stream of the events that tell of refused ones; none without."
    )
    error_reasons: list[str] = Field(
        ["ValidationError", "HoistingError", "MalformedHeaderError"],
        description="Classes of error that become events of the error stream.",
    )
    error_schema_uri: SchemaUriText = Field("/error/2.1.0", description="Schema of error events.")
    max_body_bytes: Bytes = Field(10 * 2**20, gt=0, description="Bytes of a request's body, inflated.")
    max_batch_events: Count = Field(50_000, gt=0, description="Events of a request; over it 413.")
    max_event_bytes: int = Field(4 * 2**20, gt=0, le=2**29, description="Bytes of one event as stored.")
    max_in_flight_bytes: Bytes = Field(64 * 2**20, gt=0, description="Bytes of requests being taken; over it 503.")
    body_timeout: Seconds = Field(60.0, gt=0, description="Seconds in which a body must be whole.")
    spool: str | None = Field(None, description="Directory where events are kept while the log is away; none without.")
    spool_bytes: Bytes = Field(2**30, gt=0, description="Bytes that are kept there at most; over it 503.")
    deduplication_ids: Count = Field(10**6, gt=0, description="Ids that a process remembers, where streams ask for it.")
    produce_timeout: float = Field(
        20.0, gt=0, description="Seconds in which the log must acknowledge; then 503 or 202."
    )
    shutdown_timeout: Seconds = Field(25.0, ge=0, description="Seconds in which a stopping process stores what it has.")
    hasty: bool = Field(True, description="Whether `hasty` requests are answered before their events are stored.")
    hasty_off: list[str] = Field([], description="Values of `hasty` that mean no; the original knows none.")
    events_per_second: Rate = Field(0.0, ge=0, description="Events a second that a client may send; 0 is no limit.")
    bytes_per_second: Rate = Field(0.0, ge=0, description="Bytes a second that a client may send; 0 is no limit.")
    cors: Cors | None = Field(
        ["*"], description="Access-Control-Allow-Origin: `*`, or origins, with credentials; null sends no CORS headers."
    )
    test_events: list[dict[str, Any]] = Field([], description="Events that `GET /v1/_test/events` takes.")


class AdminSettings(BaseModel):
    """The port for operators: metrics, health, readiness."""

    model_config = STRICT

    host: Hosts = Field(["127.0.0.1"], description="Where to listen, as the services.")
    port: int | None = Field(None, ge=0, le=65535, description="Port; 8093 for gateway and dev, 8193 for intake.")


class EmbeddedSettings(BaseModel):
    """The embedded log."""

    model_config = STRICT

    retention_age: Age = Field(7 * 86400.0, gt=0, description="Seconds after which a record goes.")
    retention_bytes: Bytes = Field(2**32, gt=0, description="Bytes of values that a partition keeps.")


class Settings(BaseModel):
    """All settings. Made by `load_settings`."""

    model_config = STRICT

    log: Log = Field(
        "embedded:data/events.db", description="The event log: embedded:PATH, embedded::memory: or kafka://HOST:PORT."
    )
    log_wait: Seconds | None = Field(
        300.0, ge=0, description="Seconds for which Kafka may be away at the start; 0 ends soon, null waits on."
    )
    streams: list[Place] = Field(
        ["config/streams.yaml"], description="Stream configuration: file, directory or URL, or a list; later ones win."
    )
    streams_object_path: str | None = Field(
        None, description="Dotted path of the streams in it; null takes `streams` where there is one."
    )
    streams_ttl: Age = Field(0.0, ge=0, description="Seconds after which it is read again; 0 is never.")
    streams_headers: Annotated[dict[HeaderName, HeaderValue], Secret()] = Field(
        {}, description="Headers with which URLs are fetched."
    )
    stream_defaults: dict[str, dict[str, Any]] = Field({}, description="Settings by stream, laid under.")
    stream_overrides: dict[str, dict[str, Any]] = Field({}, description="Settings by stream, laid over.")
    allowed_streams: list[str] | None = Field(
        None, description="Streams that the gateway serves, by name or alias; null is all."
    )
    schemas: list[Place] = Field(
        ["config/schemas"], description="Schema repositories: directories and base URLs; the first that answers wins."
    )
    trusted_proxies: list[Network] = Field(
        [], description="Networks (10.0.0.0/8; `unix`: unix sockets) whose X-Client-IP and X-Forwarded-* are believed."
    )
    log_level: LogLevel | None = Field(None, description="The least level of log lines: info, warning for dev.")
    kafka: Annotated[dict[str, Any], Properties(), Secret()] = Field(
        {},
        description="librdkafka properties, as in `sasl.username`; those of one kind in `producer`, `consumer`.",
    )
    gateway: GatewaySettings = Field(default_factory=lambda: GatewaySettings())
    intake: IntakeSettings = Field(default_factory=lambda: IntakeSettings())
    admin: AdminSettings = Field(default_factory=lambda: AdminSettings())
    embedded: EmbeddedSettings = Field(default_factory=lambda: EmbeddedSettings())


def load_settings(path: str | None = None, assignments: Sequence[str] = ()) -> Settings:
    """Return the settings: `name=value` assignments go before the environment, that before the file.

    Raises: ConfigurationError that names the setting, the value, what was expected, and where it stands.
    """
    file = [] if path is None else list(from_file(path))
    return read_settings(Settings, [*file, *from_environment(os.environ), *from_assignments(assignments)])
