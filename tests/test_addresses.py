"""Whom a request comes from: what proxies write, which of them are believed, and what the access log makes of it."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from eventstreams.addresses import UNIX, client_ip, is_trusted, parse_networks, peer_of, read_address
from tests.support.processes import CommandProcess, GatewayProcess, IntakeProcess
from tests.support.topics import make_topics

TRUSTED = parse_networks(["10.0.0.0/8", "unix"])


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("1.2.3.4", "1.2.3.4"),
        (" 1.2.3.4\t", "1.2.3.4"),
        ("1.2.3.4:5555", "1.2.3.4"),
        ('"1.2.3.4:5555"', "1.2.3.4"),
        ("[1.2.3.4]:5555", "1.2.3.4"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("[::1]:80", "::1"),
        ('"[2001:DB8::0:1]:80"', "2001:db8::1"),
        ("2001:0db8:0000::1", "2001:db8::1"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("[::ffff:102:304]:5555", "1.2.3.4"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%eth0]:80", "fe80::1"),
        *(
            (odd, None)
            for odd in ("", "unknown", "_hidden", "unix:", "1.2.3", "1.2.3.4:", "1.2.3.4:x", "1.2.3.4:123456")
        ),
        *((odd, None) for odd in ("::1:80:::", "[::1", "::1]", "[::1]80", "[]", "[]:80", "999.1.1.1", "01.2.3.4", "1")),
        *((odd, None) for odd in ("1.2.3.4, 5.6.7.8", "1.2.3.4 5.6.7.8", "for=1.2.3.4", "1.2.3.4\r\nx: y", "1" * 9000)),
        *((odd, None) for odd in ("%", "%eth0", "١.2.3.4", "1.2.3.4:٥", "[" * 64, "::" * 30, "localhost")),
    ],
)
def test_address_is_read_in_every_form_that_proxies_write(text: str, address: str | None) -> None:
    assert read_address(text) == address


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ({"x-client-ip": "[::1]:80", "x-forwarded-for": "2.2.2.2"}, "::1"),
        ({"x-client-ip": "unknown", "x-forwarded-for": "2.2.2.2:80, 3.3.3.3"}, "2.2.2.2"),
        ({"x-client-ip": "1.1.1.1, 2.2.2.2", "x-forwarded-for": "3.3.3.3"}, "3.3.3.3"),
        ({"x-forwarded-for": "2.2.2.2,3.3.3.3"}, "2.2.2.2"),
        ({"x-forwarded-for": "2.2.2.2 , 3.3.3.3"}, "2.2.2.2"),
        ({"x-forwarded-for": "unknown, 3.3.3.3"}, "10.0.0.1"),
        ({"x-forwarded-for": ", 3.3.3.3"}, "10.0.0.1"),
        ({"x-client-ip": "", "x-forwarded-for": ""}, "10.0.0.1"),
        ({}, "10.0.0.1"),
    ],
)
def test_header_that_names_no_address_is_passed_over(headers: dict[str, str], client: str) -> None:
    assert client_ip(headers, "10.0.0.1", TRUSTED) == client


def test_unix_socket_is_trusted_where_it_is_named_only() -> None:
    given = {"x-client-ip": "1.1.1.1"}
    assert client_ip(given, UNIX, TRUSTED) == "1.1.1.1"
    assert client_ip(given, UNIX, parse_networks(["0.0.0.0/0", "::/0"])) == UNIX
    assert not is_trusted("", TRUSTED)
    assert not is_trusted("9.9.9.9", parse_networks(["unix"]))


def test_connection_without_a_peer_is_a_unix_socket_s_only_where_the_server_is_one() -> None:
    assert peer_of({"client": ("1.1.1.1", 1), "server": ("2.2.2.2", 80)}) == "1.1.1.1"
    assert peer_of({"client": None, "server": ("/run/gateway", None)}) == UNIX
    # A TCP connection that was reset before anybody asked who it was.
    assert peer_of({"client": None, "server": ("2.2.2.2", 80)}) == ""
    assert peer_of({}) == ""


async def logged(process: CommandProcess, path: Path, requests: list[tuple[str, dict[str, str]]]) -> list[Any]:
    """Send requests for a page; return the clients that the access log names."""
    with (path / "errors").open("wb") as errors:
        process.errors = errors.fileno()
        async with process.running(), httpx.AsyncClient(base_url=process.url, timeout=30) as http:
            for target, headers in requests:
                await http.get(target, headers=headers)
            assert await process.end(signal.SIGTERM) == 0
    lines = map(json.loads, (path / "errors").read_text().splitlines())
    return [line["client"] for line in lines if line["logger"] == "eventstreams.access"]


FORWARDED = [
    {"x-client-ip": "7.7.7.7:1234"},
    {"x-forwarded-for": "[2001:db8::7]:80, 10.0.0.1"},
    {"x-client-ip": 'no "address"\\', "x-forwarded-for": "unknown"},
    {},
]


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("command", ["serve", "intake"])
async def test_access_log_names_the_client_that_trusted_proxies_tell(
    tmp_path: Path, command: str, trusted: bool
) -> None:
    proxies = ("trusted_proxies=127.0.0.1",) if trusted else ()
    log = await make_topics(tmp_path / "events.db", "test.event")
    (tmp_path / "streams.yaml").write_text("streams: {edits: {topics: [test.event]}}")
    process = (
        IntakeProcess(log, *proxies)
        if command == "intake"
        else GatewayProcess(log, tmp_path / "streams.yaml", *proxies)
    )
    clients = await logged(process, tmp_path, [("/_info", headers) for headers in FORWARDED])
    told = ["7.7.7.7", "2001:db8::7", "127.0.0.1", "127.0.0.1"]
    assert clients == (told if trusted else ["127.0.0.1"] * 4)


@pytest.mark.parametrize(("mode", "clients"), [("peer", ["7.7.7.7"]), ("x-client-ip", ["7.7.7.7"])])
async def test_access_log_tells_clients_apart_whoever_counts_as_one(
    tmp_path: Path, mode: str, clients: list[str]
) -> None:
    log = await make_topics(tmp_path / "events.db", "a")
    (tmp_path / "streams.yaml").write_text("streams: {edits: {topics: [a]}}")
    given = ("trusted_proxies=127.0.0.1", f"gateway.client_address={mode}")
    process = GatewayProcess(log, tmp_path / "streams.yaml", *given)
    assert await logged(process, tmp_path, [("/_info", FORWARDED[0])]) == clients


async def test_limits_count_the_client_that_trusted_proxies_tell(tmp_path: Path) -> None:
    log = await make_topics(tmp_path / "events.db", "a")
    (tmp_path / "streams.yaml").write_text("streams: {edits: {topics: [a]}}")
    given = ("trusted_proxies=127.0.0.1", "gateway.connections_per_client=1", "log_level=error")
    process = GatewayProcess(log, tmp_path / "streams.yaml", *given)
    async with (
        process.running(),
        httpx.AsyncClient(base_url=process.url, timeout=30) as http,
        http.stream("GET", "/v2/stream/edits", headers={"x-client-ip": "7.7.7.7:1"}) as first,
    ):
        assert first.status_code == 200
        for same in ({"x-client-ip": "7.7.7.7"}, {"x-forwarded-for": "[::ffff:7.7.7.7]:9"}):
            assert (await http.get("/v2/stream/edits", headers=same)).status_code == 429
        async with http.stream("GET", "/v2/stream/edits", headers={"x-forwarded-for": "8.8.8.8"}) as other:
            assert other.status_code == 200
