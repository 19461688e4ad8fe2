"""Under which address clients reach a service that stands behind proxies: by setting, or as trusted proxies tell.

What is built from it goes into links, redirects and descriptions. So whatever is no plain host or path is passed over:
nothing in a header can lead out of a page, to a place that was not meant, or into a header of the answer.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from eventstreams.addresses import Networks, is_trusted, peer_of

SCHEMES = ("http", "https")
HOST = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?", re.ASCII)
SEGMENT = re.compile(r"([A-Za-z0-9._~@:+-]|%[0-9A-Fa-f]{2})+", re.ASCII)
NOT_IN_SEGMENTS = re.compile(r"[/\\\x00-\x20\x7f]")
MAX_PREFIX = 200
"""Letters of a path prefix: it stands before every link of a page."""


class Base(NamedTuple):
    """What stands before the paths of a service. `host` may have a port; None where nobody has told it."""

    scheme: str = "http"
    host: str | None = None
    prefix: str = ""
    """A path without a slash at its end."""

    def path(self, place: str) -> str:
        """Return the path by which clients ask for a path of ours."""
        return self.prefix + place

    def link(self, place: str) -> str:
        """Return the URL by which clients ask for a path of ours; only the path where the host is not known."""
        return self.path(place) if self.host is None else f"{self.scheme}://{self.host}{self.path(place)}"


def parse_public_url(text: str) -> Base:
    """Return what a URL says. Raises: ValueError, where it is no absolute http or https URL of a host and a path."""
    words = "expected an absolute URL such as https://events.example or https://example.org/events"
    try:
        url = urlsplit(text)
        prefix = _prefix(url.path)
        if url.port == 0 or url.query or url.fragment or text.endswith(("?", "#")):
            raise ValueError(words)
    except ValueError as exc:
        raise ValueError(words) from exc
    if url.scheme not in SCHEMES or HOST.fullmatch(url.netloc) is None or prefix is None:
        raise ValueError(words)
    return Base(url.scheme, url.netloc, prefix)


def _prefix(text: str) -> str | None:
    """Return a path prefix without a slash at its end, None for what is none."""
    text = text.strip().removesuffix("/")
    if not text:
        return ""
    empty, *segments = text.split("/")
    return None if empty or len(text) > MAX_PREFIX or not all(map(_is_segment, segments)) else text


def _is_segment(text: str) -> bool:
    plain = unquote(text)
    return SEGMENT.fullmatch(text) is not None and plain not in (".", "..") and not NOT_IN_SEGMENTS.search(plain)


class PublicAddress:
    """Tells of each request under which address its client reaches the service."""

    def __init__(self, url: str | None = None, trusted: Networks = ()) -> None:
        self._fixed = None if url is None else parse_public_url(url)
        self._trusted = trusted

    def base(self, scope: Scope) -> Base:
        """Return what the setting says; without one what a trusted proxy says, as far as that can be used."""
        if self._fixed is not None:
            return self._fixed
        if not self._trusted or not is_trusted(peer_of(scope), self._trusted):
            return Base(scope.get("scheme", "http"))
        headers = Headers(scope=scope)
        # Of several proxies the outermost writes first.
        scheme = headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
        host = headers.get("x-forwarded-host", "").partition(",")[0].strip()
        return Base(
            scheme if scheme in SCHEMES else scope.get("scheme", "http"),
            host if HOST.fullmatch(host) else None,
            _forwarded_prefix(headers.get("x-forwarded-prefix", "")),
        )


def _forwarded_prefix(text: str) -> str:
    """Return the prefixes of several proxies behind one another as one, nothing where one of them cannot be used."""
    if len(text) > MAX_PREFIX:
        return ""
    prefixes = [_prefix(part) for part in text.split(",")]
    return "" if None in prefixes else "".join(filter(None, prefixes))


def server_of(base: Base, scope: Scope) -> str:
    """Return host and port of a service for who needs one: as told, else as the client names it, else our own."""
    host = base.host or Headers(scope=scope).get("host", "").strip()
    if HOST.fullmatch(host):
        return host
    server = scope.get("server")
    if not server or server[1] is None:
        return "localhost"
    return f"[{server[0]}]:{server[1]}" if ":" in server[0] else f"{server[0]}:{server[1]}"


def raw_path(scope: Scope) -> str:
    """Return a request's path as it came, not decoded."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw.decode("latin-1")


def below(scope: Scope, prefix: str) -> Scope | None:
    """Return a request as it is without the prefix, which its proxy has left there; None where it has none."""
    raw = raw_path(scope)
    if not prefix or not (raw + "/").startswith(prefix + "/"):
        return None
    rest = raw[len(prefix) :] or "/"
    return {**scope, "raw_path": rest.encode("latin-1"), "path": unquote(rest)}


def root_from(scope: Scope) -> str:
    """Return a relative link from a request's path to the root of the service, whatever stands before both."""
    return "../" * (raw_path(scope).count("/") - 1) or "./"
