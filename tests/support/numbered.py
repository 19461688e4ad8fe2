"""A producer in a process of its own: numbered events over several topics, until it is killed.

`python -m tests.support.numbered LOG FIRST RATE`; says `producing`, then `acked N COUNT` for each batch that the log
acknowledged whole: the numbers from N on. A number whose outcome is not known is not sent again.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time

import orjson

from eventstreams.eventlog.base import EventLog
from eventstreams.eventlog.open import open_log
from eventstreams.records import NewRecord, Record

TOPICS = {"busy": 3, "steady": 1, "quiet": 2}
"""Topics with their partitions; each stream of the rig has the topic of its name."""

WEIGHTS = (90, 9, 1)
SIZES = (100, 300, 1000, 20_000, 200_000)
SIZE_WEIGHTS = (40, 40, 18, 1.9, 0.1)
DISORDER = 3000
"""Milliseconds by which timestamps of `steady` lie back at the most; the other topics have many to a millisecond."""

BATCHES_PER_SECOND = 50.0


def numbered(number: int, rng: random.Random) -> NewRecord:
    """Return event `number`."""
    topic = rng.choices(tuple(TOPICS), WEIGHTS)[0]
    now = time.time_ns() // 1_000_000
    timestamp = now - rng.randrange(DISORDER) if topic == "steady" else now
    padding = "x" * rng.choices(SIZES, SIZE_WEIGHTS)[0]
    value = orjson.dumps({"n": number, "meta": {"stream": topic, "domain": "rig"}, "padding": padding})
    return NewRecord(topic, value, b"%d" % rng.randrange(1000), timestamp)


async def produce(log: EventLog, first: int, rate: float) -> None:
    """Append batches at `rate` events a second until cancelled."""
    rng = random.Random(first)
    number, due = first, time.monotonic()
    while True:
        count = rng.randint(1, max(1, int(2 * rate / BATCHES_PER_SECOND)))
        outcomes = await log.append([numbered(n, rng) for n in range(number, number + count)])
        if all(isinstance(outcome, Record) for outcome in outcomes):
            print(f"acked {number} {count}", flush=True)
        number += count
        due = max(due + count / rate, time.monotonic() - 1.0)
        await asyncio.sleep(max(0.0, due - time.monotonic()))


async def main(url: str, first: int, rate: float) -> None:
    """Produce until killed."""
    async with open_log(url) as log:
        print("producing", flush=True)
        await produce(log, first, rate)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
