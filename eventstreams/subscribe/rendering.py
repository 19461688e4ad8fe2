"""From a log record to what subscribers are sent: parsed, redacted and serialised once, whoever asks.

The rules are the contract's (EventStreams, deserialising): `meta` is made if missing, gets topic, partition and offset
(and the key, as a Node Buffer); a value that is no JSON object or array is skipped, as are duplicate keys.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

from eventstreams.filters.view import EventView
from eventstreams.metrics import Metrics
from eventstreams.records import Record, TopicPartition
from eventstreams.subscribe.redaction import Redaction

MAX_EXACT_INTEGER = 2**53
"""Beyond it numbers go out as doubles, as they do from the original (RFC 8259 section 6)."""

ITEM_OVERHEAD_BYTES = 400
"""What an item costs beside its bytes: the objects around them."""


class Item:
    """A record in memory with what was made of it. Rendered when first asked for."""

    __slots__ = ("_canary", "_data", "_event", "_view", "partition", "record", "seq")

    def __init__(self, record: Record, partition: TopicPartition, seq: int = -1) -> None:
        self.record = record
        self.partition = partition
        self.seq = seq
        self._data: bytes | None = None
        self._event: dict[str, Any] | None = None
        self._view: EventView | None = None
        self._canary = False

    @property
    def size(self) -> int:
        """Bytes that this item holds in memory, about."""
        return 2 * len(self.record.value) + ITEM_OVERHEAD_BYTES

    def data(self, renderer: Renderer) -> bytes:
        """Return the event as one line of JSON; empty when the record is to be skipped."""
        if self._data is None:
            self._data, self._event = renderer.render(self.record)
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
        return _lenient(data)


class Renderer:
    """Renders records under one redaction."""

    def __init__(self, redaction: Redaction | None, metrics: Metrics) -> None:
        self._redact = redaction.redact if redaction else None
        self._metrics = metrics

    def render(self, record: Record) -> tuple[bytes, dict[str, Any] | None]:
        """Return the JSON line and the event; (b"", None) for a record that is skipped, (line, None) for an array."""
        value = record.value
        try:
            event = orjson.loads(value)
        except orjson.JSONDecodeError:
            event = _lenient(value)
        if not isinstance(event, dict):
            if isinstance(event, list):
                return _dump(event), None
            return self._skip("not an object")
        added = _set_meta(event, record)
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
            line = orjson.dumps(event, option=orjson.OPT_STRICT_INTEGER)
        except orjson.JSONEncodeError:
            line = _dump(event)
        if len(line) != len(value) + added and has_duplicate_keys(value):
            return self._skip("duplicate keys")
        return line, event

    def _skip(self, reason: str) -> tuple[bytes, None]:
        self._metrics.record_skipped(reason)
        return b"", None


def _set_meta(event: dict[str, Any], record: Record) -> int:
    """Add where the event stands to its `meta`.

    Returns how many bytes that adds to compact JSON whose `meta` had none of it, so that a changed length tells
    duplicate keys (or mere white space) without a second look; -1 when `meta` is no object.
    """
    meta = event.get("meta")
    if meta is None:
        meta = event["meta"] = {}
    elif not isinstance(meta, dict):
        return -1
    meta["topic"] = record.topic
    meta["partition"] = record.partition
    meta["offset"] = record.offset
    if record.key:
        meta["key"] = {"type": "Buffer", "data": list(record.key)}
        return 0
    return len(f',"topic":"{record.topic}","partition":{record.partition},"offset":{record.offset}')


def has_duplicate_keys(value: bytes) -> bool:
    """Whether any object of this JSON text names a key twice; the original refuses such events."""

    def check(pairs: list[tuple[str, Any]]) -> None:
        if len({name for name, _ in pairs}) != len(pairs):
            raise _DuplicateKeyError

    try:
        json.loads(value, object_pairs_hook=check)
    except _DuplicateKeyError:
        return True
    except (ValueError, RecursionError):
        return False
    return False


class _DuplicateKeyError(Exception):
    pass


def _lenient(value: bytes) -> object:
    """Parse what orjson refuses and the original takes: lone surrogates, a byte-order mark, bytes that are no UTF-8."""
    try:
        return json.loads(value.decode("utf-8-sig", "replace"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _dump(value: object) -> bytes:
    """Serialise with JavaScript's numbers: integers beyond 2^53 as the nearest double."""
    try:
        return orjson.dumps(_doubles(value))
    except orjson.JSONEncodeError:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=True).encode()


def _doubles(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _doubles(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_doubles(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MAX_EXACT_INTEGER:
        return orjson.Fragment(javascript_number(value))
    return value


def javascript_number(value: int) -> bytes:
    """Write an integer as ECMAScript's Number::toString writes the nearest double."""
    try:
        digits, _, exponent = f"{float(value):e}".partition("e")
        digits, exponent = repr(float(value)).replace("-", "").replace(".", "").partition("e")[0], exponent
    except OverflowError:
        return b"null"
    digits = digits.rstrip("0") or "0"
    power = int(exponent)
    sign = "-" if value < 0 else ""
    if power < 21:
        return (sign + digits.ljust(power + 1, "0")).encode()
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{sign}{mantissa}e+{power}".encode()
