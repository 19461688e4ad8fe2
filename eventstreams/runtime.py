"""What a service's process runs on: its event loop, and how often the garbage collector looks."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Mapping

COLLECTING = 50_000, 20, 20
"""Objects that are new, young and middle-aged collections: when the garbage collector looks."""


def _uvloop() -> asyncio.AbstractEventLoop:
    import uvloop  # here, for a process that has no use for it is a megabyte smaller

    return uvloop.new_event_loop()


LOOPS: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {"intake": _uvloop}
"""Quicker loops than asyncio's own, by service; the gateway has none: it takes sockets from asyncio's transports."""


def collect_less() -> None:
    """Have the collector leave alone what a service holds for good, and look for cycles less often.

    Events are trees that end with their request or their rendering, but look like growth: with Python's own thresholds
    an eighth of intake's time went into looking through them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTING)
