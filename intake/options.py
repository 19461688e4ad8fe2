"""What an intake service is told at start. Names are those of EventGate's configuration where it has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from intake.paths import Path

TRANSFORMS = ("defaults", "edge_uniques", "test_kitchen")
"""The steps between a schema's look-up and the check against it, in their order."""


@dataclass(frozen=True, slots=True)
class IntakeOptions:
    """How events are read, stamped and routed."""

    service: str = "eventstreams-intake"
    """The name in metrics and in `_info`."""
    user_agent: str = "eventstreams-intake"
    """`emitter_id` of error events."""
    topic_prefix: str = ""
    schema_uri_fields: Sequence[Path] = (("$schema",),)
    stream_fields: Sequence[Path] = (("meta", "stream"),)
    id_field: Path = ("meta", "id")
    dt_field: Path = ("meta", "dt")
    schema_uri_parameter: str | None = None
    """Query parameter that gives `$schema` to events without one."""
    stream_parameter: str | None = None
    error_stream: str | None = None
    error_reasons: frozenset[str] = frozenset({"ValidationError", "HoistingError", "MalformedHeaderError"})
    """Classes of error that become events of the error stream."""
    error_schema_uri: str = "/error/2.1.0"
    transforms: Sequence[str] = ("defaults",)
    denied_user_agents: Sequence[str] = ()
    """Regular expressions: `test_kitchen` refuses events from such user agents."""
    max_event_bytes: int = 4 * 1024 * 1024
    max_in_flight_bytes: int = 64 * 1024 * 1024
    deduplication_ids: int = 1_000_000
    """Ids remembered in all, where streams ask for it."""
    produce_timeout: float = 20.0
    """Seconds that an append may take, and that a repetition waits for what became of the first."""
