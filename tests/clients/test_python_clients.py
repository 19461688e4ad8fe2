"""Python's SSE clients and curl, each through its own API, across a connection that is cut in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import venv
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from eventstreams.eventlog.embedded.log import EmbeddedLog, open_embedded
from eventstreams.records import NewRecord
from tests.support.processes import GatewayProcess

pytestmark = pytest.mark.clients

needs_curl = pytest.mark.skipif(
    shutil.which("curl") is None and not os.environ.get("CI"), reason="curl is not installed: its tests are left out"
)

HERE = Path(__file__).parent
CUT_AFTER = 30_000
"""Bytes of the first connection: past the event of 16 KB, within the one of 300 KB."""

SIZES = {2: 16 * 1024, 4: 300 * 1024}
REPLAYED, LIVE = 8, 4
CLIENTS = ("httpx_sse", "requests_sse", "sseclient_py", "pywikibot")


@pytest.fixture(scope="session")
def client_python() -> Path:
    """A Python with the clients, in a cache folder outside the tree; made again when their versions change."""
    requirements = HERE / "requirements.txt"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eventstreams-clients"
    folder = cache / f"python-{sha256(requirements.read_bytes()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", requirements], check=True, timeout=110)
        (folder / "installed").touch()
    return python


async def add(log: EmbeddedLog, numbers: range) -> None:
    await log.append([NewRecord("edits", event(number), None, 1000 + number) for number in numbers])


def event(number: int) -> bytes:
    return json.dumps({"n": number, "meta": {"stream": "edits"}, "padding": "x" * SIZES.get(number, 10)}).encode()


class Cutter:
    """A port before the gateway: the first connection is cut after some bytes of the answer, the others are not."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        self.connections = 0
        self._upstream = upstream

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        left = CUT_AFTER if self.connections == 1 else 1 << 40
        from_gateway, to_gateway = await asyncio.open_connection(*self._upstream)
        asking = asyncio.create_task(self._ask(reader, to_gateway))
        try:
            while left and (piece := await from_gateway.read(min(left, 65536))):
                left -= len(piece)
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            pass  # The client went.
        finally:
            asking.cancel()
            to_gateway.close()
            writer.close()

    @staticmethod
    async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(65536):
                writer.write(piece)


@contextlib.asynccontextmanager
async def gateway(folder: Path) -> AsyncIterator[tuple[EmbeddedLog, Cutter, str]]:
    path, streams = folder / "events.db", folder / "streams.yaml"
    streams.write_text("streams: {edits: {topics: [edits]}}")
    async with open_embedded(str(path)) as log:
        await add(log, range(REPLAYED))
        async with GatewayProcess(f"embedded:{path}", streams, "gateway.heartbeat=0.2").running() as process:
            assert isinstance(process, GatewayProcess)
            cutter = Cutter(process.address)
            async with await asyncio.start_server(cutter.serve, "127.0.0.1", 0) as server:
                port = server.sockets[0].getsockname()[1]
                yield log, cutter, f"http://127.0.0.1:{port}/v2/stream/edits?since=1"


@contextlib.asynccontextmanager
async def driver(*command: str | Path) -> AsyncIterator[asyncio.StreamReader]:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, limit=1 << 20)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            yield process.stdout
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        await process.wait()


def numbers(line: bytes) -> Iterator[int]:
    """Yield the number of a printed message, none for what is no event of ours (an empty message)."""
    name, data = json.loads(line)
    if data:
        assert name == "message"
        yield json.loads(data)["n"]


@pytest.mark.parametrize("client", CLIENTS)
async def test_client_resumes_after_a_cut_without_loss(client: str, client_python: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    async with (
        gateway(tmp_path) as (log, cutter, url),
        driver(client_python, HERE / "drivers" / f"{client}_client.py", url) as output,
    ):
        while len(seen) < REPLAYED + LIVE:
            line = await output.readline()
            assert line, f"{client} ended after {seen}"
            seen += numbers(line)
            if len(seen) == REPLAYED:
                await add(log, range(REPLAYED, REPLAYED + LIVE))
        assert seen == list(range(REPLAYED + LIVE))
        assert cutter.connections > 1


@needs_curl
async def test_curl_prints_events_until_the_cut(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (_, _, url), driver("sh", HERE / "drivers" / "curl.sh", url) as output:
        cut = await output.read()
        assert cut.startswith(b":ok\n\nid: [")
        assert cut.count(b'data: {"n":') == 5


@needs_curl
async def test_curl_prints_heartbeats_of_a_quiet_stream(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (_, cutter, url):
        cutter.connections = 1
        async with driver("sh", HERE / "drivers" / "curl.sh", url) as output:
            await output.readuntil(b'data: {"n":7')
            await output.readuntil(b"\n:\n")
