"""Events of 1 KB, shaped as changes on a wiki; each carries the time at which it was made behind the sink's mark."""

from __future__ import annotations

import time

import orjson

from eventstreams.records import NewRecord

TOPIC = "bench"
SIZE = 1024
MARK = b"~"
PLACE = "0" * 19


def _template() -> tuple[bytes, bytes]:
    event = {
        "$schema": "/test/event/1.0.0",
        "meta": {
            "uri": "https://en.wikipedia.org/wiki/Zurich",
            "request_id": "5a1f8a2e-6a30-4b1c-9d1c-0c1f1d2e3f40",
            "id": "0c1f1d2e-3f40-4b1c-9d1c-5a1f8a2e6a30",
            "dt": "2026-01-05T10:00:00.123Z",
            "domain": "en.wikipedia.org",
            "stream": TOPIC,
        },
        "id": 1812345678,
        "type": "edit",
        "namespace": 0,
        "title": "Zürich",
        "title_url": "https://en.wikipedia.org/wiki/Z%C3%BCrich",
        "made": f"{MARK.decode()}{PLACE}",
        "comment": "",
        "timestamp": 1767607200,
        "user": "Ada",
        "bot": False,
        "notify_url": "https://en.wikipedia.org/w/index.php?diff=1234567890&oldid=1234567889",
        "minor": True,
        "length": {"old": 48211, "new": 48233},
        "revision": {"old": 1234567889, "new": 1234567890},
        "server_url": "https://en.wikipedia.org",
        "server_name": "en.wikipedia.org",
        "server_script_path": "/w",
        "wiki": "enwiki",
    }
    event["comment"] = "c" * (SIZE - len(orjson.dumps(event)))
    before, after = orjson.dumps(event).split(MARK + PLACE.encode())
    return before + MARK, after


BEFORE, AFTER = _template()


def event(made: int | None = None) -> bytes:
    """Return an event of `SIZE` bytes, made now or at a time of the monotonic clock (ns)."""
    return b"%b%019d%b" % (BEFORE, time.monotonic_ns() if made is None else made, AFTER)


def records(count: int, *, timestamp: int | None = None) -> list[NewRecord]:
    """Return so many events, ready to append; at `timestamp` (ms) or when the log takes them."""
    return [NewRecord(TOPIC, event(), None, timestamp) for _ in range(count)]


def frame_line() -> bytes:
    """Return what the gateway sends of an event, as one line of the same size, for who sends it as it is."""
    entry = b'[{"topic":"bench","partition":0,"timestamp":1767607200123,"offset":123456,"cluster":"%b"}]' % (b"c" * 32)
    place = b',"topic":"bench","partition":0,"offset":123456'
    return b"event: message id: " + entry + b" data: " + event() + place
