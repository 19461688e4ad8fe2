"""The error tree. Each class carries a stable code and an HTTP status.

EventStreamsError
+-- ConfigurationError        settings, stream configuration, files at start
+-- RequestError              the caller's mistake, answered before the first byte (family A of the contract)
|   +-- UnknownStream, InvalidTimestamp, MissingClientAddress, TooManyConnections, BadRequest, NotFound
|   +-- FilterError           a filter that doesn't compile or passes a limit; says where
|   +-- PayloadTooLarge, UnsupportedMedia, MalformedBody, RequestTimeout, TooManyEvents
+-- AssignmentError           a Last-Event-ID that cannot be used (family B)
|   +-- InvalidAssignment, TopicNotAvailable, NoTopics
+-- LogError                  the event log
|   +-- UnknownTopic, TopicReplaced, OffsetOutOfRange, LogUnavailable, LogRefused
|   +-- RecordTooLarge, LogFull, SpoolFull, AppendTimeout
+-- ProducerError             an intake service that took no events in time (the client's side)
|   +-- NoIntake
+-- SchemaError               schema repositories
    +-- SchemaNotFound, SchemaUnavailable, InsecureSchema, InvalidSchema
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from eventstreams.records import Record, TopicPartition


class EventStreamsError(Exception):
    """Root of all errors raised by this project."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    retry_after: float | None = None
    """Seconds to wait, for a Retry-After header."""

    @property
    def message(self) -> str:
        """The sentence: what, which value, what was expected."""
        return str(self)


class ConfigurationError(EventStreamsError):
    """A setting, a stream configuration or a file that the process cannot start with."""

    code = "configuration"


