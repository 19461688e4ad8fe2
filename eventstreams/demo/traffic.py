"""Believable traffic: changes on a few wikis, now and in the last ten minutes; some events are wrong, some canaries.

The past goes straight to the log, as it was; the present through intake, as everybody's events do. What is wrong is so
on purpose and says so, in the log too: a first look at it is not to find a broken installation.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import orjson

from eventstreams.catalog.streams import StreamCatalog
from eventstreams.errors import ProducerError
from eventstreams.eventlog.base import EventLog
from eventstreams.producer import Producer
from eventstreams.records import NewRecord

logger = logging.getLogger(__name__)

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
SHARES = {"mediawiki.recentchange": 8, "mediawiki.revision-create": 3, "mediawiki.page-create": 1}
SCHEMAS = {
    "mediawiki.recentchange": "/mediawiki/recentchange/1.0.0",
    "mediawiki.revision-create": "/mediawiki/revision/create/1.0.0",
    "mediawiki.page-create": "/mediawiki/page/create/1.0.0",
}
HISTORY_SECONDS = 600
HISTORY_PER_SECOND = 2
CANARY_SHARE = 0.01
INVALID_SHARE = 0.02
ON_PURPOSE = "demo-wrong-on-purpose"
"""In each wrong event: its `meta.request_id`, and part of the schema's URI where that is what is wrong."""


def streams_of(catalog: StreamCatalog) -> Sequence[str]:
    """Return the streams for which there are demo events: those that are configured with the demo's schemas."""
    titles = {name: uri.strip("/").rpartition("/")[0] for name, uri in SCHEMAS.items()}
    found = {name: catalog.find(name) for name in titles}
    return [name for name, stream in found.items() if stream is not None and stream.schema_title == titles[name]]


def event(rng: random.Random, timestamp: int, streams: Sequence[str] = tuple(SHARES)) -> tuple[str, dict[str, Any]]:
    """Return the name of one of the streams and a valid event of it, as of `timestamp` (ms)."""
    stream = rng.choices(streams, [SHARES[name] for name in streams])[0]
    wiki, domain = rng.choice(list(WIKIS.items()))
    title, user = rng.choice(TITLES), rng.choice(USERS)
    seconds, milliseconds = divmod(timestamp, 1000)
    dt = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{milliseconds:03d}Z"
    meta = {
        "stream": stream,
        "id": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        "dt": dt,
        "domain": "canary" if rng.random() < CANARY_SHARE else domain,
        "uri": f"https://{domain}/wiki/{quote(title.replace(' ', '_'))}",
    }
    revision = rng.randrange(1, 10**9)
    body: dict[str, Any] = {"$schema": SCHEMAS[stream], "meta": meta, "wiki": wiki}
    if stream == "mediawiki.recentchange":
        return stream, body | _change(rng, title, user, revision, seconds)
    performer = {"user_text": user, "user_is_bot": user.endswith("Bot")}
    page = {"page_id": rng.randrange(1, 10**7), "page_title": title, "page_namespace": 0}
    return stream, body | page | {"rev_id": revision, "rev_timestamp": dt, "performer": performer}


def _change(rng: random.Random, title: str, user: str, revision: int, seconds: int) -> dict[str, Any]:
    old = rng.randrange(100, 100_000)
    return {
        "type": rng.choice(("edit", "edit", "edit", "new", "log")),
        "title": title,
        "namespace": rng.choice((0, 0, 0, 1, 4, 14)),
        "user": user,
        "bot": user.endswith("Bot"),
        "minor": rng.random() < 0.3,
        "comment": rng.choice(("Fix a typo", "Add a source", "Update figures", "Sort the list", "")),
        "timestamp": seconds,
        "length": {"old": old, "new": old + rng.randrange(-90, 400)},
        "revision": {"old": max(1, revision - rng.randrange(1, 1000)), "new": revision},
    }


def spoiled(rng: random.Random, body: dict[str, Any]) -> dict[str, Any]:
    """Return an event with a mistake as producers make them, and the mark that it is made on purpose."""
    body = {**body, "meta": {**body["meta"], "request_id": ON_PURPOSE}}
    mistake = rng.choice(("wiki", "type", "schema"))
    if mistake == "wiki":
        return {name: value for name, value in body.items() if name != "wiki"}
    if mistake == "type":
        return {**body, "wiki": 42}
    return {**body, "$schema": f"/{ON_PURPOSE}/1.0.0"}


def records(rng: random.Random, timestamp: int, count: int, streams: Sequence[str]) -> list[NewRecord]:
    """Return `count` events as of `timestamp`, ready to append."""
    made = (event(rng, timestamp, streams) for _ in range(count))
    return [NewRecord(stream, orjson.dumps(body), None, timestamp) for stream, body in made]


async def run(log: EventLog, per_second: float, intake_url: str, streams: Sequence[str]) -> None:
    """Send events at this rate until cancelled; first append the last ten minutes', where the topics hold none."""
    rng = random.Random()
    await _append_history(log, rng, streams)
    async with Producer(intake_url) as producer:
        while True:
            _, body = event(rng, time.time_ns() // 1_000_000, streams)
            if is_wrong := rng.random() < INVALID_SHARE:
                body = spoiled(rng, body)
            try:
                sent = await producer.send([body])
            except ProducerError as exc:
                logger.warning("demo event was not taken", extra={"cause": exc.message})
            else:
                if is_wrong:
                    causes = [refusal.message for refusal in sent.refused]
                    logger.info("a demo event that is wrong on purpose was refused", extra={"causes": causes})
            await asyncio.sleep(rng.expovariate(per_second))


async def _append_history(log: EventLog, rng: random.Random, streams: Sequence[str]) -> None:
    partitions = [partition for stream in streams for partition in await log.partitions(stream)]
    if not partitions or any(extent.end for extent in (await log.extents(partitions)).values()):
        return
    now = time.time_ns() // 1_000_000
    for second in range(HISTORY_SECONDS, 0, -1):
        await log.append(records(rng, now - second * 1000, HISTORY_PER_SECOND, streams))
