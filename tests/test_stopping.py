"""`/readyz` turns balancers away from the first moment of an end, while what is open is still being settled."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.drain import fill, stall
from tests.support.processes import CommandProcess, GatewayProcess, IntakeProcess
from tests.support.topics import make_topics

Busy = Callable[[Path, int], AbstractAsyncContextManager[CommandProcess]]

HALF_A_POST = b"POST /v1/events HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"


@asynccontextmanager
async def busy_gateway(folder: Path, workers: int) -> AsyncIterator[GatewayProcess]:
    """A gateway with a stream that holds its drain open: it takes nothing."""
    (folder / "streams.yaml").write_text("streams: {edits: {topics: [a]}}")
    await fill(folder / "events.db")
    given = (f"embedded:{folder / 'events.db'}", folder / "streams.yaml", "gateway.drain_timeout=2", "log_level=error")
    process = GatewayProcess(*given, workers=workers)
    async with process.running():
        with await stall(process):
            yield process


@asynccontextmanager
async def busy_intake(folder: Path, workers: int) -> AsyncIterator[IntakeProcess]:
    """Intake with a request that holds its drain open: its body does not come."""
    log = await make_topics(folder / "events.db", "test.event")
    process = IntakeProcess(
        log, "intake.shutdown_timeout=2", "intake.produce_timeout=1", "log_level=error", workers=workers
    )
    async with process.running():
        _, writer = await asyncio.open_connection(*process.address)
        try:
            writer.write(HALF_A_POST)
            await taken(process)
            yield process
        finally:
            writer.close()


async def taken(process: CommandProcess) -> None:
    """Return when the process, or one of its workers, has begun to take a request."""
    async with httpx.AsyncClient(timeout=30) as http, asyncio.timeout(30):
        while True:
            lines = (await http.get(f"{process.admin}/metrics")).text.splitlines()
            sizes = [line.split()[-1] for line in lines if line.startswith("eventstreams_intake_in_flight_bytes")]
            if any(float(size) for size in sizes):
                return


async def readiness(http: httpx.AsyncClient, process: CommandProcess) -> tuple[int, str] | None:
    """Return the status and the sentence; None when the process has ended."""
    try:
        answer = await http.get(f"{process.admin}/readyz")
    except httpx.TransportError:
        return None
    return answer.status_code, answer.json().get("detail", "")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("busy", [busy_gateway, busy_intake])
async def test_process_that_is_told_to_end_is_not_ready_from_then_on(tmp_path: Path, busy: Busy, workers: int) -> None:
    async with busy(tmp_path, workers) as process, httpx.AsyncClient(timeout=30) as http:
        assert await readiness(http, process) == (200, "")
        os.kill(process.pid, signal.SIGTERM)
        told: list[tuple[int, str]] = []
        async with asyncio.timeout(30):
            while (found := await readiness(http, process)) is not None:
                told.append(found)
        # Many answers, the first of them at once: what is open holds the end up.
        assert len(told) > 10
        assert {status for status, _ in told} == {503}
        assert all("stopping" in sentence for _, sentence in told), set(told)


async def test_one_worker_that_is_told_to_end_leaves_the_others_ready(tmp_path: Path) -> None:
    async with busy_gateway(tmp_path, 2) as process, httpx.AsyncClient(timeout=30) as http:
        os.kill(process.children()[0], signal.SIGTERM)
        for _ in range(20):
            assert await readiness(http, process) == (200, "")
