"""What an operator should know of how a process is set up: what is open, unlimited or pinned, and what is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from eventstreams.catalog.streams import StreamCatalog
from eventstreams.errors import LogError
from eventstreams.eventlog.base import EventLog
from eventstreams.eventlog.open import MEMORY, kafka_servers
from eventstreams.settings import Settings

LOOK = 2.0
"""Seconds in which the log may say at the start which topics there are."""

SHOWN = 3
APPLY = "eventstreams streams apply makes those of the stream configuration"


def is_public(urls: Sequence[str]) -> bool:
    """Whether other machines reach one of these addresses; a unix socket's is none."""
    return any(url.startswith("http") and _is_public(url) for url in urls)


def _is_public(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


def of_gateway(settings: Settings, catalog: StreamCatalog, *, public: bool, tried: bool = False) -> Iterator[str]:
    """Yield what is unusual about a gateway; `tried` is one that somebody only tries out."""
    given = settings.gateway
    if not catalog.public_names():
        yield "the gateway has no stream to serve: none has topics"
    if not given.connections and not given.connections_per_client and (public or not tried):
        yield "no limit on connections (gateway.connections, gateway.connections_per_client)"
    yield from _of_clients(settings)
    if given.cors is None:
        yield "no CORS headers: pages of other sites cannot read the streams (gateway.cors)"
    if given.csp is None:
        yield "no security headers (gateway.csp)"
    if given.schema_version != "latest":
        yield f"streams are described by version {given.schema_version} of their schemas (gateway.schema_version)"
    hidden = _left_out(settings, catalog)
    if hidden:
        yield f"allowed_streams leaves out {_named(hidden)}"


def _of_clients(settings: Settings) -> Iterator[str]:
    given, trusted = settings.gateway, settings.trusted_proxies
    if given.client_address == "x-client-ip" and not trusted:
        yield "X-Client-IP is believed from everybody (trusted_proxies is empty)"
    if given.client_address == "peer" and trusted and given.connections_per_client:
        yield "clients behind one proxy share one limit (gateway.client_address is peer)"


def _left_out(settings: Settings, catalog: StreamCatalog) -> list[str]:
    allowed = settings.allowed_streams
    if allowed is None:
        return []
    hidden = (s for s in catalog.all() if s.alias_of is None and not s.is_pattern and s.name not in allowed)
    # One that says nothing of topics is not the gateway's anyway.
    return [stream.name for stream in hidden if {"topics", "topic_prefixes"} & stream.settings.keys()]


def of_intake(settings: Settings, *, public: bool, tried: bool = False) -> Iterator[str]:
    """Yield what is unusual about intake; `tried` is one that somebody only tries out."""
    given = settings.intake
    if public and not given.events_per_second and not given.bytes_per_second:
        yield "no limit on what a client sends (intake.events_per_second, intake.bytes_per_second)"
    if given.cors is None:
        yield "no CORS headers: pages of other sites cannot send events (intake.cors)"
    if given.insecure_schemas:
        yield "schemas with unbounded patterns are used (intake.insecure_schemas)"
    if not given.check_streams:
        yield "events of any stream are taken (intake.check_streams is off)"
    if given.error_stream is None and not tried:
        yield "refused events are counted, not kept (no intake.error_stream)"
    if given.spool is None and kafka_servers(settings.log) is not None:
        yield "while Kafka is away events are answered 503 (no intake.spool)"


def of_admin(urls: Sequence[str]) -> Iterator[str]:
    """Yield what is unusual about the operators' port."""
    if is_public(urls):
        yield f"the operators' port is open to other machines at {', '.join(urls)} (admin.host)"


async def of_log(settings: Settings, log: EventLog, topics: Collection[str] | None) -> list[str]:
    """Return what is unusual about the log, and about these topics in it; asks it for LOOK seconds at most."""
    if settings.log == MEMORY:
        return ["the log is in memory: it ends with this process, and no other sees it"]
    if not log.cluster:
        wait = "without end" if settings.log_wait is None else f"{settings.log_wait:g} s"
        return [f"Kafka does not answer yet: waiting for it {wait} (log_wait)"]
    try:
        async with asyncio.timeout(LOOK):
            missing = sorted(set(topics or ()) - (await log.describe(topics or ())).keys())
    except (LogError, TimeoutError):
        # What it cannot say now its answers to requests will say.
        return []
    return [f"the log has no topic {_named(missing)}: {APPLY}"] if missing else []


def _named(names: Iterable[str]) -> str:
    """Return some names as they are told: the first ones, and how many more there are."""
    known = list(names)
    more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    return ", ".join(known[:SHOWN]) + more
