"""A gateway below a path of a site, behind a real nginx with TLS and HTTP/2, in a real browser."""

from __future__ import annotations

import asyncio
import json
import re
import textwrap
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from eventstreams.eventlog.embedded.log import open_embedded
from eventstreams.records import NewRecord
from tests.conftest import missing_clients, missing_proxies
from tests.support import needed
from tests.support.kafka import free_port
from tests.support.processes import ROOT, CommandProcess, GatewayProcess, IntakeProcess
from tests.support.proxies import AROUND_NGINX
from tests.support.secured import make_certificates
from tests.support.topics import make_topics

pytestmark = pytest.mark.proxy

FORWARDED = re.compile(r" +proxy_set_header X-Forwarded-.*\n")


class Kind(NamedTuple):
    """How the service knows of its prefix, and whether the proxy takes it off."""

    told_by_proxy: bool
    taken_off: bool


KINDS = {
    "proxy tells": Kind(told_by_proxy=True, taken_off=True),
    "proxy tells and leaves it": Kind(told_by_proxy=True, taken_off=False),
    "setting tells": Kind(told_by_proxy=False, taken_off=True),
    "setting tells and proxy leaves it": Kind(told_by_proxy=False, taken_off=False),
}


@pytest.fixture
def nginx() -> str:
    """Where nginx is."""
    return needed.program("nginx", missing_proxies)


@pytest.fixture(scope="module")
def browser() -> Sequence[str]:
    """The command that tries pages in Chromium."""
    return needed.chromium("under_prefix", missing_clients)


def snippet() -> str:
    """Return the documented configuration."""
    text = (ROOT / "docs" / "proxies.md").read_text()
    found = re.search(r"^    # nginx, below a path\n((?:    .*\n|\n)+?)\n(?!    )", text, re.MULTILINE)
    assert found is not None
    return textwrap.dedent(found[1])


@asynccontextmanager
async def behind(nginx: str, folder: Path, kind: Kind, service: CommandProcess, port: int) -> AsyncIterator[str]:
    """Run the documented proxy before a service that runs; yields the root of the service."""
    certificates = make_certificates(folder / "certificates")
    text = snippet().replace("127.0.0.1:8443", f"127.0.0.1:{port}")
    text = text.replace("127.0.0.1:8092/", "{}:{}".format(*service.address) + ("/" if kind.taken_off else ""))
    text = re.sub(r"ssl_certificate /.*;", f"ssl_certificate {certificates.certificate};", text)
    text = re.sub(r"ssl_certificate_key /.*;", f"ssl_certificate_key {certificates.key};", text)
    if not kind.told_by_proxy:
        text = FORWARDED.sub("", text)
    path = folder / "nginx.conf"
    path.write_text(AROUND_NGINX.format(folder=folder, block=text))
    proxy = await asyncio.create_subprocess_exec(nginx, "-p", str(folder), "-c", str(path))
    try:
        await answers(port)
        yield f"https://127.0.0.1:{port}/events/"
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


def settings_of(name: str, kind: Kind, port: int) -> tuple[str, ...]:
    if kind.told_by_proxy:
        return ("trusted_proxies=127.0.0.1", "log_level=error")
    return (f"{name}.public_url=https://127.0.0.1:{port}/events/", "log_level=error")


async def gateway_of(folder: Path, kind: Kind, port: int) -> GatewayProcess:
    """Return a gateway with three events of a stream."""
    (folder / "streams.yaml").write_text("streams: {edits: {topics: [a]}}")
    path = folder / "events.db"
    async with open_embedded(str(path)) as log:
        await log.create_topic("a")
        await log.append([NewRecord("a", b'{"n":%d}' % n, None, 1000 + n) for n in range(3)])
    return GatewayProcess(f"embedded:{path}", folder / "streams.yaml", *settings_of("gateway", kind, port))


