"""What a gateway says while its broker is away: fast, what is right without it, and else to come back."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from eventstreams.eventlog.kafka.admin import TopicsAdmin, WantedTopic
from eventstreams.eventlog.kafka.log import open_kafka
from eventstreams.eventlog.kafka.options import KafkaOptions
from eventstreams.records import NewRecord, Record
from eventstreams.subscribe.endpoints import LOG_PATIENCE
from tests.support.kafka import Broker
from tests.support.processes import GatewayProcess

pytestmark = pytest.mark.kafka

PATIENCE = LOG_PATIENCE + 2
"""Seconds in which a client must know."""


@pytest.fixture
async def broker(tmp_path: Path, kafka_broker: Broker) -> AsyncIterator[Broker]:
    """A broker of its own, to kill; the shared one says whether there can be any."""
    assert kafka_broker.servers
    broker = Broker(tmp_path / "kafka")
    broker.start()
    try:
        await TopicsAdmin(broker.servers, {}).create(WantedTopic("t", 1, 1, {"retention.ms": "-1"}))
        yield broker
    finally:
        broker.kill()


async def answer(http: httpx.AsyncClient, path: str, **headers: str) -> tuple[int, float]:
    """Return the status, and the seconds that it took."""
    began = time.monotonic()
    async with http.stream("GET", path, headers=headers) as response:
        if response.status_code == 503:
            assert int(response.headers["retry-after"]) >= 1
        return response.status_code, time.monotonic() - began


async def test_gateway_whose_broker_died_answers_soon_and_is_well_again_with_it(broker: Broker, tmp_path: Path) -> None:
    streams = tmp_path / "streams.yaml"
    streams.write_text("streams: {s: {topics: [t]}}")
    process = GatewayProcess(f"kafka://{broker.servers}", streams, "gateway.heartbeat=1", "log_level=error")
    async with process.running(), httpx.AsyncClient(base_url=process.url, timeout=60.0) as http:
        broker.kill()
        for headers in ({}, {"Last-Event-ID": '["t"]'}):
            status, seconds = await answer(http, "/v2/stream/s", **headers)
            assert status in (200, 503)
            assert seconds < PATIENCE
        for path, header in (("/v2/stream/s", "x"), ("/v2/stream/nope", "[]"), ("/v2/stream/s?since=abc", "[]")):
            status, seconds = await answer(http, path, **{"Last-Event-ID": header})
            assert status == 400
            assert seconds < LOG_PATIENCE - 1, "the log was asked"
        broker.start()
        async with open_kafka(KafkaOptions(broker.servers)) as log:
            (stored,) = await log.append([NewRecord("t", b'{"n":1}', None, 1000)])
            assert isinstance(stored, Record)
        async with http.stream("GET", "/v2/stream/s?since=0") as response:
            assert response.status_code == 200
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    break


async def test_quiet_stream_sends_a_comment_from_time_to_time(kafka_broker: Broker, tmp_path: Path) -> None:
    topic = str(uuid.uuid4())
    await TopicsAdmin(kafka_broker.servers, {}).create(WantedTopic(topic, 1, 1, {}))
    streams = tmp_path / "streams.yaml"
    streams.write_text(f"streams: {{s: {{topics: [{topic}]}}}}")
    process = GatewayProcess(f"kafka://{kafka_broker.servers}", streams, "gateway.heartbeat=0.2")
    async with process.running(), httpx.AsyncClient(base_url=process.url, timeout=60.0) as http:
        for accept, beat in (("text/event-stream", b":\n"), ("application/json", b"\n")):
            async with http.stream("GET", "/v2/stream/s", headers={"accept": accept}) as response:
                seen = b""
                async for data in response.aiter_bytes():
                    seen += data
                    if seen.endswith(beat * 3):
                        break
