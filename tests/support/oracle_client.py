"""A client of the rig: reads at its own speed, is cut after random bytes, resumes, and remembers what it saw."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

from tests.support.processes import GatewayProcess
from tests.support.sse import BrokenStream, ChunkedReader, Ids, Message, Place, SseReader

PAUSE = 0.1
"""Seconds until a client comes back, at most: sooner than it is told, to meet the server where it starts and ends."""

SILENCE = 30.0
"""Seconds without a byte after which a client hangs up: twice a heartbeat."""

LENGTHS = (300, 3_000, 30_000, 1_000_000)
"""Mean bytes of a connection until it is cut: within the first blocks, within the catching up, at the head."""

LENGTH_WEIGHTS = (6, 6, 3, 0.3)

HEAD_BYTES = 64 * 1024


class Client:
    """Reads some streams over many connections. `since` clients begin at the log's beginning, the others at its end."""

    def __init__(self, gateway: GatewayProcess, streams: Sequence[str], rng: random.Random, *, whole: bool) -> None:
        self.streams = tuple(streams)
        self.seen: dict[Place, list[tuple[int, int]]] = defaultdict(list)
        """Offset and number of each event, by partition, in the order of arrival."""
        self.ids = Ids()
        self.cuts = 0
        self.surprises: list[str] = []
        self.whole = whole
        self._gateway = gateway
        self._rng = rng
        self._last_event_id = ""
        self._slow = rng.random() < 0.3
        self._query = rng.choice(("", "positions=event", "canary=false"))
        self.cutting = True
        """Whether its connections are cut."""
        self.state = "not connected yet"
        """Where its connection stands, for a rig that gives up on it."""
        self._goal: Mapping[Place, int] = {}
        self._arrived = asyncio.Event()

    async def run(self) -> None:
        """Connect, read, be cut, come back; until cancelled."""
        while True:
            await self._gateway.up.wait()
            # Killed, or not up yet: that is what it is here for.
            try:
                await self._connection()
            except OSError as exc:
                self.state = f"disconnected: {exc!r}"
            await asyncio.sleep(self._rng.random() * PAUSE)

    def start(self, place: Place) -> int:
        """Return the first offset that this client must see; of partitions made later, their first."""
        return 0 if self.whole else (self.ids.first or {}).get(place, 0)

    async def reach(self, ends: Mapping[Place, int]) -> None:
        """Read on without cuts until each partition of the streams is at its end."""
        self.cutting = False
        self._goal = {place: end for place, end in ends.items() if place[0] in self.streams}
        self._look()
        await self._arrived.wait()

    def behind(self, ends: Mapping[Place, int]) -> dict[Place, tuple[int, int]]:
        """Return the partitions of which it has not seen all: the next offset that it knows of, and the end."""
        mine = (
            (place, self.ids.offsets.get(place, -1), end) for place, end in ends.items() if place[0] in self.streams
        )
        return {place: (at, end) for place, at, end in mine if at < end}

    def left(self, ends: Mapping[Place, int]) -> int:
        """Return how many offsets it has still to come past."""
        return sum(end - at for at, end in self.behind(ends).values())

    def where(self, ends: Mapping[Place, int]) -> str:
        """Return in words how far it is behind, and what its connection does."""
        places = ", ".join(f"{topic}/{n} at {at} of {end}" for (topic, n), (at, end) in self.behind(ends).items())
        pace = "slow, " if self._slow else ""
        return f"{places}; {pace}streams {','.join(self.streams)}?{self._query}, cuts {self.cuts}, {self.state}"

    def _look(self) -> None:
        if self._goal and not self.behind(self._goal):
            self._arrived.set()

    async def _connection(self) -> None:
        with socket.socket() as connection:
            connection.setblocking(False)
            slow = self._slow and self.cutting
            if slow:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            self.state = "connecting"
            loop = asyncio.get_running_loop()
            await loop.sock_connect(connection, self._gateway.address)
            await loop.sock_sendall(connection, self._request())
            head, rest = await self._head(connection)
            if not head.startswith(b"HTTP/1.1 200 "):
                if not head.startswith(b"HTTP/1.1 503 "):
                    self.surprises.append((head[:40] + b" ... " + rest[:400]).decode("latin-1"))
                self.state = f"refused: {head[:30]!r} {rest[:300]!r}"
                return
            await self._read(connection, rest, slow=slow)

    def _request(self) -> bytes:
        query = "&".join(filter(None, ("since=1" if self.whole else "", self._query)))
        resume = f"Last-Event-ID: {self._last_event_id}\r\n" if self._last_event_id else ""
        path = f"/v2/stream/{','.join(self.streams)}?{query}"
        return f"GET {path} HTTP/1.1\r\nHost: rig\r\nAccept: text/event-stream\r\n{resume}\r\n".encode()

    @staticmethod
    async def _head(connection: socket.socket) -> tuple[bytes, bytes]:
        held = b""
        while b"\r\n\r\n" not in held:
            piece = await _receive(connection, 4096)
            if not piece or len(held) > HEAD_BYTES:
                raise ConnectionError("no whole head")
            held += piece
        head, _, rest = held.partition(b"\r\n\r\n")
        return head, rest

    async def _read(self, connection: socket.socket, piece: bytes, *, slow: bool) -> None:
        """Read until the cut, which is after a random byte, or until the other side ends.

        A slow connection takes some 10 KB a second: it is left when its end is waited for.
        """
        chunks, reader = ChunkedReader(), SseReader(self._last_event_id)
        left = int(self._rng.expovariate(1 / self._rng.choices(LENGTHS, LENGTH_WEIGHTS)[0]))
        while not chunks.ended:
            if self.cutting and len(piece) >= left:
                self._take(reader, chunks.feed(piece[:left]))
                self.cuts += 1
                return
            left -= len(piece)
            self.state = f"reading, {len(piece)} bytes at {time.monotonic():.1f}"
            self._take(reader, chunks.feed(piece))
            if slow:
                if not self.cutting:
                    return
                await asyncio.sleep(self._rng.random() * 0.02)
            piece = await _receive(connection, self._rng.choice((100, 4096)) if slow else 65536)
            if not piece:
                return

    def _take(self, reader: SseReader, content: bytes) -> None:
        for message in reader.feed(content):
            if message.name == "message":
                self._see(message)
            elif message.name != "cursor":
                self.surprises.append(f"{message.name}: {message.data[:300]}")
        if reader.last_event_id != self._last_event_id:
            self._last_event_id = reader.last_event_id
            self.ids.see(self._last_event_id)
            self._look()

    def _see(self, message: Message) -> None:
        event = json.loads(message.data)
        meta = event["meta"]
        place = (meta["topic"], meta["partition"])
        offsets = self.ids.see(message.last_event_id)
        if offsets[place] != meta["offset"] + 1:
            raise BrokenStream(f"the id of {place} {meta['offset']} is {message.last_event_id}: not just after it")
        self.seen[place].append((meta["offset"], event["n"]))


async def _receive(connection: socket.socket, size: int) -> bytes:
    try:
        async with asyncio.timeout(SILENCE):
            return await asyncio.get_running_loop().sock_recv(connection, size)
    except TimeoutError as exc:
        raise ConnectionError("silent") from exc
