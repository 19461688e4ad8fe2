"""From documents to a catalogue: shapes told apart, defaults laid under, overrides over, every entry checked."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from eventstreams.catalog.merge import lay_over
from eventstreams.catalog.sources import Document, read
from eventstreams.catalog.streams import StreamCatalog, StreamConfig, TopicSettings
from eventstreams.errors import ConfigurationError
from eventstreams.setting_types import pattern

logger = logging.getLogger(__name__)

PHP_STREAMS, PHP_DEFAULTS, PHP_WIKI = "wgEventStreams", "wgEventStreamsDefaultSettings", "default"
TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}", re.ASCII)
NAME = re.compile(r"[^,\x00-\x1f\x7f]{1,500}")
MAX_TOLD = 10


@dataclass(frozen=True, slots=True)
class CatalogOptions:
    """How stream configuration is read."""

    object_path: str | None = None
    """Dotted path of the streams in each document; None takes `streams` where there is one."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Settings by stream name, laid under; streams that are only here are added."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Settings by stream name, laid over; streams that are only here are added."""
    allowed: Sequence[str] | None = None
    """The streams that the gateway serves, by their names or aliases; None is all."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers for URLs."""


class Problem(NamedTuple):
    """Something wrong in stream configuration."""

    source: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: {self.message}"


class Entry(NamedTuple):
    """A stream's settings as one document gives them, and where."""

    document: Document
    path: tuple[str | int, ...]
    settings: Any

    def problem(self, path: Sequence[str], words: str) -> Problem:
        """Return what is wrong at a path below this, with its line."""
        line = self.document.line((*self.path, *path)) if self.document.text else 1
        return Problem(self.document.name, line, words)


Review = Callable[[str, Any], Iterable[tuple[Sequence[str], str]]]
"""What else is told of a stream's settings: where, below its entry, and in which words."""


def load_catalog(sources: str | Sequence[str], options: CatalogOptions | None = None) -> StreamCatalog:
    """Read stream configuration from files, directories and URLs; later sources win, stream by stream. Blocking.

    Raises: ConfigurationError that tells what is wrong, with file and line.
    """
    return StreamCatalog(load_streams(sources, options or CatalogOptions()))


def load_streams(sources: str | Sequence[str], options: CatalogOptions) -> Sequence[StreamConfig]:
    """Return the streams in the order of the configuration, aliases after them. Blocking.

    Raises: ConfigurationError.
    """
    streams, problems = check(sources, options)
    if problems:
        more = f"; and {len(problems) - MAX_TOLD} more" if len(problems) > MAX_TOLD else ""
        raise ConfigurationError("; ".join(map(str, problems[:MAX_TOLD])) + more)
    return streams


def check(sources: str | Sequence[str], options: CatalogOptions) -> tuple[Sequence[StreamConfig], Sequence[Problem]]:
    """Return the usable streams, and all that is wrong with the others. Blocking.

    Raises: ConfigurationError where a source cannot be read, or holds no streams at all.
    """
    return judged(gather(sources, options), options)


def judged(
    entries: Mapping[str, Entry], options: CatalogOptions, review: Review | None = None
) -> tuple[Sequence[StreamConfig], Sequence[Problem]]:
    """Return the usable streams, and all that is wrong with the others; also what a review finds with any."""
    found: dict[str, StreamConfig] = {}
    problems: list[Problem] = []
    for name, entry in entries.items():
        wrong = [entry.problem(path, words) for path, words in _problems(name, entry.settings)]
        problems += wrong
        if not wrong:
            found[name] = _stream(name, entry.settings, options)
        if review is not None:
            problems += [entry.problem(path, words) for path, words in review(name, entry.settings)]
    return [*found.values(), *_aliases(found.values())], problems


