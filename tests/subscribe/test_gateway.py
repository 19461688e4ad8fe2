"""The gateway over HTTP: a real server on a free port, the embedded log behind it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import uvicorn

from eventstreams.app import build_gateway
from eventstreams.catalog.load import load_catalog
from eventstreams.catalog.streams import StreamCatalog
from eventstreams.eventlog.embedded.log import EmbeddedLog, open_embedded
from eventstreams.metrics import Metrics
from eventstreams.records import NewRecord
from eventstreams.subscribe.admission import Admission
from eventstreams.subscribe.endpoints import LOG_PATIENCE, GatewayOptions, StreamEndpoint
from eventstreams.subscribe.engine import Engine
from eventstreams.subscribe.handover import HandoverProtocol
from eventstreams.subscribe.options import EngineOptions
from tests.support.away import AwayLog

STREAMS = """
streams:
  edits: {topics: [a, b], stream_aliases: [changes]}
  quiet: {topics: [q]}
  missing: {topics: [nowhere]}
  half: {topics: [a, nowhere]}
  empty: {topics: []}
  /^regex/: {topics: [x]}
  deep: {topics: [d]}
"""
WIDE = [f"a.topic.of.some.length.{number}" for number in range(240)]


PATHS: dict[str, Any] = {"direct": HandoverProtocol, "portable": "h11"}
"""Each test of the gateway runs over both ways of delivery."""


class Running(NamedTuple):
    http: httpx.AsyncClient
    log: EmbeddedLog
    admission: Admission
    catalog: StreamCatalog
    away: AwayLog
    """The same log as the gateway sees it."""


@asynccontextmanager
async def serving(tmp_path: Path, path: str) -> AsyncIterator[Running]:
    (tmp_path / "streams.yaml").write_text(f"{STREAMS}  wide: {{topics: {json.dumps(WIDE)}}}\n")
    catalog = load_catalog(str(tmp_path / "streams.yaml"))
    metrics = Metrics()
    admission = Admission(metrics, per_client=20)
    async with open_embedded(":memory:") as log:
        for topic in "abq":
            await log.create_topic(topic)
        away = AwayLog(log)
        async with Engine(away, EngineOptions(), metrics).open() as engine:
            app = build_gateway(StreamEndpoint(engine, catalog, admission, GatewayOptions()))
            listener = socket.create_server(("127.0.0.1", 0))
            config = uvicorn.Config(
                app, http=PATHS[path], ws="none", log_config=None, server_header=False, lifespan="off"
            )
            server = uvicorn.Server(config)
            serving_task = asyncio.create_task(server._serve([listener]))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            try:
                async with httpx.AsyncClient(base_url=url, timeout=30.0) as http:
                    yield Running(http, log, admission, catalog, away)
            finally:
                server.should_exit = True
                await serving_task


@pytest.fixture(params=PATHS)
async def gateway(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    async with serving(tmp_path, request.param) as running:
        yield running


async def add(log: EmbeddedLog, topic: str, *timestamps: int) -> None:
    await log.append([NewRecord(topic, b'{"ts":%d,"meta":{"stream":"edits"}}' % ts, None, ts) for ts in timestamps])


class Reply(NamedTuple):
    headers: httpx.Headers
    events: list[dict[str, Any]]
    last_id: str


async def subscribe(gateway: Running, path: str, count: int, **headers: str) -> Reply:
    """Read `count` events of a stream, then hang up."""
    events: list[dict[str, Any]] = []
    last_id = ""
    async with gateway.http.stream("GET", path, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if line.startswith("id: "):
                last_id = line[4:]
            if line.startswith("data: "):
                events.append(json.loads(line[6:]))
            if len(events) == count:
                break
        return Reply(response.headers, events, last_id)


async def test_replay_from_a_time_comes_as_the_contract_says(gateway: Running) -> None:
    await add(gateway.log, "a", 1000, 2000, 3000)
    reply = await subscribe(gateway, "/v2/stream/edits?since=2000", 2, Accept="text/event-stream")
    assert reply.events[0] == {
        "ts": 2000,
        "meta": {"stream": "edits", "topic": "a", "partition": 0, "offset": 1},
    }
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers.get_list("cache-control") == ["no-cache, no-transform", "no-cache"]
    assert reply.headers["access-control-allow-origin"] == "*"
    assert reply.headers.get_list("connection") == ["keep-alive"]
    assert reply.headers.get_list("x-accel-buffering") == ["no"]
    assert [(e["topic"], e["partition"], e["offset"]) for e in json.loads(reply.last_id)] == [("a", 0, 3), ("b", 0, 0)]


async def test_id_of_hundreds_of_topics_is_taken_back(gateway: Running) -> None:
    for topic in WIDE:
        await gateway.log.create_topic(topic)
    await add(gateway.log, WIDE[7], 1000, 2000)
    await add(gateway.log, WIDE[200], 3000)
    first = await subscribe(gateway, "/v2/stream/wide?since=500", 2)
    assert len(first.last_id) < 8000
    (given,) = json.loads(first.last_id)
    assert given["cluster"] == gateway.log.cluster
    rest = await subscribe(gateway, "/v2/stream/wide", 1, **{"Last-Event-ID": first.last_id})
    seen = [event["ts"] for event in (*first.events, *rest.events)]
    assert sorted(seen) == [1000, 2000, 3000]
    lost = await gateway.http.get("/v2/stream/edits", headers={"Last-Event-ID": first.last_id})
    assert lost.status_code == 404
    assert lost.json()["name"] == "TopicNotAvailableError"


async def test_subscription_whose_ids_would_be_too_long_is_refused_before_it_starts(gateway: Running) -> None:
    await gateway.log.create_topic("d", 900)
    assert (await gateway.http.head("/v2/stream/deep")).status_code == 200
    await gateway.log.create_topic("d", 1500)
    assert (await gateway.http.head("/v2/stream/deep")).status_code == 400
    assert "1500 partitions" in (await gateway.http.get("/v2/stream/deep")).json()["detail"]
    # There are no ids in this form.
    assert (await gateway.http.head("/v2/stream/deep", headers={"Accept": "application/json"})).status_code == 200


@pytest.mark.parametrize("name", ["lastEventId", "Last-Event-ID", "last-event-id"])
async def test_id_in_the_query_is_taken_where_there_is_no_header(gateway: Running, name: str) -> None:
    await add(gateway.log, "a", 1000, 2000, 3000)
    first = await subscribe(gateway, "/v2/stream/edits?since=0", 1)
    query = httpx.QueryParams({name: first.last_id, "since": "0"})
    assert (await subscribe(gateway, f"/v2/stream/edits?{query}", 1)).events[0]["ts"] == 2000
    second = await subscribe(gateway, "/v2/stream/edits?since=0", 2)
    header = {"Last-Event-ID": second.last_id}
    assert (await subscribe(gateway, f"/v2/stream/edits?{query}", 1, **header)).events[0]["ts"] == 3000
    assert (await subscribe(gateway, f"/v2/stream/edits?since=0&{name}=", 1)).events[0]["ts"] == 1000
    refused = await gateway.http.get(f"/v2/stream/edits?{name}=[")
    assert refused.json()["name"] == "InvalidAssignmentError"


@pytest.mark.parametrize(
    ("accept", "json_lines"),
    [
        ("application/json", True),
        ("application/jsonl", True),
        ("application/json, text/plain, */*", True),
        ("application/json, text/event-stream;q=0.9", True),
        ("text/html, application/json;q=0.9, */*;q=0.8", True),
        ("application/json, text/event-stream", False),
        ("text/event-stream, application/json", False),
        ("application/json;q=0.9, text/event-stream", False),
        ("application/json;q=0.5, */*", False),
        ("application/json;q=0", False),
        ("application/json;q=x", False),
        ("*/*", False),
        ("", False),
    ],
)
async def test_form_is_the_one_that_accept_gives_more_weight(gateway: Running, accept: str, json_lines: bool) -> None:
    answer = await gateway.http.head("/v2/stream/edits", headers={"Accept": accept})
    assert answer.headers["content-type"].startswith("application/json" if json_lines else "text/event-stream")


async def test_preflight_allows_the_header_fields_that_it_asks_for(gateway: Running) -> None:
    asked = {
        "Origin": "https://tool.example",
        "Access-Control-Request-Headers": "cache-control,authorization,X-A b,x-c",
    }
    for path in ("/v2/stream/edits", "/_info"):
        answer = await gateway.http.options(path, headers=asked)
        assert answer.status_code == 200
        allowed = answer.headers["access-control-allow-headers"].split(", ")
        always = ["accept", "x-requested-with", "content-type", "last-event-id"]
        assert allowed == [*always, "cache-control", "authorization", "x-c"]
        assert "access-control-request-headers" in answer.headers["vary"].lower()


async def test_trailing_comma_names_the_empty_stream(gateway: Running) -> None:
    for path in ("edits,", ",edits", "edits,,quiet", "edits%2C"):
        detail = (await gateway.http.get(f"/v2/stream/{path}")).json()["detail"]
        assert detail == "Invalid streams: '' ('' is an empty name: there is a comma too many)"


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_event_with_unicode_s_line_ends_is_one_line_to_a_library(gateway: Running, accept: str) -> None:
    text = "a\x85b\u2028c\u2029d"
    await gateway.log.append([NewRecord("a", json.dumps({"t": text}, ensure_ascii=False).encode(), None, 1000)])
    async with gateway.http.stream("GET", "/v2/stream/edits?since=0", headers={"Accept": accept}) as response:
        async for line in response.aiter_lines():
            if "{" in line and not line.startswith("id"):
                assert json.loads(line.removeprefix("data: "))["t"] == text
                break


async def test_json_lines_when_accept_begins_with_application_json(gateway: Running) -> None:
    await add(gateway.log, "a", 1000)
    url = "/v2/stream/edits?since=0"
    async with gateway.http.stream("GET", url, headers={"Accept": "application/json"}) as response:
        assert response.headers["content-type"] == "application/json; charset=utf-8"
        async for line in response.aiter_lines():
            if line:
                assert json.loads(line)["ts"] == 1000
                break


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/v2/stream/nope,edits,x", 400, {"type": "not_found", "detail": "Invalid streams: nope,x"}),
        ("/V2/Stream/Edits/", 400, {"title": "Stream Not Found", "uri": "/V2/Stream/Edits/"}),
        ("/v2/stream/empty", 400, {"name": "InvalidAssignmentError", "assignments": []}),
        ("/v2/stream/%2F%5Eregex%2F", 400, {"detail": "Invalid streams: /^regex/"}),
        ("/v2/stream/edits?since=abc", 400, {"type": "invalid_timestamp", "uri": "/v2/stream/edits?since=abc"}),
        ("/v2/stream/edits?positions=maybe", 400, {"type": "bad_request"}),
        ("/v2/stream/edits?filter=event.x%20%3D%3D", 400, {"type": "invalid_filter"}),
        ("/v2/stream/edits?filter=", 400, {"type": "invalid_filter"}),
        ("/v2/stream/%E0%A4%A", 400, {"type": "bad_request"}),
        ("/v2/stream/missing", 500, {"name": "ConfigurationError", "allowedTopics": ["nowhere"]}),
        ("/v2/stream/half", 404, {"name": "TopicNotAvailableError", "availableTopics": ["a"]}),
    ],
)
async def test_errors_before_the_first_byte_are_statuses(
    gateway: Running, path: str, status: int, body: dict[str, object]
) -> None:
    response = await gateway.http.get(path)
    assert response.status_code == status
    answer = response.json()
    assert {name: answer.get(name) for name in body} == body
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_connections_over_the_limit_are_refused_and_places_come_back(gateway: Running) -> None:
    with ExitStack() as others:
        for _ in range(20):
            others.enter_context(gateway.admission.enter("127.0.0.1"))
        response = await gateway.http.get("/v2/stream/quiet")
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) >= 1
        assert gateway.admission.count == 20
    assert (await gateway.http.head("/v2/stream/quiet")).status_code == 200


async def test_head_answers_at_once_and_counts_nothing(gateway: Running) -> None:
    response = await gateway.http.head("/v2/stream/quiet")
    assert (response.status_code, gateway.admission.count) == (200, 0)
    assert "content-length" not in response.headers
    assert (await gateway.http.get("/_info/name")).json() == {"name": "eventstreams"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/robots.txt", 200),
        ("GET", "/_info", 200),
        ("GET", "/_info/version", 200),
        ("GET", "/_info/zzz", 404),
        ("GET", "/rc", 301),
        ("POST", "/v2/stream/quiet", 404),
        ("GET", "/v2/stream/quiet/more", 404),
        ("OPTIONS", "/v2/stream/quiet", 200),
    ],
)
async def test_other_routes(gateway: Running, method: str, path: str, status: int) -> None:
    assert (await gateway.http.request(method, path)).status_code == status


async def rest(response: httpx.Response) -> str:
    async with asyncio.timeout(20):
        return "".join([text async for text in response.aiter_text()])


async def test_open_streams_end_when_theirs_is_removed_and_others_stay(gateway: Running) -> None:
    http, streams = gateway.http, gateway.catalog.all()
    lines = {"accept": "application/json"}
    async with (
        http.stream("GET", "/v2/stream/changes,quiet") as composite,
        http.stream("GET", "/v2/stream/changes", headers=lines) as json_lines,
        http.stream("GET", "/v2/stream/quiet?since=0") as other,
    ):
        gateway.catalog.swap([stream for stream in streams if stream.name != "changes"])
        ended = await rest(composite)
        assert "event: error\n" in ended
        assert '"message":"Invalid streams: changes"' in ended
        assert "Invalid streams: changes" in await rest(json_lines)
        assert (await http.get("/v2/stream/changes")).status_code == 400
        await add(gateway.log, "q", 5)
        assert [line async for line in first_lines(other, 8) if line.startswith("data: ")] != []
    assert (await http.head("/v2/stream/edits")).status_code == 200


async def first_lines(response: httpx.Response, count: int) -> AsyncIterator[str]:
    async for line in response.aiter_lines():
        yield line
        count -= 1
        if not count:
            return


async def test_clients_of_a_stream_that_lost_a_topic_come_back_without_it(gateway: Running) -> None:
    await add(gateway.log, "a", 1)
    await add(gateway.log, "b", 1)
    streams = [stream for stream in gateway.catalog.all() if stream.name != "edits"]
    edits = gateway.catalog.public("edits")
    assert edits is not None
    async with gateway.http.stream("GET", "/v2/stream/edits?since=0") as response:
        gateway.catalog.swap([*streams, replace(edits, topics=("a", "b", "q"))])
        gateway.catalog.swap([*streams, replace(edits, topics=("a",))])
        text = await rest(response)
    assert "\nretry: " in text
    assert "event: error" not in text
    last = next(line[4:] for line in reversed(text.splitlines()) if line.startswith("id: "))
    assert [entry["topic"] for entry in json.loads(last)] == ["a", "b"]
    await add(gateway.log, "b", 2)
    await add(gateway.log, "a", 2)
    reply = await subscribe(gateway, "/v2/stream/edits", 1, **{"Last-Event-ID": last})
    assert (reply.events[0]["meta"]["topic"], [entry["topic"] for entry in json.loads(reply.last_id)]) == ("a", ["a"])


# -- admission


async def test_client_over_its_limit_is_refused_before_its_request_is_read(gateway: Running) -> None:
    with ExitStack() as others:
        for _ in range(20):
            others.enter_context(gateway.admission.enter("127.0.0.1"))
        answer = await gateway.http.get("/v2/stream/nope")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "30")
        headers = {"accept": "text/event-stream", "origin": "https://wiki.example"}
        answer = await gateway.http.get("/v2/stream/edits", headers=headers)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        comment, retry, error, _ = answer.text.split("\n\n")
        assert comment == ":ok"
        assert 20_000 <= int(retry.removeprefix("retry: ")) <= 60_000
        kind, data = error.split("\n")
        assert kind == "event: error"
        assert json.loads(data.removeprefix("data: "))["status"] == 429


async def test_draining_gateway_refuses_new_streams(gateway: Running) -> None:
    gateway.admission.drain()
    answer = await gateway.http.get("/v2/stream/edits")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


async def test_drain_answers_those_who_wait_for_the_log(gateway: Running) -> None:
    gateway.away.hangs = True
    waiting = asyncio.create_task(gateway.http.get("/v2/stream/edits"))
    async with asyncio.timeout(20):
        while not gateway.admission.count:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    gateway.admission.drain()
    answer = await waiting
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.elapsed.total_seconds() < LOG_PATIENCE
    assert gateway.admission.count == 0


async def test_while_the_log_is_away_clients_are_told_to_come_back(gateway: Running) -> None:
    gateway.away.away = True
    response = await gateway.http.get("/v2/stream/edits")
    assert (response.status_code, response.json()["type"]) == (503, "log_unavailable")
    assert int(response.headers["retry-after"]) >= 1
    for sign in ({"sec-fetch-mode": "cors"}, {"origin": "https://wiki.example"}, {"user-agent": "Mozilla/5.0 (X11)"}):
        response = await gateway.http.get("/v2/stream/edits", headers={"accept": "text/event-stream", **sign})
        assert response.status_code == 200
        assert response.text.startswith(":ok\n\nretry: ")
        assert "event: error\n" in response.text
        assert "no-transform" in response.headers["cache-control"]
    assert (await gateway.http.get("/v2/stream/edits", headers={"Last-Event-ID": "x"})).status_code == 400
    assert gateway.admission.count == 0
    gateway.away.away = False
    assert (await gateway.http.head("/v2/stream/edits")).status_code == 200


async def test_topic_that_the_log_forgets_for_a_moment_is_no_error_of_ours(gateway: Running) -> None:
    gateway.away.forgets = True
    response = await gateway.http.get("/v2/stream/edits")
    assert (response.status_code, response.json()["type"]) == (503, "log_unavailable")
    assert "unknown topic or partition" in response.json()["detail"]
    assert gateway.admission.count == 0


async def test_failed_requests_leave_the_count_as_it_is(gateway: Running) -> None:
    with ExitStack() as others:
        for _ in range(19):
            others.enter_context(gateway.admission.enter("127.0.0.1"))
        for path, header in (("nope", "[]"), ("edits", "x"), ("edits", '["q"]'), ("missing", '["nowhere"]')):
            response = await gateway.http.get(f"/v2/stream/{path}", headers={"Last-Event-ID": header})
            assert response.status_code in (400, 404, 500)
        assert (await gateway.http.head("/v2/stream/quiet")).status_code == 200
        with gateway.admission.enter("127.0.0.1"):
            assert (await gateway.http.get("/v2/stream/quiet")).status_code == 429
        assert gateway.admission.count == 19


async def test_offsets_counted_from_the_end_start_there(gateway: Running) -> None:
    await add(gateway.log, "a", *range(1000, 1010))
    for offset, first in ((-2003, 1007), (-2, 1000), (-5000, 1000)):
        header = json.dumps([{"topic": "a", "partition": 0, "offset": offset}])
        reply = await subscribe(gateway, "/v2/stream/edits", 1, **{"Last-Event-ID": header})
        assert reply.events[0]["ts"] == first


# -- filters


async def test_filtered_stream_sends_matching_events_and_resumes_past_the_others(gateway: Running) -> None:
    await add(gateway.log, "a", *range(1000, 1050))
    url = "/v2/stream/edits?since=0&filter=event.ts%20%3E%3D%201040&filter=event.ts%20!%3D%201041&filter_check=off"
    first = await subscribe(gateway, url, 2)
    assert [event["ts"] for event in first.events] == [1040, 1042]
    rest = await subscribe(gateway, url.replace("since=0&", ""), 2, **{"Last-Event-ID": first.last_id})
    assert [event["ts"] for event in rest.events] == [1043, 1044]


async def test_filter_holds_for_live_events_and_json_lines(gateway: Running) -> None:
    url = "/v2/stream/edits?filter=event.meta.topic%20%3D%3D%20%22b%22"
    async with gateway.http.stream("GET", url, headers={"Accept": "application/json"}) as response:
        await add(gateway.log, "a", 1)
        await add(gateway.log, "b", 2)
        lines = (json.loads(line) async for line in response.aiter_lines() if line)
        assert [(await anext(lines))["ts"]] == [2]


async def test_position_moves_past_what_was_filtered_out(gateway: Running) -> None:
    await add(gateway.log, "a", *range(1000, 1100))
    url = "/v2/stream/edits?since=0&filter=false"
    async with gateway.http.stream("GET", url) as response:
        async for line in response.aiter_lines():
            if line.startswith("id: ") and '"topic":"a","partition":0' in line and '"offset":100' in line:
                break


async def test_bad_filter_is_answered_with_place_and_value(gateway: Running) -> None:
    answer = await gateway.http.get("/v2/stream/edits", params={"filter": 'event.a.matches("(")'})
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("filter 'event.a.matches(\"(\")': line 1, column 17: ")