class RequestError(EventStreamsError):
    """The caller's mistake. `title` and `detail` are what the error body shows (family A)."""

    code = "bad_request"
    status = 400
    title: ClassVar[str] = "Bad Request"

    def __init__(self, detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after


class BadRequest(RequestError):
    """A parameter that cannot be used."""


class UnknownStream(RequestError):
    """A stream name that is not configured. Deliberate: 400 with type not_found, as the original answers."""

    code = "not_found"
    title = "Stream Not Found"


class InvalidTimestamp(RequestError):
    """A `since` that is no time."""

    code = "invalid_timestamp"
    title = "Invalid timestamp"


class MissingClientAddress(RequestError):
    """X-Client-IP is required by setting and absent."""

    title = "Missing Required X-Client-IP Header"


class TooManyConnections(RequestError):
    """The client has as many streams open as it may."""

    code = "too_many_requests"
    status = 429
    title = "Too Many Concurrent Connections From Your Client IP"


class NotFound(RequestError):
    """No such file or page."""

    code = "not_found"
    status = 404
    title = "File not found"


class FilterError(RequestError):
    """A filter that does not compile or passes a limit; the detail says the value and the place."""

    code = "invalid_filter"
    title = "Invalid filter"


class ServiceUnavailable(RequestError):
    """The process is draining, full, or cannot reach the log: come back later."""

    code = "unavailable"
    status = 503
    title = "Service Unavailable"


class PayloadTooLarge(RequestError):
    """A body over the limit."""

    code = "payload_too_large"
    status = 413
    title = "Payload Too Large"


class UnsupportedMedia(RequestError):
    """A charset or content coding that is not read."""

    code = "unsupported_media"
    status = 415
    title = "Unsupported Media Type"


class MalformedBody(RequestError):
    """A body that is no JSON object or array."""

    code = "malformed_body"
    title = "Malformed Body"


class RequestTimeout(RequestError):
    """A request that did not come whole in time."""

    code = "request_timeout"
    status = 408
    title = "Request Timeout"


class TooManyEvents(RequestError):
    """A producer over its rate."""

    code = "too_many_events"
    status = 429
    title = "Too Many Events"


class AssignmentError(EventStreamsError):
    """A Last-Event-ID that cannot be used; `fields` are added to the body (family B)."""

    code = "invalid_assignment"
    status = 400
    name: ClassVar[str] = "InvalidAssignmentError"

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.fields: Mapping[str, Any] = fields


class InvalidAssignment(AssignmentError):
    """Last-Event-ID is no JSON, or not of the accepted shapes."""


class TopicNotAvailable(AssignmentError):
    """Last-Event-ID names a topic that is not the stream's, or that does not exist."""

    code = "topic_not_available"
    status = 404
    name = "TopicNotAvailableError"


class NoTopics(AssignmentError):
    """None of the stream's topics exists in the log."""

    code = "no_topics"
    status = 500
    name = "ConfigurationError"


class LogError(EventStreamsError):
    """The event log could not do what it was asked; `partition` where only one is concerned."""

    code = "log_error"
    status = 500
    partition: TopicPartition | None = None

    def at(self, partition: TopicPartition) -> Self:
        """Return this error as one of this partition."""
        self.partition = partition
        return self


class UnknownTopic(LogError):
    """No such topic, or no such partition of it."""

    code = "unknown_topic"

    @classmethod
    def of(cls, topic: str) -> UnknownTopic:
        """Return the error of an append to a topic that is not there: no service makes one."""
        return cls(f"there is no topic {topic!r}: eventstreams streams apply makes those of the stream configuration")


class TopicReplaced(LogError):
    """The topic is another one now than the one asked about: deleted, and made anew under its name."""

    code = "topic_replaced"
    status = 503

    def __init__(self, topic: str) -> None:
        super().__init__(f"topic {topic!r} was deleted and made anew")
        self.topic = topic


class OffsetOutOfRange(LogError):
    """The offset asked for is not in the log (any more)."""

    code = "offset_out_of_range"
    partition: TopicPartition

    def __init__(self, partition: TopicPartition, offset: int, earliest: int) -> None:
        super().__init__(
            f"offset {offset} of {partition.topic}/{partition.partition} is not in the log: earliest is {earliest}"
        )
        self.partition = partition
        self.offset = offset
        self.earliest = earliest


class RecordTooLarge(LogError):
    """A value over the largest that the log takes."""

    code = "record_too_large"
    status = 400


class LogFull(LogError):
    """The local queue to the log is full; try later. Nothing was stored."""

    code = "log_full"
    status = 503


class SpoolFull(LogError):
    """The log is away, and the spool holds as much as it may. Nothing was stored."""

    code = "spool_full"
    status = 503


class AppendTimeout(LogError):
    """No acknowledgement in time: the record may or may not have been stored.

    `fate` tells what became of it once that is known: the stored record, the error that says that it is not stored, or
    another `AppendTimeout` where nobody can know. None: nobody will ever tell. To be waited for, never cancelled.
    """

    code = "append_timeout"
    status = 503

    def __init__(self, message: str, fate: asyncio.Future[Record | LogError] | None = None) -> None:
        super().__init__(message)
        self.fate = fate


class LogUnavailable(LogError):
    """The log cannot be reached, or cannot write (disk full). Nothing half-written."""

    code = "log_unavailable"
    status = 503
    retry_after = 5.0


class LogRefused(LogError):
    """The log refuses a topic (None: all) for good, by authorisation for instance; `errno` is Kafka's error code.

    `words` are Kafka's own, which a client of the original knows; the message may say more.
    """

    code = "log_refused"

    def __init__(self, message: str, *, topic: str | None = None, errno: int = -1, words: str | None = None) -> None:
        super().__init__(message)
        self.topic = topic
        self.errno = errno
        self.words = message if words is None else words


class ProducerError(EventStreamsError):
    """An intake service did not take a batch, or did not say what became of it."""

    code = "producer"


class NoIntake(ProducerError):
    """The URL of an intake service is none, or what answers there is no intake."""

    code = "no_intake"


class SchemaError(EventStreamsError):
    """A schema could not be used."""

    code = "schema_error"


class SchemaNotFound(SchemaError):
    """No repository has this schema, or the URI is not a schema's."""

    code = "schema_not_found"


class SchemaUnavailable(SchemaError):
    """A repository did not answer; the schema may exist."""

    code = "schema_unavailable"
    status = 503


class InsecureSchema(SchemaError):
    """A schema that events could misuse: unbounded patterns, remote references."""

    code = "insecure_schema"


class InvalidSchema(SchemaError):
    """A document that is no JSON Schema, or does not compile."""

    code = "invalid_schema"
