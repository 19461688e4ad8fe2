"""The processes that the command line starts: gateway, intake, and both with demo traffic."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from starlette.types import ASGIApp

from eventstreams import __version__
from eventstreams.addresses import forwarded_client, parse_networks
from eventstreams.app import DESCRIPTION, Pages, build_gateway
from eventstreams.asgi import AdminApp, RequestLog
from eventstreams.catalog.streams import topics_to_make
from eventstreams.demo import traffic
from eventstreams.demo.sample import telling_errors
from eventstreams.errors import ConfigurationError
from eventstreams.eventlog.embedded.log import EmbeddedLog
from eventstreams.eventlog.open import MEMORY
from eventstreams.hints import hints
from eventstreams.intake_settings import endpoint_options, intake_options
from eventstreams.listening import (
    Listening,
    Passed,
    Sockets,
    admin_listener,
    gateway_listener,
    intake_listener,
    passed_sockets,
    url_of,
    urls_of,
)
from eventstreams.public_address import PublicAddress
from eventstreams.reaching import serve_while_reaching, tell
from eventstreams.readiness import can_read, can_take
from eventstreams.redaction_rules import redaction as redaction_rules
from eventstreams.runtime import collect_less
from eventstreams.schemas.formats import formats
from eventstreams.schemas.validation import Validators
from eventstreams.server import DrainingServer, Stopping, beside, uvicorn_config
from eventstreams.services import Services, check_configured, open_services
from eventstreams.settings import GatewaySettings, IntakeSettings, Settings
from eventstreams.startup import Started, started
from eventstreams.subscribe.admission import Admission
from eventstreams.subscribe.client import logged_client
from eventstreams.subscribe.documents import Documents
from eventstreams.subscribe.endpoints import GatewayOptions, StreamEndpoint
from eventstreams.subscribe.engine import Engine
from eventstreams.subscribe.listing import Listing
from eventstreams.subscribe.openapi import About
from eventstreams.subscribe.options import EngineOptions
from eventstreams.supervisor import READY_LINE, Supervisor, end_with_supervisor
from intake.app import build_intake
from intake.endpoints import EventsEndpoint
from intake.limits import RateLimits
from intake.pipeline import Intake
from intake.spool import Spool, SpoolOptions
from intake.spool_replay import open_spool

GATEWAY_ADMIN_PORT = 8093
INTAKE_ADMIN_PORT = 8193
STOP_GRACE = 15.0
"""Seconds that a worker has beyond its drain, for the log's own end."""

Drain = Callable[[], Awaitable[None]]
Ready = Callable[..., None]


class Taking(NamedTuple):
    """Intake in this process."""

    app: ASGIApp
    intake: Intake
    spool: Spool | None


async def gateway(settings: Settings, ready: Ready, sockets: Sockets | None = None) -> int:
    """Serve the gateway until a signal; calls `ready` with what has started. Returns the exit status.

    Raises: ConfigurationError; LogUnavailable or LogRefused for a log that was waited for in vain.
    """
    async with AsyncExitStack() as stack:
        passed = Passed() if sockets else passed_sockets()
        listener = stack.enter_context(
            contextlib.closing(sockets.main if sockets else gateway_listener(settings, passed.main))
        )
        admin = stack.enter_context(
            contextlib.closing(sockets.admin if sockets else admin_listener(settings, GATEWAY_ADMIN_PORT, passed.admin))
        )
        opening = open_services(settings, writable=False, log_may_be_away=settings.log_wait != 0)
        services = await stack.enter_async_context(opening)
        _check_streams(settings, services)
        await _make_topics(services, settings)
        stopping = Stopping()
        await stack.enter_async_context(_admin(services, admin, partial(can_read, services, stopping)))
        app, drain = await stack.enter_async_context(_gateway_app(settings, services))
        collect_less()
        server = DrainingServer(uvicorn_config(app), drain, stopping)
        told = await started(settings, services, gateway=urls_of(listener), admin=urls_of(admin))
        reached = tell(partial(ready, told), at_once=sockets is None)
        failure = await serve_while_reaching(server, listener.sockets, services.log, settings.log_wait, reached)
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
    """Serve intake until a signal; calls `ready` with what has started. Returns and raises as `gateway`."""
    async with AsyncExitStack() as stack:
        passed = Passed() if sockets else passed_sockets()
        listener = stack.enter_context(
            contextlib.closing(sockets.main if sockets else intake_listener(settings, passed.main))
        )
        admin = stack.enter_context(
            contextlib.closing(sockets.admin if sockets else admin_listener(settings, INTAKE_ADMIN_PORT, passed.admin))
        )
        # With a spool events are taken all the same, however long the log is away.
        wait = settings.log_wait if settings.intake.spool is None else None
        opening = open_services(settings, writable=True, log_may_be_away=wait != 0)
        services = await stack.enter_async_context(opening)
        await _make_topics(services, settings)
        taking = await stack.enter_async_context(_taking(settings, services))
        stopping = Stopping()
        await stack.enter_async_context(_admin(services, admin, _can_take(settings, services, taking, stopping)))
        collect_less()
        drain = partial(taking.intake.drain, settings.intake.shutdown_timeout)
        server = DrainingServer(uvicorn_config(taking.app), drain, stopping)
        told = await started(settings, services, intake=urls_of(listener), admin=urls_of(admin))
        reached = tell(partial(ready, told), at_once=sockets is None or taking.spool is not None)
        failure = await serve_while_reaching(server, listener.sockets, services.log, wait, reached)
    if failure is not None:
        raise failure
    return server.exit_status


