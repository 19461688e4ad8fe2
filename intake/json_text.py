"""JSON as producers send it and as consumers expect it: parsed strictly, written as JavaScript writes it.

What goes into the log is read by clients that compare bytes with what JavaScript would have written: integral floats
without a fraction, lone surrogates as escapes, no spaces, everything else unescaped. Integers keep their digits.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import orjson

from eventstreams.compact_json import compact
from eventstreams.errors import MalformedBody

SURROGATE = re.compile("[\ud800-\udfff]")
SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
ODD_FLOATS = re.compile(rb"\.0[,}\]]"), re.compile(rb"e\+\d")
"""What orjson writes otherwise than JavaScript; a hit within a string costs time only. Each begins with letters that
are searched for as such: one pattern for both takes ten times as long as both."""

NESTING = frozenset((dict, list))
MAX_DEPTH = 250
"""Levels of nesting: what is taken can be written again, and read by consumers that recurse."""

MAX_EXACT_EXPONENT = 1e21
"""JavaScript writes integral numbers below it without an exponent."""


def parse(body: bytes) -> Any:
    """Return the value of a JSON text; a byte order mark is skipped, bytes that are no UTF-8 become U+FFFD.

    Of members with one name the last wins. Raises: MalformedBody, that says where.
    """
    body = body.removeprefix(b"\xef\xbb\xbf")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        text = body.decode("utf-8", "replace")
        if "\ufffd" not in text and SURROGATE_ESCAPE.search(body) is None:
            raise MalformedBody(f"body is no JSON: {exc}") from exc
        value = _parse_odd(text)
    # A list of events is walked anyway: it has too many brackets for their number to tell anything.
    if type(value) is list or body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        # By exact type: a parser makes no others, and this is done for every member of a large batch.
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) in NESTING
        ]
        if not level:
            return
    raise MalformedBody(f"body is nested more than {MAX_DEPTH} levels deep: depth limit exceeded")


def _parse_odd(text: str) -> Any:
    """Parse what holds lone surrogates or invalid UTF-8: the strict, fast parser refuses those."""
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError as exc:
        raise MalformedBody("body is no JSON: depth limit exceeded") from exc
    except ValueError as exc:
        raise MalformedBody(f"body is no JSON: {exc}") from exc


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"number {text[:40]} is out of range")
    return value


def serialise(value: Any) -> bytes:
    """Return compact UTF-8 JSON, members in their order."""
    try:
        text = compact(value)
    except orjson.JSONEncodeError:
        return _serialise_odd(value)
    whole, exponent = ODD_FLOATS
    # A plus is rare in events, and found many times quicker than the letter before it.
    if whole.search(text) is None and (b"+" not in text or exponent.search(text) is None):
        return text
    return compact(_as_javascript(value))


def _serialise_odd(value: Any) -> bytes:
    text = json.dumps(_as_javascript(value, plain=True), ensure_ascii=False, separators=(",", ":"))
    return SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text).encode()


def _as_javascript(value: Any, *, plain: bool = False) -> Any:
    if isinstance(value, float):
        if value.is_integer() and abs(value) < MAX_EXACT_EXPONENT:
            whole = int(value)
            return whole if plain or -(2**63) <= whole < 2**64 else orjson.Fragment(str(whole))
        return value
    if isinstance(value, dict):
        return {name: _as_javascript(member, plain=plain) for name, member in value.items()}
    if isinstance(value, list):
        return [_as_javascript(member, plain=plain) for member in value]
    return value
