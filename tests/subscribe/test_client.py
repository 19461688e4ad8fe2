"""Who counts as a client, and who is a browser."""

from __future__ import annotations

import pytest

from eventstreams.addresses import parse_networks
from eventstreams.errors import ConfigurationError, MissingClientAddress
from eventstreams.subscribe.client import AddressMode, client_address, is_browser

PROXIES = parse_networks(["10.0.0.0/8", "::1"])
BOTH = {"x-client-ip": "1.1.1.1", "x-forwarded-for": "2.2.2.2, 10.0.0.9"}


@pytest.mark.parametrize(
    ("mode", "headers", "peer", "address"),
    [
        ("peer", BOTH, "10.0.0.1", "10.0.0.1"),
        ("forwarded", BOTH, "10.0.0.1", "1.1.1.1"),
        ("forwarded", {"x-forwarded-for": "2.2.2.2, 10.0.0.9"}, "10.0.0.1", "2.2.2.2"),
        ("forwarded", BOTH, "9.9.9.9", "9.9.9.9"),
        ("forwarded", {}, "::1", "::1"),
        ("x-client-ip", BOTH, "10.0.0.1", "1.1.1.1"),
        ("x-client-ip", BOTH, "9.9.9.9", "9.9.9.9"),
        ("x-client-ip", {"x-client-ip": " [::2]:80 "}, "10.0.0.1", "::2"),
        ("x-client-ip", {"x-client-ip": "whoever"}, "10.0.0.1", "whoever"),
        ("peer", {}, "::ffff:1.2.3.4", "1.2.3.4"),
        ("forwarded", {}, "::ffff:1.2.3.4", "1.2.3.4"),
        ("forwarded", BOTH, "::ffff:10.0.0.1", "1.1.1.1"),
        ("x-client-ip", BOTH, "::ffff:9.9.9.9", "9.9.9.9"),
    ],
)
def test_client_is_who_the_setting_says(mode: AddressMode, headers: dict[str, str], peer: str, address: str) -> None:
    assert client_address(headers, peer, mode, PROXIES) == address


def test_required_address_that_is_missing_is_an_error() -> None:
    with pytest.raises(MissingClientAddress):
        client_address({}, "10.0.0.1", "x-client-ip", PROXIES)


def test_networks_that_are_none_are_named() -> None:
    with pytest.raises(ConfigurationError, match=r"10\.0\.0\.300"):
        parse_networks(["10.0.0.300"])


@pytest.mark.parametrize(
    ("headers", "browser"),
    [
        ({"accept": "text/event-stream", "origin": "https://x"}, True),
        ({"accept": "text/event-stream", "sec-fetch-mode": "cors"}, True),
        ({"accept": "text/event-stream"}, False),
        ({"origin": "https://x"}, False),
    ],
)
def test_browsers_are_known_by_their_headers(headers: dict[str, str], browser: bool) -> None:
    assert is_browser(headers) is browser
