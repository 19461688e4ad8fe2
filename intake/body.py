"""A request's body: media type, charset, content coding and size checked, then its bytes as UTF-8 JSON text."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
from collections.abc import Callable, Mapping
from functools import lru_cache

from starlette.types import Receive

from eventstreams.errors import (
    BadRequest,
    MalformedBody,
    PayloadTooLarge,
    RequestError,
    RequestTimeout,
    UnsupportedMedia,
)
from intake.inflating import CODINGS, Inflater

JSON_TYPES = frozenset({"application/json", "text/json", "text/plain"})
JSON_SUFFIX = "+json"
"""What is read as JSON: JSON MIME types (WHATWG MIME Sniffing, 4.6); and text, which pages send without a preflight."""
EMPTY = "Request body was empty. Must provide JSON encoded events."
"""The original's words."""

DISCARD_SECONDS = 2.0


class Disconnected(Exception):
    """The client went before its body was whole."""


class Deadline:
    """As `asyncio.timeout`, of a loop that the caller knows: on Python 3.11 each asking for it is a system call.

    Entered once, in a task of that loop. Raises: TimeoutError, when the seconds are over.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self.seconds = seconds
        self._loop = loop
        self._expired = False

    def __enter__(self) -> None:
        task = asyncio.current_task(self._loop)
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._timer = self._loop.call_later(self.seconds, self._expire)

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: object) -> None:
        self._timer.cancel()
        # Taken back whatever the end was; who cancelled the task beside the deadline goes before it.
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from exc

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()


async def read_body(
    receive: Receive, headers: Mapping[str, str], *, max_bytes: int, deadline: Deadline, grow: Callable[[int], None]
) -> bytes:
    """Return the body, inflated and in UTF-8.

    Raises:
        BadRequest: a media type that is not read as JSON; the original takes such a body for an empty one.
        UnsupportedMedia: a charset or content coding that is not read.
        PayloadTooLarge: more than `max_bytes` after inflating.
        MalformedBody: bytes that are not in the coding or charset they claim.
        RequestTimeout: the body was not whole within the deadline, which is entered here.
        Disconnected: the client went.

    `grow` is told of each part's bytes as it comes, inflated; what it raises ends the reading.
    """
    media, charset = _media_type(headers.get("content-type", ""))
    try:
        if media not in JSON_TYPES and not media.endswith(JSON_SUFFIX):
            raise BadRequest(_unread(media, headers))
        coding = _coding(headers, max_bytes)
        decoder = None if charset == "utf-8" else _decoder(charset)
    except RequestError:
        if "expect" not in headers:
            await discard(receive)
        raise
    try:
        with deadline:
            body = await _collect(receive, coding, max_bytes, grow)
    except TimeoutError as exc:
        raise RequestTimeout(f"body was not whole after {deadline.seconds:g} seconds") from exc
    if decoder is None:
        return body
    try:
        return decoder(body, "replace")[0].encode("utf-8", "replace")
    except UnicodeError as exc:
        raise MalformedBody(f"body is not in charset {charset}: {exc}") from exc


def _unread(media: str, headers: Mapping[str, str]) -> str:
    if headers.get("content-length", "") == "0" or not ("content-length" in headers or "transfer-encoding" in headers):
        return EMPTY
    given = f"Content-Type {media[:100]!r} is not read as JSON" if media else "There is no Content-Type header"
    return f"{given}. {EMPTY} Send them with the header Content-Type: application/json"


def _coding(headers: Mapping[str, str], max_bytes: int) -> str:
    """Return the content coding of a body that may be read."""
    coding = headers.get("content-encoding", "identity").strip().lower() or "identity"
    if coding != "identity" and coding not in CODINGS:
        raise UnsupportedMedia(f"content-encoding {coding[:100]!r}: expected gzip, deflate or identity")
    claimed = headers.get("content-length", "")
    if claimed.isdecimal() and int(claimed) > max_bytes:
        raise PayloadTooLarge(f"body of {claimed} bytes: at most {max_bytes} are taken")
    return coding


@lru_cache(maxsize=64)
def _media_type(value: str) -> tuple[str, str]:
    media, *parameters = value.split(";")
    charset = "utf-8"
    for parameter in parameters:
        name, _, text = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = text.strip().strip("\"'").lower()
    return media.strip().lower(), charset


def _decoder(charset: str) -> codecs._Decoder | None:
    if charset in ("utf-8", "utf8"):
        return None
    try:
        if charset.startswith("utf-"):
            return codecs.lookup(charset).decode
    except LookupError:
        pass
    raise UnsupportedMedia(f"charset {charset[:100]!r}: expected utf-8 or another of Unicode's")


async def _collect(receive: Receive, coding: str, max_bytes: int, grow: Callable[[int], None]) -> bytes:
    inflater = None if coding == "identity" else Inflater(coding)
    parts: list[bytes] = []
    sent = size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        more = message.get("more_body", False)
        part = message.get("body", b"")
        sent += len(part)
        try:
            if inflater is not None:
                part = inflater.inflate(part, max_bytes - size)
            size += len(part)
            # Deliberate: what was sent counts too, for it may inflate to nothing.
            if size > max_bytes or sent > max_bytes:
                raise PayloadTooLarge(f"body of more than {max_bytes} bytes: no more are taken")
            grow(len(part))
        except RequestError:
            if more:
                await discard(receive)
            raise
        parts.append(part)
    if inflater is not None and not inflater.whole:
        raise MalformedBody(f"body is not whole in content-encoding {coding}")
    return b"".join(parts)


async def discard(receive: Receive) -> None:
    """Read what comes of a body for a moment: closing on a client that still sends loses it the answer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            while (await receive()).get("more_body", False):
                pass
