"""The demo's events: valid but for those that are wrong on purpose, which say so."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from pathlib import Path

import httpx
import pytest

from eventstreams.catalog.load import load_catalog
from eventstreams.demo.sample import CONFIG, SCHEMAS, STREAMS, with_demo
from eventstreams.demo.traffic import ON_PURPOSE, SHARES, event, spoiled, streams_of
from eventstreams.schemas.formats import formats
from eventstreams.schemas.repository import DirectoryRepository
from eventstreams.schemas.validation import Validators
from eventstreams.settings import load_settings
from tests.test_cli import FREE_PORTS, ROOT, start, urls_of


def test_demo_is_the_configuration_of_the_checkout() -> None:
    assert CONFIG.resolve() == ROOT / "config"
    assert streams_of(load_catalog(str(STREAMS))) == list(SHARES)


async def test_events_are_valid_but_for_those_that_are_wrong_on_purpose() -> None:
    validators = Validators(DirectoryRepository(SCHEMAS), formats("production"))
    rng = random.Random(1)
    kinds = set()
    for _ in range(200):
        stream, body = event(rng, 1_800_000_000_123)
        right = await validators.get(body["$schema"])
        assert right.is_valid(body), body
        wrong = spoiled(rng, body)
        assert wrong["meta"]["request_id"] == ON_PURPOSE
        has_schema = wrong["$schema"] == body["$schema"]
        assert not (has_schema and right.is_valid(wrong))
        assert has_schema or ON_PURPOSE in wrong["$schema"]
        kinds.add((stream, has_schema))
    assert len(kinds) == 2 * len(SHARES)


def test_events_are_only_made_for_streams_that_take_them(tmp_path: Path) -> None:
    streams = tmp_path / "streams.yaml"
    streams.write_text(
        json.dumps({"mediawiki.page-create": {"schema_title": "mediawiki/page/create"}, "mediawiki.recentchange": {}})
    )
    found = streams_of(load_catalog(str(streams)))
    assert found == ["mediawiki.page-create"]
    assert {event(random.Random(n), 0, found)[0] for n in range(20)} == set(found)


@pytest.mark.parametrize(
    ("config", "assignments", "there", "is_demo"),
    [
        (None, [], None, True),
        (None, ["gateway.port=1"], None, True),
        (None, [], "config/other.yaml", True),
        (None, [], "config/streams.yaml", False),
        (None, [], "config/schemas/x.yaml", False),
        (None, ["streams=mine.yaml"], None, False),
        (None, ["schemas=[mine]"], None, False),
        ("mine.yaml", [], "mine.yaml", False),
    ],
)
def test_demo_is_served_where_nothing_names_another_configuration(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: str | None,
    assignments: list[str],
    there: str | None,
    is_demo: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    if there is not None:
        Path(there).parent.mkdir(parents=True, exist_ok=True)
        Path(there).touch()
    given = load_settings(config, assignments)
    found = with_demo(given, config)
    assert (found.streams, found.schemas) == (
        ([str(STREAMS)], [str(SCHEMAS)]) if is_demo else (given.streams, given.schemas)
    )


async def test_log_and_error_stream_tell_wrong_events_as_made_on_purpose(tmp_path: Path) -> None:
    log = f"log=embedded:{tmp_path / 'events.db'}"
    process = await start("dev", "--rate", "400", "--set", log, *FREE_PORTS)
    gateway, _ = await urls_of(process, 2)
    told: list[str] = []
    url = f"{gateway}/v2/stream/eventstreams-intake.error.validation"
    async with (
        asyncio.timeout(60),
        httpx.AsyncClient(timeout=30) as http,
        http.stream("GET", url, params={"since": "0"}, headers={"accept": "application/json"}) as stream,
    ):
        async for line in stream.aiter_lines():
            told += [line] if line else []
            # Three kinds of mistake, at random; one of them is what the log tells.
            if len(told) == 20:
                break
    for line in told:
        assert json.loads(json.loads(line)["raw_event"])["meta"]["request_id"] == ON_PURPOSE
    process.send_signal(signal.SIGTERM)
    _, error = await asyncio.wait_for(process.communicate(), 30)
    started, *warnings = map(json.loads, error.splitlines())
    assert started["message"] == "started"
    assert warnings
    for line in warnings:
        assert ON_PURPOSE in line["uri"]


async def test_dev_keeps_the_error_stream_that_the_settings_name(tmp_path: Path) -> None:
    (tmp_path / "streams.yaml").write_text(
        json.dumps(
            {
                "mine": {"schema_title": "error", "topics": ["mine"]},
                "test.event": {"schema_title": "test/event", "topics": ["test.event"]},
                "eventstreams-intake.error.validation": {"schema_title": "error"},
            }
        )
    )
    settings = tmp_path / "settings.yaml"
    settings.write_text('log: "embedded:{here}/e.db"\nstreams: "{here}/streams.yaml"\nintake: {error_stream: mine}\n')
    process = await start("dev", "--config", str(settings), *FREE_PORTS)
    gateway, intake = await urls_of(process, 2)
    async with asyncio.timeout(60), httpx.AsyncClient(timeout=30) as http:
        wrong = {"$schema": "/test/event/1.0.0", "meta": {"stream": "test.event"}, "test": 1}
        assert (await http.post(f"{intake}/v1/events", json=wrong)).status_code == 400
        headers = {"accept": "application/json"}
        async with http.stream("GET", f"{gateway}/v2/stream/mine?since=0", headers=headers) as stream:
            line = await anext(line async for line in stream.aiter_lines() if line)
    assert json.loads(line)["errored_stream_name"] == "test.event"
    process.send_signal(signal.SIGTERM)
    await asyncio.wait_for(process.wait(), 30)
