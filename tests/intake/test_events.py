"""POST /v1/events, as producers see it."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from eventstreams.errors import AppendTimeout, LogError, LogFull, LogUnavailable
from eventstreams.eventlog.base import EventLog
from eventstreams.records import NewRecord, Record
from intake.endpoints import EndpointOptions
from intake.limits import RateLimits
from intake.options import IntakeOptions
from tests.intake.conftest import Open, thing
from tests.support.away import AwayLog
from tests.support.topics import log_with

TOO_MANY = thing(count="x")


class Refusing:
    """An event log whose appends have one outcome; the rest is another's."""

    def __init__(self, log: EventLog, outcome: LogError) -> None:
        self._log = log
        self.outcome: LogError | None = outcome

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def append(self, new: Sequence[NewRecord]) -> Sequence[Record | LogError]:
        return await self._log.append(new) if self.outcome is None else [self.outcome] * len(new)


# -- outcomes


@pytest.mark.parametrize("listed", [False, True])
async def test_valid_event_is_stored_and_answered_201_without_a_body(open_intake: Open, listed: bool) -> None:
    async with open_intake() as rig:
        answer = await rig.post([thing(name="é")] if listed else thing(name="é"))
        assert (answer.status_code, answer.content) == (201, b"")
        (record,) = await rig.stored("things")
        event = json.loads(record.value)
        moment = datetime.fromisoformat(event["meta"]["dt"])
        assert abs(datetime.now(UTC) - moment) < timedelta(minutes=1)
        assert record.timestamp == int(moment.timestamp() * 1000)
        assert list(event) == ["$schema", "meta", "name", "http", "count"]
        assert event["count"] == 7
        assert record.key is None
        assert '"name":"é"'.encode() in record.value


async def test_invalid_event_is_answered_400_with_every_violation(open_intake: Open) -> None:
    async with open_intake() as rig:
        answer = await rig.post([thing(count="x", name=1)])
        assert answer.status_code == 400
        assert list(answer.json()) == ["invalid"]
        (item,) = answer.json()["invalid"]
        assert item["status"] == "invalid"
        assert item["event"]["name"] == 1
        assert item["context"]["errorsText"] == "'.count' should be integer, '.name' should be string"
        assert [error["dataPath"] for error in item["context"]["errors"]] == [".count", ".name"]
        assert await rig.stored("things") == []


async def test_part_of_a_batch_is_stored_and_answered_207(open_intake: Open) -> None:
    async with open_intake() as rig:
        answer = await rig.post([thing(), thing(count="x"), thing("nowhere"), thing(name="last")])
        assert answer.status_code == 207
        body = answer.json()
        assert [len(body["invalid"]), len(body["error"])] == [1, 1]
        assert [event.get("name") for event in await rig.events("things")] == [None, "last"]


async def test_batch_without_a_success_and_with_a_failure_is_answered_500(open_intake: Open) -> None:
    async with open_intake() as rig:
        answer = await rig.post([thing(count="x"), thing("nowhere")])
        assert answer.status_code == 500
        assert [len(answer.json()[kind]) for kind in ("invalid", "error")] == [1, 1]


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"meta": {"stream": "things"}}, "Field(s) $schema were missing from event and could not be extracted."),
        ({"$schema": "/thing/1.0.0"}, "Field(s) meta.stream were missing from event and could not be extracted."),
        (5, "Field(s) $schema were missing from event and could not be extracted."),
        (thing() | {"$schema": "/thing/9.0.0"}, "Failed loading schema at /thing/9.0.0"),
        (thing() | {"$schema": "/../thing/1.0.0"}, "Failed loading schema at /../thing/1.0.0"),
        (thing() | {"$schema": "/thing/1.0.0?x=1"}, "Failed loading schema at /thing/1.0.0?x=1"),
        (thing() | {"$schema": "http://h/thing/1.0.0"}, "Failed loading schema at http://h/thing/1.0.0"),
        (thing() | {"$schema": None}, "Failed loading schema at null"),
        (
            thing("nowhere"),
            "event one of schema at /thing/1.0.0 destined to stream nowhere is not allowed in stream;"
            " nowhere is not configured.",
        ),
        (
            thing("others"),
            "event one of schema at /thing/1.0.0 destined to stream others is not allowed in stream;"
            " schema title must be other.",
        ),
        (
            thing("untitled"),
            "event one of schema at /thing/1.0.0 destined to stream untitled is not allowed in stream;"
            " untitled does not have a schema_title setting.",
        ),
        (
            thing("empty"),
            "event one of schema at /thing/1.0.0 destined to stream empty is not allowed in stream;"
            " empty is configured but does not have any settings.",
        ),
        (thing("keyed"), "Failed extracting name from event, field is not defined."),
    ],
)
async def test_failures_that_are_no_violations_are_500_with_a_message(
    open_intake: Open, event: object, message: str
) -> None:
    async with open_intake() as rig:
        answer = await rig.post([event])
        assert answer.status_code == 500
        (item,) = answer.json()["error"]
        assert answer.json()["invalid"] == []
        assert item["context"] == {"message": message}


