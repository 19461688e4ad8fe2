"""How Kafka is used, and librdkafka's properties: ours, over which the operator's go."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaException

from eventstreams.errors import ConfigurationError
from eventstreams.eventlog.kafka.kinds import Kind, of_kind
from eventstreams.eventlog.kafka.quiet import kafka_logger

Properties = dict[str, Any]

BASE: Mapping[str, Any] = {
    "client.id": "eventstreams",
    "socket.keepalive.enable": True,
    "allow.auto.create.topics": False,
    "log.connection.close": False,
    "reconnect.backoff.ms": 100,
    "reconnect.backoff.max.ms": 2000,
    "logger": kafka_logger(),
}
ASKING: Mapping[str, Any] = {
    # A broker that stands still is left for another one after so long; the default is a minute.
    "socket.timeout.ms": 3000,
}
CONSUMER: Mapping[str, Any] = {
    # A group is never joined: partitions are assigned, and the clients hold the cursor. librdkafka wants a name.
    "group.id": "eventstreams",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
    "isolation.level": "read_committed",
    "fetch.error.backoff.ms": 100,
    # After a full queue the next fetch waits for this long: the default second halves the speed of a replay.
    "fetch.queue.backoff.ms": 20,
    "fetch.wait.max.ms": 100,
    # As above; others lead by then, or soon.
    "socket.timeout.ms": 5000,
    # And whoever leads is looked for this often: a leader may have gone in silence.
    "topic.metadata.refresh.interval.ms": 30_000,
}
PRODUCER: Mapping[str, Any] = {
    "enable.idempotence": True,
    "acks": "all",
    # For those that are given together: see `lanes`.
    "linger.ms": 1,
    "compression.type": "lz4",
    "queue.buffering.max.kbytes": 256 * 1024,
    "queue.buffering.max.messages": 500_000,
    # As the original's partitioner: by CRC32 of the key, at random without one. We choose alike while it is this one.
    "partitioner": "consistent_random",
    # Never: what librdkafka gives up while it has other records under way makes it send those twice.
    "message.timeout.ms": 0,
    # The broker's word that its followers are slow comes before we take the broker for dead.
    "request.timeout.ms": 5000,
    # One that stands still is left for the next leader after so long; the default is a minute.
    "socket.timeout.ms": 6000,
    # A leader that was elected in silence is looked for this often, and so are added partitions.
    "topic.metadata.refresh.interval.ms": 5000,
}
CLIENT_ONLY = frozenset({"logger"})

SENDING_SECONDS = 1.0
"""What asking whether a topic is there leaves of an append's time for the append itself."""

GROWTH_SECONDS = 10.0
"""How old a topic's number of partitions may be when events are spread over them."""

RECORD_ROOM_BYTES = 64 * 1024
"""What a record may have beside the event: its key, and the frame of a batch around it."""


def record_bytes(event_bytes: int) -> int:
    """Return the `max.message.bytes` of a topic, and of the producer, that an event of so many bytes needs."""
    return event_bytes + RECORD_ROOM_BYTES


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """How Kafka is used. `properties` are librdkafka's, over ours; see `of_kind`."""

    servers: str
    properties: Mapping[str, Any] = field(default_factory=dict)
    produce_timeout: float = 20.0
    """Seconds in which a record must be acknowledged: an append returns by then."""
    max_record_bytes: int = record_bytes(4 * 2**20)
    writable: bool = True
    """Whether `append` may be used: else no producer is opened."""
    may_be_away: bool = False
    """Whether to open though no broker answers: it is then found later, and reads are refused until then."""


def properties(servers: str, given: Mapping[str, Any], *layers: Mapping[str, Any], kind: Kind = "admin") -> Properties:
    """Return the properties of one client of a kind: the layers, and over them what is `given` for that kind.

    Raises: ConfigurationError.
    """
    merged: Properties = {"bootstrap.servers": servers, **BASE}
    for layer in layers:
        merged |= layer
    return merged | of_kind(given, kind)


@contextlib.contextmanager
def refused_properties() -> Iterator[None]:
    """Make clients within; properties that librdkafka refuses are a ConfigurationError with its words."""
    try:
        yield
    except KafkaException as exc:
        raise ConfigurationError(f"kafka: {exc.args[0].str()}") from exc
    except (ValueError, TypeError) as exc:
        raise ConfigurationError(f"kafka: {exc}") from exc
