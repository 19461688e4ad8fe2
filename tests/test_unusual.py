"""What processes call unusual about how they are set up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from eventstreams import unusual
from eventstreams.catalog.load import load_catalog
from eventstreams.errors import LogUnavailable
from eventstreams.eventlog.open import open_log
from eventstreams.services import catalog_options
from eventstreams.settings import Settings, load_settings
from tests.support.topics import log_with

LIMIT = "gateway.connections_per_client=10"


def given(*assignments: str) -> Settings:
    return load_settings(None, assignments)


def gateway(tmp_path: Path, *assignments: str, public: bool = False, tried: bool = False) -> Sequence[str]:
    settings = given(*assignments)
    streams = tmp_path / "streams.yaml"
    streams.write_text(json.dumps({name: {"topics": ["t"]} for name in "abcde"} | {"intake-only": {}, "/^p/": {}}))
    catalog = load_catalog(str(streams), catalog_options(settings))
    return list(unusual.of_gateway(settings, catalog, public=public, tried=tried))


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("http://127.0.0.1:8092", False),
        ("http://127.8.0.1:80", False),
        ("http://[::1]:80", False),
        ("http://localhost:80", False),
        ("http://0.0.0.0:8092", True),
        ("http://[::]:8092", True),
        ("http://192.168.0.1:8092", True),
        ("http://gateway.example:8092", True),
    ],
)
def test_address_is_public_when_other_machines_reach_it(url: str, public: bool) -> None:
    assert unusual.is_public([url]) is public
    assert unusual.is_public(["http://127.0.0.1:1", url, "unix:/run/a"]) is public
    assert len(list(unusual.of_admin([url]))) == public


@pytest.mark.parametrize(
    ("assignments", "words"),
    [
        ((), ["no limit on connections"]),
        ((LIMIT,), []),
        (("gateway.connections=10",), []),
        ((LIMIT, "gateway.cors=null"), ["no CORS headers"]),
        ((LIMIT, "gateway.csp=null"), ["no security headers"]),
        ((LIMIT, "gateway.schema_version=1.2.3"), ["version 1.2.3 of their schemas"]),
        ((LIMIT, "allowed_streams=a"), ["leaves out b, c, d and 1 more"]),
        ((LIMIT, "allowed_streams=a,b,c,d"), ["leaves out e"]),
        ((LIMIT, "allowed_streams=a,b,c,d,e"), []),
        ((LIMIT, "gateway.client_address=x-client-ip"), ["believed from everybody"]),
        ((LIMIT, "trusted_proxies=10.0.0.0/8"), []),
        ((LIMIT, "gateway.client_address=peer", "trusted_proxies=10.0.0.0/8"), ["share one limit"]),
    ],
)
def test_gateway_tells_what_is_unusual(tmp_path: Path, assignments: Sequence[str], words: Sequence[str]) -> None:
    notes = gateway(tmp_path, *assignments)
    assert len(notes) == len(words)
    for note, expected in zip(notes, words, strict=True):
        assert expected in note


def test_gateway_that_is_only_tried_needs_no_limit_on_loopback(tmp_path: Path) -> None:
    assert gateway(tmp_path, tried=True) == []
    assert len(gateway(tmp_path, tried=True, public=True)) == 1


ERRORS = "intake.error_stream=errors"
KAFKA = "log=kafka://127.0.0.1:9092"


@pytest.mark.parametrize(
    ("assignments", "public", "words"),
    [
        ((), False, ["refused events are counted, not kept"]),
        ((ERRORS,), False, []),
        ((ERRORS,), True, ["no limit on what a client sends"]),
        ((ERRORS, "intake.events_per_second=5"), True, []),
        ((ERRORS, "intake.bytes_per_second=5"), True, []),
        ((ERRORS, "intake.cors=null"), False, ["no CORS headers"]),
        ((ERRORS, "intake.insecure_schemas=true"), False, ["unbounded patterns"]),
        ((ERRORS, "intake.check_streams=false"), False, ["events of any stream are taken"]),
        ((ERRORS, KAFKA), False, ["while Kafka is away events are answered 503"]),
        ((ERRORS, KAFKA, "intake.spool=/x"), False, []),
    ],
)
def test_intake_tells_what_is_unusual(assignments: Sequence[str], public: bool, words: Sequence[str]) -> None:
    notes = list(unusual.of_intake(given(*assignments), public=public))
    assert len(notes) == len(words)
    for note, expected in zip(notes, words, strict=True):
        assert expected in note


async def test_topics_that_are_not_in_the_log_are_told() -> None:
    async with log_with("a", "b") as log:
        here = given("log=embedded:x.db")
        assert await unusual.of_log(here, log, {"a", "b"}) == []
        assert await unusual.of_log(here, log, None) == []
        (note,) = await unusual.of_log(here, log, {"a", "n", "m", "o", "p", "q"})
        assert note.startswith("the log has no topic m, n, o and 2 more: eventstreams streams apply makes")
        (note,) = await unusual.of_log(given("log=embedded::memory:"), log, {"a"})
        assert "in memory" in note


@pytest.mark.parametrize(("wait", "words"), [("300", "waiting for it 300 s"), ("null", "waiting for it without end")])
async def test_log_that_has_not_answered_is_told_with_how_long_it_is_waited_for(wait: str, words: str) -> None:
    settings = given("log=kafka://127.0.0.1:1", f"log_wait={wait}")
    async with open_log(settings.log, may_be_away=True, writable=False) as log:
        (note,) = await unusual.of_log(settings, log, {"a"})
        assert words in note


async def test_log_that_cannot_say_holds_nothing_up() -> None:
    async with log_with("a") as log:
        pass
    with pytest.raises(LogUnavailable):
        await log.describe({"a"})
    assert await unusual.of_log(given("log=embedded:x.db"), log, {"a", "b"}) == []
