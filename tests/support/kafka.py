"""A real Apache Kafka broker: one node, KRaft, on loopback. For the tests, and by `make kafka` for anybody.

Its jars come through Maven once, into a cache outside of the tree.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.cache import fetched

POM = Path(__file__).parent / "kafka_jars" / "pom.xml"
START_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0
MAVEN_TIMEOUT = 540.0

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={data}
num.partitions=1
default.replication.factor=1
auto.create.topics.enable=false
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# After a kill a node waits for its own old session: six seconds with these, else twenty.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
log.retention.check.interval.ms=1000
log.initial.task.delay.ms=100
log.cleaner.backoff.ms=200
"""


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


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Broker:
    """One broker and its data directory. It may be stopped or killed, and started again on the same port."""

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self.port = port or free_port()
        self._directory = directory
        self._classpath = f"{jars()}/*"
        self._settings = directory / "server.properties"
        self._log = directory / "broker.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def servers(self) -> str:
        """Return what clients connect to."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, and return when the port answers. Raises: KafkaUnavailable."""
        if not self._settings.exists():
            self._format()
        command = self._java("-Xmx512m", "-Xms128m", "kafka.Kafka", str(self._settings))
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise KafkaUnavailable(f"the broker ended: {self._log.read_text(errors='replace')[-2000:]}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()
                return
            except OSError:
                time.sleep(0.05)
        self.kill()
        raise KafkaUnavailable(f"the broker did not answer in {START_TIMEOUT:g} s")

    def _format(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        values = {"port": self.port, "controller": free_port(), "data": self._directory / "data"}
        self._settings.write_text(PROPERTIES.format(**values))
        identity = "ZXZlbnRzdHJlYW1zLTAwMQ"
        command = self._java("kafka.tools.StorageTool", "format", "-t", identity, "-c", str(self._settings))
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_TIMEOUT, check=False)
        if done.returncode:
            self._settings.unlink()
            raise KafkaUnavailable(f"the broker's storage cannot be made: {done.stdout}{done.stderr}")

    def _java(self, *arguments: str) -> list[str]:
        quiet = "-Dorg.apache.logging.log4j.level=ERROR"
        return ["java", "-cp", self._classpath, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", quiet, *arguments]

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in good order."""
        self._end(signal.SIGTERM)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Have it stand still while the context lasts: its connections stay open and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        # All its threads have stopped only when the kernel says so.
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)
        try:
            yield
        finally:
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
