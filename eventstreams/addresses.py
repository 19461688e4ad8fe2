"""Whom a request comes from, as far as the proxies in front are trusted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from eventstreams.errors import ConfigurationError

ERRNO = re.compile(r"\[Errno -?\d+\] ")

Networks = Sequence[IPv4Network | IPv6Network]


def parse_networks(texts: Sequence[str]) -> Networks:
    """Return addresses and networks in CIDR form as networks. Raises: ConfigurationError."""
    try:
        return [ip_network(text, strict=False) for text in texts]
    except ValueError as exc:
        raise ConfigurationError(f"trusted_proxies: {exc}") from exc


def is_http_url(text: str) -> bool:
    """Whether this is an http or https URL with a host, to which a path can be added."""
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0 and not url.query
    except ValueError:
        return False


def reason(exc: Exception) -> str:
    """Return why something could not be reached, without the numbers of the system's errors."""
    return ERRNO.sub("", str(exc)) or type(exc).__name__


def parse_address(text: str) -> IPv4Address | IPv6Address:
    """Return an address; one of IPv4 as a socket of IPv6 shows it (`::ffff:1.2.3.4`) as what it is.

    Raises: ValueError.
    """
    address = ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def is_trusted(peer: str, trusted: Networks) -> bool:
    """Whether a connection comes from one of these networks."""
    try:
        address = parse_address(peer)
    except ValueError:
        return False
    return any(address.version == network.version and address in network for network in trusted)


def client_ip(headers: Mapping[str, str], peer: str, trusted: Networks) -> str:
    """Return X-Client-IP, else the first of X-Forwarded-For, where the peer is trusted; else the peer's address.

    Deliberate: the first address is the client as the outermost proxy saw it, as the original records it.
    """
    if not is_trusted(peer, trusted):
        return peer
    forwarded = headers.get("x-forwarded-for", "").split(", ", 1)[0].strip()
    return headers.get("x-client-ip", "").strip() or forwarded or peer