@pytest.mark.parametrize("outcome", [LogUnavailable("away"), LogFull("full"), AppendTimeout("late")])
async def test_log_that_is_away_is_answered_503_with_retry_after(open_intake: Open, outcome: LogError) -> None:
    async with open_intake(wrap=lambda log: Refusing(log, outcome)) as rig:
        answer = await rig.post([thing(), thing(count="x")])
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["error"][0]["context"]["message"] == str(outcome)


@pytest.mark.parametrize(
    ("dt", "expected"),
    [
        ("2020-01-02T03:04:05.678Z", 1577934245678),
        ("2020-01-02T03:04:05+01:00", 1577930645000),
        ("1969-01-01T00:00:00Z", 0),
        ("9999-12-31T23:59:59Z", None),
        ("2999-01-01T00:00:00Z", None),
    ],
)
async def test_time_of_a_record_is_its_event_s_unless_that_is_to_come(
    open_intake: Open, dt: str, expected: int | None
) -> None:
    async with open_intake(IntakeOptions(transforms=())) as rig:
        event = thing()
        event["meta"]["dt"] = dt
        assert (await rig.post(event)).status_code == 201
        (record,) = await rig.stored("things")
        assert json.loads(record.value)["meta"]["dt"] == dt
        if expected is None:
            assert abs(record.timestamp - datetime.now(UTC).timestamp() * 1000) < 60_000
        else:
            assert record.timestamp == expected


async def test_event_of_a_clock_that_is_a_little_ahead_keeps_its_time(open_intake: Open) -> None:
    async with open_intake(IntakeOptions(transforms=())) as rig:
        event, ahead = thing(), datetime.now(UTC) + timedelta(seconds=30)
        event["meta"]["dt"] = ahead.isoformat()
        assert (await rig.post(event)).status_code == 201
        (record,) = await rig.stored("things")
        assert record.timestamp == int(ahead.timestamp() * 1000)


async def test_event_of_the_latest_schema_is_checked_by_the_newest(open_intake: Open) -> None:
    async with open_intake() as rig:
        event = thing() | {"$schema": "/thing/latest"}
        assert (await rig.post(event)).status_code == 201
        (record,) = await rig.stored("things")
        assert json.loads(record.value)["$schema"] == "/thing/latest"
        assert (await rig.post(event | {"count": "x"})).status_code == 400
        assert (await rig.post(event | {"$schema": "/nothing/latest"})).status_code == 500


async def test_event_over_the_limit_is_answered_400_with_size_and_limit(open_intake: Open) -> None:
    async with open_intake(IntakeOptions(max_event_bytes=300)) as rig:
        answer = await rig.post(thing(name="x" * 300))
        assert answer.status_code == 400
        assert "at most 300 are taken" in answer.json()["error"][0]["context"]["message"]


# -- requests


@pytest.mark.parametrize(
    "media",
    [
        "application/json",
        "APPLICATION/JSON",
        "text/json",
        "Text/Plain; charset=UTF-8",
        "application/reports+json",
        "application/cloudevents+json; charset=utf-8",
        "application/vnd.kafka.json.v2+json",
    ],
)
async def test_json_is_read_from_these_media_types(open_intake: Open, media: str) -> None:
    async with open_intake() as rig:
        assert (await rig.post(thing(), content_type=media)).status_code == 201


