"""`since`: milliseconds since the epoch, or what JavaScript's Date takes (the streams' contract)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from eventstreams.errors import InvalidTimestamp
from eventstreams.positions import AtTime, Edge, Position
from eventstreams.subscribe.javascript_date import BLANKS, LAST_TIMESTAMP, parse_date

DECIMAL = re.compile(r"[+-]?(?:Infinity|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)")
RADIX = {"0x": 16, "0o": 8, "0b": 2}
DIGITS = {16: re.compile(r"[0-9A-Fa-f]+"), 8: re.compile(r"[0-7]+"), 2: re.compile(r"[01]+")}
MAX_CHARACTERS = 1000

PARAMETER = re.compile(r"since(?:\[(?:[0-9]{0,2}|(?P<key>[^\[\]]+))\])*")
OBJECT = "[object Object]"


def given_since(query: Iterable[tuple[str, str]]) -> Sequence[str]:
    """Return the values of `since` as the original's query parser finds them: also as `since[]`, `since[0]`.

    A parameter with a name within, as in `since[a]=1`, is an object there, which is no time.
    """
    values: list[str] = []
    for name, value in query:
        match = PARAMETER.fullmatch(name)
        if match is None:
            continue
        if match["key"]:
            return [OBJECT]
        values.append(value)
    return values


def parse_since(*values: str) -> Position | None:
    """Return where `since` starts; None when it is absent or empty. Zone-less times are UTC.

    Raises: InvalidTimestamp, also for several values.
    """
    if not values or values == ("",):
        return None
    text = ",".join(values)
    timestamp = _parse(text) if len(values) == 1 and len(text) <= MAX_CHARACTERS else None
    if timestamp is None:
        raise InvalidTimestamp(f"since timestamp is not a UTC milliseconds unix epoch and was not parseable: '{text}'")
    return AtTime(timestamp) if timestamp > 0 else Edge.EARLIEST


def _parse(text: str) -> int | None:
    number = _number(text.strip(BLANKS))
    if number is not None:
        return int(max(-1.0, min(number, float(LAST_TIMESTAMP))))
    return parse_date(text)


def _number(text: str) -> float | None:
    """Return what ECMAScript's Number makes of a text (ECMA-262 7.1.4.1); None for NaN."""
    radix = RADIX.get(text[:2].lower())
    if radix is not None:
        return _float(int(text[2:], radix)) if DIGITS[radix].fullmatch(text[2:]) else None
    if not text:
        return 0.0
    return float(text) if DECIMAL.fullmatch(text) else None


def _float(number: int) -> float:
    return float(min(number, LAST_TIMESTAMP))
