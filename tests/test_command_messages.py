"""What commands say of mistakes, and how they end when they are interrupted."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import pytest

from tests.test_cli import FREE_PORTS, GOOD, MEMORY, ROOT, run, start, urls_of


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tail", "x", "--url", "127.0.0.1:8092"], "--url '127.0.0.1:8092': expected http://HOST:PORT"),
        (["tail", "x", "--url", "ftp://127.0.0.1"], "expected http://HOST:PORT"),
        (["produce", "--url", "127.0.0.1:8192"], "url '127.0.0.1:8192': expected http://HOST:PORT"),
        (["produce", "--progress", "/no/such/file"], "--progress /no/such/file: cannot be written: No such file"),
        (["produce", "--rejected", "/no/such/file"], "--rejected /no/such/file: cannot be written: No such file"),
        (
            ["serve", "--set", "gateway.host=no such host"],
            "setting gateway.host.0 = 'no such host': expected an address",
        ),
        (["serve", "--set", "gateway.host=nosuch.invalid"], "cannot listen on nosuch.invalid port 0: no host of this"),
        (["serve", "--set", f"gateway.host={'ü' * 70}"], "port 0: no host of this name is known"),
        (["serve", "--set", "gateway.host="], "setting gateway.host = []: expected at least one address"),
        (["serve", "--set", "trusted_proxies=nonsense"], "setting trusted_proxies.0 = nonsense: expected an address"),
        (["intake", "--set", "intake.denied_user_agents=("], "intake.denied_user_agents.0 = '(': expected a regular"),
        (["intake", "--set", "intake.spool=/proc/nowhere"], "spool /proc/nowhere cannot be used: No such file"),
        (["serve", "--set", "streams=http://127.0.0.1:1/"], "cannot be fetched: Connection refused"),
        (["dev", "--set", "gateway.nosuch=1"], "setting gateway.nosuch: there is no such setting (--set)"),
        (["streams", "check", "--set", "schemas=/no/such"], "schemas '/no/such': expected a directory or a base URL"),
        (["streams", "list", "--set", "x"], "--set x: expected NAME=VALUE"),
    ],
)
async def test_what_cannot_be_used_is_told_in_one_line(arguments: list[str], message: str) -> None:
    free = [*FREE_PORTS, *MEMORY] if arguments[0] in ("serve", "intake", "dev") else []
    code, _, error = await run(arguments[0], *free, *arguments[1:])
    assert code == 2
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["produce", "--patience", "-1"],
        ["produce", "--patience", "nan"],
        ["produce", "--patience", "inf"],
        ["produce", "--batch", "0"],
        ["produce", "--batch-bytes", "0"],
        ["tail", "x", "--count", "0"],
        ["dev", "--rate", "nan"],
        ["dev", "--rate", "0"],
        ["serve", "--workers", "0"],
    ],
)
async def test_numbers_of_options_have_ranges(arguments: list[str]) -> None:
    code, _, error = await run(*arguments)
    assert code == 2
    assert f"Invalid value for '{arguments[-2]}'" in error


@pytest.mark.parametrize("arguments", [["serve"], ["serve", "--workers", "2"], ["intake"], ["dev"]])
async def test_ctrl_c_ends_a_service_with_130_and_without_a_word(arguments: list[str]) -> None:
    memory = [] if "--workers" in arguments else [*MEMORY]
    process = await start(*arguments, *memory, *FREE_PORTS)
    await urls_of(process, 1)
    process.send_signal(signal.SIGINT)
    _, error = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 130
    assert [line for line in error.decode().splitlines() if not line.startswith("{")] == []


async def test_ctrl_c_ends_tail_with_130_and_without_a_word() -> None:
    process = await start("tail", "x", "--url", "http://127.0.0.1:1")
    assert process.stderr is not None
    assert b"no connection to http://127.0.0.1:1/" in await asyncio.wait_for(process.stderr.readline(), 30)
    process.send_signal(signal.SIGINT)
    _, error = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, error) == (130, b"")


@pytest.mark.parametrize("module", ["click", "pydantic", "starlette.types", "eventstreams.settings"])
async def test_ctrl_c_during_imports_is_quiet(module: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "importtime", "-m", "eventstreams", "serve", *MEMORY, *FREE_PORTS),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    async with asyncio.timeout(60):
        while (await process.stderr.readline()).rpartition(b"|")[2].strip().decode() != module:
            pass
        process.send_signal(signal.SIGINT)
        out, error = await process.communicate()
    assert process.returncode == 130
    assert out == b""
    assert [line for line in error.decode().splitlines() if not line.startswith("import time:")] == []


async def test_tail_and_produce_tell_what_answers_them(tmp_path: Path) -> None:
    process = await start("dev", "--set", f"log=embedded:{tmp_path / 'events.db'}", *FREE_PORTS)
    gateway, intake = await urls_of(process, 2)
    for at, streams, words in (
        (gateway, "nosuch", "eventstreams: 400 Bad Request: Invalid streams: nosuch\n"),
        (gateway, "a/b?c", "eventstreams: 400 Bad Request: Invalid streams: a/b?c\n"),
        (intake, "test.event", "/v2/stream/test.event is no gateway's: it answered 404 Not Found, text/html\n"),
    ):
        code, _, error = await run("tail", streams, "--url", at)
        assert (code, error[-len(words) :], error.count("\n")) == (2, words, 1)
    code, _, error = await run("produce", "--url", gateway, stdin=GOOD % "a")
    assert (code, error.count("\n")) == (2, 1)
    assert f"url {gateway}/v1/events: expected an intake, which does not answer 404 Not Found" in error
    rejected = tmp_path / "rejected"
    code, _, error = await run("produce", "--url", intake, "--rejected", str(rejected), stdin="{}\nno\n")
    assert code == 1
    assert "line 1: error: Field(s) $schema were missing" in error
    assert "line 2 is no JSON" in error
    assert [json.loads(line)["line"] for line in rejected.read_text().splitlines()] == [1, 2]
    process.send_signal(signal.SIGTERM)
    await asyncio.wait_for(process.wait(), 30)
