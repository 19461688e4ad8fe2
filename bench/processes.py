"""Processes that a bench starts: pinned to a core, ended with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

from bench import machine

ROOT = Path(__file__).parent.parent
NATIVE = Path(__file__).parent / "native"
START_TIMEOUT = 30.0


class BenchError(Exception):
    """A bench cannot run, or what it watches failed; says why."""


class Unavailable(BenchError):
    """What is to be compared is not on this machine."""


class Running:
    """A process that talks in lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    async def line(self) -> str:
        """Return the next line of its output. Raises: BenchError at the end of it."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise BenchError(f"process {self.pid} ended with status {await self._process.wait()}")
        return line.decode().rstrip()

    async def line_with(self, words: str) -> str:
        """Return the first line that holds `words`."""
        async with asyncio.timeout(START_TIMEOUT):
            while words not in (line := await self.line()):
                pass
        return line

    async def say(self, line: bytes) -> None:
        """Write a line to its input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")
        await self._process.stdin.drain()


@asynccontextmanager
async def running(
    command: Sequence[str | Path], core: int, *, errors: bool = True, folder: Path = ROOT
) -> AsyncIterator[Running]:
    """Run a command while the context lasts, then kill it; `errors` False keeps its standard error to itself."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=None if errors else asyncio.subprocess.DEVNULL,
        cwd=folder,
    )
    try:
        machine.pin(process.pid, core)
        yield Running(process)
    finally:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            # Those below it first: nginx's worker outlives a master that is killed.
            for pid in reversed(list(machine.tree(process.pid))):
                os.kill(pid, signal.SIGKILL)
        await process.wait()


def python(*arguments: str) -> list[str]:
    """Return the command of a Python program of ours."""
    return [sys.executable, "-u", *arguments]


@cache
def _programs() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="bench-native-")


@cache
def compiled(name: str) -> Path:
    """Return a program of native/, compiled once a run. Raises: Unavailable."""
    program = Path(_programs().name) / name
    compiler = shutil.which("cc")
    if compiler is None:
        raise Unavailable("there is no C compiler (cc): it makes the load")
    subprocess.run([compiler, "-O2", "-o", program, NATIVE / f"{name}.c"], check=True)
    return program
