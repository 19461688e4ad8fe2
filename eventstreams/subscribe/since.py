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

SECONDS = range(10**8, 10**10)
"""Numbers that can only be seconds: as such of the years 1973 to 2286, as milliseconds of the first days of 1970."""

LOST_PLUS = re.compile(
    r"(?P<time>.*[0-9]:[0-9]{2}(?:[.,][0-9]+)?)(?P<zone> ?(?:GMT|UTC|(?= )|))"
    r" (?P<offset>(?:0[0-9]|1[0-4]):?[0-5][0-9])(?P<rest>(?: \(.*)?)",
    re.DOTALL,
)
"""A time whose offset lost its plus: in a query a plus that is not escaped is a blank."""

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

    Raises: InvalidTimestamp, also for several values, and for seconds since the epoch.
    """
    if not values or values == ("",):
        return None
    text = ",".join(values)
    usable = len(values) == 1 and len(text) <= MAX_CHARACTERS
    number = number_of(text.strip(BLANKS)) if usable else None
    if number is not None and SECONDS.start <= number < SECONDS.stop:
        raise InvalidTimestamp(
            f"since timestamp '{text}' looks like seconds since the unix epoch: milliseconds are expected,"
            f" {int(number * 1000)} perhaps"
        )
    timestamp = _timestamp(text, number) if usable else None
    if timestamp is None:
        raise InvalidTimestamp(f"since timestamp is not a UTC milliseconds unix epoch and was not parseable: '{text}'")
    return AtTime(timestamp) if timestamp > 0 else Edge.EARLIEST


def _timestamp(text: str, number: float | None) -> int | None:
    if number is not None:
        return int(max(-1.0, min(number, float(LAST_TIMESTAMP))))
    return parse_date(with_plus(text))


def with_plus(text: str) -> str:
    """Return a time with the plus of its offset, where that became a blank in the query."""
    lost = LOST_PLUS.fullmatch(text)
    return "{time}{zone}+{offset}{rest}".format(**lost.groupdict()) if lost else text


def number_of(text: str) -> float | None:
    """Return what ECMAScript's Number makes of a text (ECMA-262 7.1.4.1); None for NaN."""
    radix = RADIX.get(text[:2].lower())
    if radix is not None:
        return _float(int(text[2:], radix)) if DIGITS[radix].fullmatch(text[2:]) else None
    if not text:
        return 0.0
    return float(text) if DECIMAL.fullmatch(text) else None


def _float(number: int) -> float:
    return float(min(number, LAST_TIMESTAMP))
