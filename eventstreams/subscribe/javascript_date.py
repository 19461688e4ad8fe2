"""Texts as times, as V8's `Date.parse` reads them: the form of ECMA-262 21.4.1.32, and the older ones.

Clients wrote `since` for a server whose dates were JavaScript's, so what that took is taken, to the odd cases: a word
before the first number means nothing, text in parentheses neither, two-digit years are of 1950 to 2049, 30 February is
2 March. Times without a zone are UTC.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

LAST_TIMESTAMP = 8_640_000_000_000_000
"""The last ms that ECMAScript's time values know (ECMA-262 21.4.1.1)."""

SIGNIFICANT_DIGITS = 9
MAX_YEAR = 2**30
DAY = 86_400_000

Kind = Literal["number", "word", "symbol", "blank", "other"]

BLANKS = " \t\n\v\f\r\xa0\ufeff\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
"""ECMAScript's white space and line ends (ECMA-262 12.2, 12.3)."""

TOKEN = re.compile(
    rf"(?P<number>[0-9]+)|(?P<symbol>[-:+.)])|(?P<blank>[{BLANKS}])"
    rf"|(?P<word>(?:(?![{BLANKS}])[A-\U0010ffff])+)|(?P<other>.)",
    re.DOTALL,
)
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
HALVES = {"am": 0, "pm": 12}
ZONES = {"ut": 0, "utc": 0, "z": 0, "gmt": 0, "cdt": -5, "cst": -6, "edt": -4, "est": -5, "mdt": -6, "mst": -7}
ZONES |= {"pdt": -7, "pst": -8}

ISO = re.compile(
    r"(?P<year>[0-9]{4}|[+-][0-9]{6})(?:-(?P<month>0[1-9]|1[0-2])(?:-(?P<day>0[1-9]|[12][0-9]|3[01]))?)?"
    r"(?:[Tt](?P<hour>[01][0-9]|2[0-4]):(?P<minute>[0-5][0-9])(?::(?P<second>[0-5][0-9])(?:\.(?P<fraction>[0-9]+))?)?"
    r"(?:[Zz]|(?P<sign>[+-])(?P<hours>[01][0-9]|2[0-3]):?(?P<minutes>[0-5][0-9]))?)?"
)


def parse_date(text: str) -> int | None:
    """Return ms since the epoch; None where `Date.parse` has NaN."""
    match = ISO.fullmatch(text)
    if match is not None and match["year"] != "-000000":
        return _of_iso(match)
    return _Loose(text).parse()


def _of_iso(match: re.Match[str]) -> int | None:
    part = {name: int(match[name] or 0) for name in ("hour", "minute", "second", "hours", "minutes")}
    fraction = int((match["fraction"] or "0").ljust(3, "0")[:3])
    if part["hour"] == 24 and (part["minute"] or part["second"] or fraction):
        return None
    offset = part["hours"] * 60 + part["minutes"]
    time = (part["hour"], part["minute"], part["second"], fraction)
    day = (int(match["year"]), int(match["month"] or 1), int(match["day"] or 1))
    return _timestamp(day, time, -offset if match["sign"] == "-" else offset)


def _timestamp(date: tuple[int, int, int], time: tuple[int, int, int, int], offset: int) -> int | None:
    """Return ms of a date whose day may pass its month's end; `offset` is the zone's, in minutes."""
    year, month, day = date
    hour, minute, second, milliseconds = time
    days = _days(year, month) + day - 1
    moment = days * DAY + ((hour * 60 + minute - offset) * 60 + second) * 1000 + milliseconds
    return moment if abs(moment) <= LAST_TIMESTAMP else None


def _days(year: int, month: int) -> int:
    """Return the days from the epoch to the first of a month, in the calendar of today at all times."""
    # Years that begin in March have the leap day at their end.
    year -= month <= 2
    since_march = (153 * ((month + 9) % 12) + 2) // 5
    return 365 * year + year // 4 - year // 100 + year // 400 + since_march - 719_468


class _Token(NamedTuple):
    kind: Kind
    text: str

    @property
    def number(self) -> int:
        return int(self.text.lstrip("0")[:SIGNIFICANT_DIGITS] or 0)


class _Refused(Exception):
    """This is no date."""


