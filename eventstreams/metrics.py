"""What is counted: one method for each thing that happens, on one object with a registry of its own.

Names are `eventstreams_<what>_<unit>`, base units, by the Prometheus conventions. Labels never come from a request
unchecked: stream names are configured ones, everything else is from a fixed set.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest


class Metrics:
    """The counters, gauges and histograms of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def exposition(self) -> bytes:
        """Return the registry in Prometheus' text format."""
        return generate_latest(self.registry)
