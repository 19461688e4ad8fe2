"""The command line as a user runs it."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sys
import uuid
from pathlib import Path

import httpx
import pytest

from eventstreams.eventlog.embedded.log import open_embedded
from eventstreams.records import TopicPartition
from tests.support.kafka import Broker
from tests.support.topics import make_topics

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-c", "from eventstreams.cli import main; main()"]


FREE_PORTS = [part for name in ("gateway", "intake", "admin") for part in ("--set", f"{name}.port=0")]


async def start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def urls_of(process: asyncio.subprocess.Process, count: int) -> list[str]:
    """Return the first URLs that a command prints."""
    assert process.stdout is not None
    found: list[str] = []
    async with asyncio.timeout(30):
        async for line in process.stdout:
            found += re.findall(r"http://[\d.]+:\d+", line.decode())
            if len(found) >= count:
                return found[:count]
    raise AssertionError("the command ended without its URLs")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
async def test_dev_streams_live_and_old_events_and_stops_with_a_last_id(tmp_path: Path, stop: signal.Signals) -> None:
    log = f"log=embedded:{tmp_path / 'events.db'}"
    process = await start("dev", "--rate", "100", "--set", log, *FREE_PORTS)
    url, intake = await urls_of(process, 2)
    event = {"$schema": "/test/event/1.0.0", "meta": {"stream": "test.event"}, "test": "hello"}
    lines: list[str] = []
    async with (
        httpx.AsyncClient(timeout=30) as http,
        http.stream("GET", f"{url}/v2/stream/recentchange?since=0") as response,
        http.stream("GET", f"{url}/v2/stream/test.event", headers={"accept": "application/json"}) as posted,
    ):
        assert (await http.post(f"{intake}/v1/events", json=event)).status_code == 201
        assert json.loads(await anext(line async for line in posted.aiter_lines() if line))["test"] == "hello"
        async for line in response.aiter_lines():
            lines.append(line)
            # Once: the second signal would end it at once.
            if line.startswith("data: ") and len([line for line in lines if line.startswith("data: ")]) == 850:
                process.send_signal(stop)
    await asyncio.wait_for(process.wait(), 30)
    assert lines[0] == ":ok"
    assert any(re.fullmatch(r"retry: \d+", line) for line in lines)
    assert json.loads([line for line in lines if line.startswith("id: ")][-1][4:])[0]["offset"] >= 850


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "log=redis://x"], "setting log = redis://x: expected embedded:PATH"),
        (["--set", "log=embedded::memory:", "--set", "streams=nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["--set", "log=embedded::memory:", "--set", "allowed_streams=nope"], "for the gateway, found none in"),
        (["--config", "nowhere.yaml"], "settings file nowhere.yaml cannot be read"),
    ],
)
async def test_configuration_errors_are_one_sentence(arguments: list[str], message: str) -> None:
    process = await start("serve", *FREE_PORTS, *arguments)
    _, error = await process.communicate()
    assert process.returncode == 2
    assert message in error.decode()
    assert "Traceback" not in error.decode()


async def test_port_in_use_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await start("serve", "--set", "log=embedded::memory:", "--set", f"gateway.port={port}")
        _, error = await process.communicate()
    assert error.decode() == f"eventstreams: cannot listen on 127.0.0.1 port {port}: Address already in use\n"


MEMORY = ("--set", "log=embedded::memory:")
GOOD = '{"$schema":"/test/event/1.0.0","meta":{"stream":"test.event","id":"%s"},"test":"x"}\n'


async def run(*arguments: str, stdin: str = "") -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await asyncio.wait_for(process.communicate(stdin.encode()), 60)
    return process.returncode, out.decode(), error.decode()


async def apply_test_stream(folder: Path, url: str, topic: str) -> Path:
    """Configure `test.event` with one topic, and make that; return the file of streams."""
    streams = folder / "streams.yaml"
    streams.write_text(json.dumps({"test.event": {"schema_title": "test/event", "topics": [topic]}}))
    code, _, error = await run("streams", "apply", "--set", f"log={url}", "--set", f"streams={streams}")
    assert code == 0, error
    return streams


async def test_produced_events_are_shown_by_tail(tmp_path: Path) -> None:
    log = ("--set", f"log={await make_topics(tmp_path / 'events.db', 'test.event')}")
    intake = await start("intake", *log, *FREE_PORTS)
    (url,) = await urls_of(intake, 1)
    lines = [GOOD % f"id-{number}" for number in range(250)]
    code, _, error = await run("produce", "--url", url, "--batch", "100", stdin="".join([*lines, "{}\n", "nonsense\n"]))
    assert code == 1
    assert "line 252 is no JSON" in error
    assert "error: Field(s) $schema were missing" in error
    assert "250 accepted, 2 refused" in error
    code, _, error = await run("produce", "--url", url, "--resume-after", "id-247", stdin="".join(lines))
    assert (code, error) == (0, "2 accepted, 0 refused\n")
    code, _, error = await run("produce", "--url", url, "--resume-after", "nowhere", stdin="".join(lines))
    assert code == 3
    assert "no event of the input has this meta.id" in error
    intake.send_signal(signal.SIGTERM)
    await asyncio.wait_for(intake.wait(), 30)

    gateway = await start("serve", *log, *FREE_PORTS)
    (url,) = await urls_of(gateway, 1)
    code, out, _ = await run("tail", "test.event", "--url", url, "--since", "0", "--json", "--count", "252")
    assert code == 0
    assert [json.loads(line)["meta"]["id"] for line in out.splitlines()][:250] == [f"id-{n}" for n in range(250)]
    code, out, _ = await run("tail", "test.event", "--url", url, "--since", "0", "--count", "1")
    assert "test.event" in out
    code, _, error = await run("tail", "nope", "--url", url)
    assert code == 2
    assert "Invalid streams: nope" in error
    gateway.send_signal(signal.SIGTERM)
    await asyncio.wait_for(gateway.wait(), 30)


async def test_topic_that_is_not_there_is_answered_500_until_it_is_applied(tmp_path: Path) -> None:
    streams = tmp_path / "streams.yaml"
    streams.write_text("{test.event: {schema_title: test/event}, test.other: {schema_title: test/event}}")
    path = tmp_path / "events.db"
    given = ("--set", f"log={await make_topics(path, 'test.other')}", "--set", f"streams={streams}")
    intake = await start("intake", *given, *FREE_PORTS)
    (url,) = await urls_of(intake, 1)
    here = {"$schema": "/test/event/1.0.0", "meta": {"stream": "test.event"}, "test": "x"}
    other = {**here, "meta": {"stream": "test.other"}}
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        answer = await http.post("/v1/events", json=here)
        assert answer.status_code == 500
        assert "there is no topic 'test.event': eventstreams streams apply" in answer.text
        mixed = await http.post("/v1/events", json=[here, other])
        assert mixed.status_code == 207
        assert [error["event"]["meta"]["stream"] for error in mixed.json()["error"]] == ["test.event"]
        async with open_embedded(str(path)) as log:
            assert await log.partitions("test.event") == []
            assert (await log.extents([TopicPartition("test.other", 0)]))[TopicPartition("test.other", 0)].end == 1
        _, out, _ = await run("streams", "apply", *given)
        assert "1 topics made" in out
        assert (await http.post("/v1/events", json=[here, other])).status_code == 201
    intake.send_signal(signal.SIGTERM)
    await asyncio.wait_for(intake.wait(), 30)


async def test_log_in_memory_has_the_topics_of_the_configuration() -> None:
    intake = await start("intake", *MEMORY, "--set", "intake.topic_prefix=dc1.", *FREE_PORTS)
    (url,) = await urls_of(intake, 1)
    code, _, error = await run("produce", "--url", url, stdin=GOOD % "a")
    assert (code, error) == (0, "1 accepted, 0 refused\n")
    intake.send_signal(signal.SIGTERM)
    await asyncio.wait_for(intake.wait(), 30)


async def test_dev_makes_the_topics_that_its_events_need(tmp_path: Path) -> None:
    streams = tmp_path / "streams.yaml"
    streams.write_text("{test.event: {schema_title: test/event}, errors: {schema_title: error}}")
    path = tmp_path / "events.db"
    settings = (f"log=embedded:{path}", f"streams={streams}", "intake.topic_prefix=dc1.", "intake.error_stream=errors")
    given = [part for setting in settings for part in ("--set", setting)]
    process = await start("dev", *given, *FREE_PORTS)
    _, url = await urls_of(process, 2)
    code, _, error = await run("produce", "--url", url, stdin=GOOD % "a" + GOOD.replace('"x"', "1") % "b")
    assert (code, error.splitlines()[-1]) == (1, "1 accepted, 1 refused")
    process.send_signal(signal.SIGTERM)
    await asyncio.wait_for(process.wait(), 30)
    async with open_embedded(str(path)) as log:
        for topic in ("dc1.test.event", "dc1.errors"):
            assert (await log.extents([TopicPartition(topic, 0)]))[TopicPartition(topic, 0)].end >= 1
        assert await log.partitions("mediawiki.recentchange") == []


async def test_produce_says_how_to_go_on_when_intake_stays_away() -> None:
    code, _, error = await run("produce", "--url", "http://127.0.0.1:1", "--patience", "0.1", stdin=GOOD % "a")
    assert code == 3
    assert "did not take 1 of 1 events in 0.1 s" in error


async def test_streams_are_listed_checked_and_their_topics_made(tmp_path: Path) -> None:
    code, out, _ = await run("streams", "list")
    assert code == 0
    assert "mediawiki.recentchange\tmediawiki/recentchange\tmediawiki.recentchange" in out
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("streams:\n  x: {topics: 5}\n  y: {}\n")
    code, out, error = await run("streams", "check", "--set", f"streams={wrong}")
    assert (code, out) == (1, "1 stream, 1 wrong\n")
    assert (await run("streams", "check"))[1] == "5 streams with 3 aliases, nothing wrong\n"
    wrong.write_text("streams:\n  x:\n    schema_titel: test/event\n    schema_title: no/such\n")
    code, out, told = await run("streams", "check", "--set", f"streams={wrong}", "--set", "allowed_streams=y")
    assert (code, out) == (1, "1 stream, 3 wrong\n")
    assert f"{wrong}:3: schema_titel of stream x: there is no such setting; the nearest is schema_title" in told
    assert f"{wrong}:4: schema_title of stream x: no schema repository has a schema of this title" in told
    assert "setting allowed_streams: there is no stream y" in told
    code, _, told = await run("streams", "check", "--set", "gateway.port=x")
    assert (code, told.count("\n")) == (2, 1)
    assert f"{wrong}:2: topics of stream x: expected a list of topic names, found 5" in error
    log = ("--set", f"log=embedded:{tmp_path / 'events.db'}")
    _, out, _ = await run("streams", "apply", *log, "--dry-run")
    assert "create mediawiki.recentchange: partitions default" in out
    _, out, _ = await run("streams", "apply", *log)
    assert "5 topics made" in out
    _, out, _ = await run("streams", "apply", *log)
    assert "nothing to do" in out


@pytest.mark.kafka
async def test_topics_are_made_on_kafka_from_the_configuration(tmp_path: Path, kafka_broker: Broker) -> None:
    name = f"s{uuid.uuid4().hex}"
    streams = tmp_path / "streams.yaml"
    streams.write_text(f"{name}: {{kafka: {{partitions: 2, config: {{retention.ms: 5000}}}}}}\n")
    given = ("--set", f"streams={streams}", "--set", f"log=kafka://{kafka_broker.servers}")
    _, out, _ = await run("streams", "apply", *given, "--dry-run")
    assert f"create {name}: partitions 2, replicas default max.message.bytes=4259840 retention.ms=5000" in out
    _, out, _ = await run("streams", "apply", *given)
    assert "1 topics made, 0 grown" in out
    streams.write_text(f"{name}: {{kafka: {{partitions: 3}}}}\n")
    _, out, _ = await run("streams", "apply", *given)
    assert f"grow {name} to 3 partitions" in out
    streams.write_text(f"{name}: {{kafka: {{partitions: 1}}}}\n")
    _, out, _ = await run("streams", "apply", *given)
    assert f"{name} has 3 partitions, more than 1: left as it is" in out


@pytest.mark.kafka
async def test_events_go_through_kafka_from_a_post_to_a_stream(tmp_path: Path, kafka_broker: Broker) -> None:
    streams = tmp_path / "streams.yaml"
    streams.write_text("test.event: {schema_title: test/event, topics: [test.event]}\n")
    given = ("--set", f"streams={streams}", "--set", f"log=kafka://{kafka_broker.servers}")
    await run("streams", "apply", *given)
    intake, gateway = await start("intake", *given, *FREE_PORTS), await start("serve", *given, *FREE_PORTS)
    (to,), (at,) = await urls_of(intake, 1), await urls_of(gateway, 1)
    async with httpx.AsyncClient(timeout=30) as http:
        accept = {"accept": "application/json"}
        async with http.stream("GET", f"{at}/v2/stream/test.event", headers=accept) as live:
            for number in range(3):
                answer = await http.post(
                    f"{to}/v1/events", content=GOOD % number, headers={"content-type": "text/plain"}
                )
                assert answer.status_code == 201
            found: list[str] = []
            async for line in live.aiter_lines():
                if line:
                    found.append(json.loads(line)["meta"]["id"])
                if len(found) == 3:
                    break
        assert found == ["0", "1", "2"]
    _, out, _ = await run("tail", "test.event", "--url", at, "--since", "0", "--json", "--count", "3")
    assert [json.loads(line)["meta"]["offset"] for line in out.splitlines()] == [0, 1, 2]
    for process in (intake, gateway):
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) in (0, -signal.SIGTERM)


async def test_intake_without_a_broker_ends_with_a_sentence() -> None:
    code, _, error = await run("intake", "--set", "log=kafka://127.0.0.1:1", "--set", "log_wait=0", *FREE_PORTS)
    assert code == 2
    assert "Kafka at 127.0.0.1:1 cannot be reached" in error.splitlines()[-1]


async def test_log_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    code, _, error = await run("intake", "--set", f"log=embedded:{tmp_path / 'file' / 'events.db'}", *FREE_PORTS)
    assert code == 2
    assert "Traceback" not in error
    assert str(tmp_path) in error


async def test_admin_port_tells_metrics_health_and_readiness() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    intake = await start("intake", *MEMORY, *FREE_PORTS, "--set", f"admin.port={port}")
    await urls_of(intake, 1)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
        for path in ("/healthz", "/readyz"):
            assert (await http.get(path)).json() == {"status": "ok"}
        assert "eventstreams_intake_in_flight_bytes" in (await http.get("/metrics")).text
        assert (await http.get("/else")).status_code == 404
    intake.send_signal(signal.SIGTERM)
    await asyncio.wait_for(intake.wait(), 30)
