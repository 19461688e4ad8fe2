"""The processes that the command line starts: gateway, intake, and both with demo traffic."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from starlette.types import ASGIApp

from eventstreams import __version__
from eventstreams.addresses import parse_networks
from eventstreams.app import DESCRIPTION, HOME, Pages, build_gateway
from eventstreams.asgi import AdminApp, RequestLog
from eventstreams.catalog.streams import topics_to_make
from eventstreams.demo import traffic
from eventstreams.errors import ConfigurationError
from eventstreams.eventlog.embedded.log import EmbeddedLog
from eventstreams.eventlog.open import MEMORY
from eventstreams.reaching import serve_while_reaching, tell
from eventstreams.readiness import can_read, can_take
from eventstreams.runtime import collect_less
from eventstreams.schemas.formats import formats
from eventstreams.schemas.validation import Validators
from eventstreams.server import PATIENCE, DrainingServer, beside, listen, url_of, uvicorn_config
from eventstreams.services import Services, open_services
from eventstreams.settings import GatewaySettings, IntakeSettings, RedactionRule, Settings
from eventstreams.subscribe.admission import Admission
from eventstreams.subscribe.documents import Documents
from eventstreams.subscribe.endpoints import GatewayOptions, StreamEndpoint
from eventstreams.subscribe.engine import Engine
from eventstreams.subscribe.listing import Listing
from eventstreams.subscribe.openapi import About
from eventstreams.subscribe.options import EngineOptions
from eventstreams.subscribe.redaction import Condition, Redaction, Rule, page_rules
from eventstreams.supervisor import READY_LINE, Supervisor, end_with_supervisor
from intake.app import build_intake
from intake.endpoints import EndpointOptions, EventsEndpoint
from intake.limits import RateLimits
from intake.options import IntakeOptions
from intake.paths import dotted
from intake.pipeline import Intake
from intake.spool import Spool, SpoolOptions
from intake.spool_replay import open_spool

GATEWAY_ADMIN_PORT = 8093
INTAKE_ADMIN_PORT = 8193
STOP_GRACE = 15.0
"""Seconds that a worker has beyond its drain, for the log's own end."""

Drain = Callable[[], Awaitable[None]]
Ready = Callable[..., None]


class Sockets(NamedTuple):
    """Listening sockets that a process was given by its supervisor, for its service and for its operators."""

    main: socket.socket
    admin: socket.socket


class Taking(NamedTuple):
    """Intake in this process."""

    app: ASGIApp
    intake: Intake
    spool: Spool | None


async def gateway(settings: Settings, ready: Ready, sockets: Sockets | None = None) -> int:
    """Serve the gateway until a signal; calls `ready` with its URL. Returns the exit status.

    Raises: ConfigurationError; LogUnavailable or LogRefused for a log that was waited for in vain.
    """
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(contextlib.closing(sockets.main if sockets else gateway_listener(settings)))
        admin = stack.enter_context(
            contextlib.closing(sockets.admin if sockets else admin_listener(settings, GATEWAY_ADMIN_PORT))
        )
        opening = open_services(settings, writable=False, log_may_be_away=settings.log_wait != 0)
        services = await stack.enter_async_context(opening)
        _check_streams(settings, services)
        await _make_topics(services, settings)
        await stack.enter_async_context(_admin(services, admin, partial(can_read, services)))
        app, drain = await stack.enter_async_context(_gateway_app(settings, services))
        collect_less()
        server = DrainingServer(uvicorn_config(app), drain)
        reached = tell(partial(ready, url_of(listener)), at_once=sockets is None)
        failure = await serve_while_reaching(server, listener, services.log, settings.log_wait, reached)
    if failure is not None:
        raise failure
    return server.exit_status


def _check_streams(settings: Settings, services: Services) -> None:
    """Refuse to start a gateway that has nothing to serve; a later reading may have nothing left."""
    if not services.catalog.public_names():
        names = settings.allowed_streams
        allowed = "" if names is None else f", allowed_streams is {', '.join(names) or 'empty'}"
        raise ConfigurationError(
            f"stream configuration {', '.join(settings.streams)}: expected streams with topics for the gateway, found"
            f" none in {sum(stream.alias_of is None for stream in services.catalog.all())}{allowed}"
        )


async def intake(settings: Settings, ready: Ready, sockets: Sockets | None = None) -> int:
    """Serve intake until a signal; calls `ready` with its URL. Returns and raises as `gateway`."""
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(contextlib.closing(sockets.main if sockets else intake_listener(settings)))
        admin = stack.enter_context(
            contextlib.closing(sockets.admin if sockets else admin_listener(settings, INTAKE_ADMIN_PORT))
        )
        # With a spool events are taken all the same, however long the log is away.
        wait = settings.log_wait if settings.intake.spool is None else None
        opening = open_services(settings, writable=True, log_may_be_away=wait != 0)
        services = await stack.enter_async_context(opening)
        await _make_topics(services, settings)
        taking = await stack.enter_async_context(_taking(settings, services))
        await stack.enter_async_context(_admin(services, admin, _can_take(settings, services, taking)))
        collect_less()
        drain = partial(taking.intake.drain, settings.intake.shutdown_timeout)
        server = DrainingServer(uvicorn_config(taking.app), drain)
        reached = tell(partial(ready, url_of(listener)), at_once=sockets is None or taking.spool is not None)
        failure = await serve_while_reaching(server, listener, services.log, wait, reached)
    if failure is not None:
        raise failure
    return server.exit_status


