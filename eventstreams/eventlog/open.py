"""From the setting `log` to an open event log."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from eventstreams.errors import ConfigurationError
from eventstreams.eventlog.base import EventLog
from eventstreams.eventlog.embedded.log import EmbeddedOptions, open_embedded

EMBEDDED = "embedded:"


def open_log(url: str, *, embedded: EmbeddedOptions | None = None) -> AbstractAsyncContextManager[EventLog]:
    """Return the log that `url` names, to be entered: `embedded:PATH` or `embedded::memory:`.

    Raises: ConfigurationError for any other form, here; for a file that cannot be used, on entering.
    """
    path = url.removeprefix(EMBEDDED)
    if path == url or not path:
        raise ConfigurationError(f"log {url!r}: expected embedded:PATH or embedded::memory:")
    return open_embedded(path, embedded)
