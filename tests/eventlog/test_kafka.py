"""What only the log on Kafka promises, against a real broker."""

from __future__ import annotations

import asyncio
import ctypes
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import confluent_kafka
import pytest
from confluent_kafka import KafkaError, Producer

from eventstreams.errors import (
    AppendTimeout,
    ConfigurationError,
    LogRefused,
    LogUnavailable,
    RecordTooLarge,
    UnknownTopic,
)
from eventstreams.eventlog.kafka.admin import Plan, TopicsAdmin, WantedTopic, plan
from eventstreams.eventlog.kafka.lanes import BATCH_RECORDS, STALL_SECONDS
from eventstreams.eventlog.kafka.log import KafkaLog, open_kafka
from eventstreams.eventlog.kafka.options import PRODUCER, KafkaOptions, properties
from eventstreams.eventlog.open import open_log
from eventstreams.positions import Edge
from eventstreams.records import NewRecord, Record, TopicPartition
from tests.support.kafka import Broker, free_port
from tests.support.oracle_log import values

kafka = pytest.mark.kafka


@pytest.fixture
async def topic(kafka_broker: Broker) -> str:
    name = f"{uuid.uuid4()}.t"
    await TopicsAdmin(kafka_broker.servers, {}).create(WantedTopic(name, 1, 1, {"retention.ms": "-1"}))
    return name


@pytest.fixture
async def log(kafka_broker: Broker) -> AsyncIterator[KafkaLog]:
    async with open_kafka(KafkaOptions(kafka_broker.servers)) as opened:
        yield opened


@kafka
async def test_append_to_an_unknown_topic_is_refused_at_once_and_makes_none(log: KafkaLog, topic: str) -> None:
    nowhere = f"{topic}.nowhere"
    outcomes = await log.append([NewRecord(nowhere, b"x"), NewRecord(topic, b"y", None, 1)])
    assert isinstance(outcomes[0], UnknownTopic)
    assert isinstance(outcomes[1], Record)
    assert await log.partitions(nowhere) == []
    assert await log.append([]) == []


@kafka
async def test_record_over_the_limit_is_refused_alone(kafka_broker: Broker, topic: str) -> None:
    async with open_kafka(KafkaOptions(kafka_broker.servers, max_record_bytes=10_000)) as log:
        outcomes = await log.append([NewRecord(topic, b"x" * 20_000), NewRecord(topic, b"x")])
        assert isinstance(outcomes[0], RecordTooLarge)
        assert isinstance(outcomes[1], Record)


@kafka
async def test_log_opened_for_reading_appends_nothing(kafka_broker: Broker, topic: str) -> None:
    async with open_log(f"kafka://{kafka_broker.servers}", writable=False) as log:
        (outcome,) = await log.append([NewRecord(topic, b"x")])
        assert isinstance(outcome, LogRefused)


@kafka
async def test_offsets_of_transactions_marks_are_passed(kafka_broker: Broker, log: KafkaLog, topic: str) -> None:
    def produce() -> None:
        producer = Producer({"bootstrap.servers": kafka_broker.servers, "transactional.id": topic})
        producer.init_transactions(30)
        for commit in (True, False, True):
            producer.begin_transaction()
            producer.produce(topic, b"kept" if commit else b"dropped", timestamp=7)
            if commit:
                producer.commit_transaction(30)
            else:
                producer.flush()
                producer.abort_transaction(30)
        producer.flush()

    await asyncio.to_thread(produce)
    p = TopicPartition(topic, 0)
    end = (await log.extents([p]))[p].end
    assert end == 6
    block = await log.fetch(p, 0, end, 2**20)
    assert [(record.offset, record.value) for record in block.records] == [(0, b"kept"), (4, b"kept")]
    assert block.next_offset == end
    assert await log.last_timestamp(p, end) == 7
    reader = await log.open_reader({p: 0})
    records: list[Record] = []
    while reader.positions()[p] < end:
        records += await reader.read(10, 1.0)
    assert [record.offset for record in records] == [0, 4]
    await reader.aclose()


