"""Where a subscriber's bytes go: the interface of both delivery paths, and the portable one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from eventstreams.subscribe.subscription import Subscription

Lane = dict[int, "Subscription"]
"""Descriptors that take whatever is written to them, with whose they are: a group writes to them without asking."""

PIECE = 16 * 1024
"""Bytes given to a server at once: a client that takes so much within the send timeout is slow, not stalled."""


class Wire(Protocol):
    """One connection's sink for ready bytes. Never blocks, never drops."""

    def write(self, chunk: bytes) -> bool:
        """Take a chunk; return whether all of it left at once, so that the next may come."""
        ...

    def enter(self, lane: Lane, subscription: Subscription) -> None:
        """Join a lane where there is a descriptor to write to; leaves it by itself when that takes no more."""
        ...

    def leave(self) -> None:
        """Leave the lane. Idempotent."""
        ...

    def rest(self, chunk: bytes, sent: int) -> bool:
        """Take over a chunk of which so many bytes left by the lane, as `write` does; -errno where it broke."""
        ...

    async def drained(self) -> None:
        """Return when the next chunk may come, or when the connection is gone."""
        ...

    def waiting_bytes(self) -> int:
        """Return how many bytes the client has not taken yet, kernel's included where known: falls with progress."""
        ...

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        ...

    def finish(self) -> None:
        """End the response cleanly after what was written."""
        ...

    def abort(self) -> None:
        """Drop the connection with what it still holds."""
        ...


class AsgiWire:
    """The portable path: hands chunks to an ASGI response, one at a time."""

    def __init__(self) -> None:
        self._chunk: bytes | None = None
        self._sending = 0
        self._ended = False
        self._ready = asyncio.Event()
        self._taken = asyncio.Event()
        self._taken.set()
        self.on_lost: Callable[[], None] = lambda: None
        self.on_abort: Callable[[], None] = lambda: None
        self.closed = False

    def write(self, chunk: bytes) -> bool:
        """Take a chunk. Always False: the response takes it in its own time, and `drained` tells when."""
        if self.closed or self._ended:
            return False
        self._chunk = chunk if self._chunk is None else self._chunk + chunk
        self._taken.clear()
        self._ready.set()
        return False

    def enter(self, lane: Lane, subscription: Subscription) -> None:
        """Do nothing: there is no descriptor."""

    def leave(self) -> None:
        """Do nothing: it never joined."""

    def rest(self, chunk: bytes, sent: int) -> bool:
        """Take the rest of a chunk."""
        return self.write(chunk[max(0, sent) :])

    async def drained(self) -> None:
        """Return when the response has sent what it was given."""
        await self._taken.wait()

    def waiting_bytes(self) -> int:
        """Return the bytes that were not sent yet; progress shows once a piece."""
        return self._sending + (0 if self._chunk is None else len(self._chunk))

    def finish(self) -> None:
        """Let the response end after the chunk that it holds."""
        self._ended = True
        self._ready.set()

    def abort(self) -> None:
        """End the response at once."""
        self._chunk = None
        self.finish()
        self.on_abort()

    def lost(self) -> None:
        """Say that the response is over, however it ended."""
        self.closed = True
        self._taken.set()
        self.on_lost()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the bytes as they come, in pieces; ends after `finish`. The consumer's pace is the flow control."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            chunk, self._chunk = self._chunk, None
            if chunk is not None:
                for start in range(0, len(chunk), PIECE):
                    self._sending = len(chunk) - start
                    yield chunk[start : start + PIECE]
                self._sending = 0
                if self._chunk is None:
                    self._taken.set()
            if self._ended and self._chunk is None:
                return
