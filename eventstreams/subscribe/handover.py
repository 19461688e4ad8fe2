"""The direct path: a stream's socket is taken from uvicorn once the head is sent, and held by a protocol of 2 KB.

uvicorn keeps a parser, a request and a task for each request that is open: 10 KB a client, and two hops a write. So the
endpoint sends the head the usual way (access log, Date, framing), then takes the transport: from there a group writes
its shared bytes to the sockets in one loop. Needs uvicorn's httptools protocol of one minor version, whose private
parts are checked at start, a plain socket and asyncio's own transports; anything else is served on the portable path.
"""

from __future__ import annotations

import asyncio
import logging
import os
from asyncio.selector_events import _SelectorSocketTransport  # type: ignore[attr-defined]
from collections.abc import Callable
from fcntl import ioctl
from inspect import signature
from struct import unpack
from termios import TIOCOUTQ
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from eventstreams.request_heads import BoundedHeadProtocol
from eventstreams.subscribe.frames import LAST_CHUNK
from eventstreams.subscribe.vanishing import has_vanished
from eventstreams.subscribe.wire import Lane

if TYPE_CHECKING:
    from eventstreams.subscribe.subscription import Subscription

logger = logging.getLogger(__name__)

EXTENSION = "eventstreams.handover"
"""Where the scope holds the `Handover` of a request, in `extensions`."""

UVICORN = "0.54."

PRIMER = 2048
"""Bytes given to the transport so that it tells when the socket takes more; the rest stays in the shared chunk."""


class DirectWire(asyncio.Protocol):
    """A client's socket after the hand-over. Bytes that the kernel does not take stay in the chunk all members share.

    Whatever the client sends is ignored; a half-close is an end, as uvicorn's parsers have it.
    """

    __slots__ = (
        "_chunked",
        "_ending",
        "_error",
        "_fd",
        "_free",
        "_lane",
        "_on_lost",
        "_rest",
        "_transport",
        "_waiter",
        "closed",
    )

    def __init__(self, *, chunked: bool) -> None:
        self._chunked = chunked
        self._transport: Any = None
        self._fd = -1  # no descriptor: not attached, or gone
        self._free = False
        self._lane: Lane | None = None
        self._rest: memoryview | None = None
        self._ending = False
        self._waiter: asyncio.Future[None] | None = None
        self.closed = False
        self._error: int | None = None
        self._on_lost: Callable[[bool], None] | None = None

    def own(self, on_lost: Callable[[bool], None]) -> None:
        """Call `on_lost` when the connection is gone, with whether the client vanished; at once if it is already."""
        if self._fd < 0:
            on_lost(False)
        else:
            self._on_lost = on_lost

    def attach(self, transport: Any) -> None:
        """Take the transport over, with what it has not sent yet."""
        self._transport = transport
        self._fd = transport.get_extra_info("socket").fileno()
        self._free = transport.get_write_buffer_size() == 0
        transport.set_protocol(self)
        transport.set_write_buffer_limits(high=0)

    # -- the wire

    def enter(self, lane: Lane, subscription: Subscription) -> None:
        """Let the group write to the descriptor itself, for as long as nothing waits here."""
        if self._free:
            lane[self._fd] = subscription
            self._lane = lane

    def leave(self) -> None:
        """Take the descriptor back from the group. Idempotent."""
        lane, self._lane = self._lane, None
        if lane is not None:
            del lane[self._fd]

    def rest(self, chunk: bytes, sent: int) -> bool:
        """Take what the kernel did not of a chunk that the group wrote; return whether it takes it now."""
        if sent < 0:
            self._broke(-sent)
            return False
        return self._send(memoryview(chunk)[sent:]) if self._free else self.write(chunk[sent:])

    def _busy(self) -> None:
        self._free = False
        self.leave()

    def write(self, chunk: bytes) -> bool:
        """Take a chunk; return whether the kernel took all of it."""
        if self._free:
            return self._send(memoryview(chunk))
        if not self.closed and not self._ending:
            self._rest = memoryview(chunk if self._rest is None else bytes(self._rest) + chunk)
        return False

    async def drained(self) -> None:
        """Return when the kernel has taken everything, or when the connection is gone."""
        while not self._free and not self.closed:
            if self._waiter is None or self._waiter.done():
                self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def waiting_bytes(self) -> int:
        """Return what the client has not acknowledged, the kernel's part included: falls with any progress."""
        if self.closed:
            return 0
        own = 0 if self._rest is None else len(self._rest)
        (kernel,) = unpack("i", ioctl(self._fd, TIOCOUTQ, b"\0\0\0\0"))
        return int(own + self._transport.get_write_buffer_size() + kernel)

    def finish(self) -> None:
        """End the response, then the connection: uvicorn does not know it any more."""
        if self._ending or self.closed:
            return
        if self._chunked:
            self.write(LAST_CHUNK)
        self._ending = True
        if self._rest is None:
            self._busy()
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection; what the kernel holds still goes out."""
        if not self.closed:
            self._close()
            self._transport.abort()

    def _broke(self, error: int | None) -> None:
        """Note what the kernel said, which it says once, and drop the connection."""
        if not self.closed:
            self._error = error
        self.abort()

    def _send(self, data: memoryview) -> bool:
        """Give the kernel what it takes; return whether that was all. Else the transport tells when it takes more."""
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                pass
            except OSError as exc:
                self._broke(exc.errno)
                return False
            if data:
                self._transport.write(data[:PRIMER])
                data = data[PRIMER:]
                if self._transport.get_write_buffer_size():
                    self._busy()
                    self._rest = data or None
                    return False
                # The client read on in between and the primer is gone: nobody would tell, so it is tried again.
        return True

    def _close(self) -> None:
        self.closed = True
        self._busy()
        self._rest = None
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        self._waiter = None

    # -- the transport's side

    def resume_writing(self) -> None:
        """Go on: the transport has sent what it held."""
        # Deliberate: not from within the transport's own writing, which after this call ends a transport that was
        # closed meanwhile, whether or not its end is on the way already.
        asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        if self.closed:
            return
        self._free = True
        rest, self._rest = self._rest, None
        if rest is not None and not self._send(rest):
            return
        if self._ending:
            self._busy()
            self._transport.close()
        self._wake()

    def data_received(self, data: bytes) -> None:
        """Ignore it: pipelined requests behind a stream without end are never answered."""

    def eof_received(self) -> bool:
        """Take a half-close as the end."""
        self.abort()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the group: called before the descriptor is closed, so no write can meet its next owner."""
        self._close()
        self._fd = -1
        on_lost, self._on_lost = self._on_lost, None
        if on_lost is not None:
            error = exc.errno if isinstance(exc, OSError) else self._error
            on_lost(has_vanished(self._transport.get_extra_info("socket"), error))


