"""What a check of stream configuration tells beyond what a process refuses to start with.

Settings that nobody here reads are kept and served: only who checks a configuration is told
that one looks misspelt, has a type that is not read, or names a schema that no repository has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from eventstreams.catalog.load import CHECKS
from eventstreams.errors import SchemaError, SchemaNotFound
from eventstreams.schemas.repository import SchemaRepository
from eventstreams.schemas.uri import SchemaUri, parse_schema_uri
from eventstreams.setting_words import shown, similar

Path = tuple[str, ...]
Judgement = tuple[Callable[[Any], bool], str]

EVENTGATE = ("producers", "eventgate")


def _is_map(value: Any) -> bool:
    """Whether this is a map; PHP writes an empty one as a list."""
    return isinstance(value, dict) or value == []


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_amount(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0


def _is_enrichment(value: Any) -> bool:
    return value is False or (_is_map(value) and all(v is False or _is_text(v) for v in dict(value).values()))


MAP: Judgement = (_is_map, "settings by name")
TYPES: Mapping[Path, Judgement] = {
    ("stream",): (_is_text, "the stream's name"),
    ("schema",): (_is_map, "a schema"),
    ("$schema",): (_is_text, "a schema's URI"),
    ("sample",): MAP,
    ("sample", "rate"): (_is_amount, "a number from 0 to 1"),
    ("sample", "unit"): (_is_text, "a text"),
    ("consumers",): MAP,
    ("producers",): MAP,
    EVENTGATE: MAP,
    (*EVENTGATE, "enrich_fields_from_http_headers"): (_is_enrichment, "headers' names, or false, by field; or false"),
    (*EVENTGATE, "use_edge_uniques"): (_is_flag, "true or false"),
    (*EVENTGATE, "deduplication_window"): (_is_amount, "seconds of at least 0"),
    ("producers", "test_kitchen"): MAP,
    ("producers", "test_kitchen", "is_test_kitchen_stream"): (_is_flag, "true or false"),
    ("producers", "mediawiki_eventbus"): MAP,
    ("producers", "metrics_platform_client"): MAP,
}
NAMES: Mapping[Path, frozenset[str]] = {
    (): frozenset(CHECKS) | {path[0] for path in TYPES},
    ("producers",): frozenset(path[1] for path in TYPES if path[0] == "producers" and len(path) > 1),
    EVENTGATE: frozenset(path[2] for path in TYPES if path[:2] == EVENTGATE and len(path) > 2),
    ("producers", "test_kitchen"): frozenset({"is_test_kitchen_stream"}),
    ("sample",): frozenset({"rate", "unit"}),
}


def review(name: str, settings: Any) -> Iterator[tuple[Path, str]]:
    """Yield where, below a stream's entry, something looks misspelt or is not of its type, and what was expected."""
    for path, known in NAMES.items():
        held = _at(settings, path)
        for key in held if isinstance(held, dict) else ():
            meant = None if str(key) in known else similar(str(key), known)
            if meant is not None:
                dotted = ".".join((*path, str(key)))
                yield (*path, str(key)), f"{dotted} of stream {name}: there is no such setting; the nearest is {meant}"
    for path, (is_right, expected) in TYPES.items():
        value = _at(settings, path)
        if value is not None and not is_right(value):
            yield path, f"{'.'.join(path)} of stream {name}: expected {expected}, found {shown(value)}"


def _at(settings: Any, path: Path) -> Any:
    for step in path:
        settings = settings.get(step) if isinstance(settings, dict) else None
    return settings


async def titles_without_schema(titles: Iterable[str], repository: SchemaRepository) -> Mapping[str, str]:
    """Return the titles of which no schema can be had, each with why."""
    found: dict[str, str] = {}
    for title in dict.fromkeys(titles):
        reason = await _missing(title, repository)
        if reason is not None:
            found[title] = reason
    return found


async def _missing(title: str, repository: SchemaRepository) -> str | None:
    try:
        parse_schema_uri(f"/{title}/1.0.0")
        if not await repository.versions(title):
            await repository.load(SchemaUri(title, "latest"))
    except SchemaNotFound:
        return "no schema repository has a schema of this title"
    except SchemaError as exc:
        return exc.message
    return None


def unknown_names(names: Sequence[str] | None, known: Iterable[str]) -> Iterator[str]:
    """Yield what is wrong with names that `allowed_streams` has and the configuration has not."""
    given = set(known)
    for name in names or ():
        if name not in given:
            meant = similar(name, given)
            hint = f"; the nearest is {meant}" if meant else ""
            yield f"setting allowed_streams: there is no stream {shown(name)}{hint}"
