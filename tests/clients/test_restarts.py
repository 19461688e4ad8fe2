"""Every tab goes on over a restart, and nothing is lost: browsers, direct and through proxies; see `restarts`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pytest

from tests.clients.restarts import CLOSED, DIRECT, ENDS, OPEN, Course, Mode, Tab
from tests.clients.toolchains import BROWSERS, ToolchainMissing, browser
from tests.conftest import missing_clients, missing_proxies
from tests.support.proxies import PROXIES, ProxyMissing, program

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]

SAMPLE = (
    Mode(DIRECT, "away"),
    Mode("nginx", "away"),
    Mode("haproxy", "away"),
    Mode("caddy", "SIGKILL"),
    Mode("haproxy", "SIGTERM", 2),
)
ALL = tuple(Mode(DIRECT, end) for end in ENDS) + tuple(
    Mode(front, end, gateways) for front in PROXIES for end in ENDS for gateways in (1, 2)
)
TOO_SOON = Mode(DIRECT, "away", short=True)
"""Tabs come back to where nobody listens: what docs/proxies.md says of that is what browsers do, not we."""


class Seen(NamedTuple):
    """How many events there were, and what each browser's tabs saw of them."""

    events: int
    tabs: Mapping[str, Sequence[Tab]]

    def of(self, name: str, mode: Mode) -> Sequence[Tab]:
        """Return a browser's tabs of this mode; skip the test where there are none."""
        if name not in self.tabs:
            pytest.skip("its tools are missing")
        tabs = [tab for tab in self.tabs[name] if tab.mode == mode]
        if not tabs:
            pytest.skip("there is no such proxy")
        return tabs

    def check(self, tabs: Sequence[Tab]) -> None:
        """Fail unless each of these tabs was cut, has gone on, and has seen all."""
        for tab in tabs:
            assert tab.state == OPEN, f"{tab.origin}: {len(tab.numbers)} of {self.events}, then closed"
            assert tab.numbers == list(range(self.events)), tab.origin
            assert tab.errors


def seen(factory: pytest.TempPathFactory, modes: Sequence[Mode]) -> Seen:
    """Take the course with what is there; in continuous integration all must be."""
    commands = {}
    for name in BROWSERS:
        try:
            commands[name] = browser(name, "tabs")
        except ToolchainMissing as exc:
            _missing(missing_clients, exc)
    fronts = {DIRECT}
    for front in PROXIES:
        try:
            program(front)
            fronts.add(front)
        except ProxyMissing as exc:
            _missing(missing_proxies, exc)
    course = Course(factory.mktemp("restarts"), [mode for mode in modes if mode.front in fronts])
    return Seen(*asyncio.run(course.take(commands)))


def _missing(where: list[str], exc: Exception) -> None:
    if os.environ.get("CI"):
        pytest.fail(str(exc))
    where.append(str(exc))


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return seen(tmp_path_factory, (*SAMPLE, TOO_SOON))


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return seen(tmp_path_factory, ALL)


@pytest.mark.parametrize("name", BROWSERS)
@pytest.mark.parametrize("mode", SAMPLE, ids=str)
def test_every_tab_goes_on_over_a_restart_and_nothing_is_lost(some: Seen, name: str, mode: Mode) -> None:
    some.check(some.of(name, mode))


@pytest.mark.parametrize("name", BROWSERS)
def test_tab_that_comes_back_too_soon_without_a_proxy_is_lost_in_firefox_on_other_origins_only(
    some: Seen, name: str
) -> None:
    tabs = some.of(name, TOO_SOON)
    lost = [tab for tab in tabs if name == "firefox" and tab.origin == "cross"]
    assert [tab.state for tab in lost] == [CLOSED] * len(lost)
    some.check([tab for tab in tabs if tab not in lost])


@pytest.mark.matrix
@pytest.mark.parametrize("name", BROWSERS)
@pytest.mark.parametrize("mode", ALL, ids=str)
def test_every_tab_goes_on_in_every_mode(everything: Seen, name: str, mode: Mode) -> None:
    everything.check(everything.of(name, mode))