def gather(sources: str | Sequence[str], options: CatalogOptions) -> Mapping[str, Entry]:
    """Return the settings of each stream as sources and layers have them. Blocking. Raises: as `check`."""
    named = [sources] if isinstance(sources, str) else list(sources)
    entries: dict[str, Entry] = {}
    for document in read(named, options.headers):
        entries |= _entries(document, options)
    if not entries and not options.defaults:
        raise ConfigurationError(f"stream configuration {', '.join(named)}: expected streams by name, found none")
    for origin, layer in (("stream_defaults", options.defaults), ("stream_overrides", options.overrides)):
        for name, settings in layer.items():
            over = options.overrides.get(name, {})
            entries.setdefault(name, Entry(Document(origin, "", None), (), lay_over(settings, over)))
    return entries


def _aliases(streams: Iterable[StreamConfig]) -> Iterator[StreamConfig]:
    for stream in streams:
        for alias in () if stream.is_pattern else _names(stream.settings.get("stream_aliases")):
            note = f"{stream.description}\n\n(NOTE: This stream is an alias of {stream.name})"
            yield replace(stream, name=alias, description=note, alias_of=stream.name)


def _entries(document: Document, options: CatalogOptions) -> dict[str, Entry]:
    content, path, defaults = _streams_of(document, options.object_path)
    if isinstance(content, dict):
        items: Iterator[tuple[str | int, Any]] = iter(content.items())
    elif isinstance(content, list):
        items = iter(enumerate(content))
    else:
        where = ".".join(map(str, path)) or "the document"
        raise ConfigurationError(
            f"stream configuration {document.name}: expected streams by name in {where}, found {_shown(content)}"
        )
    found: dict[str, Entry] = {}
    for key, own in items:
        # An item of a list carries its name; PHP's lists come as maps whose keys are numbers.
        numbered = str(key).isdecimal() and isinstance(own, dict)
        name = own.get("stream", key) if numbered else key
        settings = lay_over(defaults, own) if isinstance(own, dict) and defaults else own
        if isinstance(settings, dict):
            settings = lay_over(options.defaults.get(str(name), {}), settings)
            settings = lay_over(settings, options.overrides.get(str(name), {}))
        found[str(name)] = Entry(document, (*path, key), settings)
    return found


def _streams_of(document: Document, object_path: str | None) -> tuple[Any, tuple[str | int, ...], Mapping[str, Any]]:
    """Return what holds the streams, its path, and the defaults that the document itself has for all of them."""
    content = document.content
    if isinstance(content, dict) and _is_error(content.get("error")):
        raise ConfigurationError(f"stream configuration {document.name} is an error: {_shown(content['error'])}")
    if isinstance(content, dict) and isinstance(content.get("warnings"), (dict, list)):
        logger.warning("stream configuration came with warnings", extra={"warnings": _shown(content["warnings"])})
    if object_path is not None:
        steps = tuple(object_path.split("."))
        for step in steps:
            content = _at(content, step)
        return content, steps, {}
    if isinstance(content, dict) and PHP_STREAMS in content:
        streams, defaults = (_at(content.get(name), PHP_WIKI) for name in (PHP_STREAMS, PHP_DEFAULTS))
        return streams, (PHP_STREAMS, PHP_WIKI), defaults if isinstance(defaults, dict) else {}
    if isinstance(content, dict) and isinstance(content.get("streams"), (dict, list)):
        return content["streams"], ("streams",), {}
    return content, (), {}


def _at(content: Any, step: str) -> Any:
    return content.get(step) if isinstance(content, dict) else None


def _is_error(value: Any) -> bool:
    """Whether this is what MediaWiki's API says under `error`, with status 200; a stream may be called that too."""
    return isinstance(value, str) or (isinstance(value, dict) and "code" in value)


