"""From a file of stream configuration to a catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from eventstreams.catalog.streams import StreamCatalog, StreamConfig
from eventstreams.errors import ConfigurationError


def load_catalog(path: str) -> StreamCatalog:
    """Read a stream configuration: YAML or JSON, streams by name, possibly below the key `streams`. Blocking.

    Raises: ConfigurationError.
    """
    try:
        document = YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigurationError(f"stream configuration {path} cannot be read: {exc.strerror}") from exc
    except (YAMLError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"stream configuration {path} is no YAML or JSON: {exc}") from exc
    streams = document.get("streams", document) if isinstance(document, dict) else None
    if not isinstance(streams, dict) or not streams:
        raise ConfigurationError(f"stream configuration {path}: expected streams by name, found none")
    found: list[StreamConfig] = []
    for name, settings in streams.items():
        if not str(name).startswith("/"):
            found += _stream(str(name), settings, path)
    return StreamCatalog(found)


def _stream(name: str, settings: object, path: str) -> Sequence[StreamConfig]:
    if not isinstance(settings, dict):
        raise ConfigurationError(f"stream {name} in {path}: expected settings by name, found {settings!r}")
    topics = _names(settings, "topics", name, path)
    if topics is None:
        prefixes = _names(settings, "topic_prefixes", name, path) or ("",)
        topics = tuple(prefix + name for prefix in prefixes)
    stream = StreamConfig(
        name=name,
        topics=topics,
        description=str(settings.get("description", f"{name} events.")),
        schema_title=settings.get("schema_title"),
        settings=settings,
        topics_allowed=_names(settings, "topics_allowed", name, path) or (),
        message_key_fields=settings.get("message_key_fields") or {},
    )
    aliases = _names(settings, "stream_aliases", name, path) or ()
    note = f"{stream.description}\n\n(NOTE: This stream is an alias of {name})"
    return [stream, *(replace(stream, name=alias, description=note, alias_of=name) for alias in aliases)]


def _names(settings: Mapping[str, object], key: str, name: str, path: str) -> tuple[str, ...] | None:
    value = settings.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ConfigurationError(f"{key} of stream {name} in {path}: expected a list of names, found {value!r}")
    return tuple(value)