@kafka
async def test_reader_moves_back_and_drops_what_it_had_read_ahead(log: KafkaLog, topic: str) -> None:
    await log.append([NewRecord(topic, b"%d" % n, None, n + 1) for n in range(50)])
    p = TopicPartition(topic, 0)
    reader = await log.open_reader({p: 0})
    assert [record.offset for record in await reader.read(1, 30.0)] == [0]
    await reader.assign({p: 40})
    found: list[int] = []
    while len(found) < 10:
        found += [record.offset for record in await reader.read(100, 30.0)]
    assert found == list(range(40, 50))
    await reader.aclose()


@kafka
async def test_new_partitions_are_seen(kafka_broker: Broker, log: KafkaLog, topic: str) -> None:
    assert len(await log.partitions(topic)) == 1
    await TopicsAdmin(kafka_broker.servers, {}).grow(topic, 3)
    async with asyncio.timeout(30):
        while len((await log.describe([topic]))[topic].partitions) != 3:
            pass


@kafka
async def test_nothing_acknowledged_is_lost_when_the_broker_is_killed(tmp_path: Path, kafka_broker: Broker) -> None:
    broker = Broker(tmp_path / "broker")
    broker.start()
    try:
        await TopicsAdmin(broker.servers, {}).create(WantedTopic("t", 1, 1, {"retention.ms": "-1"}))
        async with open_kafka(KafkaOptions(broker.servers, produce_timeout=60.0)) as log:
            before = await log.append([NewRecord("t", b"%d" % n) for n in range(100)])
            reader = await log.open_reader({TopicPartition("t", 0): 0})
            await asyncio.to_thread(broker.kill)
            with pytest.raises(LogUnavailable):
                await log.check(1.0)
            late = asyncio.create_task(log.append([NewRecord("t", b"%d" % n) for n in range(100, 200)]))
            await asyncio.to_thread(broker.start)
            outcomes = [*before, *await late]
            assert all(isinstance(outcome, Record) for outcome in outcomes)
            found: list[bytes] = []
            async with asyncio.timeout(90):
                while len(found) < 200:
                    try:
                        found += [record.value for record in await reader.read(500, 1.0)]
                    except LogUnavailable:
                        continue
            assert found == [b"%d" % n for n in range(200)]
            await reader.aclose()
    finally:
        broker.kill()


@kafka
async def test_append_without_a_broker_ends_in_time(tmp_path: Path, kafka_broker: Broker) -> None:
    broker = Broker(tmp_path / "broker")
    broker.start()
    try:
        await TopicsAdmin(broker.servers, {}).create(WantedTopic("t", 1, 1))
        async with open_kafka(KafkaOptions(broker.servers, produce_timeout=5.0)) as log:
            assert isinstance((await log.append([NewRecord("t", b"early")]))[0], Record)
            await asyncio.to_thread(broker.kill)
            began = time.monotonic()
            (sent,), unseen = await asyncio.gather(
                log.append([NewRecord("t", b"sent")]), log.append([NewRecord(f"u{n}", b"late") for n in range(20)])
            )
            assert time.monotonic() - began < 5.5
            # Who cannot know whether there is such a topic has stored nothing.
            assert {type(outcome) for outcome in unseen} == {LogUnavailable}
            # What librdkafka has comes when the broker is back, and says so; what came behind it is never sent.
            assert isinstance(sent, AppendTimeout)
            assert sent.fate is not None
            (held,) = await log.append([NewRecord("t", b"held")])
            assert isinstance(held, LogUnavailable)
            assert "was not sent" in held.message
            await asyncio.to_thread(broker.start)
            async with asyncio.timeout(30):
                fate = await sent.fate
                while not isinstance((await log.append([NewRecord("t", b"back")]))[0], Record):
                    pass
            assert isinstance(fate, Record)
            assert (fate.offset, fate.value) == (1, b"sent")
            block = await log.fetch(TopicPartition("t", 0), 0, 10, 2**20)
            assert [record.value for record in block.records] == [b"early", b"sent", b"back"]
    finally:
        broker.kill()


