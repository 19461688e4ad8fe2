"""Behind a real nginx and a real HAProxy, configured as docs/operations.md says."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from eventstreams.eventlog.embedded.log import EmbeddedLog, open_embedded
from eventstreams.records import NewRecord
from tests.support.kafka import free_port
from tests.support.processes import ROOT, GatewayProcess

pytestmark = [pytest.mark.proxy, pytest.mark.parametrize("proxy_program", ["nginx", "haproxy"], indirect=True)]

READ_TIMEOUT = 3
"""Seconds, in place of the hour: less than a stream is idle here, more than a heartbeat and a second."""

AROUND_NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{ access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
uwsgi_temp_path {folder}; scgi_temp_path {folder};
{snippet} }}
"""


def snippet(title: str) -> str:
    """Return the configuration below this title in the documentation."""
    found = re.search(
        rf"^    # {title}\n((?:    .*\n|\n)+?)\n(?!    )", (ROOT / "docs/operations.md").read_text(), re.M
    )
    assert found is not None
    return textwrap.dedent(found[1]).split("\n# ")[0]


def configuration(program: str, folder: Path, port: int, gateway: GatewayProcess) -> list[str]:
    """Write the documented configuration for these ports; return the command."""
    nginx = program.endswith("nginx")
    text = snippet("nginx" if nginx else "HAProxy").replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    text = text.replace("127.0.0.1:8092", "{}:{}".format(*gateway.address)).replace(" 1h", f" {READ_TIMEOUT}s")
    path = folder / "proxy.conf"
    path.write_text(AROUND_NGINX.format(folder=folder, snippet=text) if nginx else text)
    return [program, "-p", str(folder), "-c", str(path)] if nginx else [program, "-f", str(path)]


class Behind(NamedTuple):
    url: str
    log: EmbeddedLog
    gateway: GatewayProcess

    async def add(self, *numbers: int) -> None:
        await self.log.append([NewRecord("a", b'{"n":%d}' % n) for n in numbers])


@pytest.fixture
async def behind(tmp_path: Path, proxy_program: str) -> AsyncIterator[Behind]:
    """A gateway of which each client may have two streams, behind the proxy."""
    (tmp_path / "streams.yaml").write_text("streams: {edits: {topics: [a]}}")
    path = tmp_path / "events.db"
    settings = ("gateway.heartbeat=0.5", "gateway.connections_per_client=2", "gateway.client_address=forwarded")
    gateway = GatewayProcess(
        f"embedded:{path}", tmp_path / "streams.yaml", "trusted_proxies=127.0.0.1", "log_level=error", *settings
    )
    async with open_embedded(str(path)) as log:
        await log.create_topic("a")
        async with gateway.running():
            port = free_port()
            command = configuration(proxy_program, tmp_path, port, gateway)
            proxy = await asyncio.create_subprocess_exec(*command)
            try:
                await answers(port)
                yield Behind(f"http://127.0.0.1:{port}/v2/stream/edits", log, gateway)
            finally:
                proxy.terminate()
                await proxy.wait()


async def answers(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return


class Stream:
    """One client's stream: numbers of events and the last id."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()
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


async def test_events_come_at_once_idle_streams_live_on_and_resume_is_exact(behind: Behind) -> None:
    async with stream(behind) as live:
        for n in range(5):
            await behind.add(n)
            # The next is not added before this one came: nothing on the way waits for more.
            assert await live.number() == n
        await asyncio.sleep(READ_TIMEOUT + 1.5)  # idle for longer than the proxy waits for a byte
        await behind.add(5)
        assert await live.number() == 5
    await behind.add(6, 7)
    async with stream(behind, live.last_id) as again:
        assert [await again.number(), await again.number()] == [6, 7]


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


async def test_drain_reaches_clients_through_the_proxy(behind: Behind) -> None:
    async with stream(behind) as live:
        await behind.add(1)
        assert await live.number() == 1
        assert await behind.gateway.end(signal.SIGTERM) == 0
        await live.rest()
        assert re.fullmatch(r"retry: \d+", live.lines[-3])
        assert json.loads(live.last_id)[0]["offset"] == 1
