"""POST /v1/events and what stands beside it. Every answer to a POST with a body is the envelope of outcomes."""

from __future__ import annotations

import asyncio
import copy
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.datastructures import QueryParams
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from eventstreams import logs
from eventstreams.addresses import UNIX, Networks, client_ip, peer_of
from eventstreams.errors import BadRequest, MalformedBody, PayloadTooLarge, RequestError, ServiceUnavailable
from eventstreams.ids import new_id
from eventstreams.metrics import Metrics
from intake.body import EMPTY, Deadline, Disconnected, discard, read_body
from intake.envelope import Caller
from intake.in_flight import Reservation
from intake.json_text import parse, serialise
from intake.limits import RateLimits
from intake.outcome import RETRY_AFTER, BatchOutcome
from intake.pipeline import Intake

COMPRESSED_FROM = 1024
COMPRESSION_LEVEL = 3
NO_QUERY = QueryParams()
JSON = "application/json; charset=utf-8"
BODILESS = {status: Response(status_code=status) for status in (201, 202)}
"""Sent again and again: an answer without a body is not touched on its way out."""


@dataclass(frozen=True, slots=True)
class EndpointOptions:
    """How requests are read."""

    max_body_bytes: int = 10 * 1024 * 1024
    max_batch_events: int = 50_000
    body_timeout: float = 60.0
    trusted: Networks = ()
    hasty: bool = True
    """Whether `hasty` is obeyed; else such requests are answered when their events are stored."""
    hasty_off: frozenset[str] = frozenset()
    """Values of `hasty` that mean no, beside the empty one. The original takes any other for yes."""
    test_events: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


class EventsEndpoint:
    """Takes one event or a list of them."""

    def __init__(self, intake: Intake, limits: RateLimits, metrics: Metrics, options: EndpointOptions) -> None:
        self._intake = intake
        self._limits = limits
        self._metrics = metrics
        self._options = options
        self._loop: asyncio.AbstractEventLoop | None = None

    async def post(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 201, 202, 207, 400, 500 or 503 by what became of the events; 4xx for a request that is none."""
        began = time.monotonic()
        headers = read_headers(scope)
        try:
            response = await self._take(scope, receive, headers)
        except Disconnected:
            return
        except RequestError as exc:
            response = refusal(exc)
        self._metrics.request_answered(response.status_code, time.monotonic() - began)
        await _compressed(response, headers)(scope, receive, send)

    async def test_events(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a copy of the configured test events as if they had been posted."""
        headers = read_headers(scope)
        try:
            events = copy.deepcopy(list(self._options.test_events))
            with self._intake.in_flight.reserve() as reserved:
                response = await self._submit([dict(event) for event in events], scope, headers, 0, reserved)
        except RequestError as exc:
            response = refusal(exc)
        await _compressed(response, headers)(scope, receive, send)

    async def _take(self, scope: Scope, receive: Receive, headers: Mapping[str, str]) -> Response:
        options = self._options
        try:
            self._intake.in_flight.check()
        except ServiceUnavailable:
            if "expect" not in headers:
                await discard(receive)
            raise
        with self._intake.in_flight.reserve() as reserved:
            body = await read_body(
                receive,
                headers,
                max_bytes=options.max_body_bytes,
                deadline=self._deadline(),
                grow=reserved.grow,
            )
            if not body.strip():
                raise BadRequest(EMPTY)
            value = parse(body)
            if not isinstance(value, (dict, list)):
                raise MalformedBody("body is no JSON object or array: expected one event or a list of them")
            events = value if isinstance(value, list) else [value] if value else []
            if not events:
                raise BadRequest(EMPTY)
            if len(events) > options.max_batch_events:
                raise PayloadTooLarge(f"batch of {len(events)} events: at most {options.max_batch_events} are taken")
            size = len(body)
            # Not held while the log is waited for.
            del body, value
            return await self._submit(events, scope, headers, size, reserved)

    def _deadline(self) -> Deadline:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return Deadline(self._loop, self._options.body_timeout)

    async def _submit(
        self, events: list[Any], scope: Scope, headers: Mapping[str, str], size: int, reserved: Reservation
    ) -> Response:
        given = scope["query_string"]
        query = QueryParams(given) if given else NO_QUERY
        caller = self._caller(scope, headers, query)
        self._limits.spend(caller.client_ip, len(events), size)
        dry_run = bool(given) and _flag(query, "validate_only")
        if self._is_hasty(query) and not dry_run:
            self._intake.submit_later(events, caller, reserved)
            return BODILESS[202]
        return answer(await self._intake.submit(events, caller, dry_run=dry_run), dry_run=dry_run)

    def _caller(self, scope: Scope, headers: Mapping[str, str], query: QueryParams) -> Caller:
        address = client_ip(headers, peer_of(scope), self._options.trusted)
        return Caller(
            headers=headers,
            client_ip="" if address == UNIX else address,
            request_id=headers.get("x-request-id") or logs.request_id.get() or new_id(),
            query=query,
        )

    def _is_hasty(self, query: QueryParams) -> bool:
        """Whether not to wait. Deliberate: any value, `false` too, unless set otherwise: the original's meaning."""
        if not self._options.hasty or not query:
            return False
        given = [value for name, value in query.multi_items() if name == "hasty"]
        if any(name.startswith("hasty[") for name in query) or len(given) > 1:
            return True
        return bool(given and given[0]) and given[0].lower() not in self._options.hasty_off


def read_headers(scope: Scope) -> Mapping[str, str]:
    """Return the request's headers; of one name the first counts."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}


def _flag(query: QueryParams, name: str) -> bool:
    value = query.get(name, "false").lower()
    if value not in ("true", "false", "1", "0", ""):
        raise BadRequest(f"{name}={value[:100]!r}: expected true or false")
    return value in ("true", "1")


def answer(batch: BatchOutcome, *, dry_run: bool = False) -> Response:
    """Return the answer to a batch."""
    body = batch.body()
    if dry_run and body is None:
        return Response(serialise({"invalid": [], "error": []}), 200, media_type=JSON)
    if body is None:
        return BODILESS[batch.status]
    response = Response(serialise(body), batch.status, media_type=JSON)
    if batch.status == 503:
        response.headers["retry-after"] = str(round(RETRY_AFTER))
    return response


def refusal(exc: RequestError) -> Response:
    """Return the answer to a request that was refused as a whole, in the envelope too."""
    item = {"status": "error", "event": None, "context": {"message": exc.message}}
    response = Response(serialise({"invalid": [], "error": [item]}), exc.status, media_type=JSON)
    if exc.retry_after is not None:
        response.headers["retry-after"] = str(max(1, round(exc.retry_after)))
    if exc.status in (408, 413, 415, 503):
        # What is left of the body is not read.
        response.headers["connection"] = "close"
    return response


def _compressed(response: Response, headers: Mapping[str, str]) -> Response:
    if not response.body:
        return response
    response.headers["vary"] = "Accept-Encoding"
    offered = headers.get("accept-encoding", "").lower()
    coding = next((name for name in ("gzip", "deflate") if name in offered), None)
    if coding is None or len(response.body) < COMPRESSED_FROM:
        return response
    deflate = zlib.compressobj(COMPRESSION_LEVEL, wbits=31 if coding == "gzip" else 15)
    response.body = deflate.compress(bytes(response.body)) + deflate.flush()
    response.headers["content-encoding"] = coding
    response.headers["content-length"] = str(len(response.body))
    return response


def json_response(body: object, status: int = 200) -> Response:
    """Return JSON that is no answer to a POST."""
    return Response(orjson.dumps(body), status, media_type=JSON)