@dataclass
class _Loose:
    """The older forms: numbers, words and signs in any order, each understood by what is around it."""

    text: str
    days: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    month: int | None = None
    half: int | None = None
    sign: int | None = None
    hours: int | None = None
    minutes: int | None = None
    seen_number: bool = False

    def parse(self) -> int | None:
        """Return ms since the epoch, None where it is no date."""
        self.tokens = list(_tokens(self.text))
        self.at = 0
        try:
            self._begin()
            while (token := self._next()) is not None:
                self._take(token)
            return self._timestamp()
        except _Refused:
            return None

    # -- tokens

    def _peek(self) -> _Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def _next(self) -> _Token | None:
        token = self._peek()
        self.at += 1
        return token

    def _skip(self, symbol: str) -> bool:
        there = self._peek() == ("symbol", symbol)
        self.at += there
        return there

    # -- what each means

    def _begin(self) -> None:
        """Take a date in ECMAScript's own form as far as it goes; with its `T` it may not go on as an older one."""
        signed = self.text.startswith(("+", "-"))
        year = self._digits(6 if signed else 4, signed)
        if year is None:
            return
        self.at += 1 + signed
        if self.text.startswith("-"):
            if not year:
                return
            year = -year
        self.days.append(year)
        self.seen_number = True
        for last in (12, 31):
            if not self._skip("-"):
                break
            part = self._digits(2)
            if part is None or not 1 <= part <= last:
                return
            self.days.append(part)
            self.at += 1
        follows = self._peek()
        if follows is not None and follows.text in ("T", "t"):
            raise _Refused

    def _digits(self, count: int, ahead: int = 0) -> int | None:
        """Return the number of so many digits that is next; None where there is none."""
        token = self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else None
        return token.number if token is not None and token.kind == "number" and len(token.text) == count else None

    def _take(self, token: _Token) -> None:
        if token.kind == "number":
            self.seen_number = True
            self._take_number(token.number)
        elif token.kind == "word":
            self._take_word(token.text)
        elif token.text in ("+", "-") and ((self.hours, self.minutes) == (0, 0) or self.times):
            self._take_zone(1 if token.text == "+" else -1)
        elif token.text in ("+", "-", ")") and token.kind == "symbol" and self.seen_number:
            raise _Refused

    def _take_number(self, number: int) -> None:
        if self._skip(":"):
            self._take_hour_or_minute(number)
        elif self._skip(".") and self._expects_time(number):
            self._take_seconds(number)
        elif self.hours is not None and self.minutes is None and number < 60:
            self.minutes = number
        elif self._expects_time(number):
            self.times += [number, 0, 0, 0]
            follows = self._peek()
            if follows is not None and follows.kind != "blank" and follows.text.lower() not in ("z", "+", "-"):
                raise _Refused
        elif len(self.days) < 3:
            self.days.append(number)
            self._skip("-")
        else:
            raise _Refused

    def _take_hour_or_minute(self, number: int) -> None:
        if self._skip(":"):
            if self.times:
                raise _Refused
            self.times += [number, 0]
        elif len(self.times) < 4:
            self.times.append(number)
            self._skip(".")
        else:
            raise _Refused

    def _take_seconds(self, number: int) -> None:
        fraction = self._next()
        if fraction is None or fraction.kind != "number":
            raise _Refused
        self.times += [number, int(fraction.text.ljust(3, "0")[:3]), 0, 0]

    def _expects_time(self, number: int) -> bool:
        return number < {1: 60, 2: 60, 3: 1000}.get(len(self.times), 0)

    def _take_word(self, word: str) -> None:
        word = word.lower()
        if word in HALVES and self.times:
            self.half = HALVES[word]
        elif word[:3] in MONTHS:
            self.month = MONTHS.index(word[:3]) + 1
            self._skip("-")
        elif word in ZONES and self.seen_number:
            self.sign = -1 if ZONES[word] < 0 else 1
            self.hours, self.minutes = abs(ZONES[word]), 0
        else:
            follows = self._peek()
            if self.seen_number or (follows is not None and follows.kind == "number"):
                raise _Refused

    def _take_zone(self, sign: int) -> None:
        self.sign = sign
        follows = self._peek()
        number, digits = 0, 0
        if follows is not None and follows.kind == "number":
            number, digits = follows.number, len(follows.text)
            self.at += 1
        self.seen_number = True
        if self._peek() == ("symbol", ":"):
            self.hours, self.minutes = number, None
        elif digits in (1, 2):
            self.hours, self.minutes = number, 0
        elif digits in (3, 4):
            self.hours, self.minutes = divmod(number, 100)
        else:
            raise _Refused

    # -- the whole

    def _timestamp(self) -> int | None:
        hour, minute, second, fraction = (*self.times, 0, 0, 0, 0)[:4]
        if self.half is not None:
            if hour > 12:
                raise _Refused
            hour = hour % 12 + self.half
        within = hour < 24 and minute < 60 and second < 60 and fraction < 1000
        if not within and (hour, minute, second, fraction) != (24, 0, 0, 0):
            raise _Refused
        offset = (self.sign or 0) * ((self.hours or 0) * 60 + (self.minutes or 0))
        return _timestamp(self._date(), (hour, minute, second, fraction), offset)

    def _date(self) -> tuple[int, int, int]:
        if not self.days:
            raise _Refused
        first, second, third = (*self.days, 1, 1)[:3]
        is_day = 1 <= first <= 31
        if self.month is not None:
            year, month, day = (second, self.month, first) if is_day else (first, self.month, second)
        else:
            year, month, day = (third, first, second) if is_day else (first, second, third)
        if 0 <= year <= 99:
            year += 2000 if year <= 49 else 1900
        if not (year < MAX_YEAR and 1 <= month <= 12 and 1 <= day <= 31):
            raise _Refused
        return year, month, day


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        if text[at] == "(":
            at = _after_parenthesis(text, at)
            yield _Token("other", "()")
            continue
        match = TOKEN.match(text, at)
        assert match is not None
        assert match.lastgroup is not None
        at = match.end()
        yield _Token(match.lastgroup, match[0])  # type: ignore[arg-type]


def _after_parenthesis(text: str, at: int) -> int:
    depth = 0
    while at < len(text):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        at += 1
        if depth == 0:
            break
    return at
