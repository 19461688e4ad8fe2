"""Under which address clients reach a service: the setting, and headers of trusted proxies, however odd."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
from openapi_spec_validator import validate

from eventstreams.addresses import parse_networks
from eventstreams.app import Pages, build_gateway
from eventstreams.catalog.load import load_catalog
from eventstreams.errors import ConfigurationError
from eventstreams.eventlog.embedded.log import open_embedded
from eventstreams.public_address import Base, PublicAddress, parse_public_url
from eventstreams.schemas.repository import DirectoryRepository
from eventstreams.settings import load_settings
from eventstreams.subscribe.documents import Documents
from eventstreams.subscribe.listing import Listing
from tests.test_asyncapi import Findings, findings  # noqa: F401 - a fixture
from tests.test_pages import ABOUT, SCHEMA, STREAMS, write_schema

TRUSTED = parse_networks(["10.0.0.0/8"])
ALL = {"x-forwarded-proto": "https", "x-forwarded-host": "events.example", "x-forwarded-prefix": "/events"}
Site = Callable[..., Any]


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("https://events.example", Base("https", "events.example", "")),
        ("https://events.example/", Base("https", "events.example", "")),
        ("HTTP://Events.Example:8080/a/b/", Base("http", "Events.Example:8080", "/a/b")),
        ("https://[2001:db8::1]:8443/events", Base("https", "[2001:db8::1]:8443", "/events")),
        ("https://example.org/%C3%A9v~1.2", Base("https", "example.org", "/%C3%A9v~1.2")),
    ],
)
def test_public_url_is_an_origin_with_a_path_prefix(text: str, base: Base) -> None:
    assert parse_public_url(text) == base


@pytest.mark.parametrize(
    "text",
    [
        *("events.example", "/events", "//events.example/x", "ftp://events.example", "https://", "https:///x"),
        *("https://u:p@events.example", "https://events.example/?x", "https://events.example/#x", "https://e/x?"),
        *("https://e:port", "https://e:0", "https://e:99999", "https://e//x", "https://e/a/../b", "https://e/%2e%2E"),
        *(
            "https://e/a b",
            "https://e/<b>",
            "https://e/a%0d%0ab",
            "https://e/a%2fb",
            "https://e/" + "x" * 300,
            "null x",
        ),
        *("https://[::1", "https://é.example/", "https://e/\\x"),
    ],
)
def test_public_url_that_is_none_is_refused_with_its_name(text: str) -> None:
    for name in ("gateway.public_url", "intake.public_url"):
        with pytest.raises(ConfigurationError, match=name):
            load_settings(None, [f"{name}={text}"])


@asynccontextmanager
async def gateway(folder: Path, url: str | None, peer: str) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway with odd streams, asked from an address."""
    (folder / "streams.yaml").write_text(STREAMS)
    write_schema(folder / "schemas", "1.0.0", SCHEMA)
    async with open_embedded(":memory:") as log:
        for topic in ("a", "b"):
            await log.create_topic(topic)
        catalog = load_catalog(str(folder / "streams.yaml"))
        documents = Documents(catalog, DirectoryRepository(folder / "schemas"), ABOUT)
        pages = Pages(documents, Listing(catalog, log), title="Test streams", ui=True)
        app = build_gateway(stream, pages, address=PublicAddress(url, TRUSTED))
        transport = httpx.ASGITransport(app=app, client=(peer, 1234))
        async with httpx.AsyncClient(transport=transport, base_url="http://here:8092") as http:
            yield http


