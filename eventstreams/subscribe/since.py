"""`since`: what JavaScript's Date takes, and milliseconds since the epoch (the streams' contract)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from eventstreams.errors import InvalidTimestamp
from eventstreams.positions import AtTime, Edge, Position

NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)
ISO = re.compile(
    r"(?P<year>\d{4}|[+-]\d{6})(-(?P<month>\d\d)(-(?P<day>\d\d))?)?"
    r"([T ](?P<hour>\d\d):(?P<minute>\d\d)(:(?P<second>\d\d)([.,](?P<fraction>\d+))?)?"
    r"(?P<zone>Z|[+-]\d\d:?\d\d)?)?",
    re.ASCII | re.IGNORECASE,
)
AMERICAN = re.compile(r"(?P<month>\d{1,2})/(?P<day>\d{1,2})/(?P<year>\d{4})", re.ASCII)
MONTH_FIRST = re.compile(r"(?P<month>[A-Za-z]{3,9})\.? (?P<day>\d{1,2}),? (?P<year>\d{4})(?P<rest> .*)?", re.ASCII)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_TIMESTAMP = 8_640_000_000_000_000
"""The last ms that ECMAScript's time values know (ECMA-262 21.4.1.1)."""


def parse_since(text: str) -> Position | None:
    """Return where `since` starts; None when it is empty. Zone-less times are UTC.

    Raises: InvalidTimestamp.
    """
    if not text:
        return None
    timestamp = _parse(text)
    if timestamp is None:
        raise InvalidTimestamp(f"since timestamp is not a UTC milliseconds unix epoch and was not parseable: '{text}'")
    return AtTime(timestamp) if timestamp > 0 else Edge.EARLIEST


def _parse(text: str) -> int | None:
    if NUMBER.fullmatch(text):
        number = float(text)
        return int(max(-1.0, min(number, float(LAST_TIMESTAMP))))
    if text.strip() == "Infinity":
        return LAST_TIMESTAMP
    match = ISO.fullmatch(text)
    try:
        return _from_iso(match) if match else _from_words(text)
    except (ValueError, OverflowError, IndexError, TypeError):
        return None


def _from_iso(match: re.Match[str]) -> int | None:
    part = {name: int(value or 0) for name, value in match.groupdict().items() if name not in ("zone", "fraction")}
    month, day = part["month"] if match["month"] else 1, part["day"] if match["day"] else 1
    if not (1 <= month <= 12 and 1 <= day <= 31 and part["minute"] < 60 and part["second"] < 60):
        return None
    late = (part["minute"], part["second"], int(match["fraction"] or 0)) != (0, 0, 0)
    if part["hour"] > 24 or (part["hour"] == 24 and late):
        return None
    if not 1 <= part["year"] <= 9999:
        return -1 if part["year"] < 1 else LAST_TIMESTAMP
    # Day 30 February is 2 March, hour 24 the next midnight: counted on from the first of the month.
    first = datetime(part["year"], month, 1, tzinfo=UTC)
    milliseconds = int((match["fraction"] or "0").ljust(3, "0")[:3])
    time = first + timedelta(
        days=day - 1, hours=part["hour"], minutes=part["minute"], seconds=part["second"], milliseconds=milliseconds
    )
    return _milliseconds(time) - _zone_minutes(match["zone"]) * 60_000


def _zone_minutes(zone: str | None) -> int:
    if zone is None or zone in "Zz":
        return 0
    digits = zone[1:].replace(":", "")
    minutes = int(digits[:2]) * 60 + int(digits[2:])
    return -minutes if zone[0] == "-" else minutes


def _from_words(text: str) -> int | None:
    american = AMERICAN.fullmatch(text)
    if american:
        return _milliseconds(datetime(int(american["year"]), int(american["month"]), int(american["day"]), tzinfo=UTC))
    named = MONTH_FIRST.fullmatch(text)
    if named:
        text = f"{named['day']} {named['month']} {named['year']}{named['rest'] or ''}"
    if not re.search(r"\d\d:\d\d", text):
        text += " 00:00:00"
    time = parsedate_to_datetime(text)
    return _milliseconds(time if time.tzinfo else time.replace(tzinfo=UTC))


def _milliseconds(time: datetime) -> int:
    return (time - EPOCH) // timedelta(milliseconds=1)
