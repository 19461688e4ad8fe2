"""From a log record to what subscribers are sent: parsed, redacted and serialised once, whoever asks.

The rules are the contract's (EventStreams, deserialising): `meta` is made if missing, gets topic, partition and offset
(and the key, as a Node Buffer); a value that is no JSON object or array is skipped, as are duplicate keys.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol

import orjson

from eventstreams.compact_json import copied
from eventstreams.filters.view import EventView
from eventstreams.metrics import Metrics
from eventstreams.records import Record, TopicPartition
from eventstreams.subscribe import verbatim_json
from eventstreams.subscribe.redaction import Redaction

logger = logging.getLogger(__name__)

ITEM_BYTES = 240
"""What an item costs in the process's memory beside the letters of its event.

The object 96, two numbers 64, what is around bytes 48; its places in the lists of who holds it, and what the
allocator loses.
"""

KEY_BYTES = 48
"""The same for a key."""


class Account(Protocol):
    """Who holds items, and counts their bytes."""

    def grow(self, size: int) -> None:
        """Count so many bytes more, or less."""
        ...


class Item:
    """A record in memory, and what was made of it when first asked for: from then on without the record's bytes.

    `value` is the record's, then the line of JSON that is sent of it.
    """

    __slots__ = ("_canary", "_seen", "account", "key", "offset", "partition", "timestamp", "value")

    def __init__(self, record: Record, partition: TopicPartition, account: Account | None = None) -> None:
        _, _, self.offset, self.timestamp, self.value, self.key = record
        self.partition = partition
        self.account = account
        self._canary: bool | None = None
        """None until it is rendered."""
        self._seen: dict[str, Any] | EventView | None = None
        """The event, then the view of it; while it is being sent."""

    @property
    def size(self) -> int:
        """Return the bytes of memory that it takes; whoever holds it is told when that changes."""
        key = self.key
        return len(self.value) + (ITEM_BYTES if key is None else ITEM_BYTES + KEY_BYTES + len(key))

    def data(self, renderer: Renderer) -> bytes:
        """Return the event as one line of JSON; empty when the record is to be skipped."""
        if self._canary is None:
            grown = -len(self.value)
            self.value, event = renderer.render(self)
            grown += len(self.value)
            if self.key is not None:
                grown -= KEY_BYTES + len(self.key)
                self.key = None
            self._canary = event is not None and event["meta"].get("domain") == "canary"
            self._seen = event
            if self.account is not None:
                self.account.grow(grown)
        return self.value

    def is_canary(self) -> bool:
        """Whether it is a canary event; asked after `data`."""
        return bool(self._canary)

    def view(self) -> EventView | None:
        """Return what filters see, None for a JSON array; asked after `data`."""
        if not isinstance(self._seen, EventView) and self.value:
            event = self._seen if self._seen is not None else _parsed(self.value)
            self._seen = EventView(event, self.value) if isinstance(event, dict) else None
        return self._seen if isinstance(self._seen, EventView) else None

    def forget(self) -> None:
        """Drop the parsed event: the bytes stay."""
        self._seen = None


def _parsed(data: bytes) -> object:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return verbatim_json.plain(verbatim_json.read(data))


class Renderer:
    """Renders records under one redaction."""

    def __init__(self, redaction: Redaction | None, metrics: Metrics) -> None:
        self._redact = redaction.redact if redaction else None
        self._metrics = metrics

    def render(self, item: Item) -> tuple[bytes, dict[str, Any] | None]:
        """Return the JSON line and the event; (b"", None) for a record that is skipped, (line, None) for an array."""
        try:
            line, event = self._render(item)
            return _without_separators(line) if 0xE2 in line or 0x85 in line else line, event
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
            event = verbatim_json.read(value)
        if not isinstance(event, dict):
            return self._array(event, value) if isinstance(event, list) else self._skip("not an object")
        meta = event.get("meta")
        if meta is not None and not isinstance(meta, dict):
            return self._skip("meta is no object")
        added = _set_meta(event, meta, item)
        if self._redact is not None:
            outcome = self._redact(event)
            if outcome == "withheld":
                return self._skip("withheld")
            if outcome == "redacted":
                self._metrics.event_redacted()
                added = b""
        try:
            line = orjson.dumps(event)
        except orjson.JSONEncodeError:
            line = b""
        # Mostly `meta` is the object that ends first, and nothing else is written in another way than it came. Then
        # no key of `value` is there twice: none of `line` is, which was written from dictionaries.
        spliced = value.replace(b"}", added, 1)
        return (spliced, event) if spliced == line and added else self._rewritten(event, line, item, added)

    def _rewritten(
        self, event: dict[str, Any], line: bytes, item: Item, added: bytes
    ) -> tuple[bytes, dict[str, Any] | None]:
        """Return what to send of an event that may be written in another way than it came."""
        value = item.value
        # `meta` may be the last object, or stand elsewhere: a search takes longer than all the rest.
        spliced = b"%b%b}" % (value[:-2], added)
        if spliced == line and added:
            return spliced, event
        line = copied(line)
        if added and (_is_spliced(value, line, added[:-1]) or _is_spliced(*map(_packed, (value, line, added[:-1])))):
            return line, event
        if not line or verbatim_json.may_change(value, event):
            if verbatim_json.is_deep(event):
                return self._skip("nesting")
            line, event = self._verbatim(item), verbatim_json.plain(event)
        if not (added and _has_all_strings(value, line, added)) and verbatim_json.has_duplicate_keys(value):
            return self._skip("duplicate keys")
        return line, event

    def _verbatim(self, item: Item) -> bytes:
        """Return the line of an event that is known to be sent, its numbers with the digits that they came with."""
        event = verbatim_json.read(item.value)
        assert isinstance(event, dict)
        _set_meta(event, event.get("meta"), item)
        if self._redact is not None:
            self._redact(event)
        return verbatim_json.write(event)

    def _array(self, event: list[Any], value: bytes) -> tuple[bytes, None]:
        if verbatim_json.has_duplicate_keys(value):
            return self._skip("duplicate keys")
        if verbatim_json.is_deep(event):
            return self._skip("nesting")
        return verbatim_json.write(verbatim_json.read(value)), None

    def _skip(self, reason: str) -> tuple[bytes, None]:
        self._metrics.record_skipped(reason)
        return b"", None


LINE_SEPARATORS = {char.encode(): f"\\u{ord(char):04x}".encode() for char in "\x85\u2028\u2029"}
"""What Unicode counts as the end of a line, where many libraries cut; JSON has them stand in texts as they are."""


def _without_separators(line: bytes) -> bytes:
    for separator, escape in LINE_SEPARATORS.items():
        if separator in line:
            line = line.replace(separator, escape)
    return line


def _set_meta(event: dict[str, Any], meta: dict[str, Any] | None, item: Item) -> bytes:
    """Add where the event stands to its `meta`.

    Returns what this adds to compact JSON, with the brace that closes `meta`; nothing where that is not all it does.
    """
    # One member more is added where there is none: never what is expected.
    had = -1 if meta is None else len(meta)
    if meta is None:
        meta = event["meta"] = {}
    topic, partition = item.partition
    meta["topic"] = topic
    meta["partition"] = partition
    meta["offset"] = item.offset
    added = f',"topic":"{topic}","partition":{partition},"offset":{item.offset}}}'.encode()
    if item.key:
        meta["key"] = key = {"type": "Buffer", "data": list(item.key)}
        added = added[:-1] + b',"key":' + orjson.dumps(key) + b"}"
        had += 1
    return added if len(meta) == had + 3 else b""


def _packed(text: bytes) -> bytes:
    return text.translate(None, b" \t\r\n")


def _is_spliced(value: bytes, line: bytes, added: bytes) -> bool:
    """Whether `line` is `value` with `added` put in somewhere, byte for byte."""
    if len(line) != len(value) + len(added):
        return False
    at = line.find(added)
    return at >= 0 and value.startswith(line[:at]) and value.endswith(line[at + len(added) :])


def _has_all_strings(value: bytes, line: bytes, added: bytes) -> bool:
    """Whether `line` has all strings of `value`, keys too, beside what was added: then none of its keys is there twice.

    A quote begins or ends a string, or is escaped within one. The writer writes each of these again, and no other
    unless it is spelt \\u0022. Of two members with the same key one is gone, with the quotes of its key at least;
    how numbers, blanks and other characters are written moves no quote.
    """
    if b"\\" in value and b"\\u0022" in value:
        return False
    return value.count(b'"') + added.count(b'"') == line.count(b'"')