@kafka
async def test_what_is_held_while_the_broker_is_away_goes_in_order_when_it_is_back(
    tmp_path: Path, kafka_broker: Broker
) -> None:
    broker = Broker(tmp_path / "broker")
    broker.start()
    try:
        for topic in ("t", "unseen"):
            await TopicsAdmin(broker.servers, {}).create(WantedTopic(topic, 1, 1))
        async with open_kafka(KafkaOptions(broker.servers, produce_timeout=60.0)) as log:
            assert isinstance((await log.append([NewRecord("t", b"0")]))[0], Record)
            await asyncio.to_thread(broker.kill)
            appends = [asyncio.create_task(log.append([NewRecord("t", b"1")]))]
            await asyncio.wait(appends, timeout=STALL_SECONDS + 0.2)
            count = 3 * BATCH_RECORDS
            appends += [asyncio.create_task(log.append([NewRecord("t", b"%d" % n)])) for n in range(2, count)]
            given_up = asyncio.create_task(log.append([NewRecord("t", b"given up")]))
            appends += [asyncio.create_task(log.append([NewRecord("t", b"%d" % count)]))]
            appends += [asyncio.create_task(log.append([NewRecord("unseen", b"1")]))]
            await asyncio.wait(appends, timeout=0.1)
            given_up.cancel()
            await asyncio.to_thread(broker.start)
            assert {type(outcome) for (outcome,) in await asyncio.gather(*appends)} == {Record}
            found = [int(value) for _, value in await values(log, TopicPartition("t", 0))]
            assert found == list(range(count + 1))
    finally:
        broker.kill()


@kafka
async def test_log_that_is_closed_gives_back_what_it_held(tmp_path: Path, kafka_broker: Broker) -> None:
    broker = Broker(tmp_path / "broker")
    broker.start()
    try:
        await TopicsAdmin(broker.servers, {}).create(WantedTopic("t", 1, 1))
        async with open_kafka(KafkaOptions(broker.servers, produce_timeout=60.0)) as log:
            assert isinstance((await log.append([NewRecord("t", b"0")]))[0], Record)
            with broker.paused():
                sent = asyncio.create_task(log.append([NewRecord("t", b"1")]))
                await asyncio.wait([sent], timeout=STALL_SECONDS + 0.2)
                held = asyncio.create_task(log.append([NewRecord("t", b"2")]))
                await asyncio.wait([held], timeout=0.1)
                closing = asyncio.create_task(log.aclose())
                assert isinstance((await held)[0], LogUnavailable)
            assert isinstance((await sent)[0], Record)
            await closing
        async with open_kafka(KafkaOptions(broker.servers)) as log:
            assert [value for _, value in await values(log, TopicPartition("t", 0))] == [b"0", b"1"]
    finally:
        broker.kill()


@kafka
@pytest.mark.parametrize("partitioner", ["consistent_random", "murmur2_random"])
async def test_keys_go_to_the_partitions_that_librdkafka_takes(
    kafka_broker: Broker, topic: str, partitioner: str
) -> None:
    await TopicsAdmin(kafka_broker.servers, {}).grow(topic, 7)
    given = {"bootstrap.servers": kafka_broker.servers, "partitioner": partitioner}
    keys = [b"%d" % n for n in range(200)]
    taken: dict[bytes, int] = {}

    def produce() -> None:
        producer = Producer(given)
        for key in keys:
            producer.produce(
                topic, b"", key, on_delivery=lambda _, message: taken.setdefault(message.key(), message.partition())
            )
        producer.flush()

    await asyncio.to_thread(produce)
    async with open_kafka(KafkaOptions(kafka_broker.servers, {"partitioner": partitioner})) as log:
        outcomes = await log.append([NewRecord(topic, b"", key) for key in keys])
    assert {o.key: o.partition for o in outcomes if isinstance(o, Record)} == taken
    assert len(set(taken.values())) == 7


