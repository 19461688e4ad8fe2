"""The gateway's pages: descriptions of the streams, their list, documentation, the page for people."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from openapi_spec_validator import validate

from eventstreams.app import Pages, build_gateway
from eventstreams.catalog.load import load_catalog
from eventstreams.catalog.streams import StreamCatalog, StreamConfig
from eventstreams.errors import LogUnavailable
from eventstreams.eventlog.embedded.log import EmbeddedLog, open_embedded
from eventstreams.records import NewRecord
from eventstreams.schemas.repository import DirectoryRepository
from eventstreams.subscribe.documents import MAX_AGE, Documents
from eventstreams.subscribe.listing import Listing
from eventstreams.subscribe.openapi import About, openapi_schema
from tests.support.processes import GatewayProcess

STREAMS = """
streams:
  edits: {topics: [a], schema_title: wiki/edit, stream_aliases: [changes], description: Edits of pages}
  with space: {topics: [b]}
  a/b~c: {topics: [b]}
  lost: {topics: [nowhere], schema_title: no/such}
  inline: {topics: [b], schema: {type: object, title: inline, examples: [{n: 1}]}}
  /^pattern/: {topics: [x]}
"""

SCHEMA = """
$schema: https://json-schema.org/draft-07/schema#
$id: /wiki/edit/1.0.0
title: wiki/edit
type: object
required: [n]
properties:
  n: {type: [integer, "null"], exclusiveMinimum: 0, maximum: 99999999999999999999}
  tags: {type: array}
  kind: {const: edit}
  pair: {type: array, items: [{type: string}, {type: integer}]}
  any: {type: [string, array]}
additionalProperties: false
patternProperties: {"^x_": {type: string}}
examples:
  - {n: 1, kind: edit}
  - {n: 2}
