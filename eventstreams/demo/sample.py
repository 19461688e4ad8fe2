"""The demo's configuration: `config/` of the checkout, which the package carries along."""

from __future__ import annotations

from pathlib import Path

from eventstreams.catalog.streams import StreamCatalog
from eventstreams.settings import Settings

CONFIG = Path(__file__).parent / "config"
"""In a checkout a link to `config/`, in what is built from it a copy: there is one to maintain."""

STREAMS = CONFIG / "streams.yaml"
SCHEMAS = CONFIG / "schemas"
ERROR_STREAM = "eventstreams-intake.error.validation"


def with_demo(settings: Settings, config: str | None) -> Settings:
    """Return the settings with the demo's streams and schemas, where nothing names others.

    What names others is a settings file, either setting, or a configuration at the settings' default places.
    """
    default = Settings.model_fields
    streams, schemas = default["streams"].get_default(), default["schemas"].get_default()
    is_configured = config is not None or (settings.streams, settings.schemas) != (streams, schemas)
    if is_configured or any(Path(place).exists() for place in (*streams, *schemas)):
        return settings
    return settings.model_copy(update={"streams": [str(STREAMS)], "schemas": [str(SCHEMAS)]})


def is_demo(settings: Settings) -> bool:
    """Whether the streams are the package's own."""
    return settings.streams == [str(STREAMS)]


def telling_errors(settings: Settings, catalog: StreamCatalog) -> Settings:
    """Return the settings with the demo's error stream, where that is configured and no other is named."""
    if settings.intake.error_stream is not None or catalog.find(ERROR_STREAM) is None:
        return settings
    return settings.model_copy(update={"intake": settings.intake.model_copy(update={"error_stream": ERROR_STREAM})})
