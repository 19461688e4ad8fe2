"""A real Apache Kafka broker: one node, KRaft, on loopback. For the tests, and by `make kafka` for anybody.

Its jars come through Maven once, into a cache outside of the tree.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.cache import fetched

POM = Path(__file__).parent / "kafka_jars" / "pom.xml"
START_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0
SERVED = range(12_000, 32_000)
"""Ports below those that Linux gives to outgoing connections."""
MAVEN_TIMEOUT = 540.0

IDENTITY = "ZXZlbnRzdHJlYW1zLTAwMQ"
"""The cluster's id: 16 bytes, as Kafka's tool writes them."""

COMMON: Mapping[str, object] = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "num.partitions": 1,
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": 0,
    "log.retention.check.interval.ms": 1000,
    "log.initial.task.delay.ms": 100,
    "log.cleaner.backoff.ms": 200,
}
ALONE: Mapping[str, object] = {
    "default.replication.factor": 1,
    "offsets.topic.replication.factor": 1,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    # After a kill a node waits for its own old session: six seconds with these, else twenty.
    "broker.session.timeout.ms": 2000,
    "broker.heartbeat.interval.ms": 500,
}


class KafkaUnavailable(Exception):
    """No broker can be started here; says why."""


def jars() -> Path:
    """Return the directory of the broker's jars, fetched where they are not there. Raises: KafkaUnavailable."""
    if shutil.which("java") is None:
        raise KafkaUnavailable("there is no java")
    return fetched("kafka", [POM], _fetch)


def _fetch(folder: Path) -> None:
    if shutil.which("mvn") is None:
        raise KafkaUnavailable("there is no mvn to fetch the broker's jars")
    command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MAVEN_TIMEOUT, check=False)
    if done.returncode:
        raise KafkaUnavailable(f"mvn could not fetch the broker's jars: {(done.stdout + done.stderr)[-2000:]}")


def free_ports(count: int) -> Sequence[int]:
    """Return ports that were free a moment ago, each another.

    Of those that no outgoing connection gets: else a client that tries again and again to reach a node that is down
    connects to itself in the end, and holds the node's port.
    """
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            port = random.choice(SERVED)
            with contextlib.suppress(OSError):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
                ports.append(port)
        return ports


def free_port() -> int:
    """Return a port that was free a moment ago."""
    return free_ports(1)[0]


@dataclass(frozen=True)
class Ports:
    """Where a node listens: clients, controllers, and each listener more (its name, a security protocol)."""

    clients: int
    controller: int
    more: Mapping[str, tuple[str, int]]

    @staticmethod
    def free(port: int | None = None, listeners: Mapping[str, str] | None = None) -> Ports:
        """Return ports that were free a moment ago; `listeners` are security protocols by name."""
        (ports,) = Ports.of_several(1, listeners)
        return ports if port is None else replace(ports, clients=port)

    @staticmethod
    def of_several(nodes: int, listeners: Mapping[str, str] | None = None) -> Sequence[Ports]:
        """Return the ports of so many nodes, none twice."""
        given = listeners or {}
        free = iter(free_ports(nodes * (2 + len(given))))
        return [
            Ports(next(free), next(free), {name: (protocol, next(free)) for name, protocol in given.items()})
            for _ in range(nodes)
        ]

    def properties(self) -> Mapping[str, object]:
        """Return what the node is to be told of them."""
        clients = {"PLAINTEXT": self.clients} | {name: port for name, (_, port) in self.more.items()}
        protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT"}
        protocols |= {name: protocol for name, (protocol, _) in self.more.items()}
        return {
            "listeners": _addresses(clients | {"CONTROLLER": self.controller}),
            "advertised.listeners": _addresses(clients),
            "listener.security.protocol.map": ",".join(f"{name}:{value}" for name, value in protocols.items()),
        }


def _addresses(ports: Mapping[str, int]) -> str:
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())