"""

ABOUT = About("Test streams", "1.2.3", "Streams of a test", "https://example.org/home", "https://example.org/terms")


class Site:
    def __init__(self, catalog: StreamCatalog, log: EmbeddedLog, schemas: Path, *, ui: bool = True) -> None:
        self.catalog = catalog
        self.log = log
        self.schemas = schemas
        self.now = 0.0
        self.documents = Documents(catalog, DirectoryRepository(schemas), ABOUT, clock=lambda: self.now)
        listing = Listing(catalog, log, max_age=0.0)
        app = build_gateway(_no_streams, Pages(self.documents, listing, title="Test streams", ui=ui))
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://gateway")

    async def json(self, path: str) -> Any:
        response = await self.http.get(path)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/json; charset=utf-8"
        return response.json()


async def _no_streams(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("no test here asks for a stream")


def write_schema(schemas: Path, version: str, text: str) -> None:
    folder = schemas / "wiki" / "edit"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{version}.yaml").write_text(text)


@pytest.fixture
async def site(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    (tmp_path / "streams.yaml").write_text(STREAMS)
    write_schema(tmp_path / "schemas", "1.0.0", SCHEMA)
    async with open_embedded(":memory:") as log:
        await log.create_topic("a", 2)
        await log.create_topic("b")
        site = Site(
            load_catalog(str(tmp_path / "streams.yaml")), log, tmp_path / "schemas", ui=getattr(request, "param", True)
        )
        async with site.http:
            yield site


def validated(document: Mapping[str, Any]) -> Mapping[str, Any]:
    validate(document)
    return document


async def test_openapi_is_valid_and_has_a_path_for_each_stream(site: Site) -> None:
    document = validated(await site.json("/?spec=0&doc"))
    assert document["openapi"] == "3.0.0"
    assert document["info"]["title"] == "Test streams"
    assert document["externalDocs"] == {"url": "https://example.org/home"}
    names = ["a/b~c", "changes", "edits", "inline", "lost", "with space"]
    base = document["paths"]["/v2/stream/{streams}"]["get"]
    assert base["parameters"][0]["schema"]["items"]["enum"] == base["parameters"][0]["schema"]["enum"] == names
    assert [parameter["name"] for parameter in base["parameters"][:3]] == ["streams", "Last-Event-ID", "since"]
    edits = document["paths"]["/v2/stream/edits"]["get"]
    assert edits["summary"] == "edits events"
    assert edits["description"] == "Edits of pages\n\nSchema title: wiki/edit"
    assert edits["x-monitor"] is False
    assert [parameter["name"] for parameter in edits["parameters"][:2]] == ["Last-Event-ID", "since"]
    content = edits["responses"]["200"]["content"]
    assert content["application/json"] == content["text/event-stream"]
    assert content["application/json"]["example"] == {"n": 1, "kind": "edit"}
    assert content["application/json"]["schema"]["title"] == "wiki/edit"
    alias = document["paths"]["/v2/stream/changes"]["get"]
    assert alias["description"].startswith("Edits of pages\n\n(NOTE: This stream is an alias of edits)")


async def test_stream_whose_schema_is_missing_is_described_without(site: Site) -> None:
    paths = (await site.json("/?spec"))["paths"]
    lost = paths["/v2/stream/lost"]["get"]
    assert lost["description"] == "lost events.\n\nSchema title: no/such"
    assert "example" not in lost["responses"]["200"]["content"]["application/json"]
    assert paths["/v2/stream/inline"]["get"]["responses"]["200"]["content"]["application/json"]["example"] == {"n": 1}


async def test_documents_follow_the_catalogue_and_in_time_the_schemas(site: Site) -> None:
    assert "/v2/stream/edits" in (await site.json("/?spec[]=1"))["paths"]
    write_schema(site.schemas, "1.1.0", SCHEMA.replace("{n: 1, kind: edit}", "{n: 9}"))
    unchanged = await site.json("/?spec")
    site.now += MAX_AGE + 1
    changed = await site.json("/?spec")
    examples = [
        d["paths"]["/v2/stream/edits"]["get"]["responses"]["200"]["content"]["application/json"]["example"]
        for d in (unchanged, changed)
    ]
    assert examples == [{"n": 1, "kind": "edit"}, {"n": 9}]
    site.catalog.swap([StreamConfig("new", ("a",), "new events.", None, {})])
    assert list((await site.json("/?spec"))["paths"]) == ["/v2/stream/{streams}", "/v2/stream/new"]
    assert list((await site.json("/?asyncapi"))["channels"]) == ["new"]


def test_json_schema_is_put_into_the_dialect_of_openapi() -> None:
    assert openapi_schema({"type": ["integer", "null"], "exclusiveMinimum": 0}) == {
        "minimum": 0,
        "exclusiveMinimum": True,
        "nullable": True,
        "type": "integer",
    }
    assert openapi_schema({"type": ["string", "array"]}) == {
        "anyOf": [{"type": "string"}, {"type": "array", "items": {}}]
    }
    assert openapi_schema({"const": 1, "items": {"const": 2}, "type": "array", "$ref": "#/x", "if": {}}) == {
        "enum": [1],
        "type": "array",
        "items": {"enum": [2]},
    }
    assert openapi_schema({"not": False, "required": [], "additionalProperties": {"type": "null"}}) == {
        "not": {"not": {}},
        "additionalProperties": {"nullable": True},
    }


async def test_asyncapi_has_a_channel_and_an_operation_for_each_stream(site: Site) -> None:
    document = await site.json("/?asyncapi")
    assert document["asyncapi"] == "3.0.0"
    channel = document["channels"]["a/b~c"]
    assert channel["address"] == "/v2/stream/a%2Fb~c"
    operation = document["operations"]["a/b~c"]
    assert operation["channel"] == {"$ref": "#/channels/a~1b~0c"}
    assert operation["messages"] == [{"$ref": "#/channels/a~1b~0c/messages/event"}]
    assert document["channels"]["edits"]["messages"]["event"]["examples"] == [{"payload": {"n": 1, "kind": "edit"}}]


@pytest.mark.parametrize("path", ["/v2/stream", "/v2/stream/", "/V2/Stream"])
async def test_streams_are_listed_with_partitions_times_and_rate(site: Site, path: str) -> None:
    now = 1_800_000_000_000
    await site.log.append([NewRecord("b", b"{}", None, ts) for ts in (now, now + 1500)])
    streams = {stream["name"]: stream for stream in (await site.json(path))["streams"]}
    assert list(streams) == ["a/b~c", "changes", "edits", "inline", "lost", "with space"]
    assert streams["with space"] == {
        "name": "with space",
        "url": "/v2/stream/with%20space",
        "description": "with space events.",
        "schema_title": None,
        "schema_uri": None,
        "alias_of": None,
        "partitions": 1,
        "earliest": "2027-01-15T08:00:00.000Z",
        "latest": "2027-01-15T08:00:01.500Z",
        "events_per_second": round(2 / 300, 3),
    }
    assert (streams["changes"]["alias_of"], streams["changes"]["partitions"]) == ("edits", 2)
    assert streams["changes"]["schema_uri"] == "/wiki/edit/latest"
    assert (streams["lost"]["partitions"], streams["lost"]["latest"]) == (0, None)


async def test_browser_gets_the_list_as_a_page_and_names_are_escaped(site: Site) -> None:
    site.catalog.swap([StreamConfig("<b>", ("a",), "<script>", None, {})])
    response = await site.http.get("/v2/stream", headers={"accept": "text/html,*/*;q=0.8"})
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["vary"] == "Accept"
    assert '<a href="/v2/stream/%3Cb%3E">&lt;b&gt;</a>' in response.text
    assert "<script>" not in response.text


async def test_list_of_a_log_that_is_away_is_a_503(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(topic: str) -> Any:
        raise LogUnavailable("the log is away")

    monkeypatch.setattr(site.log, "partitions", away)
    response = await site.http.get("/v2/stream")
    assert (response.status_code, response.json()["type"]) == (503, "log_unavailable")


async def test_requests_at_the_same_time_ask_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    load = DirectoryRepository.load

    async def counting(self: DirectoryRepository, uri: Any) -> Any:
        asked.append(str(uri))
        return await load(self, uri)

    monkeypatch.setattr(DirectoryRepository, "load", counting)
    await asyncio.gather(*(site.json("/?spec") for _ in range(5)))
    assert sorted(asked) == ["/no/such/latest", "/wiki/edit/latest"]


@pytest.mark.parametrize(("site", "place"), [(True, "/v2/ui"), (False, "/?doc")], indirect=["site"])
async def test_root_leads_to_the_page_for_people_or_the_documentation(site: Site, place: str) -> None:
    response = await site.http.get("/?other=1", headers={"accept": "text/plain"})
    assert (response.status_code, response.headers["location"]) == (303, place)
    assert response.headers["vary"] == "Accept"
    assert response.text == f"See Other. Redirecting to {place}"
    for accept in ("text/html", "text/plain;q=0.4, text/*;q=0.5", "text/html, text/plain"):
        html = await site.http.get("/", headers={"accept": accept})
        assert f'<a href="{place}">' in html.text, accept
    for accept in ("*/*", "text/*", "text/html;q=0", "text/html;q=0.9, */*", "text/plain, text/html", "q=1;text/html"):
        plain = await site.http.get("/", headers={"accept": accept})
        assert plain.headers["content-type"] == "text/plain; charset=utf-8", accept
    assert (await site.http.post("/")).status_code == 404


async def test_page_for_people_has_its_files_with_validators(site: Site) -> None:
    moved = await site.http.get("/v2/ui")
    assert (moved.status_code, moved.headers["location"]) == (301, "/v2/ui/")
    for path in ("/v2/ui/", "/v2/ui/index.html", "/index.html"):
        page = await site.http.get(path)
        assert (page.status_code, page.headers["cache-control"]) == (200, "public, max-age=0")
        assert page.headers["content-type"].startswith("text/html")
        again = await site.http.get(path, headers={"if-none-match": page.headers["etag"]})
        assert again.status_code == 304
    for path in (
        "/v2/ui/nope.js",
        "/index.html/",
        "/%00",
        "/v2/ui/" + "n" * 300,
        "/nope",
        "/v2/ui/../../pages.py",
        "/v2/ui/%2e%2e/%2e%2e/pages.py",
        "/v2",
    ):
        assert (await site.http.get(path)).status_code == 404


@pytest.mark.parametrize("site", [False], indirect=True)
async def test_page_for_people_can_be_turned_off(site: Site) -> None:
    assert [(await site.http.get(path)).status_code for path in ("/v2/ui", "/v2/ui/", "/index.html")] == [404] * 3


async def test_documentation_is_served_with_its_own_files_and_policy(site: Site) -> None:
    page = await site.http.get("/?doc")
    assert "<title>Test streams</title>" in page.text
    assert "script-src 'self' 'unsafe-inline'" in page.headers["content-security-policy"]
    for path, kind in (("/swagger-ui-bundle.js", "javascript"), ("swagger-ui.css", "text/css")):
        file = await site.http.get("/", params={"doc": "", "path": path})
        assert file.status_code == 200
        assert kind in file.headers["content-type"]
    for missing in ("/nope.js", ".", "n" * 300, "a/" * 3000):
        answer = await site.http.get(f"/?doc&path={missing}")
        assert (answer.status_code, answer.text) == (404, "not found")


@pytest.mark.parametrize(
    "path", ["../__init__.py", "/../__init__.py", "..%2f__init__.py", "/%2e%2e/__init__.py", "%00"]
)
async def test_documentation_gives_no_file_out_of_its_folder(site: Site, path: str) -> None:
    response = await site.http.get(f"/?doc&path={path}")
    assert response.status_code == 404
    assert json.loads(response.content)["title"] == "File not found"
    assert json.loads(response.content)["uri"] == f"/?doc&path={path}"


async def test_preflight_lets_other_origins_send_last_event_id(site: Site) -> None:
    for path in ("/v2/stream/edits", "/v2/stream", "/?spec"):
        response = await site.http.options(path, headers={"access-control-request-headers": "last-event-id"})
        assert (response.status_code, response.text) == (200, "GET,HEAD")
        assert "last-event-id" in response.headers["access-control-allow-headers"]
        assert response.headers["access-control-allow-origin"] == "*"


async def test_pages_that_there_are_not_show_the_path_harmlessly(site: Site) -> None:
    response = await site.http.get("/a%20b/%3Ci%3E'&c?q=<b>")
    assert response.status_code == 404
    assert "<pre>Cannot GET /a%20b/%3Ci%3E&#x27;&amp;c</pre>" in response.text
    assert response.headers["content-security-policy"] == "default-src 'none'"


@pytest.mark.parametrize(("path", "place"), [("/rc", "/?doc"), ("/v2/ui", "/v2/ui/")])
async def test_moved_pages_say_where_to(site: Site, path: str, place: str) -> None:
    response = await site.http.get(path)
    assert (response.status_code, response.headers["location"]) == (301, place)
    assert response.text == f"Moved Permanently. Redirecting to {place}"
    page = await site.http.get(path, headers={"accept": "text/html"})
    assert f'<a href="{place}">' in page.text


async def test_nothing_is_named_after_the_original_by_default(tmp_path: Path) -> None:
    (tmp_path / "streams.yaml").write_text(STREAMS)
    process = GatewayProcess("embedded::memory:", tmp_path / "streams.yaml", f"schemas={tmp_path}")
    async with process.running(), httpx.AsyncClient(base_url=process.url, timeout=30) as http:
        assert (await http.get("/_info/home")).headers["location"] == "/?doc"
        for path in ("/v2/ui/", "/v2/stream", "/?doc", "/?spec", "/?asyncapi", "/_info"):
            text = (await http.get(path, headers={"accept": "text/html"})).text.lower()
            for name in ("wikimedia", "wikitech"):
                assert name not in text, path


async def test_operators_name_their_service(tmp_path: Path) -> None:
    (tmp_path / "streams.yaml").write_text(STREAMS)
    given = {"title": "Shop news", "terms": "https://shop.example/terms", "home": "https://shop.example/über?a=1#b"}
    settings = [f"gateway.{name}={value}" for name, value in given.items()]
    process = GatewayProcess("embedded::memory:", tmp_path / "streams.yaml", f"schemas={tmp_path}", *settings)
    async with process.running(), httpx.AsyncClient(base_url=process.url, timeout=30) as http:
        document = (await http.get("/?spec")).json()
        assert (document["info"]["title"], document["info"]["termsOfService"]) == (given["title"], given["terms"])
        assert document["externalDocs"]["url"] == (await http.get("/_info")).json()["home"] == given["home"]
        assert (await http.get("/_info/home")).headers["location"] == "https://shop.example/%C3%BCber?a=1#b"
        for path in ("/v2/stream", "/?doc"):
            assert "<title>Shop news</title>" in (await http.get(path, headers={"accept": "text/html"})).text