@pytest.mark.parametrize("media", ["application/x-www-form-urlencoded", "application/x-ndjson", "image/svg+xml", ""])
async def test_other_media_type_is_refused_with_the_header_to_send(open_intake: Open, media: str) -> None:
    async with open_intake() as rig:
        answer = await rig.post(thing(), content_type=media)
        assert answer.status_code == 400
        message = told(answer)
        assert message.endswith("Send them with the header Content-Type: application/json")
        assert message.startswith(
            f"Content-Type '{media}' is not read as JSON" if media else "There is no Content-Type"
        )


@pytest.mark.parametrize("body", [b"", b"  ", b"{}", b"[]"])
@pytest.mark.parametrize("media", ["application/json", "text/plain", ""])
async def test_no_events_is_400_in_the_envelope(open_intake: Open, body: bytes, media: str) -> None:
    async with open_intake() as rig:
        answer = await rig.post(body, content_type=media)
        assert answer.status_code == 400
        assert "Request body was empty. Must provide JSON encoded events." in told(answer)
        # Who sends nothing is not told about the header.
        assert ("Content-Type" in told(answer)) == (media == "" and body != b"")


def told(answer: httpx.Response) -> str:
    """Return the message of a request that is refused as a whole."""
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    (item,) = answer.json()["error"]
    assert (answer.json()["invalid"], item["status"], item["event"]) == ([], "error", None)
    return str(item["context"]["message"])


RAW = json.dumps(thing()).encode()


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (b'{"a":', {}, 400, "no JSON"),
        (b'{"a":NaN}', {}, 400, "no JSON"),
        (b'{"a":1e999}', {}, 400, "infinity"),
        (b'{"a":"\\ud800","b":1e999}', {}, 400, "out of range"),
        (b'["\\ud800",NaN]', {}, 400, "NaN is no JSON"),
        (b"null", {}, 400, "no JSON object or array"),
        (b'"text"', {}, 400, "no JSON object or array"),
        (b"[" * 5000 + b"]" * 5000, {}, 400, "depth"),
        (b'["\\ud800",' + b"[" * 5000 + b"]" * 5001, {}, 400, "depth"),
        (RAW, {"content_encoding": "br"}, 415, "expected gzip, deflate or identity"),
        (RAW, {"content_type": "application/json; charset=latin1"}, 415, "charset 'latin1'"),
        (RAW, {"content_type": "application/json; charset=utf-99"}, 415, "charset 'utf-99'"),
        (RAW, {"content_encoding": "gzip"}, 400, "content-encoding"),
        (gzip.compress(RAW)[:-9], {"content_encoding": "gzip"}, 400, "not whole"),
        (b" " * 1001, {}, 413, "at most 1000 are taken"),
        (gzip.compress(b" " * 500_000), {"content_encoding": "gzip"}, 413, "more than 1000 bytes"),
        (gzip.compress(b" ") + gzip.compress(b" " * 99_999), {"content_encoding": "gzip"}, 413, "more than 1000 bytes"),
        (gzip.compress(RAW) + b"x" * 1000, {"content_encoding": "gzip"}, 413, "at most 1000 are taken"),
        (gzip.compress(b"") * 1001, {"content_encoding": "gzip"}, 400, "more than 1000 gzip members"),
        (gzip.compress(RAW) + b"\x1f\x8b", {"content_encoding": "gzip"}, 400, "not whole"),
    ],
)
async def test_request_that_holds_no_events_is_refused_in_the_envelope(
    open_intake: Open, body: bytes, headers: dict[str, str], status: int, words: str
) -> None:
    limit = 1000 if status == 413 else 100_000
    async with open_intake(endpoint=EndpointOptions(max_body_bytes=limit)) as rig:
        answer = await rig.post(body, **headers)
        assert answer.status_code == status
        (item,) = answer.json()["error"]
        assert (answer.json()["invalid"], item["status"], item["event"]) == ([], "error", None)
        assert words in item["context"]["message"]


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (gzip.compress(RAW), {"content_encoding": "gzip"}),
        (gzip.compress(RAW[:9]) + gzip.compress(b"") + gzip.compress(RAW[9:]), {"content_encoding": "x-gzip"}),
        (gzip.compress(RAW) + b"\0" * 100, {"content_encoding": "gzip"}),
        (zlib.compress(RAW), {"content_encoding": "deflate"}),
        (zlib.compress(RAW)[2:-4], {"content_encoding": "deflate"}),
        (b"\xef\xbb\xbf " + RAW, {}),
        (RAW.decode().encode("utf-16"), {"content_type": "application/json; charset=utf-16"}),
    ],
)
async def test_bodies_are_read_in_their_coding_and_charset(
    open_intake: Open, body: bytes, headers: dict[str, str]
) -> None:
    async with open_intake() as rig:
        assert (await rig.post(body, **headers)).status_code == 201


