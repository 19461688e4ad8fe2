"""All clients at one gateway at the same time, each behind a port of its own that can cut it.

The course: events of 16 KB and 300 KB from the log, a cut in the middle of the large one; heartbeats and a stretch that
is filtered out; live events; a cut after which some of what comes next has gone from the log; the end of the stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

from eventstreams.eventlog.embedded.log import EmbeddedLog, open_embedded
from eventstreams.records import NewRecord, TopicPartition
from tests.clients.matrix import SHOWN, Client
from tests.support.processes import GatewayProcess, ended_with_its_own

STREAM = "mediawiki.recentchange"
"""One that wikimedia-streams knows."""

SIZES = {2: 16 * 1024, 4: 300 * 1024, 9: 300 * 1024}
CUT_IN = 4
CUT_AFTER = 30_000
"""Bytes of a connection: past the event of 16 KB, within the one of 300 KB."""

REPLAYED, LIVE, MISSED, KEPT = range(8), range(8, 12), range(12, 14), range(14, 16)
HIDDEN = -1
"""The number of the event that the filter leaves out."""

WANTED = [*REPLAYED, *LIVE, *KEPT]

PATIENCE = 60.0
"""Seconds for a step, with all clients starting at once; the others wait for the slowest."""


class Cutter:
    """A port before the gateway: cuts one connection in the middle of the large event, and any when it is told to."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        self.cuts = 0
        self.quiet = asyncio.Event()
        """Set when bytes without an event have come."""
        self._upstream = upstream
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._open.wait()
        from_gateway, to_gateway = await asyncio.open_connection(*self._upstream)
        asking = asyncio.create_task(_copy(reader, to_gateway))
        self._writers.add(writer)
        try:
            await self._answer(from_gateway, writer)
        except ConnectionError:
            pass  # The client went.
        finally:
            self._writers.discard(writer)
            asking.cancel()
            to_gateway.close()
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passed = 0
        while piece := await reader.read(65536):
            if not self.cuts and passed + len(piece) >= CUT_AFTER:
                writer.write(piece[: CUT_AFTER - passed])
                self.cuts += 1
                return
            passed += len(piece)
            writer.write(piece)
            await writer.drain()
            if b"data:" not in piece:
                self.quiet.set()

    def hold(self) -> None:
        """Cut what is open, and let nothing through."""
        self._open.clear()
        self.cuts += 1
        for writer in self._writers:
            writer.transport.abort()

    def release(self) -> None:
        """Let through who waits."""
        self._open.set()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65536):
            writer.write(piece)


class Run:
    """What one client's driver printed."""

    def __init__(self, client: Client, cutter: Cutter, errors: Path) -> None:
        self.client = client
        self.cutter = cutter
        self.numbers: list[int] = []
        self.sizes: dict[int, int] = {}
        self.empty = 0
        self.torn = 0
        """Events handed out though the connection was cut within them."""
        self.named: dict[str, list[str]] = {"gap": [], "error": []}
        self.odd: list[str] = []
        self._errors = errors

    def take(self, line: bytes) -> None:
        """Note what a line says."""
        name, data = json.loads(line)
        if name in self.named:
            self.named[name].append(data)
        elif not data:
            self.empty += 1
        elif name != "message":
            self.odd.append(name)
        else:
            try:
                event = json.loads(data)
            except ValueError:
                self.torn += 1
                return
            self.numbers.append(event["n"])
            self.sizes[event["n"]] = len(event["padding"])

    def __str__(self) -> str:
        errors = self._errors.read_text(errors="replace")[-1500:]
        return f"numbers {self.numbers}, torn {self.torn}, odd {self.odd}, cuts {self.cutter.cuts}, said: {errors}"


