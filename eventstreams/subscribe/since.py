"""`since`: milliseconds since the epoch, or what JavaScript's Date takes (the streams' contract)."""

from __future__ import annotations

import re

from eventstreams.errors import InvalidTimestamp
from eventstreams.positions import AtTime, Edge, Position
from eventstreams.subscribe.javascript_date import BLANKS, LAST_TIMESTAMP, parse_date

DECIMAL = re.compile(r"[+-]?(?:Infinity|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)")
RADIX = {"0x": 16, "0o": 8, "0b": 2}
DIGITS = {16: re.compile(r"[0-9A-Fa-f]+"), 8: re.compile(r"[0-7]+"), 2: re.compile(r"[01]+")}
MAX_CHARACTERS = 1000


def parse_since(text: str) -> Position | None:
    """Return where `since` starts; None when it is empty. Zone-less times are UTC.

    Raises: InvalidTimestamp.
    """
    if not text:
        return None
    timestamp = _parse(text) if len(text) <= MAX_CHARACTERS else None
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
