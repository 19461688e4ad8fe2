"""Requests for intake, and the program that posts them."""

from __future__ import annotations

import json
import random
import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from bench import machine
from bench.processes import BenchError, compiled, running

VARIETY = 1000
"""Different events: no cache of a processor or of a program holds the answer for all of them."""

WORDS = [
    "reverted",
    "edits",
    "by",
    "the",
    "user",
    "talk",
    "category",
    "reference",
    "added",
    "infobox",
    "image",
    "moved",
]
SCHEMA_URI = "/mediawiki/recentchange/1.0.0"
STREAM = "mediawiki.recentchange"


@dataclass(frozen=True, slots=True)
class Posted:
    """What came of a run: answers, those that were no success, seconds, and milliseconds that answers took."""

    requests: int
    refused: int
    seconds: float
    p50: float
    p99: float
    most: float
    cpu: float
    """CPU seconds of the program that posts."""


def recent_changes(count: int = VARIETY, seed: int = 1) -> list[dict[str, Any]]:
    """Return events of about 1.1 KB, as a wiki's producer sends them."""
    rng = random.Random(seed)
    return [_recent_change(rng) for _ in range(count)]


def _recent_change(rng: random.Random) -> dict[str, Any]:
    title = " ".join(rng.choices(WORDS, k=3)).title()
    now = 1_767_608_430 + rng.randrange(10**6)
    page = f"https://en.wikipedia.org/wiki/{title.replace(' ', '_')}"
    return {
        "$schema": SCHEMA_URI,
        "meta": {
            "uri": page,
            "request_id": str(uuid.UUID(int=rng.getrandbits(128))),
            "domain": "en.wikipedia.org",
            "stream": STREAM,
        },
        "id": rng.randrange(10**10),
        "type": rng.choice(["edit", "new", "log", "categorize"]),
        "namespace": rng.choice([0, 1, 2, 4, 10, 14]),
        "title": title,
        "title_url": page,
        "comment": " ".join(rng.choices(WORDS, k=22)) + " – " + "ü" * 5,
        "timestamp": now,
        "user": rng.choice(WORDS).title() + str(rng.randrange(1000)),
        "bot": rng.random() < 0.3,
        "notify_url": f"{page}?diff={rng.randrange(10**10)}&oldid={rng.randrange(10**10)}&rcid={rng.randrange(10**10)}",
        "minor": rng.random() < 0.5,
        "patrolled": True,
        "length": {"old": rng.randrange(10**5), "new": rng.randrange(10**5)},
        "revision": {"old": rng.randrange(10**9), "new": rng.randrange(10**9)},
        "server_url": "https://en.wikipedia.org",
        "server_name": "en.wikipedia.org",
        "server_script_path": "/w",
        "wiki": "enwiki",
        "parsedcomment": " ".join(rng.choices(WORDS, k=14)) + ' <a href="/wiki/Help:Contents">help</a>',
    }


def write_requests(path: Path, bodies: Sequence[object], query: str = "") -> Path:
    """Write a file of POST requests, each behind its length."""
    with path.open("wb") as file:
        for body in bodies:
            content = orjson.dumps(body)
            head = (
                f"POST /v1/events{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
            )
            request = head.encode() + content
            file.write(struct.pack("<I", len(request)) + request)
    return path


async def post(port: int, requests: Path, *, connections: int, seconds: float, rate: float = 0.0) -> Posted:
    """Post for some seconds; as fast as answers come, or `rate` requests a second.

    Raises: BenchError, also where requests were refused.
    """
    command: list[str | Path] = [compiled("post"), str(port), str(connections), str(seconds), str(rate), requests]
    async with running(command, machine.LOAD_CORE) as process:
        posted = Posted(**json.loads(await process.line()))
    if posted.refused:
        raise BenchError(f"{posted.refused} of {posted.requests} requests were refused")
    return posted
