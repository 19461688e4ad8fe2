"""Settings: a name, a default, a unit and a sentence each; from the command line, the environment and a YAML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from eventstreams.errors import ConfigurationError

STRICT = ConfigDict(extra="forbid", frozen=True)


class GatewaySettings(BaseModel):
    """The public gateway."""

    model_config = STRICT

    host: str = Field("127.0.0.1", description="Address to listen on; loopback unless told otherwise.")
    port: int = Field(8092, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    connections_per_client: int = Field(0, ge=0, description="Streams that one client may have open; 0 is no limit.")
    connections: int = Field(0, ge=0, description="Streams that may be open in all; 0 is no limit.")
    heartbeat: float = Field(15.0, gt=0, description="Seconds without bytes after which an open stream gets some.")
    send_timeout: float = Field(60.0, gt=0, description="Seconds after which a client that takes nothing is closed.")
    drain_timeout: float = Field(10.0, ge=0, description="Seconds in which a stopping process ends its streams.")
    resume_skew: float = Field(1.0, ge=0, description="Seconds repeated when a client comes from another cluster.")
    tail_bytes: int = Field(64 * 2**20, gt=0, description="Bytes of the newest records kept in memory.")
    replay_bytes: int = Field(64 * 2**20, gt=0, description="Bytes of blocks that replaying clients share.")


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
    streams: str = Field("config/streams.yaml", description="File of the stream configuration.")
    gateway: GatewaySettings = Field(default_factory=lambda: GatewaySettings())
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
    streams: str
    gateway: GatewaySettings
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
    return document


def _assign(values: dict[str, Any], assignment: str) -> None:
    name, equals, value = assignment.partition("=")
    *slices, last = name.split(".")
    at: Any = values
    for part in slices:
        at = at.get(part) if isinstance(at, dict) else None
    if not equals or not isinstance(at, dict) or last not in at:
        raise ConfigurationError(f"--set {assignment!r}: expected name=value with the name of a setting")
    at[last] = value


def _problem(error: Any) -> str:
    name = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"setting {name}: there is no such setting"
    return f"setting {name} = {error['input']!r}: {error['msg']}"
