"""Settings: a name, a default, a unit and a sentence each; from the command line, the environment and a YAML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from eventstreams.errors import ConfigurationError
from eventstreams.origins import named_origins
from eventstreams.public_address import parse_public_url
from eventstreams.settings_file import placed

STRICT = ConfigDict(extra="forbid", frozen=True)

DEFAULT_CSP = "default-src 'self'; object-src 'none'; media-src *; img-src *; style-src *; frame-ancestors 'self'"


KAFKA_KINDS = ("producer", "consumer")
"""Below `kafka`: properties of one kind of client."""


def _split(given: object) -> object:
    """Return the names of a text, joined by commas: `--set` cannot tell what a setting takes that is null."""
    return given.split(",") if isinstance(given, str) else given


Names = Annotated[list[str], BeforeValidator(_split)]


def _public_url(text: str) -> str:
    parse_public_url(text)
    return text


def _origins(given: str | list[str]) -> str | list[str]:
    named_origins(given)
    return given


Cors = Annotated[str | list[str], AfterValidator(_origins)]
PublicUrl = Annotated[str, AfterValidator(_public_url)]


class RedactionCondition(BaseModel):
    """A field that holds one of some values."""

    model_config = STRICT

    field: str | list[str]
    """Dotted path; of several the first that is there counts."""
    one_of: list[Any] | dict[str, list[Any]]
    """Values, or lists of them by the value of the field `by`."""
    by: str | None = None
    compare: Literal["exact", "title"] = "exact"


class RedactionRule(BaseModel):
    """What to hide of which events."""

    model_config = STRICT

    streams: str | None = None
    when: list[RedactionCondition] = []
    remove: list[str] = []
    empty: list[str] = []
    require: list[str] = []
    withhold: bool = False
    last: bool = False


class GatewaySettings(BaseModel):
    """The public gateway."""

    model_config = STRICT

    host: str | list[str] = Field(
        "127.0.0.1",
        description="Where to listen: an address or a list of them; `unix:PATH` is a socket's file.",
    )
    port: int = Field(8092, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    public_url: PublicUrl | None = Field(
        None, description="Address by which clients reach it through proxies, with a path prefix; null: as they say."
    )
    connections_per_client: int = Field(0, ge=0, description="Streams that one client may have open; 0 is no limit.")
    connections: int = Field(0, ge=0, description="Streams that may be open in all; 0 is no limit.")
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
        "*", description="Access-Control-Allow-Origin: `*`, or origins, with credentials; null sends no CORS headers."
    )
    csp: str | None = Field(DEFAULT_CSP, description="Content-Security-Policy; null sends no security headers.")
    schema_version: str = Field("latest", description="Version of the schemas in descriptions: latest, or X.Y.Z.")
    heartbeat: float = Field(15.0, gt=0, description="Seconds without bytes after which an open stream gets some.")
    retry: float = Field(
        20.0, gt=0, le=86_400, description="Seconds after which clients come back that were cut; see retry_spread."
    )
    retry_spread: float = Field(
        10.0, ge=0, le=86_400, description="Seconds more after which the last of them comes back."
    )
    send_timeout: float = Field(60.0, gt=0, description="Seconds after which a client that takes nothing is closed.")
    drain_timeout: float = Field(8.0, ge=0, description="Seconds in which a stopping process ends its streams.")
    resume_skew: float = Field(1.0, ge=0, description="Seconds repeated when a client comes from another cluster.")
    tail_bytes: int = Field(64 * 2**20, gt=0, description="Bytes of the newest records kept in memory.")
    replay_bytes: int = Field(64 * 2**20, gt=0, description="Bytes of blocks that replaying clients share.")


class IntakeSettings(BaseModel):
    """Event intake."""

    model_config = STRICT

    host: str | list[str] = Field(
        "127.0.0.1",
        description="Where to listen: an address or a list of them; `unix:PATH` is a socket's file.",
    )
    port: int = Field(8192, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    public_url: PublicUrl | None = Field(
        None, description="Address by which clients reach it through proxies, with a path prefix; null: as they say."
    )
    service: str = Field("eventstreams-intake", description="Name of the service, in metrics and `/_info`.")
    home: str = Field("/?doc", description="Address of the service's home page, in `/_info`.")
    user_agent: str = Field("eventstreams-intake", description="`emitter_id` of error events.")
    topic_prefix: str = Field("", description="Put before a stream's name to make its topic; `eqiad.` for instance.")
    check_streams: bool = Field(True, description="Whether a stream must be configured, with the schema's title.")
    schema_uri_fields: list[str] = Field(["$schema"], description="Fields of the schema's URI; the first there counts.")
    stream_fields: list[str] = Field(["meta.stream"], description="Fields of the stream; the first there counts.")
    id_field: str = Field("meta.id", description="Field of the event's id.")
    dt_field: str = Field("meta.dt", description="Field of the time of arrival, which is the record's time too.")
    schema_uri_query_param: str | None = Field(None, description="Query parameter that is `$schema` to events without.")
    stream_query_param: str | None = Field(None, description="Query parameter that is the stream to events without.")
    transforms: list[Literal["defaults", "edge_uniques", "test_kitchen"]] = Field(
        ["defaults"], description="Steps before validation: stamping, subjects of experiments, refused user agents."
    )
    denied_user_agents: list[str] = Field(
        [], description="Regular expressions of user agents that `test_kitchen` refuses."
    )
    formats: Literal["production", "strict"] = Field(
        "production", description="Formats as today's validators take them, or as their RFCs say."
    )
    insecure_schemas: bool = Field(False, description="Whether schemas with unbounded patterns are used.")
    error_stream: str | None = Field(None, description="Stream of the events that tell of refused ones; none without.")
    error_reasons: list[str] = Field(
        ["ValidationError", "HoistingError", "MalformedHeaderError"],
        description="Classes of error that become events of the error stream.",
    )
    error_schema_uri: str = Field("/error/2.1.0", description="Schema of error events.")
    max_body_bytes: int = Field(10 * 2**20, gt=0, description="Bytes of a request's body, inflated.")
    max_batch_events: int = Field(50_000, gt=0, description="Events of a request; over it 413.")
    max_event_bytes: int = Field(4 * 2**20, gt=0, description="Bytes of one event as stored.")
    max_in_flight_bytes: int = Field(64 * 2**20, gt=0, description="Bytes of requests being taken; over it 503.")
    body_timeout: float = Field(60.0, gt=0, description="Seconds in which a body must be whole.")
    spool: str | None = Field(None, description="Directory where events are kept while the log is away; none without.")
    spool_bytes: int = Field(2**30, gt=0, description="Bytes that are kept there at most; over it 503.")
    deduplication_ids: int = Field(10**6, gt=0, description="Ids that a process remembers, where streams ask for it.")
    produce_timeout: float = Field(
        20.0, gt=0, description="Seconds in which the log must acknowledge; then 503 or 202."
    )
    shutdown_timeout: float = Field(25.0, ge=0, description="Seconds in which a stopping process stores what it has.")
    hasty: bool = Field(True, description="Whether `hasty` requests are answered before their events are stored.")
    hasty_off: list[str] = Field([], description="Values of `hasty` that mean no; the original knows none.")
    events_per_second: float = Field(0.0, ge=0, description="Events a second that a client may send; 0 is no limit.")
    bytes_per_second: float = Field(0.0, ge=0, description="Bytes a second that a client may send; 0 is no limit.")
    cors: Cors | None = Field(
        "*", description="Access-Control-Allow-Origin: `*`, or origins, with credentials; null sends no CORS headers."
    )
    test_events: list[dict[str, Any]] = Field([], description="Events that `GET /v1/_test/events` takes.")


class AdminSettings(BaseModel):
    """The port for operators: metrics, health, readiness."""

    model_config = STRICT

    host: str | list[str] = Field("127.0.0.1", description="Where to listen, as the services.")
    port: int | None = Field(None, ge=0, le=65535, description="Port; 8093 for gateway and dev, 8193 for intake.")


class EmbeddedSettings(BaseModel):
    """The embedded log."""

    model_config = STRICT

    retention_age: float = Field(7 * 86400.0, gt=0, description="Seconds after which a record goes.")
    retention_bytes: int = Field(2**32, gt=0, description="Bytes of values that a partition keeps.")


class Settings(BaseSettings):
    """All settings. Made by `load_settings`."""

    model_config = SettingsConfigDict(
        env_prefix="EVENTSTREAMS_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    log: str = Field("embedded:data/events.db", description="The event log: embedded:PATH or embedded::memory:.")
    log_wait: float | None = Field(
        300.0, ge=0, description="Seconds for which Kafka may be away at the start; 0 ends soon, null waits on."
    )
    streams: str | list[str] = Field(
        "config/streams.yaml", description="Stream configuration: file, directory or URL, or a list; later ones win."
    )
    streams_object_path: str | None = Field(
        None, description="Dotted path of the streams in it; null takes `streams` where there is one."
    )
    streams_ttl: float = Field(0.0, ge=0, description="Seconds after which it is read again; 0 is never.")
    streams_headers: dict[str, str] = Field({}, description="Headers with which URLs are fetched.")
    stream_defaults: dict[str, dict[str, Any]] = Field({}, description="Settings by stream, laid under.")
    stream_overrides: dict[str, dict[str, Any]] = Field({}, description="Settings by stream, laid over.")
    allowed_streams: Names | None = Field(None, description="Streams that the gateway serves; null is all.")
    schemas: list[str] = Field(
        ["config/schemas"], description="Schema repositories: directories and base URLs; the first that answers wins."
    )
    trusted_proxies: list[str] = Field(
        [], description="Networks (10.0.0.0/8; `unix`: unix sockets) whose X-Client-IP and X-Forwarded-* are believed."
    )
    log_level: Literal["debug", "info", "warning", "error"] | None = Field(
        None, description="The least level of log lines: info, warning for dev."
    )
    kafka: dict[str, Any] = Field(
        {},
        description="librdkafka properties, as in `sasl.username`; those of one kind in `producer`, `consumer`.",
    )
    gateway: GatewaySettings = Field(default_factory=lambda: GatewaySettings())
    intake: IntakeSettings = Field(default_factory=lambda: IntakeSettings())
    admin: AdminSettings = Field(default_factory=lambda: AdminSettings())
    embedded: EmbeddedSettings = Field(default_factory=lambda: EmbeddedSettings())

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment goes before what `load_settings` passes from the file."""
        return env_settings, init_settings


