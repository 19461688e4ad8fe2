"""Behind real proxies, configured as docs/proxies.md says."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import statistics
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import orjson
import pytest

from eventstreams.eventlog.embedded.log import EmbeddedLog, open_embedded
from eventstreams.records import NewRecord
from tests.support.kafka import free_port
from tests.support.processes import GatewayProcess, IntakeProcess
from tests.support.proxies import PROXIES, Upstream, configured, standing_before
from tests.support.topics import make_topics

pytestmark = pytest.mark.proxy

each_proxy = pytest.mark.parametrize("proxy", PROXIES, indirect=True)

READ_TIMEOUT = 3
"""Seconds, in place of the hour: less than a stream is idle here, more than a heartbeat and a second."""

LONG = 14_000
"""Bytes of an id over some hundred partitions: more than proxies take by default, less than the gateway does."""

SOON = 0.1
"""Seconds of an event's way: HAProxy without http-no-delay takes 0.2."""

COMPRESSING = (
    "    balance leastconn\n",
    "    compression algo gzip\n    compression type application/json text/event-stream\n",
)
"""The line of HAProxy's configuration behind which stands what has it compress, and that."""


class Behind(NamedTuple):
    proxy: str
    base: str
    log: EmbeddedLog
    gateway: GatewayProcess

    @property
    def url(self) -> str:
        return f"{self.base}/v2/stream/edits"

    async def add(self, *numbers: int) -> None:
        await self.log.append([NewRecord("a", b'{"n":%d}' % n) for n in numbers])


@pytest.fixture
async def behind(tmp_path: Path, proxy: str) -> AsyncIterator[Behind]:
    """A gateway of which each client may have two streams, behind the proxy."""
    async with standing(tmp_path, proxy) as behind:
        yield behind


@asynccontextmanager
async def standing(folder: Path, proxy: str, more: tuple[str, str] | None = None) -> AsyncIterator[Behind]:
    """Run a gateway behind a proxy; `more`: a line of its configuration, and what to put behind it."""
    (folder / "streams.yaml").write_text("streams: {edits: {topics: [a]}}")
    path, port = folder / "events.db", free_port()
    settings = ("gateway.heartbeat=0.5", "gateway.connections_per_client=2", "gateway.client_address=forwarded")
    own = (f"gateway.port={free_port()}", "trusted_proxies=127.0.0.1", "log_level=error")
    gateway = GatewayProcess(f"embedded:{path}", folder / "streams.yaml", *settings, *own)
    async with open_embedded(str(path)) as log:
        await log.create_topic("a")
        async with gateway.running():
            text = configured(proxy, port, [upstream(gateway)])
            text = text.replace(" 1h", f" {READ_TIMEOUT}s").replace("timeout=3600", f"timeout={READ_TIMEOUT}")
            if more is not None:
                assert more[0] in text
                text = text.replace(more[0], "".join(more))
            async with standing_before(proxy, text, port):
                yield Behind(proxy, f"http://127.0.0.1:{port}", log, gateway)


def upstream(gateway: GatewayProcess) -> Upstream:
    return Upstream("{}:{}".format(*gateway.address), gateway.admin_port)