async def test_batch_of_too_many_events_is_refused_whole(open_intake: Open) -> None:
    async with open_intake(endpoint=EndpointOptions(max_batch_events=2)) as rig:
        assert (await rig.post([thing(), thing()])).status_code == 201
        answer = await rig.post([thing(), thing(), thing()])
        assert answer.status_code == 413
        assert "batch of 3 events: at most 2 are taken" in answer.text
        assert len(await rig.stored("things")) == 2


async def test_slow_body_is_given_up_with_408(open_intake: Open) -> None:
    async def never() -> Any:
        yield b"{"
        await asyncio.Event().wait()

    async with open_intake(endpoint=EndpointOptions(body_timeout=0.01)) as rig:
        answer = await rig.http.post("/v1/events", content=never(), headers={"content-type": "application/json"})
        assert answer.status_code == 408
        assert "not whole after 0.01 seconds" in answer.text


async def test_long_answers_are_compressed_when_asked(open_intake: Open) -> None:
    async with open_intake() as rig:
        answer = await rig.post(thing(count="x" * 2000), accept_encoding="gzip")
        assert (answer.headers["content-encoding"], answer.headers["vary"]) == ("gzip", "Accept-Encoding")
        assert answer.json()["invalid"][0]["event"]["count"] == "x" * 2000


async def test_client_over_its_rate_is_told_when_to_come_back(open_intake: Open) -> None:
    limits = RateLimits(events_per_second=0.2, bytes_per_second=0, clock=lambda: 0.0)
    async with open_intake(limits=limits) as rig:
        assert [(await rig.post(thing())).status_code for _ in range(3)] == [201, 201, 429]
        answer = await rig.post(thing())
        assert answer.headers["retry-after"] == "5"
        assert "0.2 events/s" in answer.text


async def test_memory_for_events_in_flight_is_bounded(open_intake: Open) -> None:
    async with open_intake(IntakeOptions(max_in_flight_bytes=10)) as rig:
        with rig.intake.in_flight.reserve(5):
            answer = await rig.post(thing())
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert (await rig.post(thing())).status_code == 201


# -- values


async def test_values_are_written_as_javascript_writes_them(open_intake: Open) -> None:
    body = RAW[:-1] + b',"x":[1.0,1e2,-0.0,0.1,1e20,9007199254740993],"t":"\\ud800"}'
    async with open_intake() as rig:
        assert (await rig.post(body)).status_code == 201
        (record,) = await rig.stored("things")
        assert b'"x":[1,100,0,0.1,100000000000000000000,9007199254740993],"t":"\\ud800"' in record.value


async def test_record_key_is_made_of_the_configured_fields(open_intake: Open) -> None:
    async with open_intake() as rig:
        assert (await rig.post(thing("keyed", name="n", page={"id": None}))).status_code == 201
        assert [record.key for record in await rig.stored("keyed")] == [b'{"name":"n","page":null}']


async def test_prefix_goes_before_all_streams_but_eventlogging(open_intake: Open) -> None:
    async with open_intake(IntakeOptions(topic_prefix="dc1.")) as rig:
        answer = await rig.post([thing(), thing("eventlogging_Thing"), thing("job.any")])
        assert answer.status_code == 201
        for topic in ("dc1.things", "eventlogging_Thing", "dc1.job.any"):
            assert len(await rig.stored(topic)) == 1


# -- stamping


async def test_time_is_replaced_and_id_kept(open_intake: Open) -> None:
    async with open_intake() as rig:
        event = thing()
        event["meta"]["dt"] = "2001-01-01T00:00:00Z"
        await rig.post([event, {"$schema": "/thing/1.0.0", "meta": {"stream": "things"}}])
        first, second = await rig.events("things")
        assert not first["meta"]["dt"].startswith("2001")
        assert first["meta"]["id"] == "one"
        assert len(second["meta"]["id"]) == 36
        assert "dt" not in first