@kafka
async def test_added_partitions_take_events_before_librdkafka_has_heard_of_them(
    kafka_broker: Broker, log: KafkaLog, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventstreams.eventlog.kafka.log.GROWTH_SECONDS", 0.0)
    assert isinstance((await log.append([NewRecord(topic, b"", b"x")]))[0], Record)
    await TopicsAdmin(kafka_broker.servers, {}).grow(topic, 5)
    used: set[int] = set()
    async with asyncio.timeout(30):
        while used != set(range(5)):
            outcomes = await log.append([NewRecord(topic, b"", b"%d" % n) for n in range(50)])
            assert {type(outcome) for outcome in outcomes} == {Record}
            used |= {outcome.partition for outcome in outcomes if isinstance(outcome, Record)}


@kafka
async def test_append_to_a_broker_that_stands_still_ends_in_time(tmp_path: Path, kafka_broker: Broker) -> None:
    broker = Broker(tmp_path / "broker")
    broker.start()
    try:
        await TopicsAdmin(broker.servers, {}).create(WantedTopic("t", 1, 1))
        async with open_kafka(KafkaOptions(broker.servers, produce_timeout=4.0)) as log:
            assert isinstance((await log.append([NewRecord("t", b"early")]))[0], Record)
            with broker.paused():
                began = time.monotonic()
                (outcome,) = await log.append([NewRecord("t", b"late")])
                assert time.monotonic() - began < 4.5
                # It was on the wire: nobody knows yet.
                assert isinstance(outcome, AppendTimeout)
            assert outcome.fate is not None
            async with asyncio.timeout(30):
                assert isinstance(await outcome.fate, Record)
    finally:
        broker.kill()


@kafka
async def test_log_opened_without_a_broker_finds_it_later(tmp_path: Path, kafka_broker: Broker) -> None:
    broker = Broker(tmp_path / "broker")
    broker.start()
    await TopicsAdmin(broker.servers, {}).create(WantedTopic("t", 1, 1))
    broker.kill()
    try:
        options = KafkaOptions(broker.servers, produce_timeout=4.0, may_be_away=True)
        async with open_kafka(options, open_timeout=0.5) as log:
            assert isinstance((await log.append([NewRecord("t", b"early")]))[0], LogUnavailable)
            partition = TopicPartition("t", 0)
            answers = await asyncio.gather(
                log.partitions("t"),
                log.resolve({partition: Edge.EARLIEST}),
                log.extents([partition]),
                log.fetch(partition, 0, 1, 1),
                log.last_timestamp(partition, 1),
                log.open_reader({partition: 0}),
                log.check(1.0, ["t"]),
                return_exceptions=True,
            )
            assert {type(answer) for answer in answers} == {LogUnavailable}
            assert all(f"Kafka at {broker.servers} cannot be reached: " in str(answer) for answer in answers)
            assert log.cluster == ""
            await asyncio.to_thread(broker.start)
            async with asyncio.timeout(30):
                await log.reached()
            assert (await log.resolve({partition: Edge.EARLIEST})).cluster == log.cluster != ""
            async with asyncio.timeout(30):
                while not isinstance((await log.append([NewRecord("t", b"back")]))[0], Record):
                    pass
    finally:
        broker.kill()


@kafka
async def test_producer_with_a_fatal_error_is_replaced(log: KafkaLog, topic: str) -> None:
    assert isinstance((await log.append([NewRecord(topic, b"1")]))[0], Record)
    fail_for_good(log._writer._producers.made[0])
    async with asyncio.timeout(10):
        while not isinstance((await log.append([NewRecord(topic, b"2")]))[0], Record):
            pass
    block = await log.fetch(TopicPartition(topic, 0), 0, 10, 2**20)
    assert [record.value for record in block.records] == [b"1", b"2"]


@kafka
async def test_what_a_replaced_producer_had_is_told_as_not_known_and_what_was_held_goes_on(
    tmp_path: Path, kafka_broker: Broker
) -> None:
    broker = Broker(tmp_path / "broker")
    broker.start()
    try:
        await TopicsAdmin(broker.servers, {}).create(WantedTopic("t", 1, 1))
        async with open_kafka(KafkaOptions(broker.servers, produce_timeout=60.0)) as log:
            assert isinstance((await log.append([NewRecord("t", b"0")]))[0], Record)
            with broker.paused():
                sent = asyncio.create_task(log.append([NewRecord("t", b"1")]))
                await asyncio.wait([sent], timeout=STALL_SECONDS + 0.2)
                held = asyncio.create_task(log.append([NewRecord("t", b"2"), NewRecord("t", b"3")]))
                await asyncio.wait([held], timeout=0.1)
                fail_for_good(log._writer._producers.made[0])
                (outcome,) = await sent
                assert isinstance(outcome, AppendTimeout)
                assert outcome.fate is None
            assert [type(outcome) for outcome in await held] == [Record, Record]
            found = [value for _, value in await values(log, TopicPartition("t", 0))]
            assert [value for value in found if value != b"1"] == [b"0", b"2", b"3"]
            assert found.count(b"1") <= 1
    finally:
        broker.kill()


def fail_for_good(producer: object) -> None:
    """Have librdkafka meet a fatal error, by its own function for that: no broker can be made to cause one."""
    (path,) = (Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs").glob("librdkafka*")
    library = ctypes.CDLL(str(path))
    library.rd_kafka_test_fatal_error.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p]
    handle = ctypes.c_void_p.from_address(id(producer) + 2 * ctypes.sizeof(ctypes.c_void_p))
    assert library.rd_kafka_test_fatal_error(handle, KafkaError.PRODUCER_FENCED, b"asked for") == 0


async def test_broker_that_does_not_answer_is_named() -> None:
    with pytest.raises(LogUnavailable, match=r"Kafka at 127\.0\.0\.1:\d+ cannot be reached"):
        async with open_kafka(KafkaOptions(f"127.0.0.1:{free_port()}"), open_timeout=1.0):
            pass


async def test_properties_that_librdkafka_refuses_are_named() -> None:
    with pytest.raises(ConfigurationError, match=r"no\.such\.property"):
        async with open_log("kafka://127.0.0.1:1", kafka={"no.such.property": 1}):
            pass


def test_records_are_never_given_up_unless_the_operator_says_so() -> None:
    ours = properties("h:1", {}, PRODUCER, kind="producer")
    assert (ours["message.timeout.ms"], ours["enable.idempotence"]) == (0, True)
    own = properties("h:1", {"delivery.timeout.ms": 9000}, PRODUCER, kind="producer")
    assert list(own).index("delivery.timeout.ms") > list(own).index("message.timeout.ms")


def test_secrets_are_read_from_files(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    given = properties("h:1", {"sasl.password": {"file": str(tmp_path / "secret")}})
    assert (given["sasl.password"], given["bootstrap.servers"]) == ("s3cret", "h:1")
    for value, words in (({"file": "nowhere"}, "cannot be read"), ({"path": "x"}, "expected a value or")):
        with pytest.raises(ConfigurationError, match=words):
            properties("h:1", {"sasl.password": value})


@pytest.mark.parametrize("url", ["kafka://", "kafka:h:1", "redis://x", "embedded:", ""])
def test_other_forms_of_a_log_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="expected embedded:PATH"):
        open_log(url)


def test_plan_makes_and_grows_and_never_shrinks() -> None:
    wanted = [WantedTopic("new", 3), WantedTopic("small", 4), WantedTopic("large", 2), WantedTopic("any")]
    made = plan(wanted, {"small": 1, "large": 5, "any": 1, "other": 9})
    assert made == Plan([wanted[0]], {"small": 4}, ["large has 5 partitions, more than 2: left as it is"])
