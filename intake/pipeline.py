"""From parsed events to outcomes: look up, stamp, check, route, append. No HTTP here.

Way of a batch: cold schemas are loaded first, then every event is prepared without waiting, then all go to the log in
one append. What is appended is what was checked: nothing touches an event after its validation.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from eventstreams.catalog.streams import StreamCatalog
from eventstreams.errors import (
    EventStreamsError,
    InvalidSchema,
    LogError,
    RecordTooLarge,
    SchemaError,
    ServiceUnavailable,
)
from eventstreams.eventlog.base import EventLog
from eventstreams.metrics import Metrics
from eventstreams.records import NewRecord
from eventstreams.schemas.ajv import errors_text
from eventstreams.schemas.validation import Validator, Validators
from intake import experiments, paths
from intake.dedupe import Deduplication
from intake.envelope import UNKNOWN, Caller, Plan, event_label
from intake.error_events import error_event
from intake.json_text import serialise
from intake.options import IntakeOptions
from intake.outcome import ACCEPTED, RETRY_AFTER, BatchOutcome, EventOutcome, Kind, failed
from intake.paths import MISSING

logger = logging.getLogger(__name__)

BREATH = 200
"""Events prepared in one go: others get their turn after some milliseconds of a large batch."""

MAX_PLANS = 10_000


@dataclass(slots=True)
class Prepared:
    """An event that may be stored."""

    event: dict[str, Any]
    plan: Plan
    record: NewRecord


class Intake:
    """Takes events for an event log. Open it before use; closing waits for what is in flight."""

    def __init__(
        self,
        log: EventLog,
        validators: Validators,
        catalog: StreamCatalog | None,
        options: IntakeOptions,
        metrics: Metrics,
    ) -> None:
        self._log = log
        self._validators = validators
        self._catalog = catalog
        self.options = options
        self._metrics = metrics
        self._find_uri = paths.finder(options.schema_uri_fields)
        self._find_stream = paths.finder(options.stream_fields)
        self._plans: dict[tuple[int, str], Plan] = {}
        self._plans_version = -1
        self._denied = [re.compile(pattern) for pattern in options.denied_user_agents]
        self._seen = Deduplication()
        self._background: set[asyncio.Task[None]] = set()
        self._in_flight = 0

    @contextlib.asynccontextmanager
    async def open(self, grace: float) -> AsyncIterator[Intake]:
        """Take events while the context lasts; on leaving wait `grace` seconds for what was begun."""
        try:
            yield self
        finally:
            await self._finish(grace)

    async def _finish(self, grace: float) -> None:
        deadline = time.monotonic() + grace
        while self._background:
            left = deadline - time.monotonic()
            _, pending = await asyncio.wait(self._background, timeout=max(left, 0.0))
            if pending and left <= 0:
                logger.error("events in flight were given up", extra={"tasks": len(pending)})
                for task in pending:
                    task.cancel()
                await asyncio.wait(pending)
                return

    @contextlib.contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Count bytes of events in flight while the context lasts. Raises: ServiceUnavailable."""
        if self._in_flight and self._in_flight + size > self.options.max_in_flight_bytes:
            raise ServiceUnavailable(
                f"{self._in_flight} bytes of events wait for the log: more than {self.options.max_in_flight_bytes}"
                " are not held",
                retry_after=RETRY_AFTER,
            )
        self._in_flight += size
        self._metrics.intake_in_flight(self._in_flight)
        try:
            yield
        finally:
            self._in_flight -= size
            self._metrics.intake_in_flight(self._in_flight)

    async def submit(self, events: Sequence[Any], caller: Caller, *, dry_run: bool = False) -> BatchOutcome:
        """Return what became of each event, when all is settled: never raises for what an event holds.

        With `dry_run` the outcomes are those up to the log, and nothing is stored.
        """
        now = _now()
        batch = await self._settle(events, caller, now, dry_run=dry_run)
        if not dry_run:
            self._tell_error_stream(batch, caller, now)
        return batch

    def submit_later(self, events: Sequence[Any], caller: Caller, size: int) -> None:
        """Take events in the background; losses are counted and logged. Raises: ServiceUnavailable."""
        reserved = contextlib.ExitStack()
        reserved.enter_context(self.reserve(size))
        self._spawn(self._submit_hasty(events, caller, reserved), "hasty events")

    async def _submit_hasty(self, events: Sequence[Any], caller: Caller, reserved: contextlib.ExitStack) -> None:
        with reserved:
            lost = len(events)
            try:
                batch = await self.submit(events, caller)
                lost = batch.counts[Kind.FAILED]
            finally:
                if lost:
                    self._metrics.hasty_lost(lost)
                    logger.error("hasty events were lost", extra={"events": lost, "request_id": caller.request_id})

    def _spawn(self, work: Any, name: str) -> None:
        task = asyncio.create_task(self._guarded(work), name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _guarded(self, work: Any) -> None:
        try:
            await work
        except Exception:
            logger.exception("background work failed")
            self._metrics.intake_background_failed()

    async def _settle(self, events: Sequence[Any], caller: Caller, now: datetime, *, dry_run: bool) -> BatchOutcome:
        uris = [self._schema_uri(event, caller) for event in events]
        validators = await self._load_all(uris)
        stamp, ms = _iso(now), int(now.timestamp() * 1000)
        found: list[Prepared | EventOutcome] = []
        for number, (event, uri) in enumerate(zip(events, uris, strict=True), 1):
            validator = validators.get(uri) if isinstance(uri, str) else None
            found.append(self._prepare(event, caller, uri, validator, stamp, ms))
            if number % BREATH == 0:
                await asyncio.sleep(0)
        prepared = [one for one in found if isinstance(one, Prepared)]
        outcomes = iter([ACCEPTED] * len(prepared) if dry_run else await self._append(prepared))
        batch = BatchOutcome([next(outcomes) if isinstance(one, Prepared) else one for one in found])
        self._count(found, batch)
        return batch

    # -- looking up

    def _schema_uri(self, event: Any, caller: Caller) -> Any:
        uri = self._find_uri(event)
        parameter = self.options.schema_uri_parameter
        if uri is MISSING and parameter and isinstance(event, dict) and caller.query.get(parameter):
            uri = caller.query[parameter]
            paths.put(event, self.options.schema_uri_fields[0], uri)
        return uri

    async def _load_all(self, uris: Sequence[Any]) -> Mapping[str, Validator | SchemaError]:
        wanted = {uri for uri in uris if isinstance(uri, str)}
        found: dict[str, Validator | SchemaError] = {}
        cold: list[str] = []
        for uri in wanted:
            ready = self._validators.ready(uri)
            if ready is None:
                cold.append(uri)
            else:
                found[uri] = ready
        if cold:
            found.update(zip(cold, await asyncio.gather(*map(self._load, cold)), strict=True))
        return found

    async def _load(self, uri: str) -> Validator | SchemaError:
        try:
            return await self._validators.get(uri)
        except SchemaError as exc:
            return exc

    # -- one event

    def _prepare(
        self,
        event: Any,
        caller: Caller,
        uri: Any,
        validator: Validator | SchemaError | None,
        now: str,
        ms: int,
    ) -> Prepared | EventOutcome:
        if uri is MISSING:
            return failed(event, _missing(self.options.schema_uri_fields))
        if not isinstance(validator, Validator):
            return _not_loaded(event, uri, validator)
        stream = self._stream(event, caller)
        if stream is MISSING and self._catalog is not None:
            return failed(event, _missing(self.options.stream_fields))
        plan = self._plan(validator, stream if isinstance(stream, str) else UNKNOWN)
        if isinstance(plan, str):
            words = f"{event_label(event, self.options)} is not allowed in stream; {plan}"
            return failed(event, words, "UnauthorizedSchemaForStreamError")
        try:
            return self._checked(event, plan, stream, caller, now, ms)
        except (experiments.MalformedHeaderError, experiments.HoistingError, experiments.DeniedUserAgentError) as exc:
            return failed(event, exc)
        except RecursionError:
            return failed(event, RecordTooLarge("event is nested too deeply"))

    def _stream(self, event: dict[str, Any], caller: Caller) -> Any:
        stream = self._find_stream(event)
        parameter = self.options.stream_parameter
        if stream is MISSING and parameter and caller.query.get(parameter):
            value = caller.query[parameter]
            if paths.put(event, self.options.stream_fields[0], value):
                return value
        return stream

    def _plan(self, validator: Validator, stream: str) -> Plan | str:
        """Return the plan, or why events of this schema may not go to this stream."""
        version = -2 if self._catalog is None else self._catalog.version
        if version != self._plans_version or len(self._plans) > MAX_PLANS:
            self._plans.clear()
            self._plans_version = version
        plan = self._plans.get((id(validator), stream))
        if plan is None:
            config = None
            if self._catalog is not None:
                config = self._catalog.find(stream)
                if config is None:
                    return f"{stream[:500]} is not configured."
            plan = self._plans[id(validator), stream] = Plan(validator, stream, config, self.options)
        return plan.refusal or plan

    def _checked(
        self, event: dict[str, Any], plan: Plan, stream: Any, caller: Caller, now: str, ms: int
    ) -> Prepared | EventOutcome:
        plan.stamp(event, caller, now)
        if plan.edge_uniques:
            experiments.hoist_subject(event, caller.headers)
        if plan.test_kitchen:
            experiments.refuse_user_agent(caller.headers, self._denied)
        plan.validator.fill_defaults(event)
        if not _is_valid(plan.validator, event):
            errors = plan.validator.errors(event)
            return EventOutcome(Kind.INVALID, event, errors_text(errors), errors, "ValidationError", 400)
        if not isinstance(stream, str):
            return failed(event, _missing(self.options.stream_fields))
        try:
            key = plan.key(event)
        except KeyError as exc:
            return failed(event, f"Failed extracting {exc.args[0]} from event, field is not defined.")
        value = serialise(event)
        if len(value) > self.options.max_event_bytes:
            limit = self.options.max_event_bytes
            return failed(event, RecordTooLarge(f"event of {len(value)} bytes: at most {limit} are taken"))
        record = NewRecord(
            plan.topic,
            value,
            None if key is None else serialise(key),
            ms if plan.stamps_time else self._timestamp(event, ms),
        )
        return Prepared(event, plan, record)

    def _timestamp(self, event: dict[str, Any], now: int) -> int:
        """Return the record's time: the event's own where it tells one that was not made here."""
        text = paths.get(event, self.options.dt_field)
        if not isinstance(text, str):
            return now
        try:
            return max(0, int(datetime.fromisoformat(text).timestamp() * 1000))
        except (ValueError, OverflowError):
            return now

    # -- storing

    async def _append(self, prepared: Sequence[Prepared]) -> Sequence[EventOutcome]:
        repeated: dict[int, asyncio.Future[EventOutcome]] = {}
        fresh: list[int] = []
        claims: dict[int, asyncio.Future[EventOutcome]] = {}
        for number, one in enumerate(prepared):
            identity = paths.get(one.event, self.options.id_field) if one.plan.deduplication else None
            if not isinstance(identity, str):
                fresh.append(number)
                continue
            first, claim = self._seen.claim(one.plan.name, identity, one.plan.deduplication)
            if first is not None:
                repeated[number] = first
            else:
                fresh.append(number)
                claims[number] = claim
        outcomes: dict[int, EventOutcome] = {}
        try:
            stored = await self._store([prepared[number] for number in fresh])
            outcomes.update(zip(fresh, stored, strict=True))
        finally:
            for number, claim in claims.items():
                self._seen.settle(claim, outcomes.get(number))
        for number, first in repeated.items():
            outcomes[number] = await self._seen.outcome(first, prepared[number].event)
        return [outcomes[number] for number in range(len(prepared))]

    async def _store(self, prepared: Sequence[Prepared]) -> Sequence[EventOutcome]:
        results = await self._log.append([one.record for one in prepared]) if prepared else []
        return [
            failed(one.event, result, "Error") if isinstance(result, LogError) else ACCEPTED
            for one, result in zip(prepared, results, strict=True)
        ]

    # -- telling

    def _count(self, found: Sequence[Prepared | EventOutcome], batch: BatchOutcome) -> None:
        accepted: Counter[Plan] = Counter()
        for one, outcome in zip(found, batch.outcomes, strict=True):
            if isinstance(one, Prepared) and outcome.kind is Kind.ACCEPTED:
                accepted[one.plan] += 1
            else:
                self._count_refused(one.event, outcome)
        for plan, count in accepted.items():
            self._metrics.events_accepted(plan.label, plan.validator.uri, count)

    def _count_refused(self, event: Any, outcome: EventOutcome) -> None:
        uri = paths.find(event, self.options.schema_uri_fields)
        stream = paths.find(event, self.options.stream_fields)
        known = isinstance(uri, str) and self._validators.ready(uri) is not None
        config = self._catalog.find(stream) if isinstance(stream, str) and self._catalog is not None else None
        self._metrics.event_refused(
            UNKNOWN if config is None else config.name, uri if known else UNKNOWN, outcome.error_type or "Error"
        )

    def _tell_error_stream(self, batch: BatchOutcome, caller: Caller, now: datetime) -> None:
        if self.options.error_stream is None:
            return
        told = [
            outcome
            for outcome in batch.outcomes
            if outcome.kind is not Kind.ACCEPTED and outcome.error_type in self.options.error_reasons
        ]
        if told:
            self._spawn(self._append_error_events(told, caller, now), "error events")

    async def _append_error_events(self, told: Sequence[EventOutcome], caller: Caller, now: datetime) -> None:
        events = [error_event(outcome, _iso(now), self.options) for outcome in told]
        batch = await self._settle(events, caller, _now(), dry_run=False)
        lost = [outcome for outcome in batch.outcomes if outcome.kind is not Kind.ACCEPTED]
        if lost:
            self._metrics.error_events_lost(len(lost))
            logger.error("error events were lost", extra={"events": len(lost), "cause": lost[0].message[:500]})


def _is_valid(validator: Validator, event: dict[str, Any]) -> bool:
    try:
        return validator.is_valid(event)
    except UnicodeEncodeError:
        # A lone surrogate: the compiled validator knows no such strings, the referee does.
        return not validator.errors(event)


def _missing(fields: Sequence[paths.Path]) -> str:
    return f"Field(s) {','.join('.'.join(path) for path in fields)} were missing from event and could not be extracted."


def _not_loaded(event: Any, uri: Any, cause: SchemaError | None) -> EventOutcome:
    name = uri if isinstance(uri, str) else serialise(uri).decode()
    words = cause.message if isinstance(cause, InvalidSchema) else f"Failed loading schema at {name}"
    status = cause.status if isinstance(cause, EventStreamsError) else 500
    return EventOutcome(Kind.FAILED, event, words, error_type="EventSchemaLoadError", status=status)


def _now() -> datetime:
    return datetime.now(UTC)


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
