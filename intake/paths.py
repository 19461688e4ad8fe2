"""Fields of events by their path."""

from __future__ import annotations

from collections.abc import Sequence
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
