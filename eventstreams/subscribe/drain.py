"""The end of a server's streams: all within a window, each with its own time to come back, none in a herd."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eventstreams.subscribe.subscription import Subscription

logger = logging.getLogger(__name__)

PER_CLIENT = 0.0002
"""Seconds between two endings: 10,000 clients in two seconds."""

AT_ONCE = 100
"""Endings between two pauses."""


async def say_goodbye(
    subscriptions: Sequence[Subscription],
    retries: Iterator[int],
    window: float,
    emptied: Callable[[], Awaitable[None]],
) -> None:
    """End these, and drop what is still open after `window` seconds: a client that takes nothing more."""
    deadline = asyncio.get_running_loop().time() + window
    pace = min(PER_CLIENT, 0.5 * window / max(1, len(subscriptions)))
    for number, subscription in enumerate(subscriptions, 1):
        subscription.say_goodbye(next(retries))
        if number % AT_ONCE == 0:
            await asyncio.sleep(AT_ONCE * pace)
    try:
        async with asyncio.timeout_at(deadline):
            await emptied()
    except TimeoutError:
        left = [subscription for subscription in subscriptions if not subscription.closed]
        logger.warning("a drain dropped %s streams that took nothing more", len(left))
        for subscription in left:
            subscription.abort()
