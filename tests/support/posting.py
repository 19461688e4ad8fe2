"""A producer of the kill rig: posts numbered events one batch after the other, and notes what was acknowledged."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from typing import Any

import httpx
import orjson

from tests.support.processes import IntakeProcess

TIMEOUT = 60.0
BATCHES = (1, 2, 10, 50)
SIZES = (50, 300, 2000)


class Poster:
    """Never sends a number again, whatever became of it. One request at a time: so its events have an order.

    Sets `more` whenever events were acknowledged.
    """

    def __init__(
        self, intake: IntakeProcess, number: int, stream: str, rng: random.Random, more: asyncio.Event
    ) -> None:
        self._intake = intake
        self._number = number
        self._stream = stream
        self._rng = rng
        self._numbers = itertools.count(number * 1_000_000_000)
        self._running = True
        self._more = more
        self.sent = 0
        self.acknowledged: set[int] = set()
        self.spooled = 0
        self.slowest = 0.0
        """Seconds that the slowest answer took."""
        self.surprises: list[str] = []

    def stop(self) -> None:
        """Have `run` return after the request under way."""
        self._running = False

    async def run(self) -> None:
        """Post until `stop`."""
        async with httpx.AsyncClient(timeout=TIMEOUT, trust_env=False) as http:
            while self._running:
                await self._intake.up.wait()
                await self._post(http, [self._event() for _ in range(self._rng.choice(BATCHES))])

    def _event(self) -> dict[str, Any]:
        number = next(self._numbers)
        return {
            "$schema": "/rig/numbered/1.0.0",
            "meta": {"stream": self._stream, "id": str(number)},
            "n": number,
            "producer": self._number,
            "padding": "x" * self._rng.choice(SIZES),
        }

    async def _post(self, http: httpx.AsyncClient, batch: list[dict[str, Any]]) -> None:
        self.sent += len(batch)
        began = time.monotonic()
        try:
            answer = await http.post(
                f"{self._intake.url}/v1/events",
                content=orjson.dumps(batch),
                headers={"content-type": "application/json"},
            )
        except httpx.TransportError as exc:
            if isinstance(exc, httpx.TimeoutException):
                self.surprises.append(f"no answer in {TIMEOUT:g} s")
            # It was killed; what became of these nobody knows.
            await asyncio.sleep(0.05)
            return
        self.slowest = max(self.slowest, time.monotonic() - began)
        self._note(answer, {event["n"] for event in batch})
        if answer.status_code == 503:
            await asyncio.sleep(0.2)

    def _note(self, answer: httpx.Response, numbers: set[int]) -> None:
        if answer.status_code == 202:
            self.spooled += len(numbers)
        elif answer.status_code == 207:
            numbers -= {item["event"]["n"] for item in answer.json()["error"]}
        elif answer.status_code != 201:
            if answer.status_code != 503:
                self.surprises.append(f"{answer.status_code}: {answer.text[:300]}")
            return
        self.acknowledged |= numbers
        self._more.set()
