"""Three real Kafka nodes on loopback, each broker and controller: replication 3, two in-sync replicas at least.

For what one broker cannot show: leaders that die and others that take over.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata

from tests.support.kafka import KafkaUnavailable, Node, Ports

NODES = 3
WHOLE_TIMEOUT = 120.0
ASKING_TIMEOUT = 2.0
HEARTBEATS = 4
"""Heartbeats in a session, somewhat as in Kafka's defaults: 2 s of 9 s."""

DEFAULT_SESSION = 9.0
"""Seconds without a heartbeat after which a broker is out and others lead: Kafka's default."""

REPLICATED: Mapping[str, object] = {
    "default.replication.factor": 3,
    "min.insync.replicas": 2,
    "offsets.topic.replication.factor": 3,
    "offsets.topic.num.partitions": 3,
    "transaction.state.log.replication.factor": 3,
    "transaction.state.log.min.isr": 2,
    "share.coordinator.state.topic.replication.factor": 3,
    "share.coordinator.state.topic.min.isr": 2,
}


class Cluster:
    """Three nodes. Each may be killed, stopped or held up, and started again on the same ports and data.

    `properties` are each server's, over ours; `listeners` are more, on ports of their own. All of it blocks.
    """

    def __init__(
        self,
        directory: Path,
        *,
        session_timeout: float = DEFAULT_SESSION,
        properties: Mapping[str, object] | None = None,
        listeners: Mapping[str, str] | None = None,
    ) -> None:
        ports = Ports.of_several(NODES, listeners)
        voters = ",".join(f"{number}@127.0.0.1:{one.controller}" for number, one in enumerate(ports, 1))
        session = int(session_timeout * 1000)
        shared = {
            **REPLICATED,
            "controller.quorum.voters": voters,
            "broker.session.timeout.ms": session,
            "broker.heartbeat.interval.ms": session // HEARTBEATS,
            **(properties or {}),
        }
        self.nodes: Sequence[Node] = [
            Node(directory / f"node{number}", one, {"node.id": number, **shared}, heap="256m")
            for number, one in enumerate(ports, 1)
        ]
        self._admin: AdminClient | None = None

    @property
    def servers(self) -> str:
        """Return what clients connect to: every node."""
        return self.address()

    def address(self, listener: str | None = None) -> str:
        """Return what clients of a listener connect to."""
        return ",".join(node.address(listener) for node in self.nodes)

    def start(self) -> None:
        """Start those that are not up, all at once, and return when their ports answer. Raises: KafkaUnavailable."""
        down = [node for node in self.nodes if not node.up]
        for node in down:
            node.launch()
        for node in down:
            node.wait()

    def kill(self) -> None:
        """End all as a crash does."""
        self._admin = None
        for node in self.nodes:
            node.kill()

    def leader(self, topic: str, partition: int = 0) -> Node:
        """Return the node that leads a partition, as far as the others know. Raises: KafkaUnavailable."""
        deadline = time.monotonic() + WHOLE_TIMEOUT
        while time.monotonic() < deadline:
            metadata = self._metadata(topic)
            found = metadata.topics[topic].partitions.get(partition) if metadata is not None else None
            if found is not None and found.leader > 0:
                node: Node = self.nodes[found.leader - 1]
                return node
            time.sleep(0.1)
        raise KafkaUnavailable(f"nobody leads {topic}/{partition}")

    def wait_whole(self) -> None:
        """Return when every partition has a leader, and all its replicas in sync. Raises: KafkaUnavailable."""
        deadline = time.monotonic() + WHOLE_TIMEOUT
        while time.monotonic() < deadline:
            metadata = self._metadata()
            if metadata is not None and _whole(metadata):
                return
            time.sleep(0.1)
        raise KafkaUnavailable(f"the cluster is not whole in {WHOLE_TIMEOUT:g} s")

    def _metadata(self, topic: str | None = None) -> ClusterMetadata | None:
        """Return what some node knows; None where it does not say: it may be one that stands still."""
        if self._admin is None:
            self._admin = AdminClient({"bootstrap.servers": self.servers, "socket.timeout.ms": 2000, "log_level": 0})
        try:
            return self._admin.list_topics(topic, timeout=ASKING_TIMEOUT)
        except KafkaException:
            return None


def _whole(metadata: ClusterMetadata) -> bool:
    partitions = [one for topic in metadata.topics.values() for one in topic.partitions.values()]
    in_sync = all(one.leader > 0 and set(one.isrs) == set(one.replicas) for one in partitions)
    return len(metadata.brokers) == NODES and in_sync
