"""librdkafka's properties: each goes to the kind of client that knows it, and one that none knows is named."""

from __future__ import annotations

import ctypes
import logging
import re
import uuid
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest

from eventstreams.errors import ConfigurationError
from eventstreams.eventlog.kafka.admin import TopicsAdmin, WantedTopic
from eventstreams.eventlog.kafka.kinds import CONSUMER_ONLY, PRODUCER_ONLY, Kind, of_kind
from eventstreams.eventlog.kafka.log import open_kafka
from eventstreams.eventlog.kafka.options import KafkaOptions
from eventstreams.eventlog.open import open_log
from eventstreams.records import NewRecord, Record, TopicPartition
from tests.support.kafka import Broker

ROW = re.compile(r"^([\w.]+) +\| +([CP*]) +\|", re.MULTILINE)


def librdkafka_table(folder: Path) -> list[tuple[str, str]]:
    """Return each property with C, P or * as the loaded library itself prints them."""
    (path,) = (Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs").glob("librdkafka*")
    library, libc = ctypes.CDLL(str(path)), ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p
    file = ctypes.c_void_p(libc.fopen(str(folder / "table").encode(), b"w"))
    library.rd_kafka_conf_properties_show(file)
    libc.fclose(file)
    return ROW.findall((folder / "table").read_text())


def test_kinds_of_properties_are_those_of_the_library(tmp_path: Path) -> None:
    kinds: dict[str, set[str]] = {}
    for name, kind in librdkafka_table(tmp_path):
        kinds.setdefault(name, set()).add(kind)
    assert len(kinds) > 150
    # What takes a function is no setting.
    plain = {name: kind for name, kind in kinds.items() if not name.endswith("_cb") and name != "msg_order_cmp"}
    assert {name for name, kind in plain.items() if kind == {"P"}} == PRODUCER_ONLY
    assert {name for name, kind in plain.items() if kind == {"C"}} == CONSUMER_ONLY


GIVEN = {
    "client.id": "c",
    "linger.ms": 5,
    "fetch.min.bytes": 2,
    "statistics.interval.ms": 1,
    "producer": {"statistics.interval.ms": 2, "acks": "all"},
    "consumer": {"statistics.interval.ms": 3},
}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("producer", {"client.id": "c", "linger.ms": 5, "statistics.interval.ms": 2, "acks": "all"}),
        ("consumer", {"client.id": "c", "fetch.min.bytes": 2, "statistics.interval.ms": 3}),
        ("admin", {"client.id": "c", "statistics.interval.ms": 1}),
    ],
)
def test_properties_go_to_the_kind_that_knows_them_its_own_over_the_common_ones(
    kind: Kind, expected: dict[str, Any]
) -> None:
    assert of_kind(GIVEN, kind) == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"producer": {"fetch.min.bytes": 1}}, r"kafka\.producer\.fetch\.min\.bytes: librdkafka has no such property"),
        ({"consumer": {"linger.ms": 1}}, r"kafka\.consumer\.linger\.ms: librdkafka has no such property of a consumer"),
        ({"consumer": 7}, r"kafka\.consumer = 7: expected properties by name"),
        ({"producer": {"sasl.password": {"file": "nowhere"}}}, r"kafka\.producer\.sasl\.password: file nowhere cannot"),
    ],
)
def test_sections_that_cannot_be_used_are_named(given: dict[str, Any], words: str) -> None:
    for kind in ("producer", "consumer"):
        if kind in given:
            with pytest.raises(ConfigurationError, match=words):
                of_kind(given, kind)


@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"no.such": 1}, r"No such configuration property: \"no\.such\""),
        ({"producer": {"no.such": 1}}, r"No such configuration property: \"no\.such\""),
        ({"consumer": {"no.such": 1}}, r"No such configuration property: \"no\.such\""),
        ({"acks": "some"}, r"Invalid value for configuration property \"request\.required\.acks\""),
        ({"session.timeout.ms": 6000, "max.poll.interval.ms": 5000}, "must be >= `session.timeout.ms`"),
        ({"security.protocol": "SSL", "ssl.ca.location": "/nowhere"}, r"ssl\.ca\.location failed"),
    ],
)
async def test_properties_that_librdkafka_refuses_are_named_by_every_process(
    given: dict[str, Any], words: str, writable: bool
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        async with open_log("kafka://127.0.0.1:1", kafka=given, writable=writable, may_be_away=True):
            pass


@pytest.mark.kafka
async def test_properties_of_all_kinds_are_used_without_a_warning(
    kafka_broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    topic = f"{uuid.uuid4()}.t"
    given = {
        "enable.gapless.guarantee": True,
        "linger.ms": 3,
        "max.poll.interval.ms": 400_000,
        "producer": {"retries": 9},
        "consumer": {"fetch.min.bytes": 1},
    }
    await TopicsAdmin(kafka_broker.servers, given).create(WantedTopic(topic, 1, 1, {"retention.ms": "-1"}))
    caplog.set_level(logging.DEBUG, "eventstreams.kafka")
    async with open_kafka(KafkaOptions(kafka_broker.servers, given)) as log:
        (stored,) = await log.append([NewRecord(topic, b"x")])
        assert isinstance(stored, Record)
        partition = TopicPartition(topic, 0)
        assert len((await log.fetch(partition, 0, 1, 100)).records) == 1
        reader = await log.open_reader({partition: 0})
        assert len(await reader.read(1, 30.0)) == 1
        await reader.aclose()
    # It is what librdkafka says of that one property to its producer; of none it says that it is of another kind.
    warned = [record.getMessage() for record in caplog.records if "CONFWARN" in record.getMessage()]
    assert [line for line in warned if "is experimental" not in line] == []
