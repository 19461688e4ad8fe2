"""What settings are made of beside texts and numbers: each type says what it expects, and refuses all else."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from annotated_types import Le, MinLen
from pydantic import AfterValidator, BeforeValidator

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhd]))+", re.ASCII)
PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])", re.ASCII)
BROKER = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})", re.ASCII)
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
KAFKA = "kafka://"
EMBEDDED = "embedded:"
UNIX = "unix"


@dataclass(frozen=True, slots=True)
class Expected:
    """Marks a type with what is expected of its values, in words that follow "expected"."""

    words: str


@dataclass(frozen=True, slots=True)
class Secret:
    """Marks a setting whose values are never shown."""


@dataclass(frozen=True, slots=True)
class Properties:
    """Marks a map of Kafka's properties: each is a text or `{file: PATH}`, also below the names of `kinds`."""

    kinds: tuple[str, ...] = ("producer", "consumer")


def seconds(given: Any) -> Any:
    """Return the seconds of a time with units, as in `1h30m` or `250ms`; anything else as it is."""
    if isinstance(given, str) and DURATION.fullmatch(given):
        return sum(float(number) * UNITS[unit] for number, unit in PART.findall(given))
    return given


def is_finite(value: float) -> float:
    """Return the number. Raises: ValueError for infinity and what is no number."""
    if not math.isfinite(value):
        raise ValueError("no finite number")
    return value


def pattern(text: str) -> re.Pattern[str]:
    """Return a compiled regular expression. Raises: ValueError for one that is none, or too large to compile."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return re.compile(text)
    except (re.error, OverflowError, RecursionError) as exc:
        raise ValueError("no regular expression") from exc


def _fits(is_right: Callable[[str], object]) -> AfterValidator:
    def check(text: str) -> str:
        if not is_right(text):
            raise ValueError("not as expected")
        return text

    return AfterValidator(check)


def _is_network(text: str) -> bool:
    """Whether this is a network, or `unix` for what connects to a socket's file; else a ValueError."""
    return text == UNIX or bool(ip_network(text, strict=False))


def _is_header(text: str) -> bool:
    return all(0x20 <= ord(one) <= 0xFF and ord(one) != 0x7F for one in text)


def _is_log(text: str) -> bool:
    if not text.startswith(KAFKA):
        return len(text) > len(EMBEDDED) and text.startswith(EMBEDDED)
    brokers = [BROKER.fullmatch(one) for one in text.removeprefix(KAFKA).split(",")]
    return all(one is not None and 0 < int(one[1]) < 65536 for one in brokers)


def _is_place(text: str) -> bool:
    """Whether this is a path, or a URL with a host; a bad port or address is a ValueError."""
    if not text.startswith(("http://", "https://")):
        return bool(text.strip())
    parts = urlsplit(text)
    return bool(parts.hostname) and parts.port != 0


def is_stream_pattern(text: str) -> bool:
    """Whether this stands for many streams: a regular expression between slashes."""
    return len(text) > 2 and text[0] == text[-1] == "/"


Seconds = Annotated[
    float, BeforeValidator(seconds), AfterValidator(is_finite), Le(1e6), Expected("seconds, or a time such as 1h30m,")
]
"""A time, of no more than eleven days: what the kernel takes for a connection's patience."""

Age = Annotated[
    float, BeforeValidator(seconds), AfterValidator(is_finite), Le(1e10), Expected("seconds, or a time such as 7d,")
]
Rate = Annotated[float, AfterValidator(is_finite), Le(1e12)]
Count = Annotated[int, Le(10**9)]
Bytes = Annotated[int, Le(2**50)]
HeaderValue = Annotated[str, _fits(_is_header), Expected("a header's value, in one line of characters up to U+00FF")]
HeaderName = Annotated[str, _fits(HEADER_NAME.fullmatch), Expected("a header's name")]
Host = Annotated[
    str, _fits(re.compile(r"[^\s/]+|unix:[^\0]+").fullmatch), Expected("an address, a host's name or unix:PATH")
]
Hosts = Annotated[list[Host], MinLen(1), Expected("at least one address, host's name or unix:PATH")]
Network = Annotated[str, _fits(_is_network), Expected("an address, a network such as 10.0.0.0/8, or unix")]
Regex = Annotated[str, _fits(pattern), Expected("a regular expression")]
StreamOrPattern = Annotated[
    str,
    _fits(lambda text: text and (not is_stream_pattern(text) or pattern(text[1:-1]))),
    Expected("a stream's name, or a regular expression between slashes"),
]
Log = Annotated[str, _fits(_is_log), Expected("embedded:PATH, embedded::memory: or kafka://HOST:PORT[,HOST:PORT]")]
FieldPath = Annotated[
    str, _fits(lambda text: all(text.split("."))), Expected("names of fields joined by dots, as in meta.id")
]
FieldPaths = Annotated[list[FieldPath], MinLen(1), Expected("at least one path of a field, as in meta.id")]
TopicName = Annotated[
    str, _fits(re.compile(r"[A-Za-z0-9._-]{1,249}").fullmatch), Expected("up to 249 of A-Z, a-z, 0-9, dot, _ and -")
]
TopicPrefix = Annotated[
    str, _fits(re.compile(r"[A-Za-z0-9._-]{0,200}").fullmatch), Expected("up to 200 of A-Z, a-z, 0-9, dot, _ and -")
]
SchemaVersion = Annotated[
    str, _fits(re.compile(r"latest|\d+\.\d+\.\d+", re.ASCII).fullmatch), Expected("latest or X.Y.Z")
]
SchemaUriText = Annotated[
    str,
    _fits(re.compile(r"/?([A-Za-z0-9_-][A-Za-z0-9_.-]*/)+\d+\.\d+\.\d+#?", re.ASCII).fullmatch),
    Expected("a schema's URI, as in /title/1.0.0"),
]
Place = Annotated[str, _fits(_is_place), Expected("a path or a URL")]
LogLevel = Literal["debug", "info", "warning", "error"]
