"""JSON as JavaScript reads and writes it, where orjson differs: the slow way, for the few events that need it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import orjson

from eventstreams.compact_json import compact

MAX_EXACT_INTEGER = 2**53
"""Beyond it numbers go out as doubles, as they do from the original (RFC 8259 section 6)."""

MAX_DIGITS = 400
"""Of an integer; one of more is beyond a double's range."""

MAX_DEPTH = 254
"""Levels of nesting that orjson writes."""


def has_duplicate_keys(value: bytes) -> bool:
    """Whether any object of this JSON text, read as `lenient` does, names a key twice; the original refuses those."""

    def check(pairs: list[tuple[str, Any]]) -> None:
        if len({name for name, _ in pairs}) != len(pairs):
            raise _DuplicateKeyError

    try:
        json.loads(value.decode("utf-8-sig", "replace"), object_pairs_hook=check, parse_int=integer)
    except _DuplicateKeyError:
        return True
    except (ValueError, RecursionError):
        return False
    return False


class _DuplicateKeyError(Exception):
    pass


def lenient(value: bytes) -> object:
    """Parse what orjson refuses and the original takes.

    Lone surrogates, a byte-order mark, bytes that are no UTF-8, numbers out of a double's range.
    """
    try:
        return json.loads(value.decode("utf-8-sig", "replace"), parse_constant=_refuse_constant, parse_int=integer)
    except (ValueError, RecursionError):
        return None


def integer(text: str) -> float:
    """Return the number; infinity from so many digits on that Python would not convert them."""
    return int(text) if len(text) < MAX_DIGITS else float(text)


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def is_deep(value: object) -> bool:
    """Whether arrays and objects are nested deeper than can be written."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def dump(value: object) -> bytes:
    """Serialise with JavaScript's numbers: integers beyond 2^53 as the nearest double, infinity as null."""
    try:
        return compact(_doubles(value, orjson.Fragment))
    except orjson.JSONEncodeError:
        # Lone surrogates.
        return json.dumps(as_doubles(value), separators=(",", ":"), ensure_ascii=True).encode()


def as_doubles(value: Any) -> Any:
    """Return a JSON value with integers beyond 2^53 as they are written as doubles; infinity is None."""
    return _doubles(value, orjson.loads)


def _doubles(value: Any, as_written: Callable[[bytes], Any]) -> Any:
    """Return `value` with large numbers through `as_written`, which is given JavaScript's text of each."""
    if isinstance(value, dict):
        return {key: _doubles(item, as_written) for key, item in value.items()}
    if isinstance(value, list):
        return [_doubles(item, as_written) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) > MAX_EXACT_INTEGER:
        return as_written(javascript_number(value))
    return value


def javascript_number(value: float) -> bytes:
    """Write a number beyond 2^53 as ECMAScript's Number::toString writes the nearest double; null for infinity."""
    try:
        digits, _, exponent = repr(abs(float(value))).partition("e")
    except OverflowError:
        return b"null"
    if digits == "inf":
        return b"null"
    whole, _, fraction = digits.partition(".")
    power = int(exponent) if exponent else len(whole) - 1
    digits = (whole + fraction).rstrip("0")
    sign = "-" if value < 0 else ""
    if power < 21:
        return (sign + digits.ljust(power + 1, "0")).encode()
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{sign}{mantissa}e+{power}".encode()
