"""Processes of the project under test: started, killed, started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.kafka import free_port

ROOT = Path(__file__).parents[2]
START_TIMEOUT = 30.0
END_TIMEOUT = 30.0
ADDRESS = re.compile(r"http://([^:/\s]+):(\d+)")


@asynccontextmanager
async def ended_with_its_own(process: asyncio.subprocess.Process, patience: float = 10.0) -> AsyncIterator[None]:
    """End the leader of a session with the context: by SIGTERM, then it and what it has started by SIGKILL."""
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(patience):
                await process.wait()
        except TimeoutError:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


class Process:
    """One Python process that says on a line of its output when it is ready."""

    def __init__(self, arguments: Sequence[str], ready: str) -> None:
        self._arguments = arguments
        self._ready = ready
        self._process: asyncio.subprocess.Process | None = None
        self.up = asyncio.Event()
        self.said = ""
        """The line that said it is ready."""
        self.errors: int | None = None
        """A descriptor that takes its standard error; ours where there is none."""

    @property
    def pid(self) -> int:
        """The number of the process that was started last."""
        assert self._process is not None
        return self._process.pid

    def children(self) -> list[int]:
        """Return the numbers of the processes that it has started."""
        return [int(number) for number in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    async def start(self) -> None:
        """Start it and wait until it is ready."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, *self._arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=self.errors,
            env=environment,
            cwd=ROOT,
        )
        async with asyncio.timeout(START_TIMEOUT):
            async for line in self.lines():
                if self._ready in line:
                    self.said = line
                    self.up.set()
                    return
        raise AssertionError(f"{self._arguments} ended with {await self._process.wait()} before it was ready")

    async def lines(self) -> AsyncIterator[str]:
        """Yield what it says on; ends with the process."""
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            yield line.decode().rstrip()

    async def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; return the exit status."""
        assert self._process is not None
        self.up.clear()
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(how)
        async with asyncio.timeout(END_TIMEOUT):
            return await self._process.wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Process]:
        """Run while the context lasts."""
        await self.start()
        try:
            yield self
        finally:
            await self.end(signal.SIGKILL)


class ServiceProcess(Process):
    """A process that says its address."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, once it is up."""
        match = ADDRESS.search(self.said)
        assert match is not None, self.said
        return match[1], int(match[2])

    @property
    def url(self) -> str:
        """The base URL, once it is up."""
        return "http://{}:{}".format(*self.address)


class CommandProcess(ServiceProcess):
    """A service's command, on a free port of its own at every start."""

    def __init__(self, command: str, ready: str, *settings: str, workers: int) -> None:
        self.admin_port = free_port()
        given = [f"admin.port={self.admin_port}", *settings]
        flags = [part for assignment in given for part in ("--set", assignment)]
        program = ["-c", "from eventstreams.cli import main; main()"]
        super().__init__([*program, command, "--workers", str(workers), *flags], ready)

    @property
    def admin(self) -> str:
        """The base URL for operators."""
        return f"http://127.0.0.1:{self.admin_port}"


class IntakeProcess(CommandProcess):
    """`eventstreams intake`."""

    def __init__(self, log: str, *settings: str, workers: int = 1) -> None:
        super().__init__("intake", "taking events at", f"log={log}", "intake.port=0", *settings, workers=workers)


class GatewayProcess(CommandProcess):
    """`eventstreams serve`."""

    def __init__(self, log: str, streams: Path, *settings: str, workers: int = 1) -> None:
        given = (f"log={log}", f"streams={streams}", "gateway.port=0", *settings)
        super().__init__("serve", "serving streams at", *given, workers=workers)
