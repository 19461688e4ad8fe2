"""What a process says when it has started: what runs where, on which log, how much is configured, what is unusual.

One value, made by the process that knows: text for people, and fields of a log line. With `--workers` the first worker
makes it and the supervisor tells it, once.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from eventstreams import __version__, unusual
from eventstreams.demo.sample import is_demo
from eventstreams.eventlog.open import EMBEDDED, MEMORY
from eventstreams.readiness import served_topics, written_topics
from eventstreams.schemas.repository import count_schemas
from eventstreams.services import Services
from eventstreams.settings import Settings

logger = logging.getLogger(__name__)

SECRETS = re.compile(r"(?<=//)[^/@\s]*@|\?.*")
"""What a URL may hold that is nobody's business: names and passwords, and queries, which hold tokens."""

SHOWN = 5
"""Places that are named: a worker tells its supervisor in one line, which is to stay below 64 KiB."""

VERBS = {"gateway": "serving streams at", "intake": "taking events at"}


@dataclass(frozen=True, slots=True)
class Started:
    """What runs where."""

    urls: Mapping[str, Sequence[str]]
    """Addresses by what is there: gateway, intake, admin."""
    log: str
    streams: int
    aliases: int
    streams_from: Sequence[str]
    schemas: int | None
    """Titles in the repositories; None where one of them is a URL, which cannot be counted."""
    schemas_from: Sequence[str]
    notes: Sequence[str] = ()
    """What is unusual, a sentence each."""
    workers: int = 1
    settings: str | None = None
    """The settings file."""
    version: str = __version__

    def fields(self) -> Mapping[str, object]:
        """Return what a log line shows, its addresses by name."""
        return {name: value for name, value in asdict(self).items() if name != "urls"} | self.shown

    @property
    def shown(self) -> dict[str, str]:
        """Return the addresses as text, by what is there."""
        return {name: ", ".join(urls) for name, urls in self.urls.items()}

    def dump(self) -> str:
        """Return the value as a line for `load`."""
        return json.dumps(asdict(self))

    @staticmethod
    def load(line: str) -> Started:
        """Return the value that `dump` made a line of."""
        return Started(**json.loads(line))


async def started(settings: Settings, services: Services, **urls: Sequence[str]) -> Started:
    """Return what is to be told of a process that is reached at these addresses, by the names of `Started.urls`.

    Asks the log which topics there are, for a few seconds at most.
    """
    streams = [stream.alias_of is None for stream in services.catalog.all()]
    return Started(
        urls=urls,
        log=_log(settings.log),
        streams=sum(streams),
        aliases=len(streams) - sum(streams),
        streams_from=_places(settings, settings.streams),
        schemas=await asyncio.to_thread(count_schemas, settings.schemas),
        schemas_from=_places(settings, settings.schemas),
        notes=await _notes(settings, services, urls),
    )


async def _notes(settings: Settings, services: Services, urls: Mapping[str, Sequence[str]]) -> Sequence[str]:
    tried = {"gateway", "intake"} <= urls.keys()
    notes = list(unusual.of_admin(urls["admin"]))
    topics: set[str] = set()
    if "gateway" in urls:
        public = unusual.is_public(urls["gateway"])
        notes += unusual.of_gateway(settings, services.catalog, public=public, tried=tried)
        topics |= set(served_topics(services.catalog) or ())
    if "intake" in urls:
        notes += unusual.of_intake(settings, public=unusual.is_public(urls["intake"]), tried=tried)
        topics |= set(written_topics(services.catalog, settings.intake) or ())
    return [*notes, *await unusual.of_log(settings, services.log, topics)]


def _log(url: str) -> str:
    """Return the log with the whole path of its file: a relative one depends on who looks."""
    if url == MEMORY or not url.startswith(EMBEDDED):
        return url
    return EMBEDDED + str(Path(url.removeprefix(EMBEDDED)).absolute())


def _places(settings: Settings, places: Sequence[str]) -> Sequence[str]:
    if is_demo(settings):
        return ["the demo in the package"]
    told = [SECRETS.sub("", place) if "://" in place else place for place in places[:SHOWN]]
    return [*told, f"{len(places) - SHOWN} more"] if len(places) > SHOWN else told


def lines(told: Started) -> Sequence[str]:
    """Return what people are shown: where, on what, then a line for each thing that is unusual.

    Deliberate: the first line ends with the address, for whoever reads it from there.
    """
    where = " and ".join(f"{words} {told.shown[name]}" for name, words in VERBS.items() if name in told.urls)
    workers = f", {told.workers} workers" if told.workers > 1 else ""
    operators = f"eventstreams {told.version}{workers}, metrics and health at {told.shown['admin']}"
    settings = f"settings {told.settings}; " if told.settings else ""
    about = f"{settings}log {told.log}; {configured(told)}"
    return [where, operators, about, *(f"  note: {note}" for note in told.notes)]


def configured(told: Started) -> str:
    """Return how many streams and schemas there are, and from where."""
    aliases = f" ({_many(told.aliases, 'alias', 'aliases')})" if told.aliases else ""
    schemas = "schemas" if told.schemas is None else _many(told.schemas, "schema", "schemas")
    streams = f"{_many(told.streams, 'stream', 'streams')}{aliases}"
    if told.streams_from == told.schemas_from:
        return f"{streams} and {schemas} from {', '.join(told.streams_from)}"
    return f"{streams} from {', '.join(told.streams_from)}; {schemas} from {', '.join(told.schemas_from)}"


def _many(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"
