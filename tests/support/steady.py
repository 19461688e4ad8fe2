"""A producer that does not wait: numbered events at a steady rate, however long answers take; and what was answered."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.support.processes import IntakeProcess

TIMEOUT = 60.0
IDLE_SECONDS = 1.0
REPEATED = 0.1
"""The part of the stored events that are sent again, where repetitions are asked for."""

PAUSES = (0.2, 3.0)
"""Seconds after which a refused event is sent again, there."""

PATIENCE = 90.0
"""Seconds in which it must be taken at last."""


class Connections:
    """Keep-alive connections to an intake: as many as there are requests under way."""

    def __init__(self, intake: IntakeProcess) -> None:
        self._intake = intake
        self._idle: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, query: str, events: Sequence[Mapping[str, Any]]) -> tuple[int, bytes]:
        """Return status and body of the answer. Raises: OSError, EOFError, TimeoutError."""
        body = orjson.dumps(events)
        head = f"POST /v1/events{query} HTTP/1.1\r\nHost: rig\r\nContent-Length: {len(body)}\r\n"
        async with asyncio.timeout(TIMEOUT):
            reader, writer = self._held() or await asyncio.open_connection(*self._intake.address)
            writer.write(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = answer.partition(b"content-length: ")[2].partition(b"\r\n")[0]
            content = await reader.readexactly(int(length or b"0"))
        if b"connection: close" in answer:
            writer.close()
        else:
            self._idle.append((time.monotonic(), reader, writer))
        return int(answer.split()[1]), content

    def _held(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """Return one that the server does not just close for being idle: what is sent then may have been read."""
        if not self._idle or time.monotonic() - self._idle[-1][0] > IDLE_SECONDS:
            self.close()
            return None
        return self._idle.pop()[1:]

    def close(self) -> None:
        """Close those that nothing is under way on."""
        for _, _, writer in self._idle:
            writer.close()
        self._idle.clear()


@dataclass(frozen=True)
class Way:
    """How a producer posts."""

    name: str
    settings: Sequence[str] = ()
    """Of its intake."""
    query: str = ""
    sizes: Sequence[int] = (1,)
    """Events of a request."""
    repeats: bool = False
    """Whether events are sent again after a 503, and some after a 201, under the same id."""


@dataclass
class Ledger:
    """What was answered."""

    posts: int = 0
    answers: Counter[int] = field(default_factory=Counter)
    """Events by status: that of the last answer, where there were several."""
    taken: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    slowest: float = 0.0
    lag: float = 0.0
    """Seconds by which the producer itself was late, on a machine with other things to do: so are the answers."""
    surprises: list[str] = field(default_factory=list)

    def note(self, status: int, numbers: set[int], body: bytes, seconds: float) -> set[int]:
        """Note an answer; return the numbers that were refused."""
        self.posts += 1
        self.slowest = max(self.slowest, seconds)
        if status not in (201, 202, 207, 503):
            self.surprises.append(f"{status}: {body[:300]!r}")
        refused = set() if status in (201, 202) else numbers
        if status == 207:
            refused = {item["event"]["n"] for item in orjson.loads(body)["error"]}
        self.answers[202 if status == 202 else 201] += len(numbers - refused)
        self.answers[503] += len(refused)
        self.taken |= numbers - refused
        self.refused = (self.refused | refused) - (numbers - refused)
        return refused


class Steady:
    """Posts `rate` events a second in its way. A number is never sent twice, unless the way repeats."""

    def __init__(self, way: Way, intake: IntakeProcess, streams: Sequence[str], rate: float, seed: int) -> None:
        self.way = way
        self.ledger = Ledger()
        self._streams = streams
        self._rate = rate
        self._rng = random.Random(seed)
        self._number = 0
        self._running = True
        self._connections = Connections(intake)

    def stop(self) -> None:
        """Have `run` begin no more."""
        self._running = False

    async def run(self) -> None:
        """Post until `stop`, and return when all is answered."""
        due = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            while self._running:
                events = [self._event() for _ in range(self._rng.choice(self.way.sizes))]
                tasks.create_task(self._see_to(events))
                due = max(due + len(events) / self._rate, time.monotonic() - 1.0)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                self.ledger.lag = max(self.ledger.lag, time.monotonic() - due)
        self._connections.close()

    def _event(self) -> dict[str, Any]:
        number, self._number = self._number, self._number + 1
        return {
            "$schema": "/rig/numbered/1.0.0",
            "meta": {"stream": self._streams[number % len(self._streams)], "id": str(number)},
            "n": number,
            "producer": self._rng.randrange(20),
            "padding": "x" * self._rng.choice((50, 300, 2000)),
        }

    async def _see_to(self, events: list[dict[str, Any]]) -> None:
        until = time.monotonic() + PATIENCE
        refused = await self._post(events)
        if not self.way.repeats:
            return
        while refused and time.monotonic() < until:
            await asyncio.sleep(self._rng.uniform(*PAUSES))
            refused = await self._post([event for event in events if event["n"] in refused])
        if self._rng.random() < REPEATED:
            await self._post(events)

    async def _post(self, events: list[dict[str, Any]]) -> set[int]:
        began = time.monotonic()
        try:
            status, body = await self._connections.post(self.way.query, events)
        except (OSError, EOFError, TimeoutError) as exc:
            self.ledger.surprises.append(f"no answer: {exc!r}")
            return set()
        return self.ledger.note(status, {event["n"] for event in events}, body, time.monotonic() - began)
