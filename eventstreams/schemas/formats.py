"""Formats, in two profiles: `production` as lax as AJV 6's fast formats, `strict` by the RFCs.

Both validators are given these same functions, so that they cannot disagree on a format.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping

import jsonschema_rs

from eventstreams.errors import InvalidSchema
from eventstreams.schemas.patterns import BLANK, matcher

Format = Callable[[str], bool]

_TIME = r"(?:[0-2]\d:[0-5]\d:[0-5]\d|23:59:60)(?:\.\d+)?"
_ZONE = r"(?:z|[+-]\d\d(?::?\d\d)?)"
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_OCTET = r"(?:25[0-5]|2[0-4]\d|[01]?\d\d?)"
_VARIABLE = r"(?:[a-z0-9_]|%[0-9a-f]{2})+(?::[1-9]\d{0,3}|\*)?"
_TOKENS = r"(?:/(?:[^~/]|~[01])*)*"
_LETTER = r"[0-9a-z\u00a1-\U0010ffff]"
_HOST = rf"(?:{_LETTER}+-)*{_LETTER}+"
_PRIVATE = (
    r"(?!(?:10|127)(?:\.\d{1,3}){3}|(?:169\.254|192\.168)(?:\.\d{1,3}){2}|172\.(?:1[6-9]|2\d|3[01])(?:\.\d{1,3}){2})"
)
_ADDRESS = (
    r"(?:[1-9]\d?|1\d\d|2[01]\d|22[0-3])(?:\.(?:1?\d{1,2}|2[0-4]\d|25[0-5])){2}\.(?:[1-9]\d?|1\d\d|2[0-4]\d|25[0-4])"
)

_FAST = {
    "date-time": rf"\d{{4}}-[01]\d-[0-3]\d[t{BLANK}]{_TIME}{_ZONE}",
    "date": r"\d{4}-[01]\d-[0-3]\d",
    "time": rf"{_TIME}{_ZONE}?",
    "uri": rf"[a-z][a-z0-9+.-]*:(?:/?/)?[^{BLANK}]*",
    "uri-reference": rf"(?:(?:[a-z][a-z0-9+.-]*:)?/?/)?(?:[^\\{BLANK}#][^{BLANK}#]*)?(?:#[^\\{BLANK}]*)?",
    "uri-template": (
        r"(?:[^\x00-\x20\"'<>%\\^`{|}]|%[0-9a-f]{2}|\{[+#./;?&=,!@|]?" + rf"{_VARIABLE}(?:,{_VARIABLE})*" + r"\})*"
    ),
    "url": (
        rf"(?:https?|ftp)://(?:[^{BLANK}]+(?::[^{BLANK}]*)?@)?"
        rf"(?:{_PRIVATE}{_ADDRESS}|{_HOST}(?:\.{_HOST})*\.[a-z\u00a1-\U0010ffff]{{2,}})(?::\d{{2,5}})?(?:/[^{BLANK}]*)?"
    ),
    "uuid": r"(?:urn:uuid:)?[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}",
    "email": rf"[a-z0-9.!#$%&'*+/=?^_`{{|}}~-]+@{_LABEL}(?:\.{_LABEL})*",
    "ipv4": rf"(?:{_OCTET}\.){{3}}{_OCTET}",
    "hostname": rf"(?=.{{1,253}}\.?\Z){_LABEL}(?:\.{_LABEL})*\.?",
    "json-pointer": _TOKENS,
    "json-pointer-uri-fragment": r"#(?:/(?:[a-z0-9_.!$&'()*+,;:=@-]|%[0-9a-f]{2}|~[01])*)*",
    "relative-json-pointer": rf"(?:0|[1-9]\d*)(?:#|{_TOKENS})",
}
_CASELESS = {"date", "ipv4", "json-pointer", "relative-json-pointer"}
_ZONED = re.compile(rf"[{BLANK}]*([^%]*?)(?:%.+)?[{BLANK}]*", re.ASCII)


def _is_ipv6(text: str) -> bool:
    match = _ZONED.fullmatch(text)
    try:
        ipaddress.IPv6Address(match[1] if match else text)
    except ValueError:
        return False
    return match is not None


def _is_regex(text: str) -> bool:
    try:
        matcher(text)
    except InvalidSchema:
        return False
    return re.search(r"[^\\]\\Z", text) is None


def _by_rfc(name: str) -> Format:
    """Return the format as jsonschema-rs checks it: RFC 3339 for times, RFC 3986 for URIs."""
    check = jsonschema_rs.Draft7Validator({"format": name}, validate_formats=True).is_valid
    return lambda text: bool(check(text))


STRICT_NAMES = (
    "date-time",
    "date",
    "time",
    "uri",
    "uri-reference",
    "uri-template",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
)


def formats(profile: str) -> Mapping[str, Format]:
    """Return the format functions of a profile: `production` or `strict`."""
    fast: dict[str, Format] = {name: _matches(name, pattern) for name, pattern in _FAST.items()}
    fast |= {"ipv6": _is_ipv6, "regex": _is_regex}
    if profile == "production":
        return fast
    return fast | {name: _by_rfc(name) for name in STRICT_NAMES}


def _matches(name: str, pattern: str) -> Format:
    compiled = re.compile(pattern, re.ASCII if name in _CASELESS else re.ASCII | re.IGNORECASE)
    return lambda text: compiled.fullmatch(text) is not None
