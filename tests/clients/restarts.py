"""Tabs of real browsers over the end and return of gateways: all modes beside each other, in one course.

Each mode is a front (no proxy, or one of docs/proxies.md), a way to end, and how many gateways stand behind it. Events
are added all the while; at the end each tab must have seen every one, once and in order.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from eventstreams.eventlog.embedded.log import EmbeddedLog, open_embedded
from eventstreams.records import NewRecord
from tests.support.kafka import free_ports
from tests.support.processes import GatewayProcess, ended_with_its_own
from tests.support.proxies import Upstream, configured, standing_before

OPEN, CLOSED = 1, 2
"""EventSource.readyState."""

DIRECT = "direct"
ENDS = ("SIGTERM", "SIGKILL", "away")
"""The last is SIGKILL, and no gateway for as long as AWAY."""

AWAY = 12.0
PACE = 0.2
"""Seconds between events."""

SHORT = ("gateway.retry=2", "gateway.retry_spread=3")
"""As docs/proxies.md has it behind a proxy: tabs come back while there is no gateway. Without one: the default."""

PATIENCE = 90.0
"""Seconds for a step of all tabs: longer than the default of gateway.retry and its spread."""


class Mode(NamedTuple):
    """One way of which tabs must know nothing."""

    front: str
    end: str
    gateways: int = 1
    short: bool = False
    """Without a proxy: whether tabs come back while there is no gateway."""

    def __str__(self) -> str:
        return f"{self.front}-{self.end}-{'short' if self.short else self.gateways}"

    @property
    def site(self) -> Site:
        """Return the gateways that it is tried with; proxies share them."""
        return Site(self.short or self.front != DIRECT, self.end, self.gateways)

    @property
    def origins(self) -> Sequence[str]:
        """Of which origins tabs are opened: what browsers do differs where nobody listens."""
        return ("same", "cross") if self.front == DIRECT else ("cross",)


class Site(NamedTuple):
    """Gateways that end in one way."""

    short: bool
    end: str
    gateways: int


class Tab(NamedTuple):
    """What a tab has seen."""

    mode: Mode
    origin: str
    numbers: Sequence[int]
    errors: int
    state: int


class Browser:
    """A browser with a tab for each mode and origin."""

    def __init__(self, process: asyncio.subprocess.Process, tabs: Sequence[tuple[Mode, str]]) -> None:
        self._process = process
        self._tabs = tabs

    async def look(self) -> Sequence[Tab]:
        """Return what its tabs have seen."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        async with asyncio.timeout(PATIENCE):
            line = await self._process.stdout.readline()
        return [Tab(*tab, *seen) for tab, seen in zip(self._tabs, json.loads(line), strict=True)]


class Course:
    """The log, the gateways and the proxies of all modes."""

    def __init__(self, folder: Path, modes: Sequence[Mode]) -> None:
        self._folder = folder
        self._modes = modes
        self._gateways: dict[Site, list[GatewayProcess]] = {}
        self._urls: dict[Mode, str] = {}
        self._added = 0
        self._adding = True

    async def take(self, commands: Mapping[str, Sequence[str]]) -> tuple[int, Mapping[str, Sequence[Tab]]]:
        """Take it with the browsers that these start; return how many events there were, and what their tabs saw."""
        (self._folder / "streams.yaml").write_text("streams: {edits: {topics: [a]}}")
        async with open_embedded(str(self._folder / "events.db")) as log, AsyncExitStack() as stack:
            await log.create_topic("a")
            await self._start(stack)
            adding = asyncio.create_task(self._add(log))
            opening = [stack.enter_async_context(self._browser(command)) for command in commands.values()]
            browsers = dict(zip(commands, [await one for one in opening], strict=True))
            await _all_have_seen(browsers, self._added + 1)
            async with asyncio.TaskGroup() as tasks:
                for site in self._gateways:
                    tasks.create_task(self._end(site))
            await _all_have_seen(browsers, self._added + 1)
            # Not cancelled: an event may be stored that is not counted yet.
            self._adding = False
            await adding
            await _all_have_seen(browsers, self._added)
            return self._added, {name: await browser.look() for name, browser in browsers.items()}

    async def _start(self, stack: AsyncExitStack) -> None:
        for site in {mode.site for mode in self._modes}:
            self._gateways[site] = [self._gateway(site, port) for port in free_ports(site.gateways)]
            for gateway in self._gateways[site]:
                await stack.enter_async_context(gateway.running())
        ports = free_ports(len(self._modes))
        for mode, port in zip(self._modes, ports, strict=True):
            gateways = self._gateways[mode.site]
            self._urls[mode] = gateways[0].url
            if mode.front != DIRECT:
                upstreams = [Upstream("{}:{}".format(*gateway.address), gateway.admin_port) for gateway in gateways]
                text = configured(mode.front, port, upstreams)
                await stack.enter_async_context(standing_before(mode.front, text, port))
                self._urls[mode] = f"http://127.0.0.1:{port}"

    def _gateway(self, site: Site, port: int) -> GatewayProcess:
        given = (f"gateway.port={port}", "log_level=error", *(SHORT if site.short else ()))
        return GatewayProcess(f"embedded:{self._folder / 'events.db'}", self._folder / "streams.yaml", *given)

    async def _add(self, log: EmbeddedLog) -> None:
        while self._adding:
            await log.append([NewRecord("a", b'{"n":%d}' % self._added)])
            self._added += 1
            await asyncio.sleep(PACE)

    async def _end(self, site: Site) -> None:
        """End the gateways of a site: one after the other, but for being away, which all are."""
        gateways = self._gateways[site]
        if site.end == "away":
            await asyncio.gather(*(gateway.end(signal.SIGKILL) for gateway in gateways))
            await asyncio.sleep(AWAY)
            await asyncio.gather(*(gateway.start() for gateway in gateways))
            return
        for gateway in gateways:
            await gateway.end(signal.Signals[site.end])
            await gateway.start()

    @asynccontextmanager
    async def _browser(self, command: Sequence[str]) -> AsyncIterator[Browser]:
        tabs = [(mode, origin) for mode in self._modes for origin in mode.origins]
        asked = [[f"{self._urls[mode]}/v2/stream/edits?since=1", origin] for mode, origin in tabs]
        process = await asyncio.create_subprocess_exec(
            *(*command, json.dumps(asked)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 24,
            start_new_session=True,
        )
        async with ended_with_its_own(process):
            yield Browser(process, tabs)


async def _all_have_seen(browsers: Mapping[str, Browser], count: int) -> None:
    """Wait until each tab that is not closed has seen so many events; one that has not is judged by what it saw."""
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            for browser in browsers.values():
                while any(tab.state != CLOSED and len(tab.numbers) < count for tab in await browser.look()):  # noqa: ASYNC110
                    await asyncio.sleep(0.5)
