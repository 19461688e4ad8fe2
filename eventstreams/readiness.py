"""Whether a process would serve: what `/readyz` says of gateway and intake."""

from __future__ import annotations

from collections.abc import Collection

from eventstreams.catalog.streams import StreamCatalog
from eventstreams.errors import LogUnavailable
from eventstreams.server import Stopping
from eventstreams.services import Services
from eventstreams.settings import IntakeSettings
from intake.envelope import UNPREFIXED
from intake.spool import Spool

READY_TIMEOUT = 2.0
"""Seconds in which the log must answer for the process to be ready: orchestrators ask with a few seconds' patience."""


async def can_read(services: Services, stopping: Stopping) -> None:
    """Return when one of the gateway's streams at least would be served. Raises: LogUnavailable, ServiceUnavailable."""
    stopping.check()
    await services.log.check(READY_TIMEOUT, served_topics(services.catalog))
    # It may have begun while the log was asked.
    stopping.check()


async def can_take(services: Services, given: IntakeSettings, spool: Spool | None, stopping: Stopping) -> None:
    """Return when events of one stream at least would be taken. Raises: LogUnavailable, ServiceUnavailable."""
    stopping.check()
    try:
        await services.log.check(READY_TIMEOUT, written_topics(services.catalog, given), writing=True)
    except LogUnavailable:
        # With a spool events are taken all the same.
        if spool is None or not spool.has_room:
            raise
    stopping.check()


def served_topics(catalog: StreamCatalog) -> Collection[str] | None:
    """Return the topics of the streams that the gateway serves; None where there are none."""
    streams = map(catalog.public, catalog.public_names())
    return {topic for stream in streams if stream is not None for topic in stream.topics} or None


def written_topics(catalog: StreamCatalog, given: IntakeSettings) -> Collection[str] | None:
    """Return the topics that intake appends to; None where they are not known before an event comes."""
    if not given.check_streams:
        return None
    names = [stream.name for stream in catalog.all() if stream.alias_of is None and not stream.is_pattern]
    return {name if name.startswith(UNPREFIXED) else given.topic_prefix + name for name in names} or None
