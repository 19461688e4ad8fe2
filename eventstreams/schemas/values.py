"""JSON values as JavaScript takes and writes them: types, equality, numbers, order of names, paths."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import quote

IDENTIFIER = re.compile(r"[a-zA-Z_$][a-zA-Z0-9_$]*", re.ASCII)
INDEX = re.compile(r"0|[1-9]\d{0,9}", re.ASCII)
MAX_INDEX = 2**32 - 2
QUOTED = str.maketrans({"'": "\\'", "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\f": "\\f", "\t": "\\t"})

MAX_PLAIN = 1e21
"""Below it numbers are written without an exponent."""


def is_type(data: object, wanted: str | Sequence[str]) -> bool:
    """Whether a JSON value is of this type, or of one of these; 1.0 is an integer, true is no number."""
    if not isinstance(wanted, str):
        return any(is_type(data, name) for name in wanted)
    match wanted:
        case "object":
            return isinstance(data, dict)
        case "array":
            return isinstance(data, list)
        case "string":
            return isinstance(data, str)
        case "boolean":
            return isinstance(data, bool)
        case "null":
            return data is None
        case "number":
            return isinstance(data, int | float) and not isinstance(data, bool)
        case "integer":
            return is_type(data, "number") and (isinstance(data, int) or data.is_integer())  # type: ignore[attr-defined]
    return False


def equal(one: object, other: object) -> bool:
    """Whether two JSON values are equal: 1 is 1.0 and is not true."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def identity(value: object) -> object:
    """Return something hashable that is the same for equal values only."""
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, dict | list):
        return json.dumps(_plain(value), sort_keys=True)
    return value


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_plain(member) for member in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def number_text(value: float) -> str:
    """Return a number as it stands in a message."""
    if abs(value) < MAX_PLAIN and (isinstance(value, int) or value.is_integer()):
        return str(int(value))
    mantissa, _, exponent = repr(float(value)).partition("e")
    if not exponent:
        return mantissa
    if -7 < int(exponent) < 0:
        return format(Decimal(repr(float(value))), "f")
    return f"{mantissa}e{int(exponent):+d}"


def names(members: Mapping[str, Any]) -> Iterator[str]:
    """Return the names of an object in JavaScript's order: those that are integers go first, ascending."""
    indexes = [name for name in members if INDEX.fullmatch(name) and int(name) <= MAX_INDEX]
    if not indexes:
        return iter(members)
    first = set(indexes)
    return iter([*sorted(indexes, key=int), *(name for name in members if name not in first)])


def step(name: str) -> str:
    """Return what a declared property adds to a data path."""
    return f".{name}" if IDENTIFIER.fullmatch(name) else f"['{name.translate(QUOTED)}']"


def escaped(name: str) -> str:
    """Return a name as part of a JSON pointer in a fragment."""
    text = name.replace("~", "~0").replace("/", "~1")
    return quote(text.encode("utf-8", "replace"), safe="~!*'()-_.")


def is_multiple(data: float, factor: float) -> bool:
    """Whether JavaScript finds the quotient whole: 0.3 is no multiple of 0.1."""
    try:
        quotient = float(data) / float(factor)
    except OverflowError:
        return False
    return quotient.is_integer() and abs(quotient) < MAX_PLAIN


def duplicates(data: Sequence[Any], wanted: Any) -> tuple[int, int] | None:
    """Return AJV's pair of equal items: it looks from the end, and names the pair otherwise round for scalars."""
    types = [wanted] if isinstance(wanted, str) else wanted
    if types and not {"object", "array"} & set(types):
        seen: dict[object, int] = {}
        for i in range(len(data) - 1, -1, -1):
            if is_type(data[i], types):
                j = seen.setdefault(identity(data[i]), i)
                if j != i:
                    return i, j
        return None
    last: dict[object, int] = {}
    pair = None
    for i, item in enumerate(data):
        key = identity(item)
        if key in last:
            pair = i, last[key]
        last[key] = i
    return pair
