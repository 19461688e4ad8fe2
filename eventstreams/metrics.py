"""What is counted: one method for each thing that happens, on one object with a registry of its own.

Names are `eventstreams_<what>_<unit>`, base units, by the Prometheus conventions. Labels never come from a request
unchecked: stream names are configured ones, everything else is from a fixed set.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

# One more series for each counter that tells when it was made: nobody asks for it.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """The counters, gauges and histograms of one process."""

    def __init__(self, service: str = "eventstreams") -> None:
        self.registry = CollectorRegistry()
        self._service = service
        r = self.registry
        self._open = Gauge("eventstreams_connections", "Streams that are open", registry=r)
        self._bytes = Counter("eventstreams_sent_bytes", "Bytes given to open streams", registry=r)
        self._dropped = Counter("eventstreams_clients_dropped", "Streams that the server ended", ["reason"], registry=r)
        self._skipped = Counter(
            "eventstreams_records_skipped", "Records that are no event, left out of streams", ["reason"], registry=r
        )
        self._redacted = Counter("eventstreams_events_redacted", "Events that lost fields to redaction", registry=r)
        self._replayed = Counter("eventstreams_replay_read_records", "Records read for replay", registry=r)
        self._gaps = Counter("eventstreams_gaps", "Times that retention had passed a client's cursor", registry=r)
        self._gap_offsets = Counter("eventstreams_gap_offsets", "Offsets that such clients missed", registry=r)
        self._failures = Counter("eventstreams_log_failures", "Failed reads of the live log", ["code"], registry=r)
        self._live = Counter("eventstreams_live_records", "Records read for live delivery", registry=r)
        self._delivery = Histogram(
            "eventstreams_delivery_seconds", "Time to deliver a batch to all at the head", registry=r
        )
        self._produced = Counter(
            "eventgate_events_produced", "Events stored", ["service", "stream", "schema_uri"], registry=r
        )
        # Series that are found once: finding one costs more than counting.
        self._produced_by: dict[tuple[str, str], Counter] = {}
        self._requests_by: dict[int, Histogram] = {}
        self._refused = Counter(
            "eventgate_validation_errors",
            "Events not stored, by the class of error",
            ["service", "stream", "schema_uri", "error_type"],
            registry=r,
        )
        self._in_flight = Gauge("eventstreams_intake_in_flight_bytes", "Bytes of requests being taken", registry=r)
        self._hasty_lost = Counter("eventstreams_hasty_events_lost", "Hasty events that were not stored", registry=r)
        self._errors_lost = Counter("eventstreams_error_events_lost", "Error events that were not stored", registry=r)
        self._background = Counter("eventstreams_intake_background_failures", "Background work that failed", registry=r)
        self._spool_bytes = Gauge("eventstreams_spool_bytes", "Bytes kept on local disk for the log", registry=r)
        self._spool_events = Gauge("eventstreams_spool_events", "Events kept on local disk for the log", registry=r)
        self._spool_since: float | None = None
        age = Gauge("eventstreams_spool_oldest_seconds", "Age of the oldest of them; 0 without any", registry=r)
        age.set_function(lambda: 0.0 if self._spool_since is None else max(0.0, time.time() - self._spool_since))
        self._spooled = Counter("eventstreams_spooled_events", "Events that were put on local disk", registry=r)
        self._spool_replayed = Counter(
            "eventstreams_spool_replayed_events", "Of these, events that the log has", registry=r
        )
        self._spool_refused = Counter(
            "eventstreams_spool_refused_events",
            "Of these, events that the log refused and that are put aside",
            registry=r,
        )
        self._duplicates = Counter(
            "eventstreams_duplicate_events",
            "Events acknowledged and not stored again, since their id was known",
            registry=r,
        )
        self._requests = Histogram(
            "eventstreams_intake_request_seconds", "Time from a request's body to its answer", ["status"], registry=r
        )
        self._refreshes = Counter(
            "eventstreams_catalog_refreshes", "Readings of the stream configuration", ["result"], registry=r
        )

    # -- stream configuration

    def catalog_refreshed(self, *, ok: bool) -> None:
        """The stream configuration was read again, or could not be."""
        self._refreshes.labels("ok" if ok else "failed").inc()

    # -- subscriptions

    def connections_open(self, count: int) -> None:
        """So many streams are open now."""
        self._open.set(count)

    def bytes_sent(self, count: int) -> None:
        """Bytes were given to sockets."""
        self._bytes.inc(count)

    def client_dropped(self, reason: str) -> None:
        """The server ended a stream; `reason` is a fixed word or an error's code."""
        self._dropped.labels(reason).inc()

    def record_skipped(self, reason: str) -> None:
        """A record was left out; `reason` is a fixed phrase."""
        self._skipped.labels(reason).inc()

    def event_redacted(self) -> None:
        """An event lost fields."""
        self._redacted.inc()

    def block_read(self, records: int) -> None:
        """A block was read from the log for replay."""
        self._replayed.inc(records)

    def gap(self, offsets: int) -> None:
        """A client was told of a gap."""
        self._gaps.inc()
        self._gap_offsets.inc(offsets)

    def pump_failed(self, code: str) -> None:
        """The live reader met an error."""
        self._failures.labels(code).inc()

    def batch_delivered(self, records: int, seconds: float) -> None:
        """A live batch was delivered."""
        self._live.inc(records)
        self._delivery.observe(seconds)

    # -- intake: the first two keep the names that dashboards of the original know

    def events_accepted(self, stream: str, schema_uri: str, count: int) -> None:
        """Events were stored. Both names are configured ones."""
        counter = self._produced_by.get((stream, schema_uri))
        if counter is None:
            counter = self._produced_by[stream, schema_uri] = self._produced.labels(self._service, stream, schema_uri)
        counter.inc(count)

    def event_refused(self, stream: str, schema_uri: str, error_type: str) -> None:
        """An event was not stored; names that are not configured are given as `unknown`."""
        self._refused.labels(self._service, stream, schema_uri, error_type).inc()

    def intake_in_flight(self, size: Callable[[], int]) -> None:
        """So many bytes of requests are being taken, whenever that is asked for."""
        self._in_flight.set_function(size)

    def hasty_lost(self, count: int) -> None:
        """Events acknowledged hastily were not stored."""
        self._hasty_lost.inc(count)

    def error_events_lost(self, count: int) -> None:
        """Error events were not stored."""
        self._errors_lost.inc(count)

    def intake_background_failed(self) -> None:
        """Background work ended with an exception."""
        self._background.inc()

    def spool_holds(self, events: int, size: int) -> None:
        """So much is on local disk now."""
        self._spool_events.set(events)
        self._spool_bytes.set(size)

    def spool_oldest(self, since: float | None) -> None:
        """The oldest event there arrived at this time (seconds since the epoch); None: there is none."""
        self._spool_since = since

    def spooled(self, count: int) -> None:
        """Events were put on local disk."""
        self._spooled.inc(count)

    def spool_replayed(self, count: int) -> None:
        """The log has events that were there."""
        self._spool_replayed.inc(count)

    def spool_refused(self, count: int) -> None:
        """The log refused events that were there for good."""
        self._spool_refused.inc(count)

    def duplicates(self, count: int) -> None:
        """Events were acknowledged with the outcome of an earlier one of the same id."""
        self._duplicates.inc(count)

    def request_answered(self, status: int, seconds: float) -> None:
        """A POST was answered."""
        histogram = self._requests_by.get(status)
        if histogram is None:
            histogram = self._requests_by[status] = self._requests.labels(str(status))
        histogram.observe(seconds)

    def exposition(self) -> bytes:
        """Return the registry in Prometheus' text format."""
        return generate_latest(self.registry)


class WorkerMetrics:
    """What the supervisor of several processes counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._running = Gauge("eventstreams_workers", "Worker processes that are ready", registry=self.registry)
        self._deaths = Counter(
            "eventstreams_worker_deaths", "Workers that ended unasked", ["worker"], registry=self.registry
        )

    def workers_running(self, count: int) -> None:
        """So many workers are ready now."""
        self._running.set(count)

    def worker_died(self, number: int) -> None:
        """A worker ended though nobody had asked it to; another one is started in its place."""
        self._deaths.labels(str(number)).inc()

    def exposition(self) -> bytes:
        """Return the registry in Prometheus' text format."""
        return generate_latest(self.registry)
