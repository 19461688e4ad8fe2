"""One maximum holds from the request to the frame: what intake takes, the log stores and the gateway delivers whole."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from eventstreams.eventlog.open import open_log
from eventstreams.records import TopicPartition
from eventstreams.settings import load_settings
from tests.support.kafka import Broker
from tests.support.oracle_log import values
from tests.support.processes import GatewayProcess, IntakeProcess
from tests.test_cli import apply_test_stream

LARGEST = load_settings().intake.max_event_bytes


def event(number: int, padding: int) -> bytes:
    """An event to which intake adds nothing that differs in length from one to the next."""
    meta = {"stream": "test.event", "id": str(uuid.uuid4()), "dt": "2026-01-02T03:04:05.678Z", "request_id": "r"}
    return orjson.dumps({"$schema": "/test/event/1.0.0", "meta": meta, "test": f"{number}{'x' * padding}"})


async def goes_through_whole(url: str, prefix: str, folder: Path) -> None:
    """Post events around the maximum, read them from the log and from the stream, as events and as lines."""
    topic = f"{prefix}test.event"
    streams = await apply_test_stream(folder, url, topic)
    intake = IntakeProcess(url, f"streams={streams}", f"intake.topic_prefix={prefix}")
    gateway = GatewayProcess(url, streams)
    async with intake.running(), gateway.running(), httpx.AsyncClient(timeout=60) as http:

        async def post(body: bytes) -> httpx.Response:
            headers = {"content-type": "application/json"}
            return await http.post(f"{intake.url}/v1/events", content=body, headers=headers)

        async def read(accept: str, count: int) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = []
            at = f"{gateway.url}/v2/stream/test.event?since=1"
            async with http.stream("GET", at, headers={"accept": accept}) as stream:
                async for line in stream.aiter_lines():
                    if line.startswith(("{", "data: {")):
                        found.append(json.loads(line.removeprefix("data: ")))
                    if len(found) == count:
                        break
            return found

        async def stored() -> list[bytes]:
            async with open_log(url, writable=False) as log:
                return [value for _, value in await values(log, TopicPartition(topic, 0))]

        answer = await post(event(0, 0))
        assert answer.status_code == 201, answer.text
        (small,) = await stored()
        room = LARGEST - len(small)
        for number in (1, 2):
            answer = await post(event(number, room))
            assert answer.status_code == 201, answer.text
        refused = await post(event(3, room + 1))
        assert refused.status_code == 400
        assert str(LARGEST) in refused.text
        assert str(LARGEST + 1) in refused.text
        assert (await post(event(4, 0))).status_code == 201
        held = await stored()
        assert [len(value) for value in held] == [len(small), LARGEST, LARGEST, len(small)]
        for accept in ("application/json", "text/event-stream"):
            events = await read(accept, 4)
            assert [one["test"] for one in events] == [json.loads(value)["test"] for value in held]


async def test_largest_event_goes_through_the_embedded_log(tmp_path: Path) -> None:
    await goes_through_whole(f"embedded:{tmp_path / 'events.db'}", "", tmp_path)


@pytest.mark.kafka
async def test_largest_event_goes_through_kafka(tmp_path: Path, kafka_broker: Broker) -> None:
    await goes_through_whole(f"kafka://{kafka_broker.servers}", f"{uuid.uuid4()}.", tmp_path)