def load_settings(path: str | None = None, assignments: Sequence[str] = ()) -> Settings:
    """Return the settings: `name=value` assignments go before the environment, that before the file.

    Raises: ConfigurationError that names the setting, the value and what was expected.
    """
    try:
        settings = Settings(**_read(path))
        if assignments:
            values = settings.model_dump()
            for assignment in assignments:
                _assign(values, assignment)
            settings = _validated(values)
    except ValidationError as exc:
        raise ConfigurationError("; ".join(map(_problem, exc.errors()))) from exc
    return settings


class _Given(BaseModel):
    model_config = STRICT
    log: str
    log_wait: Annotated[float, Field(ge=0)] | None
    streams: str | list[str]
    streams_object_path: str | None
    streams_ttl: float
    streams_headers: dict[str, str]
    stream_defaults: dict[str, dict[str, Any]]
    stream_overrides: dict[str, dict[str, Any]]
    allowed_streams: Names | None
    schemas: list[str]
    trusted_proxies: list[str]
    log_level: Literal["debug", "info", "warning", "error"] | None
    kafka: dict[str, Any]
    gateway: GatewaySettings
    intake: IntakeSettings
    admin: AdminSettings
    embedded: EmbeddedSettings


def _validated(values: dict[str, Any]) -> Settings:
    """Check values that are final: the environment is not asked again."""
    given = _Given(**values)
    return Settings.model_construct(**{name: getattr(given, name) for name in _Given.model_fields})


