"""What all tests share: a Kafka broker, started once for those that need one."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

import pytest

from tests.support.cluster import Cluster
from tests.support.kafka import Broker, KafkaUnavailable
from tests.support.proxies import ProxyMissing, program

LOUD = "\n" + "!" * 100 + "\n!!! {} TESTS WERE NOT RUN: {}\n" + "!" * 100
missing: list[str] = []
missing_node: list[str] = []
missing_proxies: list[str] = []
missing_clients: list[str] = []
missing_namespaces: list[str] = []
missing_tools: list[str] = []


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A running broker; where none can be started the test is skipped, in continuous integration it fails."""
    with kafka_or_skip():
        broker = Broker(tmp_path_factory.mktemp("kafka"))
        broker.start()
    try:
        yield broker
    finally:
        broker.stop()


@pytest.fixture(scope="session")
def kafka_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three running brokers with sessions of six seconds. Who kills one leaves all of them in sync again."""
    with kafka_or_skip():
        cluster = Cluster(tmp_path_factory.mktemp("cluster"), session_timeout=6.0)
        try:
            cluster.start()
        except KafkaUnavailable:
            cluster.kill()
            raise
    try:
        yield cluster
    finally:
        cluster.kill()


@contextlib.contextmanager
def kafka_or_skip() -> Iterator[None]:
    """Skip the test where the context says that there is no Kafka; fail it in continuous integration."""
    if missing:
        pytest.skip(missing[0])
    try:
        yield
    except KafkaUnavailable as exc:
        if os.environ.get("CI"):
            pytest.fail(f"no Kafka broker: {exc}")
        missing.append(str(exc))
        pytest.skip(str(exc))


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
def proxy(request: pytest.FixtureRequest) -> str:
    """A proxy's name; without its program the test is skipped, in continuous integration it fails."""
    name: str = request.param
    try:
        program(name)
    except ProxyMissing as exc:
        if os.environ.get("CI"):
            pytest.fail(str(exc))
        missing_proxies.append(str(exc))
        pytest.skip(str(exc))
    return name


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what was left out."""
    if missing:
        terminalreporter.write_line(LOUD.format("KAFKA", missing[0]), red=True, bold=True)
    if missing_node:
        terminalreporter.write_line(LOUD.format("NODE", missing_node[0]), red=True, bold=True)
    if missing_clients:
        terminalreporter.write_line(LOUD.format("CLIENT", "; ".join(missing_clients)), red=True, bold=True)
    if missing_namespaces:
        terminalreporter.write_line(LOUD.format("HALF-OPEN", missing_namespaces[0]), red=True, bold=True)
    if missing_tools:
        terminalreporter.write_line(
            LOUD.format("LISTENING", ", ".join(dict.fromkeys(missing_tools))), red=True, bold=True
        )
    if missing_proxies:
        terminalreporter.write_line(
            LOUD.format("PROXY", ", ".join(dict.fromkeys(missing_proxies))), red=True, bold=True
        )
