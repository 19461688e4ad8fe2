"""Which of librdkafka's clients a property is for: who gives it to another is warned, or refused.

The names are librdkafka's own (column C/P of its table of properties), those that are not here are for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from eventstreams.errors import ConfigurationError

Kind = Literal["producer", "consumer", "admin"]

PRODUCER_ONLY = frozenset(
    {
        "acks",
        "batch.num.messages",
        "batch.size",
        "compression.codec",
        "compression.level",
        "compression.type",
        "delivery.report.only.error",
        "delivery.timeout.ms",
        "enable.gapless.guarantee",
        "enable.idempotence",
        "linger.ms",
        "message.send.max.retries",
        "message.timeout.ms",
        "partitioner",
        "produce.offset.report",
        "queue.buffering.backpressure.threshold",
        "queue.buffering.max.kbytes",
        "queue.buffering.max.messages",
        "queue.buffering.max.ms",
        "queuing.strategy",
        "request.required.acks",
        "request.timeout.ms",
        "retries",
        "sticky.partitioning.linger.ms",
        "transaction.timeout.ms",
        "transactional.id",
    }
)
CONSUMER_ONLY = frozenset(
    {
        "auto.commit.enable",
        "auto.commit.interval.ms",
        "auto.offset.reset",
        "check.crcs",
        "consume.callback.max.messages",
        "coordinator.query.interval.ms",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.partition.eof",
        "fetch.error.backoff.ms",
        "fetch.max.bytes",
        "fetch.message.max.bytes",
        "fetch.min.bytes",
        "fetch.queue.backoff.ms",
        "fetch.wait.max.ms",
        "group.id",
        "group.instance.id",
        "group.protocol",
        "group.protocol.type",
        "group.remote.assignor",
        "heartbeat.interval.ms",
        "isolation.level",
        "max.partition.fetch.bytes",
        "max.poll.interval.ms",
        "max.poll.records",
        "offset.store.method",
        "offset.store.path",
        "offset.store.sync.interval.ms",
        "partition.assignment.strategy",
        "queued.max.messages.kbytes",
        "queued.min.messages",
        "session.timeout.ms",
        "share.acknowledgement.mode",
    }
)
SECTIONS: tuple[Kind, Kind] = ("producer", "consumer")
NOT_FOR: Mapping[Kind, frozenset[str]] = {
    "producer": CONSUMER_ONLY,
    "consumer": PRODUCER_ONLY,
    # librdkafka makes it a producer that never sends.
    "admin": PRODUCER_ONLY | CONSUMER_ONLY,
}


def of_kind(given: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """Return the properties of one kind of client, by their full names below `kafka`, its own over the common ones.

    `given` holds common properties and the mappings `producer` and `consumer`. Raises: ConfigurationError.
    """
    sections = {section: _section(section, given.get(section, {})) for section in SECTIONS}
    common = {
        name: _value(name, value) for name, value in given.items() if name not in sections and name not in NOT_FOR[kind]
    }
    return common | {name: _value(f"{kind}.{name}", value) for name, value in sections.get(kind, {}).items()}


def _section(kind: Kind, own: Any) -> Mapping[str, Any]:
    if not isinstance(own, Mapping):
        raise ConfigurationError(f"kafka.{kind} = {own!r}: expected properties by name")
    for name in own:
        if name in NOT_FOR[kind]:
            raise ConfigurationError(f"kafka.{kind}.{name}: librdkafka has no such property of a {kind}")
    return own


def _value(name: str, value: Any) -> Any:
    """Return a property's value; `{file: PATH}` is read from that file, as for a secret."""
    if not isinstance(value, Mapping):
        return value
    path = value.get("file")
    if set(value) != {"file"} or not isinstance(path, str):
        raise ConfigurationError(f"kafka.{name}: expected a value or {{file: PATH}}")
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or "expected UTF-8"
        raise ConfigurationError(f"kafka.{name}: file {path} cannot be read: {reason}") from exc
