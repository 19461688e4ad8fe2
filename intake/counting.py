"""What became of events, counted under names that are configured: clients cannot invent labels."""

from __future__ import annotations

from collections.abc import Sequence

from eventstreams.catalog.streams import StreamCatalog
from eventstreams.metrics import Metrics
from eventstreams.schemas.validation import Validators
from intake import paths
from intake.envelope import UNKNOWN, Plan
from intake.options import IntakeOptions
from intake.outcome import BatchOutcome, EventOutcome, Kind
from intake.preparing import Prepared


class Counting:
    """Tells the metrics of a batch's outcomes."""

    def __init__(
        self, metrics: Metrics, validators: Validators, catalog: StreamCatalog | None, options: IntakeOptions
    ) -> None:
        self._metrics = metrics
        self._validators = validators
        self._catalog = catalog
        self.options = options

    def count(self, found: Sequence[Prepared | EventOutcome], batch: BatchOutcome) -> None:
        """Count a batch; `found` is what was prepared, or refused before."""
        accepted: dict[Plan, int] = {}
        duplicates = 0
        for one, outcome in zip(found, batch.outcomes, strict=True):
            if isinstance(one, Prepared) and outcome.kind is Kind.ACCEPTED:
                duplicates += outcome.duplicate
                accepted[one.plan] = accepted.get(one.plan, 0) + (not outcome.duplicate)
            else:
                self._count_refused(outcome)
        if duplicates:
            self._metrics.duplicates(duplicates)
        for plan, count in accepted.items():
            self._metrics.events_accepted(plan.label, plan.validator.uri, count)

    def _count_refused(self, outcome: EventOutcome) -> None:
        uri = paths.find(outcome.event, self.options.schema_uri_fields)
        stream = paths.find(outcome.event, self.options.stream_fields)
        known = isinstance(uri, str) and self._validators.ready(uri) is not None
        config = self._catalog.find(stream) if isinstance(stream, str) and self._catalog is not None else None
        self._metrics.event_refused(
            UNKNOWN if config is None else config.name, uri if known else UNKNOWN, outcome.error_type or "Error"
        )
