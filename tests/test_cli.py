"""The command line as a user runs it."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sys
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-c", "from eventstreams.cli import main; main()"]


async def start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def url_of(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(30):
        async for line in process.stdout:
            found = re.search(rb"http://[\d.]+:\d+", line)
            if found:
                return found[0].decode()
    raise AssertionError("the command ended without a URL")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
async def test_dev_streams_live_and_old_events_and_stops_with_a_last_id(tmp_path: Path, stop: signal.Signals) -> None:
    log = f"log=embedded:{tmp_path / 'events.db'}"
    process = await start("dev", "--rate", "100", "--set", log, "--set", "gateway.port=0")
    url = await url_of(process)
    lines: list[str] = []
    async with (
        httpx.AsyncClient(timeout=30) as http,
        http.stream("GET", f"{url}/v2/stream/recentchange?since=0") as response,
    ):
        async for line in response.aiter_lines():
            lines.append(line)
            if len([line for line in lines if line.startswith("data: ")]) == 850:
                process.send_signal(stop)
    await asyncio.wait_for(process.wait(), 30)
    assert lines[0] == ":ok"
    assert any(re.fullmatch(r"retry: \d+", line) for line in lines)
    assert json.loads([line for line in lines if line.startswith("id: ")][-1][4:])[0]["offset"] >= 850


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "log=redis://x"], "log 'redis://x': expected embedded:PATH"),
        (["--set", "log=embedded::memory:", "--set", "streams=nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["--config", "nowhere.yaml"], "settings file nowhere.yaml cannot be read"),
    ],
)
async def test_configuration_errors_are_one_sentence(arguments: list[str], message: str) -> None:
    process = await start("serve", *arguments)
    _, error = await process.communicate()
    assert process.returncode == 2
    assert message in error.decode()
    assert "Traceback" not in error.decode()


async def test_port_in_use_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await start("serve", "--set", "log=embedded::memory:", "--set", f"gateway.port={port}")
        _, error = await process.communicate()
    assert error.decode() == f"eventstreams: cannot listen on 127.0.0.1 port {port}: Address already in use\n"
