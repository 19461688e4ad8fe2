"""JSON whose numbers keep their digits, where orjson writes them in another way. Slow, for the few events that need it.

Read as JavaScript reads it otherwise: lone surrogates, a byte order mark and bytes that are no UTF-8 are taken.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from eventstreams.compact_json import compact

MAX_DEPTH = 254
"""Levels of nesting that orjson writes."""

SMALLEST, LARGEST = -(2**63), 2**64 - 1
"""Integers that orjson keeps."""

LONGEST = 20
"""Letters of the longest of them."""

NEGATIVE_ZERO = re.compile(rb"-0[,}\]\s]")
"""What orjson reads as an integer and writes without its sign; a hit within a text costs time only."""


class Number(float):
    """A number, and its text."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> Number:
        self = super().__new__(cls, text)
        self.text = text
        return self


def may_change(value: bytes, event: Any) -> bool:
    """Whether a JSON text, which orjson read as `event`, may hold a number that it writes in another way."""
    return _has_float(event) or NEGATIVE_ZERO.search(value) is not None


def _has_float(event: Any) -> bool:
    # By exact type: a parser makes no others.
    level = [event]
    while level:
        inner: list[Any] = []
        for outer in level:
            for member in outer.values() if type(outer) is dict else outer:
                kind = type(member)
                if kind is float:
                    return True
                if kind is dict or kind is list:
                    inner.append(member)
        level = inner
    return False


def read(value: bytes) -> object:
    """Return the value of a JSON text, its numbers as `Number` where orjson may not write them so; None for no JSON."""
    text = value.decode("utf-8-sig", "replace")
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_int=_integer, parse_float=Number)
    except (ValueError, RecursionError):
        return None


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _integer(text: str) -> int | Number:
    if len(text) > LONGEST or text == "-0":
        return Number(text)
    value = int(text)
    return value if SMALLEST <= value <= LARGEST else Number(text)


def plain(value: Any) -> Any:
    """Return what was read with plain floats."""
    if isinstance(value, dict):
        return {name: plain(member) for name, member in value.items()}
    if isinstance(value, list):
        return [plain(member) for member in value]
    return float(value) if isinstance(value, Number) else value


def write(value: Any) -> bytes:
    """Serialise what was read: numbers with the digits they came with, lone surrogates as escapes.

    Raises: RecursionError where it `is_deep`.
    """
    try:
        return compact(value, _verbatim)
    except orjson.JSONEncodeError:
        return _written(value).encode()


def _verbatim(value: Any) -> orjson.Fragment:
    return orjson.Fragment(value.text)


def _written(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{_written(member)}" for name, member in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    return value.text if isinstance(value, Number) else json.dumps(value)


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


def has_duplicate_keys(value: bytes) -> bool:
    """Whether any object of this JSON text names a key twice; the original refuses those."""

    def check(pairs: list[tuple[str, Any]]) -> None:
        if len({name for name, _ in pairs}) != len(pairs):
            raise _DuplicateKeyError

    try:
        json.loads(value.decode("utf-8-sig", "replace"), object_pairs_hook=check, parse_int=float)
    except _DuplicateKeyError:
        return True
    except (ValueError, RecursionError):
        return False
    return False


class _DuplicateKeyError(Exception):
    pass