async def dev(settings: Settings, rate: float, ready: Ready) -> int:
    """Serve both until a signal, with demo traffic where its streams are; calls `ready` with what has started
    and what there is to try.

    Returns and raises as `gateway`.
    """
    async with AsyncExitStack() as stack:
        passed = passed_sockets(with_intake=True)
        at_gateway = stack.enter_context(contextlib.closing(gateway_listener(settings, passed.main)))
        at_intake = stack.enter_context(contextlib.closing(intake_listener(settings, passed.intake)))
        admin = stack.enter_context(contextlib.closing(admin_listener(settings, GATEWAY_ADMIN_PORT, passed.admin)))
        demo_url = _url_for_demo(at_intake)
        services = await stack.enter_async_context(open_services(settings, writable=True))
        settings = telling_errors(settings, services.catalog)
        await _make_topics(services, settings, demo=True)
        app, drain = await stack.enter_async_context(_gateway_app(settings, services))
        taking = await stack.enter_async_context(_taking(settings, services))
        stopping = Stopping()
        await stack.enter_async_context(_admin(services, admin, _can_take(settings, services, taking, stopping)))
        await stack.enter_async_context(beside(taking.app, *at_intake.sockets))
        listening = {"gateway": at_gateway, "intake": at_intake, "admin": admin}
        streams = await stack.enter_async_context(_demo(services, rate, demo_url))
        told = await started(settings, services, **{name: urls_of(each) for name, each in listening.items()})
        urls = {name: url_of(each) for name, each in listening.items()}
        ready(told, await hints(settings, services, urls, streams, rate))
        server = DrainingServer(uvicorn_config(app), drain, stopping)
        await server.serve(at_gateway.sockets)
    return server.exit_status


def _url_for_demo(at_intake: Listening) -> str:
    """Return where demo events are posted. Raises: ConfigurationError where there are only unix sockets."""
    url = url_of(at_intake)
    if not url.startswith("http"):
        raise ConfigurationError(f"intake.host {url}: expected an address beside it, to which demo events are posted")
    return url


SERVICES = {"serve": gateway, "intake": intake}
"""The services of which there may be several processes, by their commands' names."""


async def worker(name: str, settings: Settings, sockets: Sockets) -> None:
    """Be one of several processes of a service: on sockets of the supervisor's, until it is gone or says so."""
    end_with_supervisor()
    await SERVICES[name](settings, lambda told: print(READY_LINE, told.dump(), flush=True), sockets)


async def supervise(name: str, settings: Settings, count: int, arguments: Sequence[str], ready: Ready) -> int:
    """Run `count` processes of a service until a signal; calls `ready` with what has started. Returns the exit status.

    `arguments` start a worker; its sockets' descriptors are put behind. Raises: ConfigurationError.
    """
    if settings.log == MEMORY:
        raise ConfigurationError(
            "--workers: processes cannot share a log in memory; expected embedded:PATH or kafka://"
        )
    check_configured(settings)
    bind, port = {"serve": (gateway_listener, GATEWAY_ADMIN_PORT), "intake": (intake_listener, INTAKE_ADMIN_PORT)}[name]
    passed = passed_sockets()
    with (
        contextlib.closing(bind(settings, passed.main)) as listener,
        contextlib.closing(admin_listener(settings, port, passed.admin)) as admin,
    ):
        stop_timeout = max(settings.gateway.drain_timeout, settings.intake.shutdown_timeout) + STOP_GRACE
        supervisor = Supervisor(count, arguments, listener.sockets, stop_timeout=stop_timeout)

        def tell_all(said: str) -> None:
            told = Started.load(said)
            ready(replace(told, urls={**told.urls, "admin": urls_of(admin)}, workers=count))

        return await supervisor.run(admin.sockets, tell_all)


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
async def _demo(services: Services, rate: float, intake_url: str) -> AsyncIterator[Sequence[str]]:
    """Send demo events while the context lasts; yields the streams that get some."""
    streams = traffic.streams_of(services.catalog)
    if not streams:
        yield streams
        return
    producing = asyncio.create_task(traffic.run(services.log, rate, intake_url, streams), name="demo traffic")
    try:
        yield streams
    finally:
        producing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await producing


