"""Which brokers refuse connections: these are not to be asked.

While librdkafka waits for the broker that an admin request is for, it tries to connect to it without a pause. Where
that is refused at once, as by a machine whose broker has died, this takes most of a core, for as long as it waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

PROBE_SECONDS = 1.0
"""Who has not answered by then is asked: trying to connect takes its time there."""


async def refusing(metadata: Any, numbers: Collection[int]) -> frozenset[int]:
    """Return which of these brokers refuse connections, by what a client knows of the cluster."""
    asked = [number for number in set(numbers) if number in metadata.brokers]
    refused = await asyncio.gather(*(_refuses(metadata.brokers[number]) for number in asked))
    return frozenset(number for number, refuses in zip(asked, refused, strict=True) if refuses)


async def _refuses(broker: Any) -> bool:
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            _, writer = await asyncio.open_connection(broker.host, broker.port)
    except TimeoutError:
        return False
    except OSError:
        return True
    writer.transport.abort()
    return False
