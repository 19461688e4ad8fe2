"""Real HTTP libraries as producers: all that they send is stored, whatever is particular about their requests."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from eventstreams.eventlog.embedded.log import open_embedded
from eventstreams.records import TopicPartition
from tests.clients.matrix import PRODUCERS, Producer
from tests.clients.toolchains import ToolchainMissing, command
from tests.conftest import missing_clients
from tests.support.oracle_log import values
from tests.support.processes import IntakeProcess

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]

PATIENCE = 120.0
STREAM = "test.event"
SIZES = (10, 100_000, 900_000)
"""Letters of an event's text: within one segment, in several, over what a socket holds."""

REFUSED = {"$schema": "/test/event/1.0.0", "meta": {"stream": STREAM}, "test": 7}


def event(number: int, letters: int = 10) -> dict[str, Any]:
    text = f"{number} é " + "x" * letters
    return {"$schema": "/test/event/1.0.0", "meta": {"stream": STREAM, "id": str(number)}, "test": text}


def posts() -> Sequence[Mapping[str, object]]:
    """Return single events, lists and one that is refused, with a length and in chunks."""
    bodies: list[tuple[object, bool]] = []
    for chunked in (False, True):
        base = 100 * chunked
        bodies += [(event(base + at, letters), chunked) for at, letters in enumerate(SIZES)]
        bodies += [([event(base + at) for at in (10, 11, 12)], chunked), (REFUSED, chunked)]
    return [{"body": json.dumps(body, ensure_ascii=False), "chunked": chunked} for body, chunked in bodies]


def letters(number: int) -> int:
    """Return how many letters an event has beside its number."""
    return SIZES[number % 100] if number % 100 < len(SIZES) else 10


STORED = [number + base for base in (0, 100) for number in (0, 1, 2, 10, 11, 12)]


@pytest.mark.parametrize("producer", PRODUCERS, ids=lambda producer: producer.name)
async def test_all_that_a_library_sends_is_stored(producer: Producer, tmp_path: Path) -> None:
    try:
        started = command(producer)
    except ToolchainMissing as exc:
        if os.environ.get("CI"):
            pytest.fail(f"{producer.name}: {exc}")
        missing_clients.append(f"{producer.name}: {exc}")
        pytest.skip("its tools are missing")
    path = tmp_path / "events.db"
    async with open_embedded(str(path)) as log:
        with (tmp_path / "errors").open("wb") as errors:
            await log.create_topic(STREAM)
            intake = IntakeProcess(f"embedded:{path}", "log_level=warning")
            intake.errors = errors.fileno()
            async with intake.running():
                answers = await answers_of([*started, f"{intake.url}/v1/events", *producer.arguments])
        assert [status for status, _ in answers] == [201, 201, 201, 201, 400] * 2
        assert [text for status, text in answers if status == 201] == [""] * 8
        for _, text in answers[4::5]:
            (invalid,) = json.loads(text)["invalid"]
            assert invalid["event"]["test"] == 7
        stored = [json.loads(value) for _, value in await values(log, TopicPartition(STREAM, 0))]
        assert [int(one["meta"]["id"]) for one in stored] == STORED
        assert [len(one["test"]) for one in stored] == [len(event(n, letters(n))["test"]) for n in STORED]
    assert (tmp_path / "errors").read_text() == ""


async def answers_of(started: Sequence[str]) -> list[tuple[int, str]]:
    process = await asyncio.create_subprocess_exec(
        *started, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(PATIENCE):
            out, errors = await process.communicate(json.dumps(posts()).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode()[-2000:]
    return [(status, text) for status, text in map(json.loads, out.splitlines())]
