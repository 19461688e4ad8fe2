"""Kafka's errors in this project's words: one table."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException

from eventstreams.errors import (
    AppendTimeout,
    LogError,
    LogFull,
    LogRefused,
    LogUnavailable,
    RecordTooLarge,
    UnknownTopic,
)

UNKNOWN = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})
REFUSED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_EXCEPTION,
    }
)
TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_MSG_SIZE})
STALE_LEADER = frozenset(
    {
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
    }
)
"""After which the leader must be looked up again: a broker that restarts begins a new epoch."""

UNCERTAIN = frozenset(
    {
        KafkaError._MSG_TIMED_OUT,
        KafkaError._PURGE_INFLIGHT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._TRANSPORT,
        KafkaError._FATAL,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    }
)
"""After which a record may have been stored or not."""

LOCAL = -1


def translated(error: KafkaError, topic: str | None = None) -> LogError:
    """Return what a Kafka error means here; the sentence is librdkafka's."""
    code, words = error.code(), error.str()
    if topic is not None:
        words = f"{words} ({topic})"
    if code in UNKNOWN:
        return UnknownTopic(words)
    if code in REFUSED:
        return LogRefused(KafkaError(code).str(), topic=topic, errno=code)
    if code in TOO_LARGE:
        return RecordTooLarge(words)
    if code == KafkaError._QUEUE_FULL:
        return LogFull(words)
    if code in UNCERTAIN:
        return AppendTimeout(words)
    return LogUnavailable(words)


def raised(exc: KafkaException, topic: str | None = None) -> LogError:
    """Return what a raised Kafka error means here."""
    error = translated(exc.args[0], topic)
    # Who asks is told nothing of a record: whatever timed out, the log did not answer.
    return LogUnavailable(error.message) if isinstance(error, AppendTimeout) else error
