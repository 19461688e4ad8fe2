"""`--workers N`: processes that share listening sockets, each with its own pump; started again when they die.

The socket is bound once and inherited, not bound by each with SO_REUSEPORT: port 0 and a taken port mean what they
always mean, connections that wait in the queue outlive the worker that would have accepted them, and while one worker
restarts the others get its share at once. A worker ends by itself when its supervisor is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence

import httpx
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import ASGIApp

from eventstreams.asgi import AdminApp
from eventstreams.errors import ConfigurationError, ServiceUnavailable
from eventstreams.metrics import WorkerMetrics
from eventstreams.server import EXIT_INTERRUPTED, Stopping, beside, listen

logger = logging.getLogger(__name__)

READY_LINE = "ready"
BACKOFF = 0.1
"""Seconds until a worker that died is started again; doubled each time up to BACKOFF_MAX."""

BACKOFF_MAX = 10.0

STEADY = 30.0
"""Seconds after which a worker counts as having run well: the next death is the first again."""

SCRAPE_TIMEOUT = 5.0
KILL_GRACE = 5.0
"""Seconds beyond its own time to stop after which a worker that does not end is killed."""


class Worker:
    """One place: a process, and the next one when it dies."""

    def __init__(
        self, number: int, arguments: Sequence[str], listeners: Sequence[socket.socket], metrics: WorkerMetrics
    ) -> None:
        self.number = number
        self.ready = asyncio.Event()
        self.said = ""
        """What stood behind READY_LINE."""
        self._arguments = arguments
        self._listeners = listeners
        self._admin = listen("127.0.0.1", 0)
        self._metrics = metrics
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()

    @property
    def admin_url(self) -> str:
        """Where this worker's operators' port is: on loopback, the same for each of its processes."""
        return f"http://127.0.0.1:{self._admin.getsockname()[1]}"

    async def run(self) -> int:
        """Run until told to stop; return the exit status of the last process, 0 if it was still starting.

        The first must come up.

        Raises: ConfigurationError, when the first process ended before it was ready.
        """
        delay, been_ready = BACKOFF, False
        while True:
            started = time.monotonic()
            status = await self._run_once()
            is_ready = self.ready.is_set()
            been_ready = been_ready or is_ready
            self.ready.clear()
            if self._stopping.is_set():
                # Told to stop before it could know what that means, it took nothing that could be lost.
                return 0 if status == -signal.SIGTERM and not is_ready else status
            if not been_ready:
                raise ConfigurationError(f"worker {self.number} ended with status {status} before it was ready")
            if time.monotonic() - started >= STEADY:
                delay = BACKOFF
            self._metrics.worker_died(self.number)
            logger.error("worker %s ended with status %s; next in %s s", self.number, status, delay)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
                return 0
            delay = min(2 * delay, BACKOFF_MAX)

    async def _run_once(self) -> int:
        fds = [listener.fileno() for listener in (*self._listeners, self._admin)]
        # A session of its own: Ctrl-C in a terminal reaches the supervisor alone, which passes it on.
        # Its standard input ends when the supervisor does, however that ends.
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._arguments,
            ",".join(map(str, fds)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=fds,
            start_new_session=True,
        )
        if self._stopping.is_set():
            self._process.send_signal(signal.SIGTERM)  # `stop` came while there was none
        try:
            assert self._process.stdout is not None
            async for line in self._process.stdout:
                word, _, said = line.decode().rstrip().partition(" ")
                if word == READY_LINE:
                    self.said = said
                    self.ready.set()
            return await self._process.wait()
        finally:
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()

    def stop(self, how: signal.Signals) -> None:
        """Pass a signal on; the process that it ends is the last."""
        self._stopping.set()
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(how)

    def close(self) -> None:
        """Give up the operators' socket."""
        self._admin.close()