def _read(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        document = YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigurationError(f"settings file {path} cannot be read: {exc.strerror}") from exc
    except (YAMLError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"settings file {path} is no YAML: {exc}") from exc
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigurationError(f"settings file {path}: expected settings by name, found {document!r}")
    return placed(document, Path(path).parent)


def _assign(values: dict[str, Any], assignment: str) -> None:
    name, equals, value = assignment.partition("=")
    first, _, rest = name.partition(".")
    if equals and first == "kafka" and rest:
        _assign_property(values["kafka"], rest, _mapping(value, assignment))
        return
    *slices, last = name.split(".")
    at: Any = values
    for part in slices:
        at = at.get(part) if isinstance(at, dict) else None
    if not equals or not isinstance(at, dict) or last not in at:
        raise ConfigurationError(f"--set {assignment!r}: expected name=value with the name of a setting")
    at[last] = _value(at[last], value, assignment)


def _assign_property(kafka: dict[str, Any], name: str, value: object) -> None:
    """Set one of librdkafka's properties, whose own names hold dots, for all clients or those of one kind."""
    kind, _, rest = name.partition(".")
    if kind in KAFKA_KINDS and rest:
        held = kafka.get(kind, {})
        kafka[kind] = {**(held if isinstance(held, dict) else {}), rest: value}
    else:
        kafka[name] = value


def _mapping(text: str, assignment: str) -> object:
    """Return a property's value: a mapping in YAML, such as `{file: PATH}`, else the text as it is."""
    return _yaml(text, assignment) if text.startswith("{") and text.endswith("}") else text


def _yaml(text: str, assignment: str) -> object:
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as exc:
        raise ConfigurationError(f"--set {assignment!r}: expected a value in YAML") from exc


def _value(present: object, text: str, assignment: str) -> object:
    """Return what a text on the command line means: lists and mappings in YAML, lists also joined by commas."""
    if text == "null":
        return None
    if not isinstance(present, (list, dict)):
        return text
    if isinstance(present, list) and not text.startswith("["):
        return text.split(",") if text else []
    return _yaml(text, assignment)


def _problem(error: Any) -> str:
    name = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"setting {name}: there is no such setting"
    return f"setting {name} = {error['input']!r}: {error['msg']}"