def _stream(name: str, settings: Mapping[str, Any], options: CatalogOptions) -> StreamConfig:
    is_pattern = name.startswith("/")
    topics = () if is_pattern else settings.get("topics")
    if topics is None:
        prefixes = settings.get("topic_prefixes") or ("",)
        topics = tuple(prefix + name for prefix in prefixes)
    # As the original: what says nothing of topics is not for the gateway.
    has_topics = settings.get("topics") is not None or "topic_prefixes" in settings
    creation = settings.get("kafka") or {}
    return StreamConfig(
        name=name,
        topics=tuple(topics),
        topics_allowed=tuple(settings.get("topics_allowed") or ()),
        description=settings.get("description") or f"{name} events.",
        schema_title=settings.get("schema_title"),
        settings=settings,
        message_key_fields=settings.get("message_key_fields"),
        is_public=has_topics and not is_pattern and _is_allowed(name, settings, options.allowed),
        topic_settings=TopicSettings(
            creation.get("partitions"), creation.get("replication_factor"), creation.get("config", {})
        ),
    )


def _is_allowed(name: str, settings: Mapping[str, Any], allowed: Sequence[str] | None) -> bool:
    """Whether the gateway may serve it: an alias stands for its stream, which is served by all of its names."""
    return allowed is None or not {name, *_names(settings.get("stream_aliases"))}.isdisjoint(allowed)


# -- checking: each yields where, below the stream's entry, and what was expected


def _problems(name: str, settings: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    if name.startswith("/"):
        yield from _bad_pattern(name)
    elif NAME.fullmatch(name) is None:
        yield (), f"stream {_shown(name)}: expected a name without commas and control characters"
    if not isinstance(settings, dict):
        yield (), f"stream {name}: expected settings by name, found {_shown(settings)}"
        return
    prefixes = settings.get("topic_prefixes")
    made = [prefix + name for prefix in prefixes] if prefixes and _is_names(prefixes) else [name]
    plain = NAME.fullmatch(name) is not None and not name.startswith("/")
    if plain and settings.get("topics") is None and not all(map(TOPIC.fullmatch, made)):
        yield (), f"stream {_shown(name)}: its name is no topic's, expected topics"
    for key, (is_right, expected) in CHECKS.items():
        value = settings.get(key)
        if name.startswith("/") and key == "topics":
            # A pattern's topics are a pattern too, told for the eye: an event's own stream decides.
            continue
        if value is not None and not is_right(value):
            yield (key,), f"{key} of stream {name}: expected {expected}, found {_shown(value)}"


def _bad_pattern(name: str) -> Iterator[tuple[tuple[str, ...], str]]:
    if len(name) < 3 or not name.endswith("/"):
        yield (), f"stream {_shown(name)}: expected a pattern between slashes, without flags"
        return
    try:
        pattern(name[1:-1])
    except ValueError:
        yield (), f"stream {_shown(name)}: expected a regular expression between slashes"


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_topics(value: Any) -> bool:
    return _is_names(value) and all(TOPIC.fullmatch(item) for item in value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_aliases(value: Any) -> bool:
    return _is_names(_names(value)) and all(map(NAME.fullmatch, _names(value)))


def _is_texts_by_name(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for pair in value.items() for item in pair)


def _is_creation(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() - {"partitions", "replication_factor", "config"}:
        return False
    counts = [value[key] for key in ("partitions", "replication_factor") if key in value]
    whole = all(isinstance(count, int) and not isinstance(count, bool) and count > 0 for count in counts)
    return whole and isinstance(value.get("config", {}), dict)


CHECKS: Mapping[str, tuple[Any, str]] = {
    "topics": (_is_topics, "a list of topic names"),
    "topics_allowed": (_is_topics, "a list of topic names"),
    "topic_prefixes": (_is_names, "a list of texts or null"),
    "stream_aliases": (_is_aliases, "a name or a list of names"),
    "description": (_is_text, "a text"),
    "schema_title": (_is_text, "a schema's title"),
    "message_key_fields": (_is_texts_by_name, "paths of fields by name"),
    "canary_events_enabled": (lambda value: isinstance(value, bool), "true or false"),
    "destination_event_service": (_is_text, "a service's name"),
    "kafka": (_is_creation, "partitions and replication_factor (whole numbers) and config (topic settings by name)"),
}


def _names(value: Any) -> Sequence[str]:
    return [value] if isinstance(value, str) else value or ()


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "..."
