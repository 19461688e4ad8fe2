"""CORS: `*` is for all without credentials, named origins may send them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import Response

from eventstreams.app import build_gateway
from eventstreams.errors import ConfigurationError
from eventstreams.eventlog.embedded.log import open_embedded
from eventstreams.origins import NamedOrigins, named_origins
from eventstreams.records import NewRecord
from eventstreams.settings import load_settings
from tests.conftest import missing_clients
from tests.support import needed
from tests.support.kafka import free_port
from tests.support.processes import GatewayProcess, IntakeProcess
from tests.support.topics import make_topics

ACAO, ACAC = "access-control-allow-origin", "access-control-allow-credentials"


@pytest.mark.parametrize(
    ("cors", "origins"),
    [
        (None, []),
        ("*", []),
        (["*"], []),
        ("https://wiki.example", ["https://wiki.example"]),
        ("HTTPS://Wiki.Example:443, http://[::1]:8080", ["https://wiki.example", "http://[::1]:8080"]),
        (
            ["http://a:80", "http://a:8080", "chrome-extension://abc"],
            ["http://a", "http://a:8080", "chrome-extension://abc"],
        ),
    ],
)
def test_origins_are_read_as_browsers_write_them(cors: str | list[str] | None, origins: Sequence[str]) -> None:
    assert list(named_origins(cors)) == origins


@pytest.mark.parametrize(
    "text", [",", "*,https://a", "https://a/", "https://a/x", "a.example", "https://", "https://u@a"]
)
def test_setting_that_names_no_origins_is_refused(text: str) -> None:
    for name in ("gateway.cors", "intake.cors"):
        with pytest.raises(ConfigurationError, match=name):
            load_settings(None, [f"{name}={text}"])


def gateway(cors: str | list[str] | None) -> httpx.AsyncClient:
    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"vary", b"Accept")]})
        await send({"type": "http.response.body", "body": b""})

    transport = httpx.ASGITransport(app=build_gateway(stream, cors=cors))
    return httpx.AsyncClient(transport=transport, base_url="http://here")


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
@pytest.mark.parametrize("path", ["/v2/stream/edits", "/_info", "/nope"])
async def test_answer_names_the_origin_that_asks_where_it_is_named(method: str, path: str) -> None:
    named = ["https://a.example", "https://b.example"]
    async with gateway(named) as http:
        for origin in (*named, "https://c.example", "null", "https://a.example.evil", None):
            answer = await http.request(method, path, headers={"origin": origin} if origin else {})
            wanted = (origin, "true") if origin in named else (None, None)
            assert (answer.headers.get(ACAO), answer.headers.get(ACAC)) == wanted
            assert "Origin" in answer.headers["vary"]
            assert answer.headers["access-control-expose-headers"]
            assert len(answer.headers.get_list("vary")) == 1


async def test_answer_to_all_allows_no_credentials() -> None:
    async with gateway("*") as http:
        answer = await http.get("/_info", headers={"origin": "https://a.example"})
        assert (answer.headers[ACAO], answer.headers.get(ACAC), answer.headers.get("vary")) == ("*", None, None)
    async with gateway(None) as http:
        answer = await http.get("/_info", headers={"origin": "https://a.example"})
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [("authorization, cache-control", "authorization, cache-control"), ("", ""), ("a;b", ""), ("a," * 600 + "a", "")],
)
async def test_wildcard_of_allowed_fields_becomes_what_is_asked_for(asked: str, allowed: str) -> None:
    app = NamedOrigins(Response(headers={"access-control-allow-headers": "*"}), ["https://a.example"])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://here") as http:
        given = {"access-control-request-headers": asked}
        answer = await http.options("/", headers={"origin": "https://a.example", **given})
        assert answer.headers["access-control-allow-headers"] == allowed
        answer = await http.options("/", headers={"origin": "https://b.example", **given})
        assert answer.headers["access-control-allow-headers"] == "*"


async def test_intake_s_answers_name_origins_too(tmp_path: Path) -> None:
    log = await make_topics(tmp_path / "events.db", "test.event")
    intake = IntakeProcess(log, "intake.cors=https://a.example,https://b.example", "log_level=error")
    event = {"$schema": "/test/event/1.0.0", "meta": {"stream": "test.event"}, "test": "hello"}
    async with intake.running(), httpx.AsyncClient(base_url=intake.url, timeout=30) as http:
        for origin, allowed in (("https://b.example", "https://b.example"), ("https://c.example", None)):
            answer = await http.post("/v1/events", json=event, headers={"origin": origin})
            assert (answer.status_code, answer.headers.get(ACAO)) == (201, allowed)


@pytest.fixture(scope="module")
def browser() -> Sequence[str]:
    """The command that tries credentials in Chromium."""
    return needed.chromium("credentials", missing_clients)


@pytest.mark.clients
async def test_browser_s_credentials_pass_for_named_origins_alone(browser: Sequence[str], tmp_path: Path) -> None:
    (tmp_path / "streams.yaml").write_text("streams: {edits: {topics: [a]}}")
    path, port = tmp_path / "events.db", free_port()
    async with open_embedded(str(path)) as log:
        await log.create_topic("a")
        await log.append([NewRecord("a", b'{"n":0}', None, 1000)])
    settings = (f"http://127.0.0.1:{port},http://unused.example", "*", "null")
    async with AsyncExitStack() as stack:
        urls = []
        for cors in settings:
            given = (f"embedded:{path}", tmp_path / "streams.yaml", f"gateway.cors={cors}", "log_level=error")
            process = GatewayProcess(*given)
            await stack.enter_async_context(process.running())
            urls.append(f"{process.url}/v2/stream/edits?since=1")
        told = await needed.told_by(browser, str(port), *urls)
    all_, none = {"with": 0, "without": 0, "fetched": 200}, dict.fromkeys(("with", "without", "fetched"), "refused")
    public = {"with": "refused", "without": 0, "fetched": "refused"}
    assert told == {"127.0.0.1": [all_, public, none], "other.example": [none, public, none]}