async def test_legacy_schemas_get_a_time_of_their_own(open_intake: Open) -> None:
    async with open_intake() as rig:
        event = {"$schema": "/analytics/legacy/thing/1.0.0", "meta": {"stream": "legacy"}}
        await rig.post([event, event | {"dt": "kept"}])
        first, second = await rig.events("legacy")
        assert (first["dt"], second["dt"]) == (first["meta"]["dt"], "kept")


async def test_header_fields_are_filled_as_the_stream_says(open_intake: Open) -> None:
    async with open_intake() as rig:
        await rig.post([thing(), thing("agents")], x_request_id="r-1", user_agent="u" * 500)
        (plain,) = await rig.events("things")
        (agent,) = await rig.events("agents")
        assert plain["meta"]["request_id"] == agent["meta"]["request_id"] == "r-1"
        assert "request_headers" not in plain["http"]
        assert agent["http"]["request_headers"] == {"user-agent": "u" * 400}


@pytest.mark.parametrize(
    ("trusted", "headers", "address"),
    [
        (False, {"x_client_ip": "1.2.3.4", "x_forwarded_for": "5.6.7.8"}, "192.0.2.7"),
        (True, {"x_client_ip": "1.2.3.4", "x_forwarded_for": "5.6.7.8, 9.9.9.9"}, "1.2.3.4"),
        (True, {"x_forwarded_for": "5.6.7.8, 9.9.9.9"}, "5.6.7.8"),
        (True, {}, "192.0.2.7"),
    ],
)
async def test_client_address_is_believed_from_trusted_proxies_only(
    open_intake: Open, trusted: bool, headers: dict[str, str], address: str
) -> None:
    from eventstreams.addresses import parse_networks

    endpoint = EndpointOptions(trusted=parse_networks(["192.0.2.0/24"]) if trusted else ())
    async with open_intake(endpoint=endpoint) as rig:
        await rig.post(thing(), **headers)
        (event,) = await rig.events("things")
        assert event["http"]["client_ip"] == address


async def test_query_gives_schema_and_stream_to_events_without(open_intake: Open) -> None:
    options = IntakeOptions(schema_uri_parameter="schema_uri", stream_parameter="stream")
    async with open_intake(options) as rig:
        answer = await rig.post([{"name": "bare"}, thing()], "/v1/events?stream=others&schema_uri=/thing/1.0.0")
        assert answer.status_code == 207
        assert "schema title must be other" in answer.json()["error"][0]["context"]["message"]
        assert (await rig.post([{"name": "b"}], "/v1/events?stream=things&schema_uri=/thing/1.0.0")).status_code == 201
    async with open_intake() as rig:
        assert (
            await rig.post([{}, {"name": "b"}], "/v1/events?stream=things&schema_uri=/thing/1.0.0")
        ).status_code == 500


# -- experiments

EXPERIMENTS = IntakeOptions(
    transforms=("defaults", "edge_uniques", "test_kitchen"), denied_user_agents=["[Bb]ingbot"], error_stream="errors"
)
AWAITING = {"enrolled": "e", "assigned": "g", "subject_id": "awaiting"}


async def test_subject_is_filled_in_from_the_enrollments(open_intake: Open) -> None:
    async with open_intake(EXPERIMENTS) as rig:
        await rig.post(thing("subjects", experiment=AWAITING), x_experiment_enrollments="a=b/c;e=g/s;")
        (event,) = await rig.events("subjects")
        assert event["experiment"]["subject_id"] == "s"
        await rig.post(thing("things", experiment=AWAITING), x_experiment_enrollments="e=g/s")
        (event,) = await rig.events("things")
        assert event["experiment"]["subject_id"] == "awaiting"


@pytest.mark.parametrize(
    ("header", "kind"),
    [("e=other/s;", "HoistingError"), ("", "HoistingError"), ("nonsense", "MalformedHeaderError")],
)
async def test_subject_that_cannot_be_filled_in_is_an_error_event(open_intake: Open, header: str, kind: str) -> None:
    async with open_intake(EXPERIMENTS) as rig:
        answer = await rig.post(thing("subjects", experiment=AWAITING), x_experiment_enrollments=header)
        assert answer.status_code == 500
        assert header not in answer.json()["error"][0]["context"]["message"] or not header
        await rig.intake._finish(10)
        (event,) = await rig.events("errors")
        assert event["error_type"] == kind


