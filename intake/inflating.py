"""A content coding taken off a body, part by part, within bounds: a small body may inflate to a huge one."""

from __future__ import annotations

import zlib

from eventstreams.errors import MalformedBody

CODINGS = {"gzip": 31, "x-gzip": 31, "deflate": 47}
"""Window bits for zlib; deflate is taken with or without its header."""

RAW_DEFLATE = -15
DEFLATE_METHOD = 8
MAGIC = b"\x1f\x8b"
MAX_MEMBERS = 1000
"""Of one gzip body; each costs time, an empty one too."""


class Inflater:
    """One body's. Members of gzip follow one another (RFC 1952); what follows and is none is ignored, as by gunzip."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._inflate = zlib.decompressobj(CODINGS[coding])
        self._begun = False
        self._between = b""
        self._members = 1

    @property
    def whole(self) -> bool:
        """Whether what was begun has ended, or nothing was begun."""
        return self._inflate.eof or not self._begun

    def inflate(self, part: bytes, room: int) -> bytes:
        """Return what `part` holds, one byte over `room` at most. Raises: MalformedBody."""
        if not self._begun and part:
            self._begin(part)
        pieces: list[bytes] = []
        while part:
            if self._inflate.eof and not self._next_member(part):
                break
            part, self._between = self._between + part, b""
            piece = self._decompress(part, room + 1)
            pieces.append(piece)
            room -= len(piece)
            if room < 0 or not self._inflate.eof:
                break
            part = self._inflate.unused_data
        return b"".join(pieces)

    def _begin(self, part: bytes) -> None:
        self._begun = True
        if self._coding == "deflate" and part[0] & 0x0F != DEFLATE_METHOD:
            self._inflate = zlib.decompressobj(RAW_DEFLATE)

    def _next_member(self, part: bytes) -> bool:
        """Whether another member begins here, as far as can be told; what can't be told yet is kept."""
        head = (self._between + part)[: len(MAGIC)]
        if self._coding == "deflate" or not MAGIC.startswith(head):
            self._between = b"-"  # what does not begin as one never will
            return False
        if len(head) < len(MAGIC):
            self._between = head
            return False
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise MalformedBody(f"body has more than {MAX_MEMBERS} gzip members")
        self._inflate = zlib.decompressobj(CODINGS[self._coding])
        return True

    def _decompress(self, part: bytes, most: int) -> bytes:
        try:
            return self._inflate.decompress(part, most)
        except zlib.error as exc:
            raise MalformedBody(f"body is not in its content-encoding: {exc}") from exc
