"""Formats, in two profiles: `production` as lax as AJV 6's fast formats, `strict` by the RFCs.

Both validators are given these same functions, so that they cannot disagree on a format.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping

import jsonschema_rs

Format = Callable[[str], bool]

_FAST_TIME = r"(?:[0-2]\d:[0-5]\d:[0-5]\d|23:59:60)(?:\.\d+)?(?:z|[+-]\d\d(?::?\d\d)?)"
_FAST = {
    "date-time": re.compile(rf"\d\d\d\d-[0-1]\d-[0-3]\d[t\s]{_FAST_TIME}", re.ASCII | re.IGNORECASE),
    "date": re.compile(r"\d\d\d\d-[0-1]\d-[0-3]\d", re.ASCII),
    "time": re.compile(_FAST_TIME + "?", re.ASCII | re.IGNORECASE),
    "uri": re.compile(r"(?:[a-z][a-z0-9+\-.]*:)(?:/?/)?[^\s]*", re.IGNORECASE),
    "uri-reference": re.compile(r"(?:(?:[a-z][a-z0-9+\-.]*:)?/?/)?(?:[^\\\s#][^\s#]*)?(?:#[^\\\s]*)?", re.IGNORECASE),
    "uuid": re.compile(r"(?:urn:uuid:)?[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE),
    "email": re.compile(
        r"[a-z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9-]+)*", re.IGNORECASE
    ),
    "ipv4": re.compile(r"(?:(?:25[0-5]|2[0-4]\d|[01]?\d\d?)\.){3}(?:25[0-5]|2[0-4]\d|[01]?\d\d?)", re.ASCII),
    "hostname": re.compile(
        r"[a-z0-9](?:[-0-9a-z]{0,61}[0-9a-z])?(?:\.[a-z0-9](?:[-0-9a-z]{0,61}[0-9a-z])?)*", re.IGNORECASE
    ),
}


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return "%" not in text


def _by_rfc(name: str) -> Format:
    """Return the format as jsonschema-rs checks it: RFC 3339 for times, RFC 3986 for URIs."""
    check = jsonschema_rs.Draft7Validator({"format": name}, validate_formats=True).is_valid
    return lambda text: bool(check(text))


STRICT_NAMES = ("date-time", "date", "time", "uri", "uri-reference")


def formats(profile: str) -> Mapping[str, Format]:
    """Return the format functions of a profile: `production` or `strict`."""
    fast: dict[str, Format] = {name: _matches(pattern) for name, pattern in _FAST.items()}
    fast["ipv6"] = _is_ipv6
    if profile == "production":
        return fast
    return fast | {name: _by_rfc(name) for name in STRICT_NAMES}


def _matches(pattern: re.Pattern[str]) -> Format:
    return lambda text: pattern.fullmatch(text) is not None
