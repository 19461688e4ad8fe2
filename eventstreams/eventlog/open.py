"""From the setting `log` to an open event log."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from eventstreams.errors import ConfigurationError
from eventstreams.eventlog.base import EventLog
from eventstreams.eventlog.embedded.log import EmbeddedOptions, open_embedded
from eventstreams.eventlog.kafka.log import OPEN_TIMEOUT, open_kafka
from eventstreams.eventlog.kafka.options import KafkaOptions, record_bytes

EMBEDDED = "embedded:"
MEMORY = "embedded::memory:"
KAFKA = "kafka://"

AWAY_TIMEOUT = 2.0
"""Seconds in which a broker may answer at the start, where it need not."""


def kafka_servers(url: str) -> str | None:
    """Return the bootstrap servers that a log's URL names; None where it is not Kafka's."""
    servers = url.removeprefix(KAFKA)
    return servers if servers != url and servers else None


def open_log(
    url: str,
    *,
    embedded: EmbeddedOptions | None = None,
    kafka: Mapping[str, Any] | None = None,
    produce_timeout: float = 20.0,
    max_event_bytes: int = 4 * 2**20,
    writable: bool = True,
    may_be_away: bool = False,
) -> AbstractAsyncContextManager[EventLog]:
    """Return the log that `url` names, to be entered: `embedded:PATH`, `embedded::memory:`, `kafka://HOST:PORT,...`.

    Kafka takes events of up to `max_event_bytes`. `kafka` are librdkafka properties; with `may_be_away` no broker need
    answer yet.

    Raises: ConfigurationError for any other form, here; for a file that cannot be used or properties that librdkafka
    refuses, on entering; LogUnavailable for a broker that does not answer.
    """
    servers = kafka_servers(url)
    if servers is not None:
        options = KafkaOptions(
            servers,
            kafka or {},
            produce_timeout=produce_timeout,
            max_record_bytes=record_bytes(max_event_bytes),
            writable=writable,
            may_be_away=may_be_away,
        )
        return open_kafka(options, open_timeout=AWAY_TIMEOUT if may_be_away else OPEN_TIMEOUT)
    path = url.removeprefix(EMBEDDED)
    if path == url or not path:
        raise ConfigurationError(
            f"log {url!r}: expected embedded:PATH, embedded::memory: or kafka://HOST:PORT[,HOST:PORT]"
        )
    return open_embedded(path, embedded)
