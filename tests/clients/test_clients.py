"""Real clients, each through its own API, over one course of replay, cut, silence, loss and end; see `rig`."""

from __future__ import annotations

import asyncio
import json
import os

import pytest

from tests.clients.matrix import CLIENTS, EMPTY, SHOWN, SKIPS, TEARS, Client
from tests.clients.rig import CUT_IN, MISSED, SIZES, WANTED, Run, run_all
from tests.clients.toolchains import ToolchainMissing, command
from tests.conftest import missing_clients

pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]

each_client = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """What each client said; those whose tools are missing are left out, in continuous integration that fails."""
    commands = {}
    for client in CLIENTS:
        try:
            commands[client] = command(client)
        except ToolchainMissing as exc:
            if os.environ.get("CI"):
                pytest.fail(f"{client.name}: {exc}")
            missing_clients.append(f"{client.name}: {exc}")
    return asyncio.run(run_all(tmp_path_factory.mktemp("clients"), commands))


@pytest.fixture
def run(client: Client, runs: dict[str, Run]) -> Run:
    if client.name not in runs:
        pytest.skip("its tools are missing")
    return runs[client.name]


@each_client
def test_events_over_two_cuts_are_what_the_table_says(client: Client, run: Run) -> None:
    lost = [CUT_IN] if client.after_cut in (SKIPS, TEARS) else []
    assert run.numbers == [number for number in WANTED if number not in lost], run
    assert run.torn == (client.after_cut == TEARS)
    assert run.cutter.cuts == 2
    assert {number: size for number, size in run.sizes.items() if size >= min(SIZES.values())} == {
        number: size for number, size in SIZES.items() if number not in lost
    }


@each_client
def test_heartbeats_and_blocks_with_only_an_id_are_what_the_table_says(client: Client, run: Run) -> None:
    assert (run.empty > 0) == (client.quiet == EMPTY), f"{run.empty} empty messages"
    assert not run.odd


@each_client
def test_gap_notice_is_what_the_table_says(client: Client, run: Run) -> None:
    gaps = [partition for data in run.named["gap"] for partition in json.loads(data)["partitions"]]
    assert [(gap["first_offset"], gap["last_offset"]) for gap in gaps] == (
        # One offset further than its number: the event that the filter left out.
        [(MISSED[0] + 1, MISSED[-1] + 1)] if client.gap == SHOWN else []
    )


@each_client
def test_error_event_is_what_the_table_says(client: Client, run: Run) -> None:
    messages = [json.loads(data)["message"] for data in run.named["error"]]
    assert messages == (["Invalid streams: mediawiki.recentchange"] if client.error == SHOWN else []), run
