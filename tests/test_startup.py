"""What processes say when they have started."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from eventstreams.schemas.repository import count_schemas
from eventstreams.startup import Started, lines
from tests.support.topics import make_topics
from tests.test_cli import COMMAND, FREE_PORTS, ROOT

HANG_GUARD = 60.0
STREAMS = '{"edits": {"topics": ["a"], "schema_title": "test/event", "stream_aliases": ["changes"]}, "b": {}}'

TOLD = Started(
    urls={"gateway": ["http://127.0.0.1:1"], "admin": ["http://127.0.0.1:2"]},
    log="kafka://a:9092",
    streams=2,
    aliases=1,
    streams_from=["streams.yaml"],
    schemas=1,
    schemas_from=["schemas"],
    notes=["no limit", "in memory"],
    version="1.2.3",
)


class Said:
    """What a process said until it was told to stop: its output, and the fields of its line in the log."""

    def __init__(self, output: str, error: str) -> None:
        self.output = output.splitlines()
        self.started = [line for line in map(json.loads, error.splitlines()) if line["message"] == "started"]


async def run(*arguments: str, until: str, folder: Path = ROOT) -> Said:
    """Run a command until it has printed a line with these words, then end it."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        *FREE_PORTS,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(HANG_GUARD):
        output = b""
        async for line in process.stdout:
            output += line
            if until.encode() in line:
                break
        process.send_signal(signal.SIGTERM)
        rest, error = await process.communicate()
    return Said((output + rest).decode(), error.decode())


async def service(tmp_path: Path, *topics: str) -> Sequence[str]:
    """Return the settings of a service on a file with these topics."""
    (tmp_path / "streams.yaml").write_text(STREAMS)
    log = await make_topics(tmp_path / "events.db", *topics)
    return ["--set", f"log={log}", "--set", f"streams={tmp_path / 'streams.yaml'}"]


def test_lines_tell_where_and_on_what_then_what_is_unusual() -> None:
    assert lines(TOLD) == [
        "serving streams at http://127.0.0.1:1",
        "eventstreams 1.2.3, metrics and health at http://127.0.0.1:2",
        "log kafka://a:9092; 2 streams (1 alias) from streams.yaml; 1 schema from schemas",
        "  note: no limit",
        "  note: in memory",
    ]
    both = replace(
        TOLD,
        urls={"gateway": ["http://g"], "intake": ["http://i", "unix:/run/i"], "admin": ["http://a"]},
        aliases=0,
        schemas=None,
        schemas_from=["https://x", "schemas"],
        notes=[],
        workers=3,
        settings="my.yaml",
    )
    assert lines(both) == [
        "serving streams at http://g and taking events at http://i, unix:/run/i",
        "eventstreams 1.2.3, 3 workers, metrics and health at http://a",
        "settings my.yaml; log kafka://a:9092; 2 streams from streams.yaml; schemas from https://x, schemas",
    ]


def test_what_a_worker_says_is_read_as_it_was_said() -> None:
    assert lines(Started.load(TOLD.dump())) == lines(TOLD)
    assert Started.load(TOLD.dump()).fields() == TOLD.fields()