async def test_denied_user_agents_are_refused_in_experiments_only(open_intake: Open) -> None:
    async with open_intake(EXPERIMENTS) as rig:
        assert (await rig.post(thing("kitchen"), user_agent="bingbot/2.0")).status_code == 500
        assert (await rig.post(thing("kitchen"), user_agent="Mozilla")).status_code == 201
        assert (await rig.post(thing("things"), user_agent="bingbot/2.0")).status_code == 201


# -- hasty, dry run, deduplication


@pytest.mark.parametrize("query", ["hasty=true", "hasty=false", "hasty[]=", "x=1&hasty=1"])
async def test_hasty_is_answered_202_before_anything_is_stored(open_intake: Open, query: str) -> None:
    async with open_intake() as rig:
        answer = await rig.post([thing(), thing(count="x")], f"/v1/events?{query}")
        assert (answer.status_code, answer.content) == (202, b"")
        await rig.intake._finish(10)
        assert len(await rig.stored("things")) == 1


@pytest.mark.parametrize("query", ["hasty=", "hasty", "x=hasty"])
async def test_hasty_without_a_value_waits(open_intake: Open, query: str) -> None:
    async with open_intake() as rig:
        assert (await rig.post(thing(), f"/v1/events?{query}")).status_code == 201


async def test_hasty_events_hold_their_room_until_they_are_settled(open_intake: Open) -> None:
    async with open_intake() as rig:
        assert [(await rig.post(thing(), "/v1/events?hasty=1")).status_code for _ in range(5)] == [202] * 5
        await rig.intake.drain(10)
        assert rig.value("eventstreams_intake_in_flight_bytes") == 0
        assert len(await rig.events("things")) == 5


@pytest.mark.parametrize(("fate", "lost"), [("stored", 0), ("refused", 2), ("unknown", 2)])
async def test_hasty_events_are_counted_as_lost_only_when_they_are(open_intake: Open, fate: str, lost: int) -> None:
    async with log_with("things") as log:
        away = AwayLog(log)
        async with open_intake(log=away) as rig:
            away.late = True
            assert (await rig.post([thing(), thing(), thing(count="x")], "/v1/events?hasty=1")).status_code == 202
            async with asyncio.timeout(10):
                while rig.intake.in_flight._size or len(away.open) < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            assert rig.value("eventstreams_hasty_events_lost_total") == 0
            await away.decide(fate)
        assert rig.value("eventstreams_hasty_events_lost_total") == lost


async def test_lost_hasty_events_are_counted(open_intake: Open) -> None:
    async with open_intake(wrap=lambda log: Refusing(log, LogUnavailable("away"))) as rig:
        assert (await rig.post([thing(), thing()], "/v1/events?hasty=1")).status_code == 202
        await rig.intake._finish(10)
        assert rig.value("eventstreams_hasty_events_lost_total") == 2


async def test_dry_run_tells_outcomes_and_stores_nothing(open_intake: Open) -> None:
    async with open_intake(IntakeOptions(error_stream="errors")) as rig:
        answer = await rig.post(thing(), "/v1/events?validate_only=true")
        assert (answer.status_code, answer.json()) == (200, {"invalid": [], "error": []})
        answer = await rig.post([thing(), thing(count="x")], "/v1/events?validate_only=true&hasty=1")
        assert (answer.status_code, len(answer.json()["invalid"])) == (207, 1)
        await rig.intake._finish(10)
        assert await rig.stored("things") == await rig.stored("errors") == []
        assert (await rig.post(thing(), "/v1/events?validate_only=maybe")).status_code == 400


async def test_event_that_comes_again_is_acknowledged_and_not_stored_again(open_intake: Open) -> None:
    async with open_intake() as rig:
        answers = await asyncio.gather(*(rig.post([thing("once"), thing("once")]) for _ in range(3)))
        assert {answer.status_code for answer in answers} == {201}
        assert len(await rig.stored("once")) == 1
        await rig.post([thing("things"), thing("things")])
        assert len(await rig.stored("things")) == 2


