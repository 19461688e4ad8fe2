"""How a gateway ends: every stream cleanly, each client with a time of its own to come back, newcomers refused."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from pathlib import Path

import pytest

from tests.support.drain import ask, drained, fill, stall
from tests.support.processes import GatewayProcess

CONNECTIONS = 150
WINDOW = 3.0
RETRY, SPREAD = 70, 5
"""Seconds; longer than refused browsers are told to wait anyway."""
FOR_THE_REST = 6.0
"""Seconds beyond the window for what a busy machine needs to end a process."""


@pytest.mark.parametrize("workers", [1, 2])
async def test_sigterm_ends_every_stream_cleanly_and_refuses_newcomers(tmp_path: Path, workers: int) -> None:
    settings = (f"gateway.drain_timeout={WINDOW}", f"gateway.retry={RETRY}", f"gateway.retry_spread={SPREAD}")
    ended = await drained(tmp_path, CONNECTIONS, *settings, workers=workers)
    assert ended.unclean == []
    assert ended.status == 0
    assert ended.seconds < WINDOW + FOR_THE_REST
    for retries in (ended.first_retries, ended.retries):
        assert len(retries) == CONNECTIONS
        assert all(1000 * RETRY <= retry <= 1000 * (RETRY + SPREAD) for retry in retries)
        assert max(retries) - min(retries) > 0.8 * 1000 * SPREAD
    head, _, body = ended.refused.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert re.search(rb"retry-after: \d", head)
    assert json.loads(body)["status"] == 503
    head, _, body = ended.browser.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    told = re.search(rb"retry: (\d+)\n", body)
    assert told is not None
    assert int(told[1]) >= 1000 * RETRY
    assert b"event: error\n" in body


@pytest.mark.parametrize("workers", [1, 2])
async def test_second_interrupt_ends_at_once(tmp_path: Path, workers: int) -> None:
    (tmp_path / "streams.yaml").write_text("streams: {edits: {topics: [a]}}")
    await fill(tmp_path / "events.db")
    given = (f"embedded:{tmp_path / 'events.db'}", tmp_path / "streams.yaml", "gateway.drain_timeout=60")
    gateway = GatewayProcess(*given, workers=workers)
    async with gateway.running():
        with await stall(gateway):
            began = time.monotonic()
            first = asyncio.create_task(gateway.end(signal.SIGINT))
            async with asyncio.timeout(10):
                while not (await ask(gateway, "", "HEAD")).startswith(b"HTTP/1.1 503 "):  # noqa: ASYNC110
                    await asyncio.sleep(0)
            await gateway.end(signal.SIGINT)
            await first
            assert time.monotonic() - began < 20
