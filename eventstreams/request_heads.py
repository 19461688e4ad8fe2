"""Heads of requests within bounds: of bytes, and of the time until they are whole. httptools itself takes any.

An offer to go on in another protocol is passed over (RFC 9110, 7.8), as Java's HttpClient and `curl --http2` make it
with each first request: httptools takes what is behind such a head for that protocol, the request's body too.
"""

from __future__ import annotations

import sys
from asyncio import TimerHandle, Transport

from httptools import HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from eventstreams.asgi import FIELD_OVERHEAD_BYTES, MAX_HEAD_BYTES

HEAD_SECONDS = 60.0
"""From the connection, or a later request's first byte, to the end of the head, as Node bounds it."""

OFFERS = (b"upgrade", b"http2-settings")
"""Fields, and options of `Connection`, that offer another protocol (RFC 9110, 7.8; RFC 7540, 3.2)."""

REFUSED = b"HTTP/1.1 %b\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
TOO_LARGE = REFUSED % b"431 Request Header Fields Too Large"
TOO_LATE = REFUSED % b"408 Request Timeout"


class RequestHeadTooLargeError(Exception):
    """Ends the parser's work; never leaves the protocol."""


class BoundedHeadProtocol(HttpToolsProtocol):
    """uvicorn's httptools protocol that answers a head over `MAX_HEAD_BYTES` 431, one over `HEAD_SECONDS` 408.

    Then the connection is closed; one on which nothing came is closed without an answer.
    """

    _in_head = False
    _head_bytes = 0
    _unended_bytes = 0
    _late: TimerHandle | None = None
    _offered = False
    """Whether the head that was just parsed offers another protocol, and is to be parsed again without that."""
    _data = memoryview(b"")
    """What is being parsed."""
    _again = b""
    """The head without the offer."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._late = self.loop.call_later(HEAD_SECONDS, self._refuse_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, as long as the head stays within its bounds."""
        if self.transport.is_closing():
            return
        before = self._head_bytes
        self._parse(data)
        if self._late is None and (self._in_head or self.cycle is None or self.cycle.response_complete):
            # The next head has begun; or something that is none yet, as a mere line end, which has ended the wait
            # of uvicorn's own for it.
            self._late = self.loop.call_later(HEAD_SECONDS, self._refuse_late)
        if self._in_head and self._head_bytes == before:
            # Of a field that has not ended the parser tells nothing.
            self._unended_bytes += len(data)
            if self._unended_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self._refuse(TOO_LARGE)

    def _parse(self, data: bytes) -> None:
        self._data = memoryview(data)
        super().data_received(data)
        # One after the other: requests that come together may each have an offer.
        while self._again:
            head, self._again = self._again, b""
            super().data_received(head)
            super().data_received(self._data)  # type: ignore[arg-type]
        self._data = memoryview(b"")

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser gave up on; by 431 where we made it."""
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(TOO_LARGE)
        else:
            super().send_400_response(msg)

    def _refuse_late(self) -> None:
        self._late = None
        if not self.transport.is_closing():
            self._refuse(TOO_LATE if self._in_head else b"")

    def _refuse(self, answer: bytes) -> None:
        self.transport.write(answer)
        self.transport.close()

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def on_message_begin(self) -> None:
        """Begin to count a head."""
        self._head_bytes = self._unended_bytes = 0
        self._in_head = True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count the request line."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a field."""
        self._count(len(name) + len(value) + FIELD_OVERHEAD_BYTES)
        super().on_header(name, value)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        self._unended_bytes = 0
        if self._head_bytes > MAX_HEAD_BYTES:
            # The parser gives up and calls `send_400_response`.
            raise RequestHeadTooLargeError

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head = False
        self._stop_waiting()
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT" and not self._should_upgrade():
            self._offered = True
        else:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole; where another protocol is offered that is only its head."""
        if not self._offered:
            super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Have the request parsed again without the offer; called while the parser's exception is handled."""
        ended = sys.exception()
        if not self._offered or not isinstance(ended, HttpParserUpgrade):
            return
        self._data = self._data[ended.args[0] :]
        line = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        fields = [b"%b: %b" % (name, value) for name, value in map(_without_offer, self.headers) if name not in OFFERS]
        self._offered = False
        self.parser = HttpRequestParser(self)
        self._again = b"\r\n".join([line, *fields, b"", b""])


def _without_offer(field: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    name, value = field
    if name != b"connection":
        return field
    options = [option for option in value.split(b",") if option.strip().lower() not in OFFERS]
    return name, b",".join(options)
