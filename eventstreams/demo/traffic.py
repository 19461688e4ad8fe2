"""Believable traffic: changes on a few wikis, now and in the last ten minutes."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Mapping
from typing import Any

import orjson

from eventstreams.eventlog.base import EventLog
from eventstreams.records import NewRecord, TopicPartition

WIKIS = {
    "enwiki": "en.wikipedia.org",
    "dewiki": "de.wikipedia.org",
    "frwiki": "fr.wikipedia.org",
    "jawiki": "ja.wikipedia.org",
    "wikidatawiki": "www.wikidata.org",
    "commonswiki": "commons.wikimedia.org",
}
TITLES = ("Main Page", "Zürich", "東京", "Q42", "Cat", "SQLite", "Rain", "Café", "Apollo 11", "Chess")
USERS = ("Ada", "Grace", "Linus", "Katherine", "CleanupBot", "ImportBot")
KINDS = {"mediawiki.recentchange": 8, "mediawiki.revision-create": 3, "mediawiki.page-create": 1}
HISTORY_SECONDS = 600
HISTORY_PER_SECOND = 2
CANARY_SHARE = 0.01


def event(rng: random.Random, timestamp: int) -> tuple[str, Mapping[str, Any]]:
    """Return a stream's name and an event of it, as of `timestamp` (ms)."""
    stream = rng.choices(list(KINDS), list(KINDS.values()))[0]
    wiki, domain = rng.choice(list(WIKIS.items()))
    title, user = rng.choice(TITLES), rng.choice(USERS)
    seconds, milliseconds = divmod(timestamp, 1000)
    dt = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{milliseconds:03d}Z"
    meta = {
        "stream": stream,
        "id": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        "dt": dt,
        "domain": "canary" if rng.random() < CANARY_SHARE else domain,
        "uri": f"https://{domain}/wiki/{title.replace(' ', '_')}",
    }
    body: dict[str, Any] = {"$schema": f"/{stream.replace('.', '/')}/1.0.0", "meta": meta, "wiki": wiki}
    if stream == "mediawiki.recentchange":
        body |= {"type": rng.choice(("edit", "new", "log")), "title": title, "user": user, "bot": user.endswith("Bot")}
    else:
        body |= {"page_title": title, "rev_id": rng.randrange(10**9), "performer": {"user_text": user}}
    return stream, body


def records(rng: random.Random, timestamp: int, count: int) -> list[NewRecord]:
    """Return `count` events as of `timestamp`, ready to append."""
    made = (event(rng, timestamp) for _ in range(count))
    return [NewRecord(stream, orjson.dumps(body), None, timestamp) for stream, body in made]


async def run(log: EventLog, per_second: float) -> None:
    """Append events at this rate until cancelled; first the last ten minutes', where the log holds none."""
    rng = random.Random()
    now = time.time_ns() // 1_000_000
    if not await log.partitions("mediawiki.recentchange"):
        for second in range(HISTORY_SECONDS, 0, -1):
            await log.append(records(rng, now - second * 1000, HISTORY_PER_SECOND))
    for stream in KINDS:
        if not await log.partitions(stream):
            raise RuntimeError(f"demo history made no event of {TopicPartition(stream, 0)}")
    while True:
        await log.append(records(rng, time.time_ns() // 1_000_000, 1))
        await asyncio.sleep(rng.expovariate(per_second))