class Supervisor:
    """Some workers behind the same listening sockets, and the operators' port that shows them all."""

    def __init__(
        self, count: int, arguments: Sequence[str], listeners: Sequence[socket.socket], *, stop_timeout: float
    ) -> None:
        self._metrics = WorkerMetrics()
        self._workers = [Worker(number, arguments, listeners, self._metrics) for number in range(count)]
        self._stop_timeout = stop_timeout
        self._stopping = Stopping()
        self._kill: asyncio.TimerHandle | None = None
        self._is_interrupted = False

    async def run(self, admin: Sequence[socket.socket], ready: Callable[[str], None]) -> int:
        """Run until a signal; calls `ready` when all workers are, with what the first one says of itself.

        Returns the exit status: 0 when all ended in good order, 130 when that was for Ctrl-C.

        Raises: ConfigurationError, when a worker could not start at all.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        try:
            async with (
                httpx.AsyncClient(timeout=SCRAPE_TIMEOUT, trust_env=False) as http,
                beside(self._app(http), *admin),
            ):
                return await self._run_workers(ready)
        finally:
            for worker in self._workers:
                worker.close()

    async def _run_workers(self, ready: Callable[[str], None]) -> int:
        jobs = [asyncio.create_task(worker.run(), name="worker") for worker in self._workers]
        saying = asyncio.create_task(self._say_ready(ready), name="ready")
        try:
            statuses = await asyncio.gather(*jobs)
        finally:
            for task in (saying, *jobs):
                task.cancel()
            await asyncio.gather(saying, *jobs, return_exceptions=True)
            if self._kill is not None:
                self._kill.cancel()
        return 1 if any(statuses) else EXIT_INTERRUPTED if self._is_interrupted else 0

    async def _say_ready(self, ready: Callable[[str], None]) -> None:
        for worker in self._workers:
            await worker.ready.wait()
        ready(self._workers[0].said)

    def _signalled(self, number: signal.Signals) -> None:
        """The first signal drains; the second ends at once."""
        if not self._stopping.begun:
            self._is_interrupted = number == signal.SIGINT
            self._stopping.begin()
            self._tell(signal.SIGTERM)
            loop = asyncio.get_running_loop()
            self._kill = loop.call_later(self._stop_timeout + KILL_GRACE, self._tell, signal.SIGKILL)
        else:
            self._tell(signal.SIGKILL)

    def _tell(self, how: signal.Signals) -> None:
        for worker in self._workers:
            worker.stop(how)

    def _app(self, http: httpx.AsyncClient) -> ASGIApp:
        return AdminApp(lambda: self._exposition(http), lambda: self._ready(http))

    async def _ready(self, http: httpx.AsyncClient) -> None:
        """Ready is who has one worker that is: it takes the connections."""
        self._stopping.check()
        answers = await asyncio.gather(*(self._ask(http, worker, "/readyz") for worker in self._workers))
        self._stopping.check()
        reasons: list[str] = []
        for worker, answer in zip(self._workers, answers, strict=True):
            if answer is not None and answer.status_code == httpx.codes.OK and worker.ready.is_set():
                return
            if answer is not None and answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
                reasons.append(f": {answer.json()['detail']}")
        raise ServiceUnavailable("no worker is ready" + (reasons[0] if reasons else ""), retry_after=1.0)

    async def _exposition(self, http: httpx.AsyncClient) -> bytes:
        """Return the metrics of all workers, each sample with the number of its worker, and the supervisor's own.

        Deliberate: not added up. The counters of a worker that restarts begin anew; in a sum Prometheus would take that
        for a reset of them all.
        """
        up = [worker for worker in self._workers if worker.ready.is_set()]
        self._metrics.workers_running(len(up))
        texts = await asyncio.gather(*(self._get(http, worker, "/metrics") for worker in up))
        return self._metrics.exposition() + merged({w.number: text for w, text in zip(up, texts, strict=True) if text})

    async def _get(self, http: httpx.AsyncClient, worker: Worker, path: str) -> str | None:
        answer = await self._ask(http, worker, path)
        return answer.text if answer is not None and answer.status_code == httpx.codes.OK else None

    @staticmethod
    async def _ask(http: httpx.AsyncClient, worker: Worker, path: str) -> httpx.Response | None:
        try:
            return await http.get(worker.admin_url + path)
        except httpx.HTTPError as exc:
            if worker.ready.is_set():
                logger.warning("worker %s does not answer on its operators' port: %r", worker.number, exc)
            return None


def merged(texts: dict[int, str]) -> bytes:
    """Return expositions as one: each family once, each sample with its worker."""
    heads: dict[str, list[str]] = {}
    for number, text in texts.items():
        for family in text_string_to_metric_families(text):
            name = family.name + ("_total" if family.type == "counter" else "")
            lines = heads.setdefault(
                family.name, [f"# HELP {name} {family.documentation}", f"# TYPE {name} {family.type}"]
            )
            for sample in family.samples:
                labels = ",".join(
                    f'{key}="{_escaped(v)}"' for key, v in {**sample.labels, "worker": str(number)}.items()
                )
                lines.append(f"{sample.name}{{{labels}}} {sample.value}")
    return "".join(line + "\n" for lines in heads.values() for line in lines).encode()


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def end_with_supervisor() -> None:
    """In a worker: end in good order when the supervisor is gone, which ends our standard input."""
    loop = asyncio.get_running_loop()

    def gone() -> None:
        loop.remove_reader(0)
        signal.raise_signal(signal.SIGTERM)

    loop.add_reader(0, gone)