async def test_event_that_was_not_stored_may_come_again(open_intake: Open) -> None:
    refusing: list[Refusing] = []

    def wrap(log: EventLog) -> EventLog:
        refusing.append(Refusing(log, LogUnavailable("away")))
        return refusing[0]

    async with open_intake(wrap=wrap) as rig:
        answer = await rig.post([thing("once"), thing("once")])
        assert (answer.status_code, len(answer.json()["error"])) == (503, 2)
        refusing[0].outcome = None
        assert (await rig.post(thing("once"))).status_code == 201
        assert len(await rig.stored("once")) == 1


# -- error events


async def test_invalid_event_becomes_an_error_event(open_intake: Open) -> None:
    async with open_intake(IntakeOptions(error_stream="errors", user_agent="gate-1")) as rig:
        event = thing(count="x")
        event["meta"] |= {"domain": ["odd"], "uri": {"a": {"b": 1}}}
        await rig.post(event, x_request_id="r-1")
        await rig.intake._finish(10)
        (told,) = await rig.events("errors")
        raw = json.loads(told.pop("raw_event"))
        assert raw["count"] == "x"
        assert told.pop("dt") <= told["meta"].pop("dt")
        assert told["meta"].pop("id")
        assert told == {
            "$schema": "/error/2.1.0",
            "meta": {"uri": '{"a":{"b":1}}', "domain": '["odd"]', "request_id": "r-1", "stream": "errors"},
            "emitter_id": "gate-1",
            "errored_schema_uri": "/thing/1.0.0",
            "errored_stream_name": "things",
            "message": "'.count' should be integer, '.meta.domain' should be string, '.meta.uri' should be string"
            if told["message"].startswith("'.count'")
            else told["message"],
            "error_type": "ValidationError",
        }


async def test_other_failures_become_error_events_only_when_asked(open_intake: Open) -> None:
    reasons = frozenset({"UnauthorizedSchemaForStreamError"})
    for options, count in (
        (IntakeOptions(error_stream="errors"), 0),
        (IntakeOptions(error_stream="errors", error_reasons=reasons), 1),
    ):
        async with open_intake(options) as rig:
            await rig.post(thing("nowhere"))
            await rig.intake._finish(10)
            assert len(await rig.stored("errors")) == count


async def test_error_event_that_cannot_be_stored_is_counted(open_intake: Open) -> None:
    async with open_intake(IntakeOptions(error_stream="nowhere")) as rig:
        assert (await rig.post(TOO_MANY)).status_code == 400
        await rig.intake._finish(10)
        assert rig.value("eventstreams_error_events_lost_total") == 1


# -- the rest of the surface


async def test_counters_know_configured_names_only(open_intake: Open) -> None:
    async with open_intake() as rig:
        await rig.post([thing(), thing("nowhere"), thing() | {"$schema": "/x/1.0.0"}])
        names = {"service": "test", "stream": "things", "schema_uri": "/thing/1.0.0"}
        assert rig.value("eventgate_events_produced_total", **names) == 1
        unauthorised = {"stream": "unknown", "error_type": "UnauthorizedSchemaForStreamError"}
        assert rig.value("eventgate_validation_errors_total", **(names | unauthorised)) == 1
        unloaded = {"schema_uri": "unknown", "error_type": "EventSchemaLoadError"}
        assert rig.value("eventgate_validation_errors_total", **(names | unloaded)) == 1


async def test_test_events_are_taken_anew_each_time(open_intake: Open) -> None:
    async with open_intake(endpoint=EndpointOptions(test_events=[thing()])) as rig:
        for _ in range(2):
            assert (await rig.http.get("/v1/_test/events")).status_code == 201
        first, second = await rig.events("things")
        assert first["meta"]["dt"] <= second["meta"]["dt"]
        assert (await rig.http.post("/v1/_test/events")).status_code == 404