async def stream(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path_params"]["streams"].encode()})


async def told(http: httpx.AsyncClient, headers: dict[str, str]) -> tuple[str, str, Any, str]:
    """Return where `/` leads, OpenAPI's server, AsyncAPI's, and where the first stream is."""
    place = (await http.get("/", headers=headers)).headers["location"]
    (server,) = (await http.get("/?spec", headers=headers)).json()["servers"]
    servers = (await http.get("/?asyncapi", headers=headers)).json()["servers"]
    streams = (await http.get("/v2/stream", headers=headers)).json()["streams"]
    return place, server["url"], servers["public"], streams[1]["url"]


HERE = ("/v2/ui", "/", {"host": "here:8092", "protocol": "http"}, "/v2/stream/changes")
BELOW = (
    "/events/v2/ui",
    "https://events.example/events",
    {"host": "events.example", "protocol": "https", "pathname": "/events"},
    "https://events.example/events/v2/stream/changes",
)


@pytest.mark.parametrize(
    ("url", "peer", "headers", "wanted"),
    [
        (None, "9.9.9.9", {}, HERE),
        (None, "9.9.9.9", ALL, HERE),
        (None, "10.0.0.1", {}, HERE),
        (None, "10.0.0.1", ALL, BELOW),
        (None, "10.0.0.1", {name: f"{value}, other" for name, value in ALL.items() if "prefix" not in name}, None),
        ("https://events.example/events/", "9.9.9.9", {}, BELOW),
        ("https://events.example/events", "9.9.9.9", {"x-forwarded-prefix": "/other", "host": "evil.example"}, BELOW),
        ("https://events.example/events", "10.0.0.1", {"x-forwarded-prefix": "/other"}, BELOW),
    ],
)
async def test_addresses_are_as_the_setting_or_a_trusted_proxy_tells(
    tmp_path: Path, url: str | None, peer: str, headers: dict[str, str], wanted: Any
) -> None:
    async with gateway(tmp_path, url, peer) as http:
        found = await told(http, headers)
    if wanted is None:
        assert found[:2] == ("/v2/ui", "https://events.example")
    else:
        assert found == wanted


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("x-forwarded-proto", value) for value in ("javascript", "ftp", "https:", "")),
        *(
            ("x-forwarded-host", value)
            for value in ("evil/x", "a b", "u@h", "<b>", "", ",", '"h"', "h:port", "h" * 999)
        ),
        *(
            ("x-forwarded-prefix", value)
            for value in ("//evil.example", "evil", "/a/../b", "/a//b", "/<b>", "/a?b", "/")
        ),
        *(
            ("x-forwarded-prefix", value)
            for value in ("/a%0d%0aX: y", "/\\evil", "/%2e%2e", "/a,//b", "/x" * 999, "/a b")
        ),
    ],
)
async def test_header_that_cannot_be_used_is_passed_over(tmp_path: Path, name: str, value: str) -> None:
    async with gateway(tmp_path, None, "10.0.0.1") as http:
        headers = {key: text for key, text in ALL.items() if key != name}
        without = await told(http, headers)
        for accept in ("text/html", "*/*"):
            odd = await http.get("/", headers={**headers, name: value, "accept": accept})
            assert odd.headers["location"] == without[0]
            assert "evil" not in odd.text
        assert await told(http, {**headers, name: value}) == without


async def test_prefixes_of_several_proxies_are_joined(tmp_path: Path) -> None:
    async with gateway(tmp_path, None, "10.0.0.1") as http:
        place, server, _, url = await told(http, {"x-forwarded-prefix": "/one, /two/"})
        assert (place, server, url) == ("/one/two/v2/ui", "/one/two", "/one/two/v2/stream/changes")


@pytest.mark.parametrize("odd", ["evil/<b>", "a b", "h" * 999, "u@h"])
async def test_host_of_the_client_stands_in_asyncapi_where_it_is_one(tmp_path: Path, odd: str) -> None:
    async with gateway(tmp_path, None, "9.9.9.9") as http:
        assert (await told(http, {"host": "[::1]:80"}))[2] == {"host": "[::1]:80", "protocol": "http"}
        assert (await told(http, {"host": odd}))[2] == {"host": "here:8092", "protocol": "http"}


@pytest.mark.parametrize("prefix", ["/events", "/v2", "/a/b"])
async def test_paths_are_taken_with_the_prefix_and_without(tmp_path: Path, prefix: str) -> None:
    async with gateway(tmp_path, f"https://events.example{prefix}", "9.9.9.9") as http:
        for path in ("/v2/stream/edits", "/?spec", "/v2/ui/", "/_info", "/?doc", "/robots.txt"):
            for asked in (path, prefix + path):
                answer = await http.get(asked)
                assert answer.status_code == 200, asked
                assert answer.text == (await http.get(path)).text if "/v2/ui" not in path else answer.text
        missing = await http.get(f"{prefix}/nope/nope")
        assert missing.status_code == 404
        assert f"Cannot GET {prefix}/nope/nope" in missing.text
        assert (await http.get(f"{prefix}x/v2/ui/")).status_code == 404
        assert (await http.options(f"{prefix}/v2/stream/edits/")).text == "GET,HEAD"
        assert (await http.post(f"{prefix}/v2/stream/edits/")).status_code == 404


@pytest.mark.parametrize("url", [None, "https://events.example/events"])
async def test_page_for_people_leads_to_the_root_from_wherever_it_is_shown(tmp_path: Path, url: str | None) -> None:
    async with gateway(tmp_path, url, "9.9.9.9") as http:
        for path in ("/v2/ui/", "/V2/UI/", "/v2/ui/index.html", "/index.html", *(["/events/v2/ui/"] if url else [])):
            page = await http.get(path)
            root = page.text.partition('<base href="')[2].partition('"')[0]
            for before in ("", "/any/prefix"):
                shown = urljoin(f"https://events.example{before}{path}", root)
                assert shown == f"https://events.example{before}{'/events' if 'events' in path else ''}/"
            assert "/v2/" not in page.text.replace(root, "")
            again = await http.get(path, headers={"if-none-match": page.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")


async def test_documents_with_servers_are_valid(tmp_path: Path, findings: Findings) -> None:  # noqa: F811
    async with gateway(tmp_path, None, "10.0.0.1") as http:
        for headers in ({}, ALL, {"x-forwarded-prefix": "/events"}):
            validate((await http.get("/?spec", headers=headers)).json())
            document = (await http.get("/?asyncapi", headers=headers)).content
            count = len(json.loads(document)["channels"])
            assert findings(document) == [f"channels {count} operations {count}"]
