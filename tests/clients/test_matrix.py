"""The table of clients in the documentation is the one that is tested, and names the versions that are installed."""

from __future__ import annotations

import re

import pytest

from tests.clients.matrix import CLIENTS, PRODUCERS, Client
from tests.clients.toolchains import DRIVERS
from tests.support.processes import ROOT

MANIFESTS = ("python/requirements.txt", "node/package.json", "java/pom.xml", "go/go.mod")


def test_documentation_has_the_table_that_is_tested() -> None:
    rows = [line for line in (ROOT / "docs" / "clients.md").read_text().splitlines() if line.startswith("| ")]
    clients, producers = len(CLIENTS), len(PRODUCERS)
    assert rows[1 : clients + 1] == [client.row for client in CLIENTS]
    assert rows[clients + 2 :] == [producer.row for producer in PRODUCERS]
    assert len(rows) == clients + producers + 2


@pytest.mark.parametrize("client", [c for c in CLIENTS if re.match(r"\d+\.", c.version)], ids=lambda c: c.name)
def test_versions_are_those_of_the_manifests(client: Client) -> None:
    package = client.name.split(" ")[0]
    lines = [line for manifest in MANIFESTS for line in (DRIVERS / manifest).read_text().splitlines()]
    versions = [line for at, line in enumerate(lines) if client.version in line and package in lines[at - 1] + line]
    assert versions
