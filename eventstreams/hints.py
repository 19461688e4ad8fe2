"""What `eventstreams dev` prints for people: what there is to see, and lines to paste that work as they stand."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from eventstreams.catalog.streams import StreamConfig
from eventstreams.demo import traffic
from eventstreams.demo.sample import ERROR_STREAM, is_demo
from eventstreams.errors import SchemaError
from eventstreams.eventlog.open import EMBEDDED, MEMORY
from eventstreams.schemas.uri import parse_schema_uri
from eventstreams.services import Services
from eventstreams.settings import Settings
from eventstreams.subscribe.openapi import first_example

TRIED, LONGEST = 5, 400
"""Streams that are looked at for an event to post, and the characters of one that can be pasted."""

DEMO_STREAMS = frozenset({"recentchange", "page-create", "test.event"})
DEMO_EVENT = '{"$schema":"/test/event/1.0.0","meta":{"stream":"test.event"},"test":"hello"}'
DEMO_LINES = (
    "curl -N {gateway}/v2/stream/recentchange",
    "curl -N \"{gateway}/v2/stream/recentchange,page-create?since=$(date -u -d '10 minutes ago' +%FT%TZ)\"",
    "curl -N -H 'Accept: application/json' {gateway}/v2/stream/test.event",
)


async def hints(
    settings: Settings, services: Services, urls: Mapping[str, str], fed: Sequence[str], rate: float
) -> str:
    """Return the text; `fed` are the streams that get `rate` demo events a second."""
    about = [*_about_configuration(settings), *_about_log(settings), *_about_traffic(services, fed, rate)]
    paste = [f"  {line}" for line in await _lines(services, urls)]
    tries = ["Try, in another terminal:", "", *paste, ""] if paste else []
    return "\n".join([*about, *tries, "Ctrl-C stops it."])


def _about_configuration(settings: Settings) -> Sequence[str]:
    if not is_demo(settings):
        return []
    return ["There is no configuration here, so this is the demo: `eventstreams init DIR` writes one to begin with."]


def _about_log(settings: Settings) -> Sequence[str]:
    if settings.log == MEMORY or not settings.log.startswith(EMBEDDED):
        return []
    return ["The log stays when this ends, and the next start goes on with it; remove its file to begin anew."]


def _about_traffic(services: Services, fed: Sequence[str], rate: float) -> Sequence[str]:
    if not fed:
        return ["There is no demo traffic: none of the demo's streams is configured."]
    told = f", which {ERROR_STREAM} tells" if services.catalog.find(ERROR_STREAM) else ""
    share = round(1 / traffic.INVALID_SHARE)
    return [
        f"{rate:g} demo events a second come in. One in {share} is wrong on purpose ({traffic.ON_PURPOSE}) and"
        f" refused{told}."
    ]


async def _lines(services: Services, urls: Mapping[str, str]) -> Sequence[str]:
    names = set(services.catalog.public_names())
    if names >= DEMO_STREAMS:
        return [*(line.format(**urls) for line in DEMO_LINES), *_post(urls, DEMO_EVENT)]
    own = [stream for stream in services.catalog.all() if stream.alias_of is None and not stream.is_pattern]
    streams = [stream for stream in own if stream.is_public] or own
    for stream in streams[:TRIED]:
        event = await _example(services, stream)
        if event is not None:
            return [*_listen(urls, stream), *_post(urls, event)]
    return _listen(urls, streams[0]) if streams else []


def _listen(urls: Mapping[str, str], stream: StreamConfig) -> Sequence[str]:
    url = f"{urls['gateway']}/v2/stream/{quote(stream.name, safe='')}"
    return [f"curl -N {shlex.quote(url)}"] if stream.is_public else []


def _post(urls: Mapping[str, str], event: str) -> Sequence[str]:
    post = f"curl -i {urls['intake']}/v1/events -H 'Content-Type: application/json' -d \\"
    return [post, f"  {shlex.quote(event)}"]


async def _example(services: Services, stream: StreamConfig) -> str | None:
    """Return the first example of a stream's schema as an event of the stream; None where that cannot be pasted."""
    if stream.schema_title is None:
        return None
    try:
        schema = await services.repository.load(parse_schema_uri(f"/{stream.schema_title}/latest"))
    except SchemaError:
        return None
    example = first_example(schema)
    if not isinstance(example, dict) or "$schema" not in example:
        return None
    event = {**example, "meta": {"stream": stream.name}}
    text = json.dumps(event, separators=(",", ":"), ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST and text.isprintable() else None
