"""Fields of events by their path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Path = tuple[str, ...]

MISSING: Any = object()


def dotted(text: str) -> Path:
    """Return the path that names joined by dots mean."""
    return tuple(text.split("."))


def get(event: Any, path: Path) -> Any:
    """Return the field, or MISSING."""
    for name in path:
        if not isinstance(event, dict):
            return MISSING
        event = event.get(name, MISSING)
    return event


def finder(paths: Sequence[Path]) -> Callable[[Any], Any]:
    """Return `find` for these paths; quicker for the usual ones, a single field one or two levels deep."""
    if len(paths) == 1 and len(paths[0]) == 1:
        (name,) = paths[0]
        return lambda event: event.get(name, MISSING) if isinstance(event, dict) else MISSING
    if len(paths) == 1 and len(paths[0]) == 2:
        outer, inner = paths[0]

        def find_inner(event: Any) -> Any:
            held = event.get(outer) if isinstance(event, dict) else None
            return held.get(inner, MISSING) if isinstance(held, dict) else MISSING

        return find_inner
    return lambda event: find(event, paths)


def find(event: Any, paths: Sequence[Path]) -> Any:
    """Return the first of these fields that is there (null is there), or MISSING."""
    for path in paths:
        value = get(event, path)
        if value is not MISSING:
            return value
    return MISSING


def put(event: dict[str, Any], path: Path, value: object) -> bool:
    """Set a field, making the objects on the way to it; return False where something else is in the way."""
    for name in path[:-1]:
        inner = event.setdefault(name, {})
        if not isinstance(inner, dict):
            return False
        event = inner
    event[path[-1]] = value
    return True


def setter(path: Path) -> Callable[[dict[str, Any], object], object]:
    """Return `put` for one path; quicker for the usual ones, two levels deep."""
    if len(path) != 2:
        return lambda event, value: put(event, path, value)
    outer, inner = path

    def put_inner(event: dict[str, Any], value: object) -> None:
        held = event.get(outer)
        if isinstance(held, dict):
            held[inner] = value
        else:
            put(event, path, value)

    return put_inner