class Stream:
    """One client's stream: numbers of events and the last id."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()
        self.headers = response.headers
        self.last_id = ""
        self.lines: list[str] = []

    async def number(self) -> int:
        async with asyncio.timeout(15):
            async for line in self._lines:
                self._note(line)
                if line.startswith("data: "):
                    return int(json.loads(line[6:])["n"])
        raise AssertionError(f"the stream ended: {self.lines[-5:]}")

    async def rest(self) -> None:
        async with asyncio.timeout(15):
            async for line in self._lines:
                self._note(line)

    async def first_id(self) -> None:
        async with asyncio.timeout(15):
            async for line in self._lines:
                self._note(line)
                if self.last_id:
                    return

    def _note(self, line: str) -> None:
        self.lines.append(line)
        if line.startswith("id: "):
            self.last_id = line[4:]


@asynccontextmanager
async def stream(behind: Behind, last_id: str = "", source: str = "127.0.0.1") -> AsyncIterator[Stream]:
    transport = httpx.AsyncHTTPTransport(local_address=source)
    async with httpx.AsyncClient(transport=transport, timeout=30) as http:
        headers = {"user-agent": "test"} | ({"last-event-id": last_id} if last_id else {})
        async with http.stream("GET", behind.url, headers=headers) as response:
            assert response.status_code == 200, await response.aread()
            opened = Stream(response)
            await opened.first_id()
            yield opened


@each_proxy
async def test_events_come_at_once_idle_streams_live_on_and_resume_is_exact(behind: Behind) -> None:
    async with stream(behind) as live:
        took = []
        for n in range(20):
            began = time.monotonic()
            await behind.add(n)
            # The next is not added before this one came: nothing on the way waits for more.
            assert await live.number() == n
            took.append(time.monotonic() - began)
        assert statistics.median(took) < SOON
        await asyncio.sleep(READ_TIMEOUT + 1.5)  # idle for longer than the proxy waits for a byte
        await behind.add(20)
        assert await live.number() == 20
    await behind.add(21, 22)
    async with stream(behind, live.last_id) as again:
        assert [await again.number(), await again.number()] == [21, 22]


@each_proxy
async def test_clients_behind_the_proxy_are_counted_each_by_itself(behind: Behind) -> None:
    async with (
        stream(behind),
        stream(behind),
        stream(behind, source="127.0.0.2"),
        httpx.AsyncClient(timeout=30) as http,
    ):
        # What a client says of itself is not believed: the proxy sets the header.
        answer = await http.get(behind.url, headers={"x-client-ip": "10.9.9.9", "x-forwarded-for": "10.9.9.9"})
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1


@each_proxy
async def test_drain_reaches_clients_through_the_proxy(behind: Behind) -> None:
    async with stream(behind) as live:
        await behind.add(1)
        assert await live.number() == 1
        assert await behind.gateway.end(signal.SIGTERM) == 0
        await live.rest()
        assert re.fullmatch(r"retry: \d+", live.lines[-3])
        assert json.loads(live.last_id)[0]["offset"] == 1


@each_proxy
async def test_long_last_event_id_passes_and_one_that_is_too_long_is_the_gateway_s_to_refuse(behind: Behind) -> None:
    await behind.add(5, 6, 7)
    entry = '{"topic":"a","partition":0,"offset":2}'
    async with stream(behind, f"[{entry}{' ' * (LONG - len(entry))}]") as again:
        assert await again.number() == 7
    async with httpx.AsyncClient(timeout=30) as http:
        answer = await http.get(behind.url, headers={"last-event-id": "x" * 17_000})
        assert (answer.status_code, answer.content) == (431, b"")


@each_proxy
async def test_absent_gateway_is_a_stream_that_says_when_to_come_back_and_503_to_others(behind: Behind) -> None:
    async with new_connections() as http:
        assert await behind.gateway.end(signal.SIGKILL) != 0
        await says_come_back(http, behind.url)
        answer = await http.get(behind.url)
        assert answer.status_code == 503
        assert not answer.headers["content-type"].startswith("text/event-stream")
        assert behind.proxy == "apache" or answer.headers["retry-after"] == "5"
        await behind.gateway.start()
        await opens(http, behind.url)
        # What the gateway itself refuses goes through as it is.
        answer = await http.get(f"{behind.base}/v2/stream/nope", headers=EVENTS)
        assert (answer.status_code, answer.json()["detail"]) == (400, "Invalid streams: nope")


EVENTS = {"accept": "text/event-stream", "origin": "https://wiki.example"}


def new_connections() -> httpx.AsyncClient:
    """A client with a connection for each request: what is asked by who was there before may be closed for a retry."""
    return httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_keepalive_connections=0))


async def says_come_back(http: httpx.AsyncClient, url: str) -> None:
    """Ask as browsers do until there is no gateway, then see what they are told."""
    told = set()
    for _ in range(20):
        answer = await http.get(url, headers=EVENTS)
        assert answer.status_code == 200
        assert answer.headers["content-type"].partition(";")[0] == "text/event-stream"
        assert answer.headers["access-control-allow-origin"] in ("*", EVENTS["origin"])
        found = re.fullmatch(r"retry: (\d+)\n\n", answer.text)
        assert found is not None, answer.text
        assert 3000 <= int(found[1]) <= 7000
        told.add(int(found[1]))
    assert len(told) > 1 or "Apache" in answer.headers["server"]


async def opens(http: httpx.AsyncClient, url: str) -> None:
    """Wait until the proxy has found the gateway again."""
    async with asyncio.timeout(20):
        while True:
            async with http.stream("GET", url, headers=EVENTS) as answer:
                assert answer.status_code == 200
                async for line in answer.aiter_lines():
                    if line == ":ok":
                        return
            await asyncio.sleep(0.05)


@each_proxy
async def test_gateway_that_hangs_up_is_an_absent_one(tmp_path: Path, proxy: str) -> None:
    """As a process does that dies with a request in its hands: proxies call that 502."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server, new_connections() as http:
        address = server.sockets[0].getsockname()
        port = free_port()
        text = configured(proxy, port, [Upstream("{}:{}".format(*address), address[1])])
        async with standing_before(proxy, text, port):
            await says_come_back(http, f"http://127.0.0.1:{port}/v2/stream/edits")
            answer = await http.get(f"http://127.0.0.1:{port}/v2/stream/edits")
            assert answer.status_code in (502, 503)


