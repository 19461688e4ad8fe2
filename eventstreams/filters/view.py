"""An event as filters see it: brought into CEL's runtime once, however many filters ask."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from cel_expr_python import cel

SMALLEST, LARGEST = -(2**63), 2**64 - 1
ODD = (b"\\u0000", b"\\ud", b"\\uD")
"""Escapes in an event's text that CEL's runtime cuts texts at, or refuses."""


@cache
def environment() -> Any:
    """Return the CEL environment: the standard library, one variable `event` of any shape."""
    return cel.NewEnv(variables={"event": cel.Type.DYN})


class EventView:
    """One event for many filters. `data` is its JSON text where there is one."""

    __slots__ = ("_activation", "_event", "_odd", "_roots")

    def __init__(self, event: Mapping[str, Any], data: bytes | None = None) -> None:
        self._event = event
        self._odd = data is None or any(escape in data for escape in ODD)
        self._activation: Any = None
        self._roots: frozenset[str] | None = frozenset()

    def activation(self, roots: frozenset[str] | None, wanted: frozenset[str] | None) -> Any:
        """Return what programs are evaluated on; it has the fields `roots`, at the root of the event.

        `wanted` are those that all filters in use read together: they are brought in with the first. None is all.
        """
        held = self._roots
        if self._activation is None or (held is not None and (roots is None or not roots <= held)):
            self._roots = None if roots is None or wanted is None else roots | wanted
            self._activation = environment().Activation({"event": self._fields()})
        return self._activation

    def _fields(self) -> dict[str, Any]:
        event, roots = self._event, self._roots
        fields = dict(event) if roots is None else {name: event[name] for name in roots if name in event}
        return {_text(name): _clean(value) for name, value in fields.items()} if self._odd else fields


def _clean(value: Any) -> Any:
    """Return a value of which nothing makes the whole event unreadable: see spec filters 4."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return {_text(name): _clean(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_clean(member) for member in value]
    if isinstance(value, int) and not isinstance(value, bool) and not SMALLEST <= value <= LARGEST:
        return float(value) if abs(value) < 2**1023 else float("inf")
    return value


def _text(text: str) -> str:
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