async def dev(settings: Settings, rate: float, ready: Ready) -> int:
    """Serve both with demo traffic until a signal; calls `ready` with both URLs. Returns and raises as `gateway`."""
    async with AsyncExitStack() as stack:
        at_gateway = stack.enter_context(contextlib.closing(gateway_listener(settings)))
        at_intake = stack.enter_context(contextlib.closing(intake_listener(settings)))
        admin = stack.enter_context(contextlib.closing(admin_listener(settings, GATEWAY_ADMIN_PORT)))
        services = await stack.enter_async_context(open_services(settings, writable=True))
        await _make_topics(services, settings, demo=True)
        app, drain = await stack.enter_async_context(_gateway_app(settings, services))
        taking = await stack.enter_async_context(_taking(settings, services))
        await stack.enter_async_context(_admin(services, admin, _can_take(settings, services, taking)))
        await stack.enter_async_context(beside(taking.app, at_intake))
        await stack.enter_async_context(_demo(services, rate, url_of(at_intake)))
        ready(url_of(at_gateway), url_of(at_intake))
        server = DrainingServer(uvicorn_config(app), drain)
        await server.serve([at_gateway])
    return server.exit_status


SERVICES = {"serve": gateway, "intake": intake}
"""The services of which there may be several processes, by their commands' names."""


async def worker(name: str, settings: Settings, sockets: Sockets) -> None:
    """Be one of several processes of a service: on sockets of the supervisor's, until it is gone or says so."""
    end_with_supervisor()
    await SERVICES[name](settings, lambda _: print(READY_LINE, flush=True), sockets)


async def supervise(name: str, settings: Settings, count: int, arguments: Sequence[str], ready: Ready) -> int:
    """Run `count` processes of a service until a signal; calls `ready` with their URL. Returns the exit status.

    `arguments` start a worker; its sockets' descriptors are put behind. Raises: ConfigurationError.
    """
    if settings.log == MEMORY:
        raise ConfigurationError(
            "--workers: processes cannot share a log in memory; expected embedded:PATH or kafka://"
        )
    bind, port = {"serve": (gateway_listener, GATEWAY_ADMIN_PORT), "intake": (intake_listener, INTAKE_ADMIN_PORT)}[name]
    with contextlib.closing(bind(settings)) as listener, contextlib.closing(admin_listener(settings, port)) as admin:
        stop_timeout = max(settings.gateway.drain_timeout, settings.intake.shutdown_timeout) + STOP_GRACE
        supervisor = Supervisor(count, arguments, listener, stop_timeout=stop_timeout)
        return await supervisor.run(admin, lambda: ready(url_of(listener)))


async def _make_topics(services: Services, settings: Settings, *, demo: bool = False) -> None:
    """Make what `streams apply` would, and the error stream's topic: for a demo, and in memory.

    Nobody else can make topics in this process's memory. In a file and on Kafka the operator decides.
    """
    if not isinstance(services.log, EmbeddedLog) or not (demo or settings.log == MEMORY):
        return
    given = settings.intake
    for topic, wanted in topics_to_make(services.catalog.all(), given.topic_prefix).items():
        await services.log.create_topic(topic, wanted.partitions or 1)
    if given.error_stream is not None:
        await services.log.create_topic(given.topic_prefix + given.error_stream)


@asynccontextmanager
async def _demo(services: Services, rate: float, intake_url: str) -> AsyncIterator[None]:
    producing = asyncio.create_task(traffic.run(services.log, rate, intake_url), name="demo traffic")
    try:
        yield
    finally:
        producing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await producing


def gateway_listener(settings: Settings) -> socket.socket:
    """Return the gateway's listening socket. Raises: ConfigurationError."""
    given = settings.gateway
    # Twice: the gateway is to be the one that closes a client that takes nothing, and says so.
    return listen(given.host, given.port, patience=max(PATIENCE, 2 * given.send_timeout))


def intake_listener(settings: Settings) -> socket.socket:
    """Return intake's listening socket. Raises: ConfigurationError."""
    return listen(settings.intake.host, settings.intake.port)


def admin_listener(settings: Settings, port: int) -> socket.socket:
    """Return the operators' listening socket, at `port` unless the settings name one. Raises: ConfigurationError."""
    chosen = settings.admin.port
    return listen(settings.admin.host, port if chosen is None else chosen)


def _admin(
    services: Services, listener: socket.socket, ready: Callable[[], Awaitable[None]]
) -> contextlib.AbstractAsyncContextManager[None]:
    async def exposition() -> bytes:
        return services.metrics.exposition()

    return beside(AdminApp(exposition, ready), listener)