class Node:
    """One process of Kafka and its data directory, a broker and controller in one.

    It may be stopped, killed or held up, and started again on the same ports. `properties` are the server's.
    """

    def __init__(self, directory: Path, ports: Ports, properties: Mapping[str, object], *, heap: str = "512m") -> None:
        self.ports = ports
        self._directory = directory
        self._properties = {**COMMON, **ports.properties(), "log.dirs": directory / "data", **properties}
        self._heap = heap
        self._classpath = f"{jars()}/*"
        self._settings = directory / "server.properties"
        self._log = directory / "broker.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """Return the port for clients, without TLS and authentication."""
        return self.ports.clients

    @property
    def servers(self) -> str:
        """Return what clients connect to."""
        return self.address()

    def address(self, listener: str | None = None) -> str:
        """Return what clients of a listener connect to; None is that without TLS and authentication."""
        return f"127.0.0.1:{self.port if listener is None else self.ports.more[listener][1]}"

    @property
    def up(self) -> bool:
        """Whether its process is there, be it held up."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start, and return when the port answers. Raises: KafkaUnavailable."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start without waiting. Raises: KafkaUnavailable."""
        if not self._settings.exists():
            self._format()
        command = self._java(f"-Xmx{self._heap}", "-Xms64m", "kafka.Kafka", str(self._settings))
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)

    def wait(self) -> None:
        """Return when the port answers. Raises: KafkaUnavailable."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if not self.up:
                raise KafkaUnavailable(f"the broker ended: {self._log.read_text(errors='replace')[-2000:]}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()
                return
            except OSError:
                time.sleep(0.05)
        self.kill()
        said = self._log.read_text(errors="replace")[-2000:]
        raise KafkaUnavailable(f"the broker did not answer in {START_TIMEOUT:g} s: {said}")

    def _format(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._settings.write_text("".join(f"{name}={value}\n" for name, value in self._properties.items()))
        command = self._java("kafka.tools.StorageTool", "format", "-t", IDENTITY, "-c", str(self._settings))
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_TIMEOUT, check=False)
        if done.returncode:
            self._settings.unlink()
            raise KafkaUnavailable(f"the broker's storage cannot be made: {done.stdout}{done.stderr}")

    def _java(self, *arguments: str) -> list[str]:
        quiet = "-Dorg.apache.logging.log4j.level=ERROR"
        return ["java", "-cp", self._classpath, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", quiet, *arguments]

    def kill(self) -> None:
        """End it as a crash does, held up or not."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in good order."""
        self._end(signal.SIGTERM)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Have it stand still while the context lasts."""
        self.hold()
        try:
            yield
        finally:
            self.let_go()

    def hold(self) -> None:
        """Have it stand still: its connections stay open and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        # All its threads have stopped only when the kernel says so.
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def let_go(self) -> None:
        """Have it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Broker(Node):
    """A cluster of one. `properties` are the server's, over ours; `listeners` are more, each on a port of its own."""

    def __init__(
        self,
        directory: Path,
        port: int | None = None,
        *,
        properties: Mapping[str, object] | None = None,
        listeners: Mapping[str, str] | None = None,
    ) -> None:
        ports = Ports.free(port, listeners)
        own = {"node.id": 1, "controller.quorum.voters": f"1@127.0.0.1:{ports.controller}"}
        super().__init__(directory, ports, {**ALONE, **own, **(properties or {})})


def main() -> None:
    """Run a broker until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A one-node Apache Kafka on loopback, to play with.")
    parser.add_argument("--port", type=int, default=9092)
    parser.add_argument("--data", type=Path, help="directory that is kept; without it all is gone at the end")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kafka-") as temporary:
        broker = Broker(given.data or Path(temporary), given.port)
        try:
            broker.start()
            print(
                f"Kafka answers at {broker.servers}; try --set log=kafka://{broker.servers}. Ctrl-C ends it.",
                flush=True,
            )
            signal.pause()
        except KeyboardInterrupt:
            pass
        except KafkaUnavailable as exc:
            sys.exit(f"no Kafka: {exc}")
        finally:
            broker.stop()


if __name__ == "__main__":
    main()
