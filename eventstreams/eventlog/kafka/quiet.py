"""librdkafka's log, without its repetitions: each of its clients says twenty times a second that a broker is away."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable

INTERVAL = 30.0
"""Seconds in which what is said in the same words is logged once."""

MAX_REMEMBERED = 1000

VARYING = re.compile(r"#\w+-\d+|\d+ms")
"""Which of our clients it was, and how long something took."""


class Quiet(logging.Filter):
    """Lets the same words pass once in `INTERVAL`; the next time with how often they came between."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._said: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is to be logged."""
        words, now = VARYING.sub("", record.getMessage()), self._clock()
        with self._lock:
            since, left_out = self._said.get(words, (-INTERVAL, 0))
            if now - since < INTERVAL:
                self._said[words] = since, left_out + 1
                return False
            if len(self._said) >= MAX_REMEMBERED:
                self._said.clear()
            self._said[words] = now, 0
        if left_out:
            record.suppressed = left_out
        return True


def kafka_logger() -> logging.Logger:
    """Return the logger for librdkafka's clients."""
    logger = logging.getLogger("eventstreams.kafka")
    if not any(isinstance(one, Quiet) for one in logger.filters):
        logger.addFilter(Quiet())
    return logger