def _can_take(settings: Settings, services: Services, taking: Taking) -> Callable[[], Awaitable[None]]:
    return partial(can_take, services, settings.intake, taking.intake.in_flight, taking.spool)


@asynccontextmanager
async def _gateway_app(settings: Settings, services: Services) -> AsyncIterator[tuple[ASGIApp, Drain]]:
    given = settings.gateway
    admission = Admission(services.metrics, per_client=given.connections_per_client, in_all=given.connections)
    options = EngineOptions(
        tail_bytes=given.tail_bytes,
        block_cache_bytes=given.replay_bytes,
        heartbeat=given.heartbeat,
        send_timeout=given.send_timeout,
    )
    redaction = _redaction(given)

    def topics(stream: str) -> Sequence[str]:
        config = services.catalog.public(stream)
        return config.topics if config else ()

    engine = Engine(services.log, options, services.metrics, redaction=redaction, topics=topics)
    async with engine.open():

        async def drain() -> None:
            admission.drain()
            await engine.drain(given.drain_timeout)

        wanted = GatewayOptions(
            resume_skew=given.resume_skew,
            client_address=given.client_address,
            trusted=parse_networks(settings.trusted_proxies),
            browsers_come_back=given.browsers_come_back,
            canaries=given.canaries,
            no_id_blocks=tuple(given.no_id_blocks),
        )
        endpoint = StreamEndpoint(engine, services.catalog, admission, wanted)
        gateway = build_gateway(endpoint, _pages(given, services), cors=given.cors, csp=given.csp)
        yield RequestLog(gateway), drain


def _pages(given: GatewaySettings, services: Services) -> Pages:
    about = About(given.title, __version__, DESCRIPTION, HOME, given.terms)
    documents = Documents(services.catalog, services.repository, about, schema_version=given.schema_version)
    return Pages(documents, Listing(services.catalog, services.log), title=given.title, ui=given.ui)


def _redaction(given: GatewaySettings) -> Redaction | None:
    rules = [*page_rules(given.redacted_pages)] if given.redacted_pages else []
    return Redaction([*rules, *map(_rule, given.redaction)]) if rules or given.redaction else None


def _rule(given: RedactionRule) -> Rule:
    conditions = [Condition(c.field, c.one_of, by=c.by, compare=c.compare) for c in given.when]
    return Rule(given.streams, conditions, **given.model_dump(exclude={"streams", "when"}))


@asynccontextmanager
async def _taking(settings: Settings, services: Services) -> AsyncIterator[Taking]:
    given, metrics = settings.intake, services.metrics
    async with _spool(given, services) as spool:
        validators = Validators(services.repository, formats(given.formats), insecure=given.insecure_schemas)
        catalog = services.catalog if given.check_streams else None
        intake = Intake(services.log, validators, catalog, intake_options(given), metrics, spool)
        async with intake.open(given.shutdown_timeout):
            limits = RateLimits(events_per_second=given.events_per_second, bytes_per_second=given.bytes_per_second)
            endpoint = EventsEndpoint(intake, limits, metrics, _endpoint_options(settings))
            app = build_intake(
                endpoint, catalog, service=given.service, test_events=bool(given.test_events), cors=given.cors
            )
            yield Taking(RequestLog(app), intake, spool)


def _spool(given: IntakeSettings, services: Services) -> contextlib.AbstractAsyncContextManager[Spool | None]:
    if given.spool is None:
        return contextlib.nullcontext()
    options = SpoolOptions(Path(given.spool), given.spool_bytes, given.produce_timeout)
    return open_spool(services.log, options, services.metrics)


def _endpoint_options(settings: Settings) -> EndpointOptions:
    given = settings.intake
    return EndpointOptions(
        max_body_bytes=given.max_body_bytes,
        max_batch_events=given.max_batch_events,
        body_timeout=given.body_timeout,
        trusted=parse_networks(settings.trusted_proxies),
        hasty=given.hasty,
        hasty_off=frozenset(given.hasty_off),
        test_events=given.test_events,
    )


def intake_options(given: IntakeSettings) -> IntakeOptions:
    """Return the pipeline's options as the settings have them."""
    return IntakeOptions(
        service=given.service,
        user_agent=given.user_agent,
        topic_prefix=given.topic_prefix,
        schema_uri_fields=[dotted(field) for field in given.schema_uri_fields],
        stream_fields=[dotted(field) for field in given.stream_fields],
        id_field=dotted(given.id_field),
        dt_field=dotted(given.dt_field),
        schema_uri_parameter=given.schema_uri_query_param,
        stream_parameter=given.stream_query_param,
        error_stream=given.error_stream,
        error_reasons=frozenset(given.error_reasons),
        error_schema_uri=given.error_schema_uri,
        transforms=given.transforms,
        denied_user_agents=given.denied_user_agents,
        max_event_bytes=given.max_event_bytes,
        max_in_flight_bytes=given.max_in_flight_bytes,
        deduplication_ids=given.deduplication_ids,
        produce_timeout=given.produce_timeout,
    )
