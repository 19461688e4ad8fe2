"""One event made ready for the log, or refused: schema, stamps, stream, check, key, bytes. Only loading waits.

What is appended is what was checked: nothing touches an event after its validation.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from eventstreams.catalog.streams import StreamCatalog
from eventstreams.errors import EventStreamsError, InvalidSchema, RecordTooLarge, SchemaError
from eventstreams.records import NewRecord
from eventstreams.schemas.ajv import errors_text
from eventstreams.schemas.validation import Validator, Validators
from intake import experiments, paths
from intake.envelope import UNKNOWN, Caller, Plan, event_label
from intake.json_text import parse, serialise
from intake.options import IntakeOptions
from intake.outcome import EventOutcome, Kind, failed
from intake.paths import MISSING

MAX_PLANS = 10_000

CLOCKS_DIFFER_MS = 60_000
"""How far ahead a producer's clock may be."""


@dataclass(slots=True)
class Prepared:
    """An event that may be stored. Of its tree only the bytes are kept: it takes ten times their room."""

    plan: Plan
    record: NewRecord
    identity: Any
    """What tells it from others, where its stream is deduplicated."""

    def event(self) -> Any:
        """Return the event as it was checked, parsed again."""
        return parse(self.record.value)


class Preparation:
    """Makes events ready, by what schemas and streams say."""

    def __init__(self, validators: Validators, catalog: StreamCatalog | None, options: IntakeOptions) -> None:
        self._validators = validators
        self._catalog = catalog
        self.options = options
        self._find_uri = paths.finder(options.schema_uri_fields)
        self._find_stream = paths.finder(options.stream_fields)
        self._plans: dict[tuple[int, str], Plan] = {}
        self._plans_version = -1
        self._denied = [re.compile(pattern) for pattern in options.denied_user_agents]

    def schema_uris(self, events: Sequence[Any], caller: Caller) -> Sequence[Any]:
        """Return what each event says is its schema, or MISSING; the query may say it in its place."""
        uris = list(map(self._find_uri, events))
        parameter = self.options.schema_uri_parameter
        given = caller.query.get(parameter) if parameter and MISSING in uris else None
        if given:
            for number, event in enumerate(events):
                if uris[number] is MISSING and isinstance(event, dict):
                    uris[number] = given
                    paths.put(event, self.options.schema_uri_fields[0], given)
        return uris

    async def load_all(self, uris: Sequence[Any]) -> Mapping[str, Validator | SchemaError]:
        """Return each schema's validator, or why there is none; waits for those that are cold."""
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

    def prepare(
        self,
        event: Any,
        caller: Caller,
        uri: Any,
        validator: Validator | SchemaError | None,
        now: str,
        ms: int,
    ) -> Prepared | EventOutcome:
        """Return the event ready for the log, or its outcome where it is refused; never raises for what it holds."""
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
        if not plan.validator.is_valid(event):
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
        return Prepared(plan, record, paths.get(event, self.options.id_field) if plan.deduplication else None)

    def _timestamp(self, event: dict[str, Any], now: int) -> int:
        """Return the record's time: the event's own where it tells one that was not made here.

        One from the future is now: the log finds where a time begins by its first record from then on, and would begin
        at this one for all who ask for times before that.
        """
        text = paths.get(event, self.options.dt_field)
        if not isinstance(text, str):
            return now
        try:
            moment = datetime.fromisoformat(text)
            time = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
        except (ValueError, OverflowError):
            return now
        return max(0, time) if time <= now + CLOCKS_DIFFER_MS else now


def _missing(fields: Sequence[paths.Path]) -> str:
    return f"Field(s) {','.join('.'.join(path) for path in fields)} were missing from event and could not be extracted."


def _not_loaded(event: Any, uri: Any, cause: SchemaError | None) -> EventOutcome:
    name = uri if isinstance(uri, str) else serialise(uri).decode()
    words = cause.message if isinstance(cause, InvalidSchema) else f"Failed loading schema at {name}"
    status = cause.status if isinstance(cause, EventStreamsError) else 500
    return EventOutcome(Kind.FAILED, event, words, error_type="EventSchemaLoadError", status=status)
