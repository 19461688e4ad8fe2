"""A client of intake: what `eventstreams produce` and internal producers use."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx
import orjson

from eventstreams.errors import ProducerError

RETRIED = frozenset({408, 429, 502, 503, 504})
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 30.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """An event that intake did not take: `invalid` by its schema, else `error`."""

    status: str
    event: Any
    message: str


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a batch: how many are stored (or received, when hasty), and the others."""

    accepted: int
    refused: Sequence[Refusal]


class Producer:
    """Posts batches of events to an intake service; one may be used by many tasks.

    A batch that intake could not take for the moment (408, 429, 502, 503, 504, no connection) is sent again, with
    growing pauses or as Retry-After says, for `patience` seconds. Each event gets a `meta.id` before its first sending,
    so that a repetition can be told from another event: delivery is at least once, once where the stream deduplicates.
    """

    def __init__(
        self, url: str, *, patience: float = 60.0, timeout: float = 15.0, http: httpx.AsyncClient | None = None
    ) -> None:
        self._url = url.rstrip("/") + "/v1/events"
        self._patience = patience
        self._http = http or httpx.AsyncClient(timeout=timeout, trust_env=False)
        self._owns_http = http is None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owns_http:
            await self._http.aclose()

    async def send(self, events: Sequence[Any], *, hasty: bool = False) -> Sent:
        """Return what became of a batch. Raises: ProducerError when intake did not take it in time."""
        if not events:
            return Sent(0, ())
        body = orjson.dumps([_with_id(event) for event in events])
        pause = FIRST_PAUSE
        try:
            async with asyncio.timeout(self._patience):
                while True:
                    response = await self._post(body, hasty=hasty)
                    if isinstance(response, httpx.Response) and response.status_code not in RETRIED:
                        return _sent(response, len(events))
                    await asyncio.sleep(_pause(response, pause))
                    pause = min(pause * 2, LONGEST_PAUSE)
        except TimeoutError as exc:
            raise ProducerError(f"{self._url} took no batch of {len(events)} in {self._patience:g} s") from exc

    async def _post(self, body: bytes, *, hasty: bool) -> httpx.Response | httpx.TransportError:
        params = {"hasty": "true"} if hasty else None
        try:
            return await self._http.post(
                self._url, content=body, params=params, headers={"content-type": "application/json"}
            )
        except httpx.TransportError as exc:
            return exc


def _pause(response: httpx.Response | httpx.TransportError, pause: float) -> float:
    told = response.headers.get("retry-after", "") if isinstance(response, httpx.Response) else ""
    # Spread out: many producers are told the same moment.
    return (float(told) if told.isdecimal() else pause) * random.uniform(0.8, 1.2)


def _with_id(event: Any) -> Any:
    meta = event.get("meta") if isinstance(event, Mapping) else None
    if not isinstance(meta, Mapping) or "id" in meta:
        return event
    return {**event, "meta": {**meta, "id": str(uuid.uuid4())}}


def _sent(response: httpx.Response, count: int) -> Sent:
    if response.status_code in (200, 201, 202):
        return Sent(count, ())
    try:
        body = orjson.loads(response.content or b"{}")
        refused = [_refusal(item) for kind in ("invalid", "error") for item in body.get(kind, ())]
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError) as exc:
        raise ProducerError(f"{response.url} answered {response.status_code} without outcomes") from exc
    if not refused:
        raise ProducerError(f"{response.url} answered {response.status_code} without outcomes")
    if all(refusal.event is None for refusal in refused):
        raise ProducerError(f"{response.url} answered {response.status_code}: {refused[0].message}")
    return Sent(count - len(refused), refused)


def _refusal(item: Mapping[str, Any]) -> Refusal:
    context = item["context"]
    return Refusal(item["status"], item["event"], context.get("errorsText") or context.get("message", ""))
