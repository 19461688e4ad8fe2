"""What a service leaves behind when it ends: nothing."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from pathlib import Path

import pytest

from eventstreams.eventlog.open import open_log
from eventstreams.records import NewRecord
from tests.support.cycles import EVENT
from tests.support.kafka import Broker
from tests.support.processes import ROOT
from tests.test_cli import apply_test_stream


async def assert_nothing_is_left(service: str, url: str, prefix: str, folder: Path) -> None:
    """What the process has is the same after each cycle; the first may make what Python keeps for good."""
    topic = f"{prefix}test.event"
    streams = await apply_test_stream(folder, url, topic)
    async with open_log(url) as log:
        (outcome,) = await log.append([NewRecord(topic, json.dumps(EVENT).encode())])
        assert not isinstance(outcome, Exception)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.cycles", service, url, str(streams), prefix),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    async with asyncio.timeout(120):
        out, _ = await process.communicate()
    assert process.returncode == 0
    _, *after = map(json.loads, out.splitlines())
    assert len(after) == 3
    assert after[0]["tasks"] == []
    assert after[1:] == after[:1] * 2


@pytest.mark.parametrize("service", ["serve", "intake"])
async def test_descriptors_threads_and_tasks_after_the_end_are_those_before(tmp_path: Path, service: str) -> None:
    await assert_nothing_is_left(service, f"embedded:{tmp_path / 'events.db'}", "", tmp_path)


@pytest.mark.kafka
@pytest.mark.parametrize("service", ["serve", "intake"])
async def test_with_kafka_too(tmp_path: Path, kafka_broker: Broker, service: str) -> None:
    await assert_nothing_is_left(service, f"kafka://{kafka_broker.servers}", f"{uuid.uuid4()}.", tmp_path)
