"""The client of intake and `eventstreams produce`, against an intake that has its troubles."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from eventstreams.deliveries import Delivery
from eventstreams.errors import AppendTimeout, LogError, LogUnavailable, ProducerError
from eventstreams.eventlog.base import EventLog
from eventstreams.eventlog.embedded.log import EmbeddedLog
from eventstreams.producer import Producer
from eventstreams.records import NewRecord
from eventstreams.server import beside, listen
from intake.endpoints import EndpointOptions
from intake.options import IntakeOptions
from tests.intake.conftest import Open, Rig, thing
from tests.support.away import AwayLog
from tests.support.processes import ROOT, IntakeProcess
from tests.support.topics import make_topics

COMMAND = [sys.executable, "-c", "from eventstreams.cli import main; main()", "produce"]
Answer = Callable[[int], Response | None]


class Service:
    """An intake at an address. `instead` may answer a request, by its number; `lose` loses its answer."""

    def __init__(self, rig: Rig) -> None:
        self._app = rig.app
        self.requests: list[int] = []
        self.instead: Answer = lambda _: None
        self.lose: Callable[[int], bool] = lambda _: False
        self.url = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        number = len(self.requests)
        self.requests.append(0)
        response = self.instead(number)
        if response is not None:
            await response(scope, receive, send)
            return
        lost = False

        async def passed(message: Message) -> None:
            nonlocal lost
            lost = lost or self.lose(number)
            if not lost:
                await send(message)

        await self._app(scope, receive, passed)


@contextlib.asynccontextmanager
async def serving(rig: Rig) -> AsyncIterator[Service]:
    service = Service(rig)
    with contextlib.closing(listen("127.0.0.1", 0)) as listener:
        async with beside(service, listener):
            service.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            yield service


def numbered(count: int, stream: str = "once") -> list[dict[str, Any]]:
    return [thing(stream) | {"meta": {"stream": stream, "id": f"id-{n}"}} for n in range(count)]


async def ids(rig: Rig, topic: str) -> list[str]:
    return [event["meta"]["id"] for event in await rig.events(topic)]


async def test_only_what_was_not_stored_is_sent_again(open_intake: Open) -> None:
    refusals = [LogUnavailable("away"), AppendTimeout("late")]

    def refuse(record: NewRecord) -> LogError | None:
        return refusals.pop() if refusals and b"id-1" in record.value else None

    def troubled(log: EventLog) -> AwayLog:
        away = AwayLog(log)
        away.refuse = refuse
        return away

    events = numbered(3, "things")
    wrong: list[Any] = [{**thing(), "name": 5}, {**thing("nowhere")}, 7, {}]
    async with open_intake(wrap=troubled) as rig, serving(rig) as service:
        async with Producer(service.url) as producer:
            sent = await producer.send([wrong[0], *events, *wrong[1:]])
        assert Counter(await ids(rig, "things")) == Counter(["id-0", "id-1", "id-2"])
        assert sent.accepted == 3
        assert [(refusal.index, refusal.status) for refusal in sent.refused] == [
            (0, "invalid"),
            (4, "error"),
            (5, "error"),
            (6, "error"),
        ]
        assert sent.refused[0].errors[0]["dataPath"] == ".name"
        assert "nowhere is not configured" in sent.refused[1].message
        assert sent.refused[2].event == 7


@pytest.mark.parametrize("told", ["1", formatdate(usegmt=True), ""])
@pytest.mark.parametrize("status", [429, 503])
async def test_refused_for_now_is_sent_again_when_told(open_intake: Open, told: str, status: int) -> None:
    async with open_intake() as rig, serving(rig) as service:
        began = asyncio.get_running_loop().time()
        headers = {"retry-after": told} if told else {}
        service.instead = lambda number: Response("{}", status, headers) if number == 0 else None
        async with Producer(service.url + "/v1/events", compress=True) as producer:
            sent = await producer.send([{"$schema": "/thing/1.0.0", "meta": {"stream": "things"}}])
        assert (sent.accepted, len(service.requests)) == (1, 2)
        assert (asyncio.get_running_loop().time() - began >= 1) == (told == "1")
        assert re.fullmatch(r"[0-9a-f-]{36}", (await ids(rig, "things"))[0])


async def test_batch_over_the_limit_is_sent_in_parts(open_intake: Open) -> None:
    events = numbered(20, "things")
    large = thing(name="x" * 2000)
    async with open_intake(endpoint=EndpointOptions(max_body_bytes=1000)) as rig, serving(rig) as service:
        async with Producer(service.url, patience=20) as producer:
            sent = await producer.send([*events[:7], large, *events[7:]])
        assert await ids(rig, "things") == [event["meta"]["id"] for event in events]
        assert [refusal.index for refusal in sent.refused] == [7]
        assert "at most 1000" in sent.refused[0].message


async def test_what_is_no_intake_is_told_at_once(open_intake: Open) -> None:
    async with open_intake() as rig, serving(rig) as service:
        service.instead = lambda number: Response("{}" if number else "no", 404 if number == 0 else 500)
        async with Producer(service.url) as producer:
            for status in (404, 500):
                with pytest.raises(ProducerError, match=rf"answer(ed)? {status} [A-Z]"):
                    await producer.send([thing()])
            with pytest.raises(ProducerError, match="event 1 of the batch cannot be written as JSON"):
                await producer.send([thing(), thing(name={1, 2})])
            assert await producer.send([]) == await producer.send([], hasty=True)
    for url in ("intake:8192", "ftp://intake", "http://", "http://[::1"):
        with pytest.raises(ProducerError, match="url "):
            Producer(url)


async def test_nothing_is_stored_where_events_are_only_validated(open_intake: Open) -> None:
    async with open_intake() as rig, serving(rig) as service, Producer(service.url) as producer:
        sent = await producer.send([thing(), thing(name=5)], validate_only=True)
        assert (sent.accepted, len(sent.refused)) == (1, 1)
        assert (await producer.send([thing()], validate_only=True)).accepted == 1
        assert await rig.stored("things") == []
        assert (await producer.send([thing(), {}], hasty=True)).accepted == 2


FATES = st.sampled_from(["stored", "invalid", "refused", "later"])


@given(st.lists(st.tuples(FATES, st.sampled_from(["a", "b", None])), min_size=1, max_size=8), st.data())
def test_each_event_of_a_batch_ends_as_intake_decided(
    batch: Sequence[tuple[str, str | None]], data: st.DataObject
) -> None:
    """Whatever comes back, in however many attempts; ids may be missing or occur twice."""
    events = [{"n": n, "meta": {"id": name}} if name else n for n, (_, name) in enumerate(batch)]
    delivery = Delivery(events)
    fates = {n: fate for n, (fate, _) in enumerate(batch)}
    stored: list[int] = []
    while delivery.open:
        numbers = list(delivery.open)
        assert [fates[n] for n in numbers if n in stored] == []
        outcomes = {n: fates[n] for n in numbers}
        fates = {n: data.draw(FATES) if fate == "later" else fate for n, fate in fates.items()}
        stored += [n for n, fate in outcomes.items() if fate == "stored"]
        delivery.note(numbers, *answered(outcomes, events))
    assert sorted([*stored, *delivery.refused]) == list(range(len(batch)))
    assert {n: fates[n] for n in stored} == dict.fromkeys(stored, "stored")
    for number, refusal in delivery.refused.items():
        assert refusal.event == events[number]
        assert refusal.status == {"invalid": "invalid", "refused": "error"}[fates[number]]


def answered(outcomes: dict[int, str], events: Sequence[Any]) -> tuple[int, bytes]:
    fates = set(outcomes.values())
    items: dict[str, list[Any]] = {"invalid": [], "error": []}
    for number, fate in outcomes.items():
        if fate != "stored":
            kind = "invalid" if fate == "invalid" else "error"
            items[kind].append({"status": kind, "event": events[number], "context": {"message": fate}})
    failed = 503 if "later" in fates else 400 if fates == {"invalid"} else 500
    status = 201 if fates == {"stored"} else 207 if "stored" in fates else failed
    return status, json.dumps(items).encode()


async def produce(*arguments: str, stdin: bytes | None = None) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *arguments, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    _, error = await asyncio.wait_for(process.communicate(stdin), 60)
    return process.returncode, error.decode()


@pytest.mark.parametrize("with_ids", [True, False])
async def test_killed_producer_goes_on_where_it_was(open_intake: Open, tmp_path: Path, with_ids: bool) -> None:
    """Killed when a batch is stored and its answer not read: sent again, it is stored once."""
    events = numbered(50)
    if not with_ids:
        for event in events:
            del event["meta"]["id"]
    file, progress = tmp_path / "events.ndjson", tmp_path / "progress"
    file.write_text("".join(json.dumps(event | {"count": n}) + "\n" for n, event in enumerate(events)))
    arguments = (str(file), "--batch", "10", "--progress", str(progress), "--gzip")
    async with open_intake() as rig, serving(rig) as service:
        process = await asyncio.create_subprocess_exec(*COMMAND, *arguments, "--url", service.url, cwd=ROOT)

        def kill(number: int) -> bool:
            if number == 2:
                process.send_signal(signal.SIGKILL)
            return number == 2

        service.lose = kill
        assert await process.wait() == -signal.SIGKILL
        assert json.loads(progress.read_text())["lines"] == 20
        assert len(await rig.stored("once")) == 30
        code, error = await produce(*arguments, "--url", service.url)
        assert (code, error) == (0, "going on after line 20\n50 accepted, 0 refused\n")
        assert len(service.requests) == 6
        assert [event["count"] for event in await rig.events("once")] == list(range(50))
        assert not progress.exists()


async def test_producer_outlives_a_killed_intake(tmp_path: Path) -> None:
    lines = [
        json.dumps({"$schema": "/test/event/1.0.0", "meta": {"stream": "test.event", "id": f"id-{n}"}, "test": "x"})
        for n in range(300)
    ]
    log = await make_topics(tmp_path / "events.db", "test.event")
    intake = IntakeProcess(log)
    await intake.start()
    host, port = intake.address
    process = await asyncio.create_subprocess_exec(
        *[*COMMAND, "--batch", "100", "--progress", str(tmp_path / "progress"), "--url", f"http://{host}:{port}"],
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write("\n".join(lines[:150]).encode() + b"\n")
    await process.stdin.drain()
    await intake.end(signal.SIGKILL)
    restarted = IntakeProcess(log, f"intake.port={port}")
    async with restarted.running():
        _, error = await asyncio.wait_for(process.communicate("\n".join(lines[150:]).encode()), 60)
        assert (process.returncode, error.decode().splitlines()[-1]) == (0, "300 accepted, 0 refused")
        code, told = await produce("--url", restarted.url, "--validate-only", stdin=b"\n".join(map(str.encode, lines)))
        assert (code, told) == (0, "300 would be accepted, 0 refused\n")


async def test_refused_lines_are_kept_with_their_reason(open_intake: Open, tmp_path: Path) -> None:
    odd = b'{"$schema":"/thing/1.0.0","meta":{"stream":"things"},"page":{"n":%d,"s":"\\ud800"}}' % 2**70
    lines = [odd, b"nonsense", b'{"n": NaN}', b"", b"[" * 100_000, json.dumps(thing(name=5)).encode()]
    rejected = tmp_path / "rejected"
    async with open_intake() as rig, serving(rig) as service:
        arguments = ("--url", service.url, "--rejected", str(rejected))
        code, error = await produce(*arguments, stdin=b"\n".join(lines))
        assert (code, error.splitlines()[-1]) == (1, "1 accepted, 4 refused")
        assert [line.split(maxsplit=2)[1].rstrip(":") for line in error.splitlines()[:-1]] == ["2", "3", "5", "6"]
        (event,) = await rig.events("things")
        assert event["page"]["s"] == "\ud800"
        items = [json.loads(line) for line in rejected.read_text().splitlines()]
        assert [(item["line"], item["status"]) for item in items] == [
            (2, "error"),
            (3, "error"),
            (5, "error"),
            (6, "invalid"),
        ]
        assert items[0]["text"] == "nonsense"
        assert items[3]["errors"][0]["keyword"] == "type"
        assert items[3]["event"]["name"] == 5


async def test_progress_of_another_input_is_refused(open_intake: Open, tmp_path: Path) -> None:
    progress = tmp_path / "progress"
    async with open_intake(IntakeOptions()) as rig, serving(rig) as service:
        service.instead = lambda number: Response("{}", 400) if number == 1 else None
        arguments = ("--url", service.url, "--batch", "1", "--progress", str(progress))
        lines = [json.dumps(event).encode() for event in numbered(2)]
        code, error = await produce(*arguments, stdin=b"\n".join(lines))
        assert (code, error.splitlines()[-1]) == (3, "to go on: run the same again")
        for other in (lines[1:], [lines[1], lines[0]]):
            code, error = await produce(*arguments, stdin=b"\n".join(other))
            assert code == 3
            assert "line 1 is not the one of the progress file" in error
        progress.write_text('{"run": 5}')
        assert "no progress file" in (await produce(*arguments, stdin=b""))[1]
        code, error = await produce("--progress", str(progress), "--validate-only")
        assert (code, "--validate-only notes no progress" in error) == (2, True)


async def test_example_of_the_documentation_works(open_intake: Open) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "producing.md").read_text(), re.DOTALL)
    async with open_intake() as rig, serving(rig) as service:
        example = example.replace("http://127.0.0.1:8192", service.url)
        example = example.replace("/test/event/1.0.0", "/thing/1.0.0").replace("test.event", "things")
        example = example.replace('"test":', '"name":')
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", example, cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0
        assert output.decode().splitlines() == ["1 accepted", "event 1 invalid '.name' should be string"]
        assert len(await rig.stored("things")) == 1


async def test_lines_that_come_slowly_do_not_wait_for_a_full_batch(open_intake: Open) -> None:
    async with open_intake() as rig, serving(rig) as service:
        process = await asyncio.create_subprocess_exec(
            *COMMAND, "--url", service.url, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        assert process.stdin is not None
        assert isinstance(rig.log, EmbeddedLog)
        for number, event in enumerate(numbered(4, "things")):
            text = json.dumps(event).encode() + b"\n"
            for part in (text[:20], text[20:]):
                process.stdin.write(part)
                await process.stdin.drain()
            async with asyncio.timeout(30):
                while True:
                    bell = rig.log.bell
                    if len(await rig.stored("things")) > number:
                        break
                    await bell
        process.send_signal(signal.SIGINT)
        _, error = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 130
        # The fourth line is stored, so the third is acknowledged; whether the fourth is, the signal may not wait for.
        assert re.fullmatch(
            r"to go on: eventstreams produce --resume-after id-[23] \.\.\.", error.decode().splitlines()[-1]
        )
