"""Whom a request comes from, as far as the proxies in front are trusted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from eventstreams.errors import ConfigurationError

UNIX: Literal["unix"] = "unix"
"""Stands for the other end of a unix socket, as a peer and among trusted proxies: it has no address."""

Networks = Sequence[IPv4Network | IPv6Network | Literal["unix"]]

ERRNO = re.compile(r"\[Errno -?\d+\] ")

WITH_PORT = re.compile(r"\[([^\[\]]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")
LONGEST = 64
"""Letters of the longest form of an address, with brackets, zone and port."""


def parse_networks(texts: Sequence[str]) -> Networks:
    """Return addresses and networks in CIDR form as networks, `unix` as itself. Raises: ConfigurationError."""
    try:
        return [UNIX if text == UNIX else ip_network(text, strict=False) for text in texts]
    except ValueError as exc:
        raise ConfigurationError(f"trusted_proxies: {exc}") from exc


def peer_of(scope: Scope) -> str:
    """Return the address of a request's connection, UNIX for a unix socket, nothing where it is gone already."""
    client, server = scope.get("client"), scope.get("server")
    if client:
        return str(client[0])
    # Deliberate: not told from the client's absence alone, which a TCP connection that was just reset shows as well.
    return UNIX if server and server[1] is None else ""


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


def read_address(text: str) -> str | None:
    """Return the address that a proxy wrote, without port, brackets, quotes and zone; None where it wrote none."""
    text = text.strip(' \t"')
    if len(text) > LONGEST:
        return None
    match = WITH_PORT.fullmatch(text)
    if match is not None:
        text = match[1] or match[2]
    try:
        return str(parse_address(text.partition("%")[0]))
    except ValueError:
        return None


def is_trusted(peer: str, trusted: Networks) -> bool:
    """Whether a connection comes from one of these networks."""
    if not trusted or peer == UNIX:
        return UNIX in trusted
    try:
        address = parse_address(peer)
    except ValueError:
        return False
    return any(n != UNIX and address.version == n.version and address in n for n in trusted)


def client_ip(headers: Mapping[str, str], peer: str, trusted: Networks) -> str:
    """Return X-Client-IP, else the first of X-Forwarded-For, where the peer is trusted; else the peer's address.

    A header that names no address is passed over. Deliberate: the first address is the client as the outermost proxy
    saw it, as the original records it.
    """
    if is_trusted(peer, trusted):
        for given in (headers.get("x-client-ip", ""), headers.get("x-forwarded-for", "").partition(",")[0]):
            address = read_address(given)
            if address is not None:
                return address
    # A socket of IPv6 that serves IPv4 too shows its addresses in the other's clothes.
    return (read_address(peer) or peer) if ":" in peer else peer


def forwarded_client(scope: Scope, trusted: Networks) -> str:
    """Return the client of a request as `client_ip` finds it."""
    return client_ip(Headers(scope=scope), peer_of(scope), trusted)
