"""A catalogue that is read again from time to time, and keeps the last good set."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from eventstreams.catalog.load import CatalogOptions, load_streams
from eventstreams.catalog.streams import StreamCatalog
from eventstreams.errors import ConfigurationError
from eventstreams.metrics import Metrics

logger = logging.getLogger(__name__)


@asynccontextmanager
async def open_catalog(
    sources: str | Sequence[str], options: CatalogOptions, metrics: Metrics, *, ttl: float
) -> AsyncIterator[StreamCatalog]:
    """Read stream configuration, then again each `ttl` seconds (0: never) while the context lasts.

    Raises: ConfigurationError for the first reading; later ones that fail are logged and counted, and change nothing.
    """
    catalog = StreamCatalog(await asyncio.to_thread(load_streams, sources, options))
    refreshing = asyncio.create_task(_refresh(catalog, sources, options, metrics, ttl), name="refresh streams")
    try:
        yield catalog
    finally:
        refreshing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await refreshing


async def _refresh(
    catalog: StreamCatalog, sources: str | Sequence[str], options: CatalogOptions, metrics: Metrics, ttl: float
) -> None:
    while ttl:
        await asyncio.sleep(ttl)
        try:
            await refresh(catalog, sources, options, metrics)
        except Exception:
            # The outermost loop: whatever a document holds, the next reading comes.
            metrics.catalog_refreshed(ok=False)
            logger.exception("stream configuration was not refreshed")


async def refresh(
    catalog: StreamCatalog, sources: str | Sequence[str], options: CatalogOptions, metrics: Metrics
) -> None:
    """Read once more; swap where that goes well and something changed."""
    try:
        streams = await asyncio.to_thread(load_streams, sources, options)
    except ConfigurationError as exc:
        metrics.catalog_refreshed(ok=False)
        logger.warning("stream configuration was not refreshed", extra={"cause": exc.message[:2000]})
        return
    metrics.catalog_refreshed(ok=True)
    if list(streams) != list(catalog.all()):
        catalog.swap(streams)
        logger.info(
            "stream configuration changed", extra={"streams": sum(stream.alias_of is None for stream in streams)}
        )
