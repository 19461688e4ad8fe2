"""librdkafka's log without its repetitions."""

from __future__ import annotations

import logging

from eventstreams.eventlog.kafka.quiet import INTERVAL, Quiet, kafka_logger


def record(message: str) -> logging.LogRecord:
    return logging.LogRecord("eventstreams.kafka", logging.ERROR, "", 0, message, None, None)


def test_same_words_pass_once_whichever_client_says_them_and_are_counted() -> None:
    now = 1000.0
    quiet = Quiet(lambda: now)
    assert quiet.filter(record("FAIL [eventstreams#consumer-8]: refused (after 0ms in state CONNECT)"))
    assert not quiet.filter(record("FAIL [eventstreams#consumer-7]: refused (after 12ms in state CONNECT)"))
    assert not quiet.filter(record("FAIL [eventstreams#producer-1]: refused (after 1ms in state CONNECT)"))
    assert quiet.filter(record("FAIL [eventstreams#consumer-8]: something else"))
    now += INTERVAL
    again = record("FAIL [eventstreams#consumer-8]: refused (after 0ms in state CONNECT)")
    assert quiet.filter(again)
    assert vars(again)["suppressed"] == 2


def test_logger_is_given_one_filter_however_often_it_is_asked_for() -> None:
    assert kafka_logger() is kafka_logger()
    assert sum(isinstance(one, Quiet) for one in kafka_logger().filters) == 1
