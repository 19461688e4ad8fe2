"""Whatever names a request carries, none becomes a metric's label, a header of the answer or a line of the log."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.support.processes import CommandProcess, GatewayProcess, IntakeProcess
from tests.support.topics import make_topics

MARK = "qqmark"
HOSTILE = f'{MARK}\r\nX-{MARK}: 1\n{{"level": "{MARK}"}}\x00\x1b[2J\u2028\u0085"}}\\'
IN_HEADER = f'{MARK} "\\" {{}} \t {MARK}'
QUOTED = quote(HOSTILE, safe="")

GATEWAY_TARGETS = (
    f"/{QUOTED}",
    f"/v2/stream/{QUOTED}",
    f"/v2/stream/edits,{QUOTED}",
    f"/v2/stream/edits?since={QUOTED}",
    f"/v2/stream/edits?filter={QUOTED}",
    f"/v2/stream/edits?{QUOTED}={QUOTED}",
    f"/v2/stream?streams={QUOTED}",
    f"/?doc={QUOTED}",
    f"/v2/streams/{QUOTED}",
    f"/v2/{MARK}%ff%fe%00",
)


async def raw(process: CommandProcess, method: str, target: str, headers: Sequence[str], body: bytes = b"") -> bytes:
    """Send a request as it stands; return the head of the answer."""
    reader, writer = await asyncio.open_connection(*process.address)
    length = [f"Content-Length: {len(body)}"] if body else []
    lines = [f"{method} {target} HTTP/1.1", "Host: here", "Connection: close", *length, *headers, "", ""]
    try:
        writer.write("\r\n".join(lines).encode() + body)
        async with asyncio.timeout(30):
            return (await reader.read(65536)).partition(b"\r\n\r\n")[0]
    finally:
        writer.close()


async def nothing_got_out(process: CommandProcess, errors: Path) -> list[dict[str, object]]:
    """End the process; check its metrics and its log. Return the log's entries."""
    async with httpx.AsyncClient(timeout=30) as http:
        metrics = (await http.get(f"{process.admin}/metrics")).text
    assert "eventstreams_" in metrics
    assert MARK not in metrics.lower()
    assert await process.end(signal.SIGTERM) == 0
    return entries_of(errors)


def entries_of(errors: Path) -> list[dict[str, object]]:
    """Return a log's entries, each a line of printable ASCII."""
    lines = errors.read_bytes().splitlines()
    assert all(min(line) >= 0x20 and max(line) < 0x7F for line in lines)
    entries: list[dict[str, object]] = [json.loads(line) for line in lines]
    assert all({"time", "level", "logger", "message"} <= entry.keys() for entry in entries)
    assert MARK not in {entry["level"] for entry in entries}
    return entries


def logged(entries: Sequence[dict[str, object]]) -> int:
    """How many entries tell of a request with hostile names."""
    return sum(MARK in json.dumps(entry) for entry in entries)


@pytest.mark.parametrize("workers", [1, 2])
async def test_nothing_of_a_request_to_the_gateway_becomes_a_label_a_header_or_a_line(
    tmp_path: Path, workers: int
) -> None:
    streams, errors = tmp_path / "streams.yaml", tmp_path / "errors"
    streams.write_text("streams: {edits: {topics: [a]}}")
    log = f"embedded:{tmp_path / 'events.db'}"
    gateway = GatewayProcess(log, streams, "log_level=info", "gateway.drain_timeout=0.2", workers=workers)
    with errors.open("wb") as file:
        gateway.errors = file.fileno()
        async with gateway.running():
            named = [f"{name}: {IN_HEADER}" for name in ("User-Agent", "X-Request-Id", "X-Forwarded-For", "Origin")]
            for target in GATEWAY_TARGETS:
                head = await raw(gateway, "GET", target, named)
                assert head.startswith(b"HTTP/1.1 ")
                assert b"\nx-" + MARK.encode() not in head.lower()
            for name in ("Last-Event-ID", "Accept", "Referer", "Cookie", MARK):
                assert (await raw(gateway, "GET", "/v2/stream/edits", [f"{name}: {IN_HEADER}"])).startswith(b"HTTP/1.1")
            assert (await raw(gateway, MARK.upper(), f"/{MARK}", [])).startswith(b"HTTP/1.1 4")
            entries = await nothing_got_out(gateway, errors)
    # The log tells paths, not queries.
    assert logged(entries) >= sum(MARK in target.partition("?")[0] for target in GATEWAY_TARGETS)


async def test_nothing_of_a_request_to_intake_becomes_a_label_a_header_or_a_line(tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    intake = IntakeProcess(await make_topics(tmp_path / "events.db", "test.event"), "log_level=info")
    good = {"$schema": "/test/event/1.0.0", "meta": {"stream": "test.event"}, "test": "hello"}
    events = [
        {**good, "meta": {"stream": HOSTILE}},
        {**good, "$schema": HOSTILE},
        {**good, "$schema": f"/test/{MARK}/1.0.0"},
        {**good, "$schema": f"/../../{MARK}/1.0.0"},
        {**good, HOSTILE: HOSTILE},
        {**good, "test": {HOSTILE: HOSTILE}},
        {**good, "meta": {"stream": "test.event", "id": HOSTILE, "dt": HOSTILE}},
        HOSTILE,
    ]
    with errors.open("wb") as file:
        intake.errors = file.fileno()
        async with intake.running():
            kind = "Content-Type: application/json"
            for event in events:
                for query in ("", "?hasty=true"):
                    body = json.dumps([event]).encode()
                    head = await raw(intake, "POST", f"/v1/events{query}", [kind, f"X-Request-Id: {IN_HEADER}"], body)
                    assert head.startswith(b"HTTP/1.1 ")
                    assert b"\nx-" + MARK.encode() not in head.lower()
            body = json.dumps(good).encode()
            for header in (f"Content-Type: {IN_HEADER}", f"Content-Encoding: {IN_HEADER}", f"User-Agent: {IN_HEADER}"):
                assert (await raw(intake, "POST", "/v1/events", [header], body)).startswith(b"HTTP/1.1 ")
            assert (await raw(intake, "GET", f"/v1/{QUOTED}?{QUOTED}", [])).startswith(b"HTTP/1.1 404")
            assert (await raw(intake, "GET", f"/v1/_test/{QUOTED}", [])).startswith(b"HTTP/1.1 404")
            entries = await nothing_got_out(intake, errors)
    assert logged(entries) >= 2
