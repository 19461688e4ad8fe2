"""From a log record to what subscribers are sent: parsed, redacted and serialised once, whoever asks.

The rules are the contract's (EventStreams, deserialising): `meta` is made if missing, gets topic, partition and offset
(and the key, as a Node Buffer); a value that is no JSON object or array is skipped, as are duplicate keys.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import orjson

from eventstreams.compact_json import compact
from eventstreams.filters.view import EventView
from eventstreams.metrics import Metrics
from eventstreams.records import Record, TopicPartition
from eventstreams.subscribe.javascript_json import dump, has_duplicate_keys, is_deep, lenient
from eventstreams.subscribe.redaction import Redaction

logger = logging.getLogger(__name__)

LONG_NUMBER = re.compile(rb"[0-9]{20}")
"""What may be a number beyond 2^64: orjson reads it as a double, and writes that in its own way."""

ITEM_OVERHEAD_BYTES = 500
"""What an item costs beside its bytes: the objects around them, and what rendering adds."""

KEY_BYTES = 5
"""What a byte of a key costs: it is sent as a decimal number too."""


class Item:
    """A record in memory, and what was made of it when first asked for: from then on without the record's bytes.

    `size`: bytes that it holds, about; the same before and after.
    """

    __slots__ = (
        "_canary",
        "_data",
        "_event",
        "_view",
        "key",
        "offset",
        "partition",
        "seq",
        "size",
        "timestamp",
        "value",
    )

    def __init__(self, record: Record, partition: TopicPartition, seq: int = -1) -> None:
        _, _, self.offset, self.timestamp, self.value, self.key = record
        self.partition = partition
        self.seq = seq
        self.size = len(self.value) + (KEY_BYTES * len(self.key) if self.key else 0) + ITEM_OVERHEAD_BYTES
        self._data: bytes | None = None
        self._event: dict[str, Any] | None = None
        self._view: EventView | None = None
        self._canary = False

    def data(self, renderer: Renderer) -> bytes:
        """Return the event as one line of JSON; empty when the record is to be skipped."""
        if self._data is None:
            self._data, self._event = renderer.render(self)
            self.value = b""
            if self._event is not None:
                meta = self._event["meta"]
                self._canary = meta.get("domain") == "canary"
        return self._data

    def is_canary(self) -> bool:
        """Whether it is a canary event; asked after `data`."""
        return self._canary

    def view(self) -> EventView | None:
        """Return what filters see, None for a JSON array; asked after `data`."""
        if self._view is None and self._data:
            event = self._event if self._event is not None else _parsed(self._data)
            if isinstance(event, dict):
                self._view = EventView(event, self._data)
        return self._view

    def forget(self) -> None:
        """Drop the parsed event: the bytes stay."""
        self._event = None
        self._view = None


def _parsed(data: bytes) -> object:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return lenient(data)


class Renderer:
    """Renders records under one redaction."""

    def __init__(self, redaction: Redaction | None, metrics: Metrics) -> None:
        self._redact = redaction.redact if redaction else None
        self._metrics = metrics

    def render(self, item: Item) -> tuple[bytes, dict[str, Any] | None]:
        """Return the JSON line and the event; (b"", None) for a record that is skipped, (line, None) for an array."""
        try:
            return self._render(item)
        except Exception:
            # Deliberate: everything is caught. A record that cannot be rendered would end the stream each time that
            # a client comes to it, for ever.
            logger.exception("a record could not be rendered", extra={"place": str((*item.partition, item.offset))})
            return self._skip("failed")

    def _render(self, item: Item) -> tuple[bytes, dict[str, Any] | None]:
        value = item.value
        try:
            event = orjson.loads(value)
        except orjson.JSONDecodeError:
            event = lenient(value)
        if not isinstance(event, dict):
            return self._array(event, value) if isinstance(event, list) else self._skip("not an object")
        added = _set_meta(event, item)
        if added < 0:
            return self._skip("meta is no object")
        if self._redact is not None:
            outcome = self._redact(event)
            if outcome == "withheld":
                return self._skip("withheld")
            if outcome == "redacted":
                self._metrics.event_redacted()
                added = -1
        try:
            line = compact(event, orjson.OPT_STRICT_INTEGER)
        except orjson.JSONEncodeError:
            line = b""
        if len(line) == len(value) + added:
            return line, event
        return self._unusual(event, line, value)

    def _unusual(self, event: dict[str, Any], line: bytes, value: bytes) -> tuple[bytes, dict[str, Any] | None]:
        """Return what to send of an event that is not written as it came, or not at once."""
        if has_duplicate_keys(value):
            return self._skip("duplicate keys")
        if line and LONG_NUMBER.search(value) is None:
            return line, event
        if is_deep(event):
            return self._skip("nesting")
        return dump(event), event

    def _array(self, event: list[Any], value: bytes) -> tuple[bytes, None]:
        if has_duplicate_keys(value):
            return self._skip("duplicate keys")
        return self._skip("nesting") if is_deep(event) else (dump(event), None)

    def _skip(self, reason: str) -> tuple[bytes, None]:
        self._metrics.record_skipped(reason)
        return b"", None


def _set_meta(event: dict[str, Any], item: Item) -> int:
    """Add where the event stands to its `meta`.

    Returns how many bytes that adds to compact JSON whose `meta` had none of it, so that a changed length tells
    duplicate keys (or mere white space) without a second look; -1 when `meta` is no object.
    """
    meta = event.get("meta")
    if meta is None:
        meta = event["meta"] = {}
    elif not isinstance(meta, dict):
        return -1
    topic, partition = item.partition
    meta["topic"] = topic
    meta["partition"] = partition
    meta["offset"] = item.offset
    if item.key:
        meta["key"] = {"type": "Buffer", "data": list(item.key)}
        return 0
    return len(f',"topic":"{topic}","partition":{partition},"offset":{item.offset}')
