"""Why a cluster is not reached, said in time and with the broker's address: what waiting mends, and what not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka import KafkaError

from eventstreams.errors import LogError, LogRefused, LogUnavailable
from eventstreams.eventlog.kafka.admin import TopicsAdmin
from eventstreams.eventlog.kafka.log import open_kafka
from eventstreams.eventlog.kafka.options import KafkaOptions
from eventstreams.eventlog.kafka.reasons import FRESH_SECONDS, Reasons
from tests.support.kafka import Broker, free_port
from tests.support.secured import Certificates, SecuredBroker, as_user, make_certificates

GUARD = 30.0
"""Seconds in which a reason is told, though the machine has other things to do: 2 s for one that waiting does not mend,
6 s for one that may pass, where it has none."""


class Secured(NamedTuple):
    broker: SecuredBroker
    own: Certificates
    others: Certificates
    """Of an authority that the broker does not know."""


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, kafka_broker: Broker) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    own, others = make_certificates(folder / "own"), make_certificates(folder / "others")
    broker = SecuredBroker(folder / "kafka", own)
    broker.start()
    try:
        yield Secured(broker, own, others)
    finally:
        broker.kill()


def tls(authority: Certificates, client: Certificates | None = None) -> dict[str, Any]:
    given = {"security.protocol": "SSL", "ssl.ca.location": str(authority.authority)}
    if client is not None:
        given |= {"ssl.certificate.location": str(client.certificate), "ssl.key.location": str(client.key)}
    return given


async def reason(servers: str, given: Mapping[str, Any]) -> tuple[LogError, float]:
    """Return why a log is not opened, and after how many seconds; `streams apply` is told the same."""
    began = time.monotonic()
    with pytest.raises((LogUnavailable, LogRefused)) as caught:
        async with open_kafka(KafkaOptions(servers, given)):
            pass
    seconds = time.monotonic() - began
    with pytest.raises(type(caught.value)) as applying:
        await TopicsAdmin(servers, given).topics()
    for told in (applying.value, caught.value):
        assert str(told).startswith(f"Kafka at {servers} cannot be reached: ")
    return caught.value, seconds


@pytest.mark.kafka
async def test_reason_that_waiting_does_not_mend_ends_soon(secured: Secured) -> None:
    broker, own, others = secured
    cases = [
        ("PASSWORD", as_user("gateway", "wrong"), "Invalid username or password"),
        ("PASSWORD", as_user("gateway") | {"sasl.mechanism": "SCRAM-SHA-256"}, "Unsupported SASL mechanism"),
        ("OPEN", as_user("gateway"), "SASL PLAIN mechanism handshake failed"),
        ("TLS", tls(others), "broker certificate could not be verified"),
        ("MUTUAL", tls(own), "the broker wants a client certificate that it trusts"),
        ("MUTUAL", tls(own, others), "the broker wants a client certificate that it trusts"),
    ]
    found = await asyncio.gather(*(reason(broker.at(listener), given) for listener, given, _ in cases))
    for (error, seconds), (_, _, words) in zip(found, cases, strict=True):
        assert isinstance(error, LogRefused), error
        assert words in str(error)
        assert seconds < GUARD


@pytest.mark.kafka
async def test_reason_that_may_pass_is_told_in_time(secured: Secured) -> None:
    broker, own, _ = secured
    nobody = f"127.0.0.1:{free_port()}"
    cases: list[tuple[str, dict[str, Any], str]] = [
        (broker.at("TLS"), {}, "it wants TLS or a password"),
        (broker.at("PASSWORD"), {}, "it wants TLS or a password"),
        (broker.at("OPEN"), tls(own), "connecting to a PLAINTEXT broker listener?"),
        ("no-such-host.invalid:9092", {}, "Failed to resolve 'no-such-host.invalid:9092'"),
        (nobody, {}, f"Connect to ipv4#{nobody} failed: Connection refused"),
    ]
    found = await asyncio.gather(*(reason(servers, given) for servers, given, _ in cases))
    for (error, seconds), (_, _, words) in zip(found, cases, strict=True):
        assert isinstance(error, LogUnavailable), error
        assert words in str(error)
        assert seconds < GUARD


@pytest.mark.kafka
async def test_clients_that_are_set_up_rightly_are_let_in(secured: Secured) -> None:
    broker, own, _ = secured
    for listener, given in (("TLS", tls(own)), ("MUTUAL", tls(own, own)), ("PASSWORD", as_user("gateway"))):
        async with open_kafka(KafkaOptions(broker.at(listener), given, writable=False)) as log:
            await log.check(5.0)
            assert log.cluster


@pytest.mark.kafka
async def test_one_broker_of_several_that_refuses_us_does_not_end_it(secured: Secured) -> None:
    """The first try may come to the one that is set up wrongly."""
    broker, _, _ = secured
    for _ in range(5):
        servers = f"{broker.at('TLS')},{broker.at('PASSWORD')}"
        async with open_kafka(KafkaOptions(servers, as_user("gateway"), writable=False)) as log:
            assert log.cluster


@pytest.mark.kafka
async def test_failure_of_an_open_log_tells_the_reason(tmp_path: Path, kafka_broker: Broker) -> None:
    broker = Broker(tmp_path / "broker")
    broker.start()
    try:
        async with open_kafka(KafkaOptions(broker.servers, writable=False)) as log:
            broker.kill()
            with pytest.raises(LogUnavailable, match=rf"Kafka at {broker.servers} cannot be reached: .*refused"):
                await log.check(3.0)
    finally:
        broker.kill()


def test_reason_is_without_what_varies_and_goes_after_a_while() -> None:
    now = 1000.0
    reasons = Reasons("h:1", lambda: now)
    assert reasons.sentence("no answer") == "Kafka at h:1 cannot be reached: no answer"
    reasons.note(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    assert "are closed before an answer" in reasons.sentence()
    reasons.note(KafkaError(KafkaError._TRANSPORT, "h:1/1: Connection refused (after 0ms in state CONNECT)"))
    assert reasons.sentence() == "Kafka at h:1 cannot be reached: h:1/1: Connection refused"
    assert reasons.refused is None
    reasons.note(KafkaError(KafkaError._AUTHENTICATION, "h:1/1: bad password (after 302ms in state AUTH_REQ)"))
    reasons.note(KafkaError(KafkaError._TRANSPORT, "h:1/1: Connection refused"))
    assert str(reasons.refused) == "Kafka at h:1 cannot be reached: h:1/1: bad password"
    now += FRESH_SECONDS
    assert reasons.refused is None
    assert reasons.sentence("no answer") == "Kafka at h:1 cannot be reached: no answer"
