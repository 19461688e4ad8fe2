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
OUT_OF_RANGE = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})
"""After which a consumer stands still in that partition until it is moved."""

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
        KafkaError._NOENT,  # librdkafka's word for a partition of which it knows no leader
    }
)
"""After which the leader must be looked up again: a broker that restarts begins a new epoch."""

UNCERTAIN = frozenset(
    {
        KafkaError._MSG_TIMED_OUT,
        KafkaError._PURGE_INFLIGHT,
        KafkaError._PURGE_QUEUE,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._TRANSPORT,
        KafkaError._FATAL,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    }
)
"""After which a record may have been stored or not."""

LOCAL = -1


def translated(error: KafkaError, topic: str | None = None, *, right: str = "DESCRIBE") -> LogError:
    """Return what a Kafka error means here, in librdkafka's words; `right` is what the request needs on the topic."""
    code, words = error.code(), error.str()
    if topic is not None:
        words = f"{words} ({topic})"
    if code in UNKNOWN:
        return UnknownTopic(words)
    if code in REFUSED:
        return LogRefused(refusal(code, topic, right), topic=topic, errno=code, words=KafkaError(code).str())
    if code in TOO_LARGE:
        return RecordTooLarge(words)
    if code == KafkaError._QUEUE_FULL:
        return LogFull(words)
    if code in UNCERTAIN:
        return AppendTimeout(words)
    return LogUnavailable(words)


def refusal(code: int, topic: str | None, right: str) -> str:
    """Return Kafka's words, and what is missing: the same words are said of every right."""
    words: str = KafkaError(code).str()
    if topic is None or code == KafkaError.TOPIC_EXCEPTION:
        return words
    return f"{words}: the client lacks the right {right} on topic {topic}"


def raised(exc: KafkaException, topic: str | None = None, *, right: str = "DESCRIBE") -> LogError:
    """Return what a raised Kafka error means here."""
    error = translated(exc.args[0], topic, right=right)
    # Who asks is told nothing of a record: whatever timed out, the log did not answer.
    return LogUnavailable(error.message) if isinstance(error, AppendTimeout) else error
