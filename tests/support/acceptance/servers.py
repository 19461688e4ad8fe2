"""What a kit's cases talk to, as child processes that last as long as a context."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.acceptance.translate import nested
from tests.support.kafka import free_port
from tests.support.processes import ROOT

READY = re.compile(r"(?:serving streams|taking events) at http://[^:\s]+:(\d+)")
START_TIMEOUT = 30.0
STOP_TIMEOUT = 15.0


class KitError(Exception):
    """The kit cannot be run; says why."""


class Server:
    """A process of this checkout under a fixture."""

    def __init__(self, name: str, command: str, settings: Mapping[str, Any], folder: Path) -> None:
        self.name = name
        self.port = 0
        self.admin_port = free_port()
        self._command = command
        self._config = folder / f"{name}.yaml"
        self._log = folder / f"{name}.log"
        ours = {**settings, f"{'gateway' if command == 'serve' else command}.port": 0, "admin.port": self.admin_port}
        self._config.write_text(json.dumps(nested(ours), indent=1), encoding="utf-8")
        self._process: subprocess.Popen[str] | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[Server]:
        """Run while the context lasts. Raises: KitError where it does not start."""
        start = ["-c", "from eventstreams.cli import main; main()", self._command, "--config", str(self._config)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("EVENTSTREAMS_")}
        with (
            self._log.open("w", encoding="utf-8") as log,
            ended(
                subprocess.Popen(
                    [sys.executable, *start],
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    cwd=ROOT,
                    env={**environment, "PYTHONUNBUFFERED": "1"},
                )
            ) as self._process,
        ):
            self.port = self._wait()
            yield self

    def _wait(self) -> int:
        assert self._process is not None
        assert self._process.stdout is not None
        watchdog = threading.Timer(START_TIMEOUT, self._process.kill)
        watchdog.start()
        try:
            for line in self._process.stdout:
                match = READY.search(line)
                if match:
                    return int(match[1])
        finally:
            watchdog.cancel()
        raise KitError(f"the server under {self.name} did not start: {self.last_words()}")

    def last_words(self) -> str:
        """Return the end of what it logged."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-2000:]

    @property
    def has_died(self) -> bool:
        """Whether it ended by itself."""
        return self._process is not None and self._process.poll() is not None


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Have a process ended, in the end by force."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def run_python(arguments: Sequence[str | Path], environment: Mapping[str, str], cwd: Path) -> tuple[int, str]:
    """Run a script of the kit to its end; return its exit status and all that it said."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **environment},
        cwd=cwd,
        check=False,
    )
    return done.returncode, done.stdout