def _admin(
    services: Services, listening: Listening, ready: Callable[[], Awaitable[None]]
) -> contextlib.AbstractAsyncContextManager[None]:
    async def exposition() -> bytes:
        return services.metrics.exposition()

    return beside(AdminApp(exposition, ready), *listening.sockets)


def _can_take(
    settings: Settings, services: Services, taking: Taking, stopping: Stopping
) -> Callable[[], Awaitable[None]]:
    return partial(can_take, services, settings.intake, taking.spool, stopping)


@asynccontextmanager
async def _gateway_app(settings: Settings, services: Services) -> AsyncIterator[tuple[ASGIApp, Drain]]:
    given = settings.gateway
    admission = Admission(services.metrics, per_client=given.connections_per_client, in_all=given.connections)
    options = EngineOptions(
        tail_bytes=given.tail_bytes,
        block_cache_bytes=given.replay_bytes,
        heartbeat=given.heartbeat,
        retry=given.retry,
        retry_spread=given.retry_spread,
        send_timeout=given.send_timeout,
    )
    redaction = redaction_rules(given)

    def topics(stream: str) -> Sequence[str]:
        config = services.catalog.public(stream)
        return config.topics if config else ()

    engine = Engine(services.log, options, services.metrics, redaction=redaction, topics=topics)
    async with engine.open():

        async def drain() -> None:
            admission.drain()
            await engine.drain(given.drain_timeout)

        trusted = parse_networks(settings.trusted_proxies)
        wanted = GatewayOptions(
            resume_skew=given.resume_skew,
            client_address=given.client_address,
            trusted=trusted,
            browsers_come_back=given.browsers_come_back,
            canaries=given.canaries,
            no_id_blocks=tuple(given.no_id_blocks),
        )
        endpoint = StreamEndpoint(engine, services.catalog, admission, wanted)
        address = PublicAddress(given.public_url, trusted)
        pages = _pages(given, services)
        gateway = build_gateway(endpoint, pages, cors=given.cors, csp=given.csp, home=given.home, address=address)
        yield RequestLog(gateway, partial(logged_client, mode=given.client_address, trusted=trusted)), drain


def _pages(given: GatewaySettings, services: Services) -> Pages:
    about = About(given.title, __version__, DESCRIPTION, given.home, given.terms)
    documents = Documents(services.catalog, services.repository, about, schema_version=given.schema_version)
    return Pages(documents, Listing(services.catalog, services.log), title=given.title, ui=given.ui)


@asynccontextmanager
async def _taking(settings: Settings, services: Services) -> AsyncIterator[Taking]:
    given, metrics = settings.intake, services.metrics
    async with _spool(given, services) as spool:
        validators = Validators(services.repository, formats(given.formats), insecure=given.insecure_schemas)
        catalog = services.catalog if given.check_streams else None
        intake = Intake(services.log, validators, catalog, intake_options(given), metrics, spool)
        async with intake.open(given.shutdown_timeout):
            limits = RateLimits(events_per_second=given.events_per_second, bytes_per_second=given.bytes_per_second)
            endpoint = EventsEndpoint(intake, limits, metrics, endpoint_options(settings))
            trusted = parse_networks(settings.trusted_proxies)
            app = build_intake(
                endpoint,
                catalog,
                service=given.service,
                test_events=bool(given.test_events),
                cors=given.cors,
                home=given.home,
                address=PublicAddress(given.public_url, trusted),
            )
            yield Taking(RequestLog(app, partial(forwarded_client, trusted=trusted)), intake, spool)


def _spool(given: IntakeSettings, services: Services) -> contextlib.AbstractAsyncContextManager[Spool | None]:
    if given.spool is None:
        return contextlib.nullcontext()
    options = SpoolOptions(Path(given.spool), given.spool_bytes, given.produce_timeout)
    return open_spool(services.log, options, services.metrics)
