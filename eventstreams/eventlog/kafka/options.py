"""How Kafka is used, and librdkafka's properties: ours, over which the operator's go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eventstreams.errors import ConfigurationError
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
}
PRODUCER: Mapping[str, Any] = {
    "enable.idempotence": True,
    "acks": "all",
    "linger.ms": 2,
    "compression.type": "lz4",
    "queue.buffering.max.kbytes": 256 * 1024,
    "queue.buffering.max.messages": 500_000,
    # As the original's partitioner: by CRC32 of the key, at random without one.
    "partitioner": "consistent_random",
}
CLIENT_ONLY = frozenset({"logger"})

TELLING_SECONDS = 1.0
"""librdkafka looks once a second for records that are late: its word comes so much after its own deadline."""

ASKING_SECONDS = 1.0
"""What asking whether a topic is there may take of an append."""


RECORD_ROOM_BYTES = 64 * 1024
"""What a record may have beside the event: its key, and the frame of a batch around it."""


def record_bytes(event_bytes: int) -> int:
    """Return the `max.message.bytes` of a topic, and of the producer, that an event of so many bytes needs."""
    return event_bytes + RECORD_ROOM_BYTES


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """How Kafka is used. `properties` are librdkafka's, over ours."""

    servers: str
    properties: Mapping[str, Any] = field(default_factory=dict)
    produce_timeout: float = 8.0
    """Seconds in which a record must be acknowledged: an append returns by then."""
    max_record_bytes: int = record_bytes(4 * 2**20)
    writable: bool = True
    """Whether `append` may be used: else no producer is opened."""
    may_be_away: bool = False
    """Whether to open though no broker answers: it is then found later; `cluster` stays empty until the next start."""


def delivery_seconds(produce_timeout: float) -> float:
    """Return after how long librdkafka is to give a record up, so that it has said so when an append must return.

    A record that is given up is not delivered later, unless it was on the wire already: so it is not for us to give
    it up first.
    """
    return max(produce_timeout - ASKING_SECONDS - TELLING_SECONDS, produce_timeout / 2)


def properties(servers: str, given: Mapping[str, Any], *layers: Mapping[str, Any]) -> Properties:
    """Return the properties of one client; a value `{file: PATH}` is read from that file, as for a secret.

    Raises: ConfigurationError.
    """
    merged: Properties = {"bootstrap.servers": servers, **BASE}
    for layer in layers:
        merged |= layer
    return merged | {name: _value(name, value) for name, value in given.items()}


def _value(name: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    path = value.get("file")
    if set(value) != {"file"} or not isinstance(path, str):
        raise ConfigurationError(f"kafka.{name}: expected a value or {{file: PATH}}")
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"kafka.{name}: file {path} cannot be read: {exc}") from exc