def test_schemas_are_counted_by_title_and_not_at_urls(tmp_path: Path) -> None:
    for name in ("a/b/1.0.0.yaml", "a/b/1.1.0.json", "a/b/current.yaml", "a/c/2.0.0", "x/readme.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert count_schemas([str(tmp_path)]) == 2
    assert count_schemas([str(tmp_path), str(tmp_path)]) == 2
    assert count_schemas([str(tmp_path / "x")]) == 0
    assert count_schemas([str(tmp_path), "https://x.example"]) is None
    assert count_schemas([str(tmp_path)], most=3) is None


@pytest.mark.parametrize(
    ("command", "words", "notes"),
    [
        ("serve", "serving streams at", ["no limit on connections", "the log has no topic a: "]),
        ("intake", "taking events at", ["refused events are counted", "the log has no topic b, edits: "]),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
async def test_service_says_once_what_runs_where(
    tmp_path: Path, command: str, words: str, notes: Sequence[str], workers: int
) -> None:
    given = await service(tmp_path)
    said = await run(command, *given, "--workers", str(workers), until=f"note: {notes[-1]}")
    assert len(said.output) == 5
    several = ", 2 workers" if workers > 1 else ""
    url = r"(http://127\.0\.0\.1:\d+)"
    first = re.fullmatch(f"{words} {url}", said.output[0])
    second = re.fullmatch(rf"eventstreams [\d.]+{several}, metrics and health at {url}", said.output[1])
    assert first is not None
    assert second is not None
    assert said.output[2] == (
        f"log embedded:{tmp_path}/events.db; 2 streams (1 alias) from {tmp_path}/streams.yaml;"
        " 5 schemas from config/schemas"
    )
    for line, note in zip(said.output[3:], notes, strict=True):
        assert line.startswith(f"  note: {note}")
    (fields,) = said.started
    assert fields["gateway" if command == "serve" else "intake"] == first[1]
    assert fields["admin"] == second[1]
    assert (fields["workers"], fields["streams"], fields["aliases"], fields["schemas"]) == (workers, 2, 1, 5)
    assert [f"  note: {note}" for note in fields["notes"]] == said.output[3:]
    assert fields["level"] == "info"


async def test_start_is_not_told_in_a_log_that_is_to_have_errors_only(tmp_path: Path) -> None:
    given = await service(tmp_path, "a")
    said = await run("serve", *given, "--set", "log_level=error", until="  note: ")
    assert said.started == []


async def test_terminal_shows_lines_and_no_json(tmp_path: Path) -> None:
    given = await service(tmp_path, "a")
    here, there = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "serve", *given, *FREE_PORTS, cwd=ROOT, stdout=there, stderr=there, stdin=there
    )
    os.close(there)
    shown = b""
    async with asyncio.timeout(HANG_GUARD):
        while b"note: no limit" not in shown:
            shown += await asyncio.to_thread(os.read, here, 4096)
        process.send_signal(signal.SIGTERM)
        await process.wait()
    os.close(here)
    assert b"serving streams at http://" in shown
    assert b"{" not in shown


async def test_secrets_of_urls_are_not_told(tmp_path: Path) -> None:
    given = await service(tmp_path, "a")
    schemas = "https://me:hunter2@schemas.example/base?token=hunter2"
    said = await run("serve", *given, "--set", f"schemas={schemas}", until="  note: ")
    assert "schemas from https://schemas.example/base" in said.output[2]
    assert "hunter2" not in "".join(said.output) + json.dumps(said.started)


async def test_start_with_thousands_of_places_names_some(tmp_path: Path) -> None:
    files = [tmp_path / f"{'s' * 200}-{number}.yaml" for number in range(1000)]
    for file in files:
        file.write_text("{edits: {topics: [a]}}")
    names = list(map(str, files))
    log = await make_topics(tmp_path / "events.db", "a")
    (tmp_path / "settings.yaml").write_text(json.dumps({"log": log, "streams": names}))
    said = await run("serve", "--config", str(tmp_path / "settings.yaml"), "--workers", "2", until="  note: ")
    assert f"1 stream from {', '.join(names[:5])}, 995 more; 5 schemas" in said.output[2]


async def test_dev_says_what_it_is_and_which_settings_file_counts(tmp_path: Path) -> None:
    (tmp_path / "streams.yaml").write_text(STREAMS.replace('"a"', '"edits"'))
    (tmp_path / "eventstreams.yaml").write_text(
        json.dumps(
            {"log": "embedded:{here}/e.db", "streams": "{here}/streams.yaml", "schemas": [f"{ROOT}/config/schemas"]}
        )
    )
    said = await run("dev", until="Ctrl-C", folder=tmp_path)
    assert re.match(r"serving streams at http://\S+ and taking events at http://\S+", said.output[0])
    assert said.output[2].startswith(f"settings eventstreams.yaml; log embedded:{tmp_path}/e.db; 2 streams (1 alias) ")
    text = "\n".join(said.output)
    assert "no demo traffic" in text
    assert "/v2/stream/edits" in text
    assert "recentchange" not in text
    (fields,) = said.started
    assert fields["notes"] == []
    assert fields["settings"] == "eventstreams.yaml"


@pytest.mark.parametrize(
    ("streams", "pasted"),
    [
        ({"plain": {"schema_title": "test/event"}}, ["curl -i"]),
        ({"/^pattern/": {"schema_title": "test/event"}}, []),
        ({"a b": {"topics": ["a"], "schema_title": "no/such"}}, ["curl -N http"]),
        ({"x": {"topics": ["x"]}, "y": {"topics": ["y"], "schema_title": "test/event"}}, ["curl -N http", "curl -i"]),
        ({"mediawiki.page-create": {"topics": ["mediawiki.page-create"]}}, ["curl -N http"]),
    ],
)
async def test_dev_prints_lines_for_what_is_configured(
    tmp_path: Path, streams: dict[str, object], pasted: Sequence[str]
) -> None:
    (tmp_path / "streams.yaml").write_text(json.dumps(streams))
    given = ("--set", f"streams={tmp_path / 'streams.yaml'}", "--set", f"log=embedded:{tmp_path / 'e.db'}")
    said = await run("dev", *given, until="Ctrl-C")
    lines = [line.strip() for line in said.output if line.startswith("  curl")]
    assert [line[: len(start)] for line, start in zip(lines, pasted, strict=True)] == pasted
    text = "\n".join(said.output)
    assert "no demo traffic" in text
    assert ("Try" in text) is bool(pasted)
    assert ("no stream to serve" in text) is ("topics" not in json.dumps(streams))
