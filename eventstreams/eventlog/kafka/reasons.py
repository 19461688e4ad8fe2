"""Why a cluster does not answer, in a sentence: what librdkafka says to its callbacks, not what its calls raise.

A call that fails says "Broker transport failure" whatever the matter is. The password that was refused, the certificate
that is not known and the host that is not found are told beside it, to `error_cb`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException

from eventstreams.errors import LogError, LogRefused, LogUnavailable
from eventstreams.eventlog.kafka.errors import raised

FRESH_SECONDS = 30.0
"""How long a reason counts: librdkafka repeats itself while it lasts, but for what is not so any more."""

STATE = re.compile(r" \(after \d+ms in state \w+[^()]*\)$")

REFUSED = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL})
"""What does not get better by waiting: password, mechanism, the broker's certificate."""

ALERT = "SSL alert number"
"""Of TLS: the broker does not take our certificate, or misses one. librdkafka counts it among what may pass."""

HANDSHAKE = "handshake failed"

UNREACHED = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
    }
)
"""With what a call says that it reached nobody."""

WANTS_CERTIFICATE = (
    ": the broker wants a client certificate that it trusts (ssl.certificate.location, ssl.key.location)"
)
CLOSED = (
    "connections are closed before an answer: the broker may be stopping, or it wants TLS or a password"
    " (security.protocol)"
)


class _Reason(NamedTuple):
    noted: float
    words: str


class Reasons:
    """What the clients of one cluster were told last. Noted on any thread."""

    def __init__(self, servers: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._servers = servers
        self._clock = clock
        self._refused: _Reason | None = None
        self._failed: _Reason | None = None
        self._down: _Reason | None = None

    def note(self, error: KafkaError) -> None:
        """Take an error: for `error_cb`."""
        reason = _Reason(self._clock(), STATE.sub("", error.str()))
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._down = reason
        elif ALERT in reason.words:
            self._refused = reason._replace(words=reason.words + WANTS_CERTIFICATE)
        elif error.code() in REFUSED:
            self._refused = reason
        elif HANDSHAKE in reason.words or not self._met_handshake():
            self._failed = reason

    def _met_handshake(self) -> bool:
        """Whether a handshake failed lately: it is told once with what that may mean, once as a connection closed."""
        failed = self._failed
        return failed is not None and HANDSHAKE in failed.words and self._is_fresh(failed)

    def forget(self) -> None:
        """Begin anew: the cluster has answered."""
        self._refused = self._failed = self._down = None

    @property
    def refused(self) -> LogRefused | None:
        """Return what the cluster refuses us for, where that is it; waiting does not help then."""
        if not self._is_fresh(self._refused):
            return None
        return LogRefused(self.sentence(), errno=KafkaError._AUTHENTICATION)

    def sentence(self, otherwise: str = "no answer") -> str:
        """Return why the cluster is not reached, with its servers; `otherwise` where nothing was told."""
        for reason in (self._refused, self._failed):
            if reason is not None and self._is_fresh(reason):
                return f"Kafka at {self._servers} cannot be reached: {reason.words}"
        # A connection that the broker closes is the one thing that librdkafka tells nobody.
        words = CLOSED if self._is_fresh(self._down) else otherwise
        return f"Kafka at {self._servers} cannot be reached: {words}"

    def _is_fresh(self, reason: _Reason | None) -> bool:
        return reason is not None and self._clock() - reason.noted < FRESH_SECONDS

    def explain(self, exc: KafkaException, topic: str | None = None) -> LogError:
        """Return what a raised error means here, with the reason where nobody was reached."""
        error: KafkaError = exc.args[0]
        if error.code() in UNREACHED:
            return LogUnavailable(self.sentence(error.str()))
        return raised(exc, topic)
