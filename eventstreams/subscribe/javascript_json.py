"""Numbers as JavaScript reads and writes them: what an answer of the original repeats of a request."""

from __future__ import annotations

from typing import Any

import orjson

MAX_EXACT_INTEGER = 2**53
"""Beyond it numbers are doubles (RFC 8259 section 6)."""

MAX_DIGITS = 400
"""Of an integer; one of more is beyond a double's range."""


def integer(text: str) -> float:
    """Return the number; infinity from so many digits on that Python would not convert them."""
    return int(text) if len(text) < MAX_DIGITS else float(text)


def as_doubles(value: Any) -> Any:
    """Return a JSON value with integers beyond 2^53 as they are written as doubles; infinity is None."""
    if isinstance(value, dict):
        return {key: as_doubles(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_doubles(item) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) > MAX_EXACT_INTEGER:
        return orjson.loads(javascript_number(value))
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
