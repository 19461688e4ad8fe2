"""An intake on the embedded log in memory, with schemas and streams written for the tests."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from eventstreams.catalog.load import load_catalog
from eventstreams.catalog.streams import StreamCatalog
from eventstreams.eventlog.base import EventLog
from eventstreams.metrics import Metrics
from eventstreams.records import Record
from eventstreams.schemas.formats import formats
from eventstreams.schemas.repository import DirectoryRepository
from eventstreams.schemas.validation import Validators
from intake.app import build_intake
from intake.endpoints import EndpointOptions, EventsEndpoint
from intake.limits import RateLimits
from intake.options import IntakeOptions
from intake.pipeline import Intake
from intake.spool import Spool
from tests.support.topics import log_with

META = {
    "type": "object",
    "required": ["stream"],
    "properties": {
        "stream": {"type": "string"},
        "id": {"type": "string"},
        "dt": {"type": "string", "format": "date-time", "maxLength": 128},
        "request_id": {"type": "string"},
        "domain": {"type": "string"},
        "uri": {"type": "string"},
    },
}
PROPERTIES: dict[str, Any] = {"$schema": {"type": "string"}, "meta": META, "dt": {"type": "string"}}
HTTP = {
    "type": "object",
    "properties": {
        "client_ip": {"type": "string"},
        "request_headers": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
EXPERIMENT = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("enrolled", "assigned", "subject_id")},
}
THING = {"count": {"type": "integer", "default": 7}, "name": {"type": "string"}, "page": {"type": "object"}}
ERROR = {name: {"type": "string"} for name in ("emitter_id", "raw_event", "message", "error_type")} | {
    name: {"type": "string"} for name in ("errored_schema_uri", "errored_stream_name")
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "thing/1.0.0": {**THING, "http": HTTP, "experiment": EXPERIMENT},
    "analytics/legacy/thing/1.0.0": {},
    "error/2.1.0": ERROR,
}
STREAMS: dict[str, Any] = {
    "things": {"schema_title": "thing"},
    "keyed": {"schema_title": "thing", "message_key_fields": {"name": "name", "page": "page.id"}},
    "agents": {
        "schema_title": "thing",
        "producers": {
            "eventgate": {"enrich_fields_from_http_headers": {"http.request_headers.user-agent": "User-Agent"}}
        },
    },
    "once": {"schema_title": "thing", "producers": {"eventgate": {"deduplication_window": 60}}},
    "subjects": {"schema_title": "thing", "producers": {"eventgate": {"use_edge_uniques": True}}},
    "kitchen": {"schema_title": "thing", "producers": {"test_kitchen": {"is_test_kitchen_stream": True}}},
    "legacy": {"schema_title": "analytics/legacy/thing"},
    "others": {"schema_title": "other"},
    "empty": {},
    "untitled": {"description": "no title"},
    "/^job\\./": {"schema_title": "thing"},
    "eventlogging_Thing": {"schema_title": "thing"},
    "errors": {"schema_title": "error"},
}
TOPICS = (*STREAMS, "job.any", "whatever", "dc1.things", "dc1.job.any")


def thing(stream: str = "things", **fields: Any) -> dict[str, Any]:
    return {"$schema": "/thing/1.0.0", "meta": {"stream": stream, "id": "one"}, **fields}


class Rig:
    """An intake over HTTP, and what it stored."""

    def __init__(self, app: ASGIApp, log: EventLog, http: httpx.AsyncClient, intake: Intake, metrics: Metrics) -> None:
        self.app = app
        self.log = log
        self.http = http
        self.intake = intake
        self.metrics = metrics

    async def post(self, body: object, path: str = "/v1/events", **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(path, content=content, headers={"content-type": "application/json", **given})

    async def stored(self, topic: str) -> Sequence[Record]:
        found: list[Record] = []
        for partition in await self.log.partitions(topic):
            extent = (await self.log.extents([partition]))[partition]
            found += (await self.log.fetch(partition, extent.earliest, extent.end, 2**24)).records
        return found

    async def events(self, topic: str) -> list[dict[str, Any]]:
        return [json.loads(record.value) for record in await self.stored(topic)]

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


Open = Callable[..., AbstractAsyncContextManager[Rig]]


@pytest.fixture
def schemas(tmp_path: Path) -> Path:
    for uri, properties in SCHEMAS.items():
        path = tmp_path / "schemas" / uri
        path.parent.mkdir(parents=True)
        title = uri.rpartition("/")[0]
        document = {"title": title, "$id": f"/{uri}", "type": "object", "properties": PROPERTIES | properties}
        path.write_text(json.dumps(document))
    return tmp_path / "schemas"


@pytest.fixture
def catalog(tmp_path: Path) -> StreamCatalog:
    path = tmp_path / "streams.json"
    path.write_text(json.dumps(STREAMS))
    return load_catalog(str(path))


@pytest.fixture
def open_intake(schemas: Path, catalog: StreamCatalog) -> Open:
    @asynccontextmanager
    async def opened(
        options: IntakeOptions | None = None,
        endpoint: EndpointOptions | None = None,
        *,
        limits: RateLimits | None = None,
        any_stream: bool = False,
        log: EventLog | None = None,
        wrap: Callable[[EventLog], EventLog] = lambda log: log,
        spool: Spool | None = None,
    ) -> AsyncIterator[Rig]:
        metrics = Metrics("test")
        async with log_with(*TOPICS) as memory:
            used = wrap(log or memory)
            validators = Validators(DirectoryRepository(schemas), formats("production"))
            streams = None if any_stream else catalog
            made = Intake(used, validators, streams, options or IntakeOptions(), metrics, spool)
            async with made.open(10) as intake:
                limits = limits or RateLimits(events_per_second=0, bytes_per_second=0)
                events = EventsEndpoint(intake, limits, metrics, endpoint or EndpointOptions())
                has_tests = bool(endpoint and endpoint.test_events)
                app = build_intake(events, streams, service="test", test_events=has_tests)
                transport = httpx.ASGITransport(app, client=("192.0.2.7", 123))
                async with httpx.AsyncClient(transport=transport, base_url="http://intake") as http:
                    yield Rig(app, memory, http, intake, metrics)

    return opened
