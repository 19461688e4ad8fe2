"""A failed event as an event of the error stream: whatever it holds, this must not fail (spec eventgate 13)."""

from __future__ import annotations

import json
from typing import Any

from intake import paths
from intake.json_text import serialise
from intake.options import IntakeOptions
from intake.outcome import EventOutcome
from intake.paths import MISSING

MAX_RAW_CHARACTERS = 1024 * 1024
COPIED = ("uri", "domain", "request_id")
MAX_COPIED_CHARACTERS = 8192


def error_event(outcome: EventOutcome, now: str, options: IntakeOptions) -> dict[str, Any]:
    """Return the error event of a failed one."""
    meta = outcome.event.get("meta") if isinstance(outcome.event, dict) else None
    meta = meta if isinstance(meta, dict) else {}
    return {
        "$schema": options.error_schema_uri,
        "meta": {
            **{name: _text(meta.get(name, MISSING)) for name in COPIED},
            "stream": options.error_stream,
        },
        "dt": now,
        "emitter_id": options.user_agent,
        "raw_event": _raw(outcome.event),
        "errored_schema_uri": _text(paths.find(outcome.event, options.schema_uri_fields)),
        "errored_stream_name": _text(paths.find(outcome.event, options.stream_fields)),
        "message": outcome.message,
        "error_type": outcome.error_type,
    }


def _text(value: Any) -> str:
    if value is MISSING:
        return "unknown"
    text = value if isinstance(value, str) else _json(value)
    return text[:MAX_COPIED_CHARACTERS]


def _json(value: Any) -> str:
    try:
        return serialise(value).decode()
    except (ValueError, RecursionError):
        return json.dumps("unprintable")


def _raw(event: Any) -> str:
    return (event if isinstance(event, str) else _json(event))[:MAX_RAW_CHARACTERS]
