"""GET /v2/stream/{streams}, on any ASGI server; over a socket of our own where the server gives it.

Before the first byte an error is a status, after it a frame.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace

import anyio
from sse_starlette import EventSourceResponse
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from eventstreams.addresses import Networks, peer_of
from eventstreams.catalog.streams import StreamCatalog
from eventstreams.errors import (
    LogUnavailable,
    ServiceUnavailable,
    TooManyConnections,
    TopicReplaced,
    UnknownStream,
    UnknownTopic,
)
from eventstreams.metrics import Metrics
from eventstreams.subscribe.admission import Admission, Place
from eventstreams.subscribe.client import CACHE_CONTROL, AddressMode, RawHeaders, client_address, refusal
from eventstreams.subscribe.engine import Engine
from eventstreams.subscribe.event_ids import EventIds
from eventstreams.subscribe.handover import EXTENSION, DirectWire, Handover
from eventstreams.subscribe.options import Form
from eventstreams.subscribe.request import StreamRequest, find_streams, head_beside_id, read_request
from eventstreams.subscribe.retries import Retries
from eventstreams.subscribe.start import Start, find_start
from eventstreams.subscribe.subscription import Subscription
from eventstreams.subscribe.wire import AsgiWire

SHUTDOWN_GRACE = 30.0
"""Seconds that a response outlives the server's signal: the engine's drain ends it sooner, with a last id."""

WITHOUT_TOPIC = Retries(1.0, 9.0)
"""When clients of a stream that has lost a topic come back: nothing is restarted."""

KEEP_ALIVE = (b"connection", b"keep-alive")

LOG_PATIENCE = 4.0
"""Seconds in which the log must say where a stream starts: clients give up connecting after six."""


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """How requests for streams are read."""

    resume_skew: float = 1.0
    client_address: AddressMode = "forwarded"
    trusted: Networks = ()
    browsers_come_back: bool = True
    """Whether a browser over a limit is answered 200 and told to come back: it never does after another status."""
    canaries: bool = True
    """Whether canary events are sent to who does not say."""
    no_id_blocks: tuple[str, ...] = ()
    """Beginnings of user agents that get no blocks with only an id unless they ask for them."""


class StreamEndpoint:
    """Server-sent events, or JSON lines, until the client goes.

    An ASGI app, not a request -> response function: on the portable path it awaits its own response, so each `with`
    below lasts exactly as long as the connection, however that ends; on the direct path the wire takes what is held
    over and lets go of it when the connection is lost. Raises what `read_request` and `find_start` raise.
    """

    def __init__(self, engine: Engine, catalog: StreamCatalog, admission: Admission, options: GatewayOptions) -> None:
        self._engine = engine
        self._catalog = catalog
        self._admission = admission
        self._options = options
        catalog.watchers.append(self._streams_changed)

    def _streams_changed(self) -> None:
        """End what is open of streams that are gone; have clients come back without topics that are gone.

        Topics that were added are taken up by the engine.
        """
        for group in self._engine.groups():
            try:
                configs = find_streams(group.shape.streams, self._catalog)
            except UnknownStream as exc:
                for subscription in list(group.members):
                    subscription.fail(exc)
                continue
            allowed = {topic for config in configs for topic in (*config.topics, *config.topics_allowed)}
            if any(partition.topic not in allowed for partition in group.shape.partitions):
                for subscription in list(group.members):
                    subscription.say_goodbye(WITHOUT_TOPIC.draw())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        options = self._options
        client = client_address(request.headers, peer_of(scope), options.client_address, options.trusted)
        with ExitStack() as held:
            try:
                place = held.enter_context(self._admission.enter(client))
                wanted = self._read(request)
                start = await self._prepare(wanted, scope, only_look=request.method == "HEAD")
            except (TooManyConnections, ServiceUnavailable, LogUnavailable) as exc:
                held.close()
                await self._admission.pause_if_hasty(client)
                retries = self._engine.retries if options.browsers_come_back else None
                answer = refusal(exc, scope, request.headers, retries)
                await answer(scope, receive, send)
                return
            headers = stream_headers(wanted.form, request.headers.get("accept"))
            handover = scope.get("extensions", {}).get(EXTENSION)
            if request.method == "HEAD":
                # Without a length: that of what GET answers is not known.
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": b""})
            elif handover is not None:
                await self._serve_directly(handover, send, headers, wanted, start, place)
                # From here on the connection gives it back.
                held.pop_all()
            else:
                await self._serve_portably((scope, receive, send), headers, wanted, start)

    def _read(self, request: Request) -> StreamRequest:
        options = self._options
        id_blocks = not request.headers.get("user-agent", "").startswith(options.no_id_blocks)
        streams = request.scope["path_params"]["streams"]
        return read_request(request, streams, self._catalog, canaries=options.canaries, id_blocks=id_blocks)

    async def _prepare(self, wanted: StreamRequest, scope: Scope, *, only_look: bool) -> Start:
        """Do what needs the log: find where to start, and unless `only_look` have the engine prepared for it.

        Raises: BadRequest where ids of these partitions could not be sent back; LogUnavailable as well where the log
        takes too long, or where a topic that was just there is not, as with a broker that begins anew;
        ServiceUnavailable where a drain begins meanwhile.
        """
        try:
            async with self._admission.wait(LOG_PATIENCE):
                engine, skew = self._engine, self._options.resume_skew
                start = await find_start(wanted, engine.log, engine, resume_skew=skew)
                if not wanted.form.json_lines:
                    EventIds(start.cursor).check_fit(head_beside_id(scope))
                if not only_look:
                    await engine.prepare(start.cursor)
                return start
        except TimeoutError as exc:
            raise LogUnavailable(f"the event log did not answer within {LOG_PATIENCE:g} s") from exc
        except TopicReplaced as exc:
            raise LogUnavailable(exc.message) from exc
        except UnknownTopic as exc:
            raise LogUnavailable(f"the event log does not know its topics just now: {exc.message}") from exc

    async def _serve_directly(
        self,
        handover: Handover,
        send: Send,
        headers: RawHeaders,
        wanted: StreamRequest,
        start: Start,
        place: Place,
    ) -> None:
        """Send the head, then leave the connection, and the place, to the subscription; it is prepared."""
        try:
            handover.before_head()
            if handover.keeps_alive:
                headers = [*headers, KEEP_ALIVE]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
        except BaseException:
            self._engine.release(start.cursor)
            raise
        wire = DirectWire(chunked=handover.chunked)
        handover.take(wire)
        form = replace(wanted.form, chunked=handover.chunked)
        subscription = self._engine.begin(
            start.cursor, wire, form, filter_=wanted.filter, gaps=start.gaps, streams=start.streams
        )
        wire.own(_Open(subscription, place, self._engine.metrics))

    async def _serve_portably(
        self, asgi: tuple[Scope, Receive, Send], headers: RawHeaders, wanted: StreamRequest, start: Start
    ) -> None:
        wire = AsgiWire()
        subscription = self._engine.begin(
            start.cursor, wire, wanted.form, filter_=wanted.filter, gaps=start.gaps, streams=start.streams
        )
        try:
            wire.on_lost = subscription.close
            response = EventSourceResponse(
                wire.chunks(),
                ping=0,
                sep="\n",
                shutdown_event=anyio.Event(),
                shutdown_grace_period=SHUTDOWN_GRACE,
            )
            # The library takes no name twice.
            response.raw_headers = [*headers, KEEP_ALIVE]
            with anyio.CancelScope() as running:
                # A send that waits for a client that takes nothing ends no other way.
                wire.on_abort = running.cancel
                await response(*asgi)
        finally:
            wire.lost()


class _Open:
    """What a connection on the direct path gives back when it is lost. Slots: there are tens of thousands."""

    __slots__ = ("_metrics", "_place", "_subscription")

    def __init__(self, subscription: Subscription, place: Place, metrics: Metrics) -> None:
        self._subscription = subscription
        self._place = place
        self._metrics = metrics

    def __call__(self, vanished: bool) -> None:
        self._subscription.close()
        self._place.give_back()
        if vanished:
            self._metrics.client_dropped("vanished")


def stream_headers(form: Form, accept: str | None) -> RawHeaders:
    """Return the headers of a stream; the content types are the contract's, to the letter."""
    if form.json_lines:
        content_type = b"application/json; charset=utf-8"
    else:
        content_type = b"text/event-stream" if accept is None else b"text/event-stream; charset=utf-8"
    # The last has nginx pass on what comes at once.
    return [(b"content-type", content_type), *CACHE_CONTROL, (b"x-accel-buffering", b"no")]
