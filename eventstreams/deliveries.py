"""The state of a batch on its way to intake, without I/O: which events are open, and what became of the others."""

from __future__ import annotations

import json
import uuid
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson

from eventstreams.errors import NoIntake, ProducerError

ALL_TAKEN = frozenset({200, 201, 202})
FOR_NOW = frozenset({408, 429, 502, 503, 504})
SOME_TAKEN = 207
TOLD_BY_INTAKE = frozenset({SOME_TAKEN, 400, 413, 500})
"""Other statuses of an intake; one of these without outcomes may come from a proxy before it, or be a fault."""

TOO_LARGE = 413


@dataclass(frozen=True, slots=True)
class Refusal:
    """An event that intake will not take: `invalid` by its schema, else `error`."""

    status: str
    event: Any
    """As it was sent."""
    message: str
    index: int
    """Its place in what was given to `send`."""
    errors: Sequence[Any] = ()
    """Each violation of the schema: `dataPath`, `keyword`, `schemaPath`, `params`, `message`."""


class Delivery:
    """One batch. The open events are those to send (again); `note` closes them by an answer."""

    def __init__(self, events: Sequence[Any]) -> None:
        self._events = [with_id(event) for event in events]
        self._texts = [encoded(event, number) for number, event in enumerate(self._events)]
        self.open = dict.fromkeys(range(len(events)))
        self.refused: dict[int, Refusal] = {}
        self.last = ""
        """What intake said last of those that are open."""

    def body(self, numbers: Iterable[int]) -> bytes:
        """Return the JSON list of these events."""
        return b"[" + b",".join(self._texts[number] for number in numbers) + b"]"

    def note(self, numbers: Sequence[int], status: int, content: bytes) -> bool:
        """Close what the answer settles; return whether that is all of these. Raises: ProducerError for no answer.

        An event listed as `error` is closed only where nothing says that a later attempt may fare better: not in 207,
        which is sent for any kind of failure, nor with a status that asks to come back.
        """
        if status in ALL_TAKEN and _is_of_intake(content):
            self._close(numbers)
            return True
        items = _items(content)
        if not items or any(item["event"] is None for _, item in items):
            return self._note_whole(numbers, status, items)
        self.last = f"{status} {_message(items[-1][1])}"
        waiting = self._queues(numbers)
        again = {number for kind, item in items if (number := self._settle(kind, item, status, waiting)) is not None}
        self._close([number for number in numbers if number not in again])
        return not again

    def _settle(
        self, kind: str, item: Mapping[str, Any], status: int, waiting: Mapping[str | None, deque[int]]
    ) -> int | None:
        """Return the number of the item's event when it is to be sent again, else note its refusal."""
        queue = waiting[identity(item["event"])] or waiting[None]
        if not queue:
            raise ProducerError(f"intake answered {status} with an event that was not sent: {item['event']!r:.200}")
        number = next((one for one in queue if _is_echo(item["event"], self._events[one])), queue[0])
        queue.remove(number)
        if kind == "error" and (status == SOME_TAKEN or status in FOR_NOW):
            return number
        self._refuse(number, kind, item)
        return None

    def _note_whole(self, numbers: Sequence[int], status: int, items: Sequence[tuple[str, Mapping[str, Any]]]) -> bool:
        said = _message(items[0][1]) if items else f"{_phrase(status)}, without outcomes"
        self.last = f"{status} {said}"
        if status in FOR_NOW:
            return False
        if not items and status not in TOLD_BY_INTAKE:
            raise NoIntake(f"expected an intake, which does not answer {status} {_phrase(status)}")
        if status != TOO_LARGE or len(numbers) != 1:
            raise ProducerError(f"intake answered {self.last}")
        self._refuse(numbers[0], "error", {"context": {"message": said}})
        self._close(numbers)
        return True

    def _refuse(self, number: int, kind: str, item: Mapping[str, Any]) -> None:
        errors = item["context"].get("errors") or ()
        self.refused[number] = Refusal(kind, self._events[number], _message(item), number, errors)

    def _close(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            del self.open[number]

    def _queues(self, numbers: Iterable[int]) -> Mapping[str | None, deque[int]]:
        queues: dict[str | None, deque[int]] = defaultdict(deque)
        for number in numbers:
            queues[identity(self._events[number])].append(number)
        return queues


def identity(event: Any) -> str | None:
    """Return an event's `meta.id`."""
    meta = event.get("meta") if isinstance(event, Mapping) else None
    value = meta.get("id") if isinstance(meta, Mapping) else None
    return value if isinstance(value, str) else None


def with_id(event: Any, value: str | None = None) -> Any:
    """Return the event with a `meta.id`: its own, else the given or a random one; unchanged where it has no `meta`."""
    meta = event.get("meta") if isinstance(event, Mapping) else None
    if not isinstance(meta, Mapping) or "id" in meta:
        return event
    return {**event, "meta": {**meta, "id": value or str(uuid.uuid4())}}


def _is_echo(echoed: Any, sent: Any) -> bool:
    """Whether an event of an answer is this one, with what intake filled in. Ids may occur twice in a batch."""
    if isinstance(sent, Mapping) and isinstance(echoed, Mapping):
        return all(name == "dt" or (name in echoed and _is_echo(echoed[name], sent[name])) for name in sent)
    return bool(echoed == sent)


def encoded(event: Any, number: int) -> bytes:
    """Return an event's JSON. Raises: ProducerError that names its place."""
    try:
        return orjson.dumps(event)
    except orjson.JSONEncodeError:
        # Lone surrogates and integers over 64 bits.
        pass
    try:
        return json.dumps(event, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise ProducerError(f"event {number} of the batch cannot be written as JSON: {exc}") from exc


def _items(content: bytes) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the items of an envelope with their kind; none for what is no envelope."""
    try:
        body = orjson.loads(content)
        found = [(kind, item) for kind in ("invalid", "error") for item in body.get(kind, ())]
        return [(kind, item) for kind, item in found if "event" in item and isinstance(item["context"], Mapping)]
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
        return []


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "(a status without a name)"


def _is_of_intake(content: bytes) -> bool:
    """Whether an answer that takes all events is an intake's: nothing, or an object; a site's page is none."""
    return not content or content.lstrip()[:1] == b"{"


def _message(item: Mapping[str, Any]) -> str:
    context = item["context"]
    return str(context.get("errorsText") or context.get("message", ""))
