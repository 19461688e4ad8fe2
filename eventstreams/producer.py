"""A client of intake: what `eventstreams produce` and internal producers use. docs/producing.md shows it at work."""

from __future__ import annotations

import asyncio
import gzip
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self

import httpx

from eventstreams.addresses import is_http_url
from eventstreams.deliveries import Delivery, Refusal
from eventstreams.errors import NoIntake, ProducerError

PATH = "/v1/events"
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 30.0
TOO_LARGE = 413


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a batch: how many events were accepted (received only, when hasty), and each of the others."""

    accepted: int
    refused: Sequence[Refusal]


class Producer:
    """Posts events to an intake service. Use it as `async with Producer(url) as producer`; many tasks may share one.

    What could not be taken for the moment (408, 429, 502, 503, 504, no connection or no answer) is sent again with
    growing, random pauses, or when Retry-After says, for `patience` seconds. Where some events of a batch were stored
    only the others are sent again. Each event gets a `meta.id` before its first sending unless it has one: delivery is
    at least once, and once where the stream has a deduplication window.
    """

    def __init__(
        self,
        url: str,
        *,
        patience: float = 60.0,
        timeout: float = 30.0,
        compress: bool = False,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        """Prepare to post to the intake at `url`, for example `http://127.0.0.1:8192`.

        Args:
            url: with or without the path `/v1/events`.
            patience: seconds to try a batch in all.
            timeout: seconds to wait for one answer; keep it above intake's `intake.produce_timeout`.
            compress: send bodies with gzip.
            http: a client of yours (TLS, headers, proxies); it is not closed.

        Raises: NoIntake for what is no http or https URL.
        """
        self._url = _events_url(url)
        self._patience = patience
        self._compress = compress
        self._http = http or httpx.AsyncClient(timeout=timeout, trust_env=False)
        self._owns_http = http is None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owns_http:
            await self._http.aclose()

    async def send(self, events: Sequence[Any], *, hasty: bool = False, validate_only: bool = False) -> Sent:
        """Return what became of each of `events`, in one request unless intake finds it too large or takes only some.

        Waits until they are stored; with `hasty` only until they are received. With `validate_only` nothing is
        stored, and "accepted" means that it would be. Events are JSON values; NaN is sent as null. Cancelling leaves
        open what became of the request under way.

        Raises: ProducerError when an event is no JSON value or intake did not take all in time; NoIntake when what
        answers is none.
        """
        params = {name: "true" for name, wanted in (("hasty", hasty), ("validate_only", validate_only)) if wanted}
        delivery = Delivery(events)
        try:
            async with asyncio.timeout(self._patience):
                await self._deliver(delivery, params)
        except NoIntake as exc:
            raise NoIntake(f"url {self._url}: {exc}") from exc
        except TimeoutError as exc:
            said = f"; the last answer: {delivery.last}" if delivery.last else ""
            left = f"{len(delivery.open)} of {len(events)} events"
            raise ProducerError(f"{self._url} did not take {left} in {self._patience:g} s{said}") from exc
        return Sent(len(events) - len(delivery.refused), [refusal for _, refusal in sorted(delivery.refused.items())])

    async def _deliver(self, delivery: Delivery, params: dict[str, str]) -> None:
        most = len(delivery.open)
        pause = 0.0
        while delivery.open:
            numbers = list(delivery.open)[:most]
            response = await self._post(delivery.body(numbers), params)
            if response is None:
                delivery.last = "no answer"
            elif response.status_code == TOO_LARGE and len(numbers) > 1:
                most = (len(numbers) + 1) // 2
                continue
            elif delivery.note(numbers, response.status_code, response.content):
                pause = 0.0
                continue
            await asyncio.sleep(_pause(response, pause))
            pause = min(pause * 2 or FIRST_PAUSE, LONGEST_PAUSE)

    async def _post(self, body: bytes, params: dict[str, str]) -> httpx.Response | None:
        headers = {"content-type": "application/json"}
        if self._compress:
            body = gzip.compress(body, compresslevel=3)
            headers["content-encoding"] = "gzip"
        try:
            return await self._http.post(self._url, content=body, params=params, headers=headers)
        except httpx.TransportError:
            return None


def _events_url(url: str) -> str:
    if not is_http_url(url):
        raise NoIntake(f"url {url!r}: expected http://HOST:PORT or https://HOST:PORT")
    base = url.rstrip("/")
    return base if base.endswith(PATH) else base + PATH


def _pause(response: httpx.Response | None, pause: float) -> float:
    """Return seconds to wait: never less than was told, and spread out, since many producers are told the same."""
    told = _retry_after(response.headers.get("retry-after", "")) if response is not None else None
    if told is not None:
        return told * random.uniform(1.0, 1.2)
    # What was partly taken is asked for again at once: alone, the rest's status tells whether it is worth trying.
    if response is None or response.status_code != 207:
        pause = pause or FIRST_PAUSE
    return pause * random.uniform(0.5, 1.5)


def _retry_after(value: str) -> float | None:
    """Return the seconds of a Retry-After, which is a number or a date (RFC 9110 10.2.3)."""
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


__all__ = ["Producer", "Refusal", "Sent"]