class Course:
    """The steps that all clients take together."""

    def __init__(self, log: EmbeddedLog, streams: Path, runs: Sequence[Run], changed: asyncio.Event) -> None:
        self._log = log
        self._streams = streams
        self._runs = runs
        self._changed = changed

    async def take(self) -> None:
        """Take all steps; a client that does not come along is waited for, and judged by what it said."""
        await self._until(lambda run: REPLAYED[-1] in run.numbers)
        for run in self._runs:
            run.cutter.quiet.clear()
        await add(self._log, [HIDDEN])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*(run.cutter.quiet.wait() for run in self._runs))
        await add(self._log, LIVE)
        await self._until(lambda run: LIVE[-1] in run.numbers)
        await self._lose_some()
        await self._until(lambda run: KEPT[-1] in run.numbers)
        write_streams(self._streams, "another")
        await self._until(lambda run: bool(run.named["error"]) or run.client.error != SHOWN)

    async def _lose_some(self) -> None:
        for run in self._runs:
            run.cutter.hold()
        await add(self._log, [*MISSED, *KEPT])
        end = (await self._log.extents([PARTITION]))[PARTITION].end
        await self._log.delete_before(PARTITION, end - len(KEPT))
        for run in self._runs:
            run.cutter.release()

    async def _until(self, done: Callable[[Run], bool]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while not all(map(done, self._runs)):
                    self._changed.clear()
                    await self._changed.wait()


PARTITION = TopicPartition(STREAM, 0)


async def add(log: EmbeddedLog, numbers: Sequence[int]) -> None:
    """Append events of these numbers."""
    await log.append([NewRecord(STREAM, _event(number), None, 1000 + number) for number in numbers])


def _event(number: int) -> bytes:
    padding = "x" * SIZES.get(number, 10)
    return json.dumps({"n": number, "meta": {"stream": STREAM, "domain": "a.example"}, "padding": padding}).encode()


def write_streams(path: Path, *names: str) -> None:
    """Write a configuration of these streams."""
    path.write_text(json.dumps({"streams": {name: {"topics": [name]} for name in names}}))


async def run_all(folder: Path, commands: Mapping[Client, Sequence[str]]) -> dict[str, Run]:
    """Run the course with all clients whose commands are given; return what each said, by its name."""
    path, streams = folder / "events.db", folder / "streams.json"
    write_streams(streams, STREAM, "another")
    changed = asyncio.Event()
    async with open_embedded(str(path)) as log, contextlib.AsyncExitStack() as stack:
        for topic in (STREAM, "another"):
            await log.create_topic(topic)
        await add(log, REPLAYED)
        settings = ("gateway.heartbeat=0.2", "gateway.retry=1", "gateway.retry_spread=1", "streams_ttl=0.3")
        gateway = GatewayProcess(f"embedded:{path}", streams, *settings)
        await stack.enter_async_context(gateway.running())
        runs = []
        for number, (client, command) in enumerate(commands.items()):
            run = Run(client, Cutter(gateway.address), folder / f"{number}.err")
            url = await stack.enter_async_context(_behind(run.cutter))
            given = (*command, url, *client.arguments)
            await stack.enter_async_context(_driver(run, given, folder / f"{number}.err", changed))
            runs.append(run)
        await Course(log, streams, runs, changed).take()
    return {run.client.name: run for run in runs}


@contextlib.asynccontextmanager
async def _behind(cutter: Cutter) -> AsyncIterator[str]:
    async with await asyncio.start_server(cutter.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/v2/stream/{STREAM}?since=1&filter=event.n%3E%3D0"


@contextlib.asynccontextmanager
async def _driver(run: Run, command: Sequence[str], errors: Path, changed: asyncio.Event) -> AsyncIterator[None]:
    with errors.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=output, limit=1 << 20, start_new_session=True
        )
    reading = asyncio.create_task(_read(run, process, changed))
    try:
        async with ended_with_its_own(process):
            yield
    finally:
        await reading


async def _read(run: Run, process: asyncio.subprocess.Process, changed: asyncio.Event) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        if line.endswith(b"\n"):  # It may be ended in the middle of what it says.
            run.take(line)
        changed.set()
