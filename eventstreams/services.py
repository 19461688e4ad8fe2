"""What every process stands on: log, schemas, stream configuration, metrics; opened in order, closed in reverse."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from eventstreams.catalog.load import CatalogOptions
from eventstreams.catalog.refresh import open_catalog
from eventstreams.catalog.streams import StreamCatalog
from eventstreams.errors import ConfigurationError
from eventstreams.eventlog.base import EventLog
from eventstreams.eventlog.embedded.log import EmbeddedOptions
from eventstreams.eventlog.open import open_log
from eventstreams.metrics import Metrics
from eventstreams.schemas.repository import ChainRepository, DirectoryRepository, HttpRepository, SchemaRepository
from eventstreams.settings import Settings

SCHEMA_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
SCHEMES = ("http://", "https://")


@dataclass(frozen=True, slots=True)
class Services:
    """Open services of one process."""

    log: EventLog
    repository: SchemaRepository
    catalog: StreamCatalog
    metrics: Metrics


@asynccontextmanager
async def open_services(
    settings: Settings, *, writable: bool, log_may_be_away: bool = False
) -> AsyncIterator[Services]:
    """Open what the settings name; `writable` where events are to be appended.

    With `log_may_be_away` a Kafka that does not answer is no error: it is found later.

    Raises: ConfigurationError, LogUnavailable.
    """
    check_configured(settings)
    async with AsyncExitStack() as stack:
        metrics = Metrics(settings.intake.service)
        catalog = await stack.enter_async_context(
            open_catalog(settings.streams, catalog_options(settings), metrics, ttl=settings.streams_ttl)
        )
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=SCHEMA_TIMEOUT, trust_env=False))
        repository = schema_repository(settings.schemas, http)
        options = EmbeddedOptions(settings.embedded.retention_age, settings.embedded.retention_bytes)
        opened = open_log(
            settings.log,
            embedded=options,
            kafka=settings.kafka,
            produce_timeout=settings.intake.produce_timeout,
            max_event_bytes=settings.intake.max_event_bytes,
            writable=writable,
            may_be_away=log_may_be_away,
        )
        log = await stack.enter_async_context(opened)
        yield Services(log, repository, catalog, metrics)


def check_configured(settings: Settings) -> None:
    """Refuse to start where nobody has named streams or schemas and there are none at the default places.

    Raises: ConfigurationError that says how to begin.
    """
    for name in ("streams", "schemas"):
        default = Settings.model_fields[name].get_default()
        place = default if isinstance(default, str) else default[0]
        if getattr(settings, name) == default and not Path(place).exists():
            raise ConfigurationError(
                f"no {name} are configured, and {place} does not exist here: `eventstreams init DIR` writes a first"
                f" configuration, --config FILE or --set {name}=PLACE names yours, and `eventstreams dev` shows a demo"
                f" in an empty directory"
            )


def catalog_options(settings: Settings) -> CatalogOptions:
    """Return how the settings have stream configuration read."""
    return CatalogOptions(
        object_path=settings.streams_object_path,
        defaults=settings.stream_defaults,
        overrides=settings.stream_overrides,
        allowed=settings.allowed_streams,
        headers=settings.streams_headers,
    )


def schema_repository(places: Sequence[str], http: httpx.AsyncClient) -> SchemaRepository:
    """Return the repositories as one, in their order. Raises: ConfigurationError for a directory that is not there."""
    repositories: list[SchemaRepository] = []
    for place in places:
        if place.startswith(SCHEMES):
            repositories.append(HttpRepository(place, http))
        elif Path(place).is_dir():
            repositories.append(DirectoryRepository(Path(place)))
        else:
            raise ConfigurationError(f"schemas {place!r}: expected a directory or a base URL, found neither")
    return ChainRepository(repositories)
