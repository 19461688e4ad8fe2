"""Who may come in, and who is counted: whatever fails on the way, the counts are those of the streams that are open."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from eventstreams.addresses import is_trusted, parse_networks
from eventstreams.errors import BadRequest, ServiceUnavailable, TooManyConnections
from eventstreams.metrics import Metrics
from eventstreams.subscribe.admission import Admission, client_key
from tests.subscribe.test_delivery import connected, eventually, serving

CLIENTS = ("192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "")
PLACES = ("192.0.2.1", "192.0.2.1", "2001:db8::/64", "2001:db8::/64", "2001:db8:0:1::/64", "")


class Counting(RuleBasedStateMachine):
    """Streams that open, end, are refused, fail: against a list of those that are open."""

    @initialize(per_client=st.integers(0, 3), in_all=st.integers(0, 5))
    def begin(self, per_client: int, in_all: int) -> None:
        self.per_client, self.in_all = per_client, in_all
        self.metrics = Metrics()
        self.admission = Admission(self.metrics, per_client=per_client, in_all=in_all)
        self.open: list[tuple[int, ExitStack]] = []

    def _may_enter(self, client: int) -> bool:
        same = sum(PLACES[number] == PLACES[client] for number, _ in self.open)
        full = self.in_all and len(self.open) >= self.in_all
        return not full and not (self.per_client and same >= self.per_client)

    @rule(client=st.integers(0, 5))
    def come(self, client: int) -> None:
        stack = ExitStack()
        if self._may_enter(client):
            stack.enter_context(self.admission.enter(CLIENTS[client]))
            self.open.append((client, stack))
        else:
            with pytest.raises((TooManyConnections, ServiceUnavailable)):
                stack.enter_context(self.admission.enter(CLIENTS[client]))

    @rule(client=st.integers(0, 5))
    def fail(self, client: int) -> None:
        """A request that was let in and then found wrong."""
        wanted = BadRequest if self._may_enter(client) else (TooManyConnections, ServiceUnavailable)
        with pytest.raises(wanted), self.admission.enter(CLIENTS[client]):
            raise BadRequest("no such stream")

    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        if self.open:
            _, stack = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
            stack.close()

    @invariant()
    def counts_are_those_of_the_open(self) -> None:
        assert self.admission.count == len(self.open)
        assert (self.metrics.registry.get_sample_value("eventstreams_connections") or 0) == len(self.open)
        assert sorted(self.admission._open) == sorted({PLACES[number] for number, _ in self.open})


TestCounting = Counting.TestCase
TestCounting.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_addresses_of_one_home_are_one_client() -> None:
    assert [client_key(client) for client in CLIENTS] == list(PLACES)


def test_proxy_is_trusted_also_where_its_address_is_mapped() -> None:
    trusted = parse_networks(["10.0.0.0/8", "2001:db8::/32"])
    assert is_trusted("10.1.2.3", trusted)
    assert is_trusted("::ffff:10.1.2.3", trusted)
    assert is_trusted("2001:db8::7", trusted)
    assert not is_trusted("::ffff:11.1.2.3", trusted)
    assert not is_trusted("nonsense", trusted)


async def test_client_that_comes_back_at_once_is_answered_late() -> None:
    admission = Admission(Metrics())
    loop = asyncio.get_running_loop()

    async def pause(client: str) -> float:
        began = loop.time()
        await admission.pause_if_hasty(client)
        return loop.time() - began

    assert await pause("192.0.2.1") < 0.5
    first, second, other = await asyncio.gather(pause("192.0.2.1"), pause("192.0.2.1"), pause("192.0.2.2"))
    assert min(first, second) >= 0.99
    assert other < 0.5


async def test_drain_ends_all_who_wait_also_when_the_time_of_one_is_just_over() -> None:
    admission = Admission(Metrics())
    loop = asyncio.get_running_loop()
    drains: list[asyncio.Task[None]] = []

    async def drain() -> None:
        admission.drain()

    async def wait(seconds: float) -> None:
        async with admission.wait(seconds):
            if not seconds:
                # They run when its time is over and before it is told; two, as of two signals.
                drains.extend(asyncio.create_task(drain()) for _ in range(2))
            await loop.create_future()

    async with asyncio.timeout(30):
        outcomes = await asyncio.gather(*map(wait, (60.0, 0.0, 60.0)), return_exceptions=True)
        await asyncio.gather(*drains)
    assert [type(outcome) for outcome in outcomes] == [ServiceUnavailable] * 3
    with pytest.raises(ServiceUnavailable):
        admission.enter("192.0.2.1")


@pytest.mark.parametrize("path", ["direct", "portable"])
async def test_requests_that_fail_never_move_the_count(tmp_path: Path, path: str) -> None:
    requests = ["/v2/stream/nope", "/v2/stream/edits?since=x", "/v2/stream/edits?filter=%28", "/v2/stream/%E0%A4%A"]
    async with serving(tmp_path, path) as gateway, connected(gateway) as stays:
        await stays.head()
        await gateway.open_streams(1)
        for request in requests:
            async with connected(gateway, f"GET {request} HTTP/1.1", "Connection: close") as client:
                assert (await client.rest()).startswith(b"HTTP/1.1 400 ")
        async with connected(gateway) as client:
            client.writer.transport.abort()
        await eventually(lambda: gateway.admission.count == 1)
        assert list(gateway.admission._open.values()) == [1]