@pytest.mark.clients
@pytest.mark.parametrize("kind", KINDS)
async def test_browser_gets_pages_links_and_streams_below_a_path(
    nginx: str, browser: Sequence[str], tmp_path: Path, kind: str
) -> None:
    port = free_port()
    gateway = await gateway_of(tmp_path, KINDS[kind], port)
    async with gateway.running(), behind(nginx, tmp_path, KINDS[kind], gateway, port) as root:
        told = await needed.told_by(browser, root, str(tmp_path))
    front, listed, doc = told["front"], told["list"], told["doc"]
    assert (front["failed"], listed["failed"], doc["failed"]) == ([], [], [])
    assert front["url"] == f"{root}v2/ui/"
    assert front["protocol"] == "h2"
    assert [link for link in front["links"] if link.startswith(f"https://127.0.0.1:{port}")] == [
        f"{root}v2/stream/",
        f"{root}?doc",
        f"{root}?spec",
        f"{root}?asyncapi",
    ]
    assert front["statuses"] == [200] * 4
    assert front["events"] == [0, 1, 2]
    assert listed["links"] == [f"{root}v2/stream/edits"]
    assert doc["servers"] == [root.removesuffix("/")]
    assert doc["tried"] == {"url": f"{root}v2/stream/edits", "status": 200, "type": "application/json; charset=utf-8"}


@pytest.mark.parametrize("kind", KINDS)
async def test_machines_are_told_addresses_below_the_path(nginx: str, tmp_path: Path, kind: str) -> None:
    port = free_port()
    gateway = await gateway_of(tmp_path, KINDS[kind], port)
    async with (
        gateway.running(),
        behind(nginx, tmp_path, KINDS[kind], gateway, port) as root,
        httpx.AsyncClient(verify=False, base_url=root, timeout=30) as http,
    ):
        for path, place in (("", "/events/v2/ui"), ("v2/ui", "/events/v2/ui/"), ("rc", "/events/?doc")):
            moved = await http.get(path)
            assert (moved.is_redirect, moved.headers["location"]) == (True, place)
        document = (await http.get("?spec")).json()
        assert document["servers"] == [{"url": root.removesuffix("/")}]
        document = (await http.get("?asyncapi")).json()
        server = {"host": f"127.0.0.1:{port}", "protocol": "https", "pathname": "/events"}
        assert document["servers"] == {"public": server}
        (stream,) = (await http.get("v2/stream")).json()["streams"]
        assert stream["url"] == f"{root}v2/stream/edits"
        async with http.stream("GET", stream["url"] + "?since=1", headers={"accept": "application/json"}) as answer:
            lines = answer.aiter_lines()
            assert [json.loads(line)["n"] async for line in first(lines, 3)] == [0, 1, 2]


async def first(lines: AsyncIterator[str], count: int) -> AsyncIterator[str]:
    async with asyncio.timeout(30):
        async for line in lines:
            if line:
                yield line
                count -= 1
            if not count:
                return


@pytest.mark.parametrize("kind", KINDS)
async def test_intake_takes_events_and_is_described_below_the_path(nginx: str, tmp_path: Path, kind: str) -> None:
    port = free_port()
    log = await make_topics(tmp_path / "events.db", "test.event")
    intake = IntakeProcess(log, *settings_of("intake", KINDS[kind], port))
    event = {"$schema": "/test/event/1.0.0", "meta": {"stream": "test.event"}, "test": "hello"}
    async with (
        intake.running(),
        behind(nginx, tmp_path, KINDS[kind], intake, port) as root,
        httpx.AsyncClient(verify=False, base_url=root, timeout=30) as http,
    ):
        assert (await http.post("v1/events", json=event)).status_code == 201
        assert (await http.get("?spec")).json()["servers"] == [{"url": root.removesuffix("/")}]
        assert '<a href="?spec">' in (await http.get("?doc")).text
        assert (await http.get("v1/no/such")).status_code == 404
