"""JSON bytes that are to be kept: they take the room that they need and no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson


def compact(value: Any, default: Callable[[Any], Any] | None = None) -> bytes:
    """Serialise as `orjson.dumps` does, in bytes of exact size. Raises: orjson.JSONEncodeError.

    orjson writes into a buffer with up to 11 KB to spare and leaves it behind the result, for as long as that lives:
    a thousand events of 1 KB would hold 12 MB. A copy of what was written costs 0.1 us.
    """
    return copied(orjson.dumps(value, default))


def copied(written: bytes) -> bytes:
    """Return bytes of exact size; see `compact`."""
    return b"%b" % written