@pytest.mark.parametrize("proxy", ["haproxy"], indirect=True)
async def test_compression_keeps_no_event_back(tmp_path: Path, proxy: str) -> None:
    async with standing(tmp_path, proxy, COMPRESSING) as behind:
        async with httpx.AsyncClient(timeout=30) as http:
            assert (await http.get(f"{behind.base}/?spec")).headers["content-encoding"] == "gzip"
        async with stream(behind) as live:
            assert "content-encoding" not in live.headers
            for n in range(5):
                await behind.add(n)
                assert await live.number() == n


@each_proxy
async def test_large_bodies_reach_intake_and_it_says_itself_what_is_too_large(tmp_path: Path, proxy: str) -> None:
    intake = IntakeProcess(await make_topics(tmp_path / "events.db", "test.event"), "log_level=error")
    port = free_port()
    async with intake.running(), httpx.AsyncClient(timeout=60, base_url=f"http://127.0.0.1:{port}") as http:
        text = configured(proxy, port, [Upstream("127.0.0.1:9", 9)], "{}:{}".format(*intake.address))
        async with standing_before(proxy, text, port):
            answer = await http.post("/v1/events", json=[event("x" * 1000) for _ in range(2000)])
            assert (answer.status_code, answer.content) == (201, b"")
            answer = await http.post("/v1/events", content=b"[" * 11_000_000, headers=JSON)
            assert answer.status_code == 413
            assert answer.json()["error"][0]["status"] == "error"
            assert "at most 10485760 are taken" in orjson.dumps(answer.json()).decode()


JSON = {"content-type": "application/json"}


def event(text: str) -> Mapping[str, object]:
    return {"$schema": "/test/event/1.0.0", "meta": {"stream": "test.event"}, "test": text}


@each_proxy
async def test_of_two_gateways_the_other_one_goes_on(tmp_path: Path, proxy: str) -> None:
    (tmp_path / "streams.yaml").write_text("streams: {edits: {topics: [a]}}")
    path, port = tmp_path / "events.db", free_port()
    async with open_embedded(str(path)) as log, AsyncExitStack() as stack:
        await log.create_topic("a")
        gateways = [GatewayProcess(f"embedded:{path}", tmp_path / "streams.yaml", "log_level=error") for _ in range(2)]
        for gateway in gateways:
            await stack.enter_async_context(gateway.running())
        text = configured(proxy, port, list(map(upstream, gateways)))
        await stack.enter_async_context(standing_before(proxy, text, port))
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=30))
        await gateways[0].end(signal.SIGKILL)
        for _ in range(6):
            async with http.stream("GET", f"http://127.0.0.1:{port}/v2/stream/edits") as answer:
                assert answer.status_code == 200