async def test_stream_configurations_are_shown_by_name(open_intake: Open) -> None:
    async with open_intake() as rig:
        assert set((await rig.http.get("/v1/stream-configs")).json()) >= {"things", "/^job\\./"}
        found = (await rig.http.get("/v1/stream-configs/things|job.a,nope")).json()
        assert found == {"things": {"schema_title": "thing"}, "job.a": {"schema_title": "thing"}}
        assert (await rig.post(thing("job.any"))).status_code == 201


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/robots.txt", 200),
        ("HEAD", "/robots.txt", 200),
        ("GET", "/_info/", 200),
        ("GET", "/_info/name", 200),
        ("GET", "/_info/home", 301),
        ("GET", "/_info/zzz", 404),
        ("GET", "/?spec", 200),
        ("GET", "/?doc=true", 200),
        ("GET", "/", 404),
        ("GET", "/?fooo=true", 404),
        ("GET", "/v1/events", 404),
        ("DELETE", "/v1/events", 404),
        ("GET", "/%zz", 400),
        ("GET", "/v1/stream-configs/%", 400),
        ("POST", "/v1/events%", 400),
        ("GET", "/?doc&path=../..", 404),
        ("GET", "/?doc&path=/etc/passwd", 404),
        ("GET", "/?doc&path=%00", 404),
        ("PUT", "/robots.txt", 404),
        ("POST", "//v1/events", 404),
        ("OPTIONS", "/v1/events", 200),
        ("POST", "/V1/Events/", 400),
    ],
)
async def test_routes(open_intake: Open, method: str, path: str, status: int) -> None:
    async with open_intake() as rig:
        answer = await rig.http.request(method, path, headers={"origin": "https://wiki.example"})
        assert answer.status_code == status
        assert answer.headers["access-control-allow-methods"] == "post"
        if method == "OPTIONS":
            assert answer.headers["allow"] == "POST"


async def test_preflight_allows_the_header_fields_that_it_asks_for(open_intake: Open) -> None:
    async with open_intake() as rig:
        asked = {"access-control-request-headers": "authorization,x-one , (no)", "origin": "https://wiki.example"}
        answer = await rig.http.options("/v1/events", headers=asked)
        allowed = answer.headers["access-control-allow-headers"]
        assert allowed == "accept, x-requested-with, content-type, authorization, x-one"


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", 200),
        ("text/html", 200),
        ("*/*", 404),
        ("application/json, text/html;q=0.9", 404),
        (None, 404),
    ],
)
@pytest.mark.parametrize("path", ["/", "/?other=1"])
async def test_root_is_a_page_for_browsers_that_points_to_the_documentation(
    open_intake: Open, path: str, accept: str | None, status: int
) -> None:
    async with open_intake() as rig:
        rig.http.headers.pop("accept", None)
        answer = await rig.http.get(path, headers={} if accept is None else {"accept": accept})
        assert answer.status_code == status
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["vary"] == "Accept"
        assert '<a href="?doc">' in answer.text
        assert ("Cannot GET /" in answer.text) is (status == 404)
        assert (await rig.http.post(path, headers={"accept": "text/html"})).status_code == 404


async def test_nothing_of_intake_is_named_after_the_original(open_intake: Open) -> None:
    async with open_intake() as rig:
        assert (await rig.http.get("/_info/home")).headers["location"] == "/?doc"
        for path in ("/", "/?doc", "/?spec", "/_info"):
            text = (await rig.http.get(path, headers={"accept": "text/html"})).text.lower()
            assert "wikimedia" not in text
            assert "wikitech" not in text


async def test_any_stream_is_taken_without_a_stream_configuration(open_intake: Open) -> None:
    async with open_intake(IntakeOptions(transforms=()), any_stream=True) as rig:
        assert (await rig.post(thing("whatever"))).status_code == 201
        (event,) = await rig.events("whatever")
        assert "dt" not in event["meta"]
        assert (await rig.http.get("/v1/stream-configs")).status_code == 404


@pytest.mark.parametrize(("depth", "status"), [(240, 201), (260, 400), (900, 400)])
@pytest.mark.parametrize("text", ["x", "\ud800"])
async def test_deep_events_are_stored_or_refused_clearly(open_intake: Open, depth: int, status: int, text: str) -> None:
    deep: Any = text
    for _ in range(depth):
        deep = [deep]
    async with open_intake() as rig:
        answer = await rig.post(thing(deep=deep))
        assert answer.status_code == status
        assert (await rig.post(thing(deep=deep, count="x"))).status_code == 400


async def test_items_that_are_no_objects_fail_one_by_one(open_intake: Open) -> None:
    async with open_intake() as rig:
        answer = await rig.post([[thing()], None, True, "x", thing()])
        assert (answer.status_code, len(answer.json()["error"])) == (207, 4)
