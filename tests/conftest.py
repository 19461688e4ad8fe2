"""What all tests share: a Kafka broker, started once for those that need one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.support.kafka import Broker, KafkaUnavailable

LOUD = "\n" + "!" * 100 + "\n!!! {} TESTS WERE NOT RUN: {}\n" + "!" * 100
missing: list[str] = []
missing_node: list[str] = []
missing_proxies: list[str] = []
missing_clients: list[str] = []


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A running broker; where none can be started the test is skipped, in continuous integration it fails."""
    if missing:
        pytest.skip(missing[0])
    try:
        broker = Broker(tmp_path_factory.mktemp("kafka"))
        broker.start()
    except KafkaUnavailable as exc:
        if os.environ.get("CI"):
            pytest.fail(f"no Kafka broker: {exc}")
        missing.append(str(exc))
        pytest.skip(str(exc))
    try:
        yield broker
    finally:
        broker.stop()


@pytest.fixture(scope="session")
def node() -> str:
    """Where Node.js is; without it the test is skipped, in continuous integration it fails."""
    found = shutil.which("node")
    if found is not None:
        return found
    if os.environ.get("CI"):
        pytest.fail("there is no node")
    missing_node.append("there is no node")
    pytest.skip("there is no node")


@pytest.fixture
def proxy_program(request: pytest.FixtureRequest) -> str:
    """Where a proxy's program is; without it the test is skipped, in continuous integration it fails."""
    name: str = request.param
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")
    if found is not None:
        return found
    if os.environ.get("CI"):
        pytest.fail(f"there is no {name}")
    missing_proxies.append(f"there is no {name}")
    pytest.skip(f"there is no {name}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what was left out."""
    if missing:
        terminalreporter.write_line(LOUD.format("KAFKA", missing[0]), red=True, bold=True)
    if missing_node:
        terminalreporter.write_line(LOUD.format("NODE", missing_node[0]), red=True, bold=True)
    if missing_clients:
        terminalreporter.write_line(LOUD.format("CLIENT", "; ".join(missing_clients)), red=True, bold=True)
    if missing_proxies:
        terminalreporter.write_line(
            LOUD.format("PROXY", ", ".join(dict.fromkeys(missing_proxies))), red=True, bold=True
        )