class Handover:
    """What the endpoint finds in the scope: one request's way out of uvicorn. Used once, by `take`."""

    __slots__ = ("_cycle", "_protocol", "chunked", "keeps_alive")

    def __init__(self, protocol: HttpToolsProtocol, cycle: RequestResponseCycle) -> None:
        self._protocol: HttpToolsProtocol | None = protocol
        self._cycle = cycle
        self.chunked = cycle.scope["http_version"] == "1.1"
        """Whether bodies are sent in chunks; to HTTP/1.0 the end of the connection is the end of the body."""
        self.keeps_alive = self.chunked and cycle.keep_alive
        """Whether the client may expect the connection to stay after the body."""

    def before_head(self) -> None:
        """Settle the framing: httptools' protocol would send chunks to HTTP/1.0 as well."""
        if not self.chunked:
            self._cycle.chunked_encoding = False

    def take(self, wire: DirectWire) -> None:
        """Give the connection to `wire`, after the head was sent; it may be gone already, and is then closed."""
        protocol, self._protocol = self._protocol, None
        assert protocol is not None
        cycle = self._cycle
        # Deliberate: of this request, not protocol.cycle, which is the last one parsed when requests are pipelined.
        cycle.response_complete = True
        if protocol.transport.is_closing() or cycle.disconnected:
            wire.connection_lost(None)
            return
        protocol.connections.discard(protocol)
        protocol.pipeline.clear()
        protocol._unset_keepalive_if_required()
        protocol.flow.resume_reading()
        wire.attach(protocol.transport)
        protocol.parser = None  # type: ignore[assignment]


class HandoverProtocol(BoundedHeadProtocol):
    """uvicorn's httptools protocol, whose requests can be handed over. For `uvicorn.Config(http=)`."""

    def on_headers_complete(self) -> None:
        """Put the way out into the scope of a request."""
        super().on_headers_complete()
        cycle = self.cycle
        if cycle is not None and cycle.scope is self.scope and type(self.transport) is _SelectorSocketTransport:
            extensions: dict[Any, Any] = self.scope.setdefault("extensions", {})
            extensions[EXTENSION] = Handover(self, cycle)


def http_protocol() -> type[asyncio.Protocol]:
    """Return what to give `uvicorn.Config(http=)`: with the hand-over where this uvicorn has what that needs."""
    if fits(uvicorn.__version__):
        return HandoverProtocol
    logger.warning("uvicorn %s is not one that streams are taken from: portable path", uvicorn.__version__)
    # Deliberate: httptools' protocol sends chunks to HTTP/1.0; this one ends the body with the connection.
    return H11Protocol


CYCLE_PARTS = {"scope", "transport", "flow", "on_response", "keep_alive", "message_event"}
PROTOCOL_PARTS = ("_unset_keepalive_if_required", "on_headers_complete", "_start_asgi_task", "send_400_response")


def fits(version: str) -> bool:
    """Whether uvicorn's private parts are those that the hand-over was written against."""
    parts = set(signature(RequestResponseCycle.__init__).parameters)
    return (
        version.startswith(UVICORN)
        and parts >= CYCLE_PARTS
        and all(hasattr(HttpToolsProtocol, name) for name in PROTOCOL_PARTS)
    )
