"""Whom a request comes from, as far as the proxies in front are trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from eventstreams.errors import ConfigurationError

Networks = Sequence[IPv4Network | IPv6Network]


def parse_networks(texts: Sequence[str]) -> Networks:
    """Return addresses and networks in CIDR form as networks. Raises: ConfigurationError."""
    try:
        return [ip_network(text, strict=False) for text in texts]
    except ValueError as exc:
        raise ConfigurationError(f"trusted_proxies: {exc}") from exc


def is_trusted(peer: str, trusted: Networks) -> bool:
    """Whether a connection comes from one of these networks."""
    try:
        address = ip_address(peer)
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
