"""What is added while clients are connected: partitions of a topic, topics of a stream; and what is read, and when."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from eventstreams.catalog.streams import StreamCatalog, StreamConfig
from eventstreams.eventlog.embedded.log import EmbeddedLog, open_embedded
from eventstreams.metrics import Metrics
from eventstreams.positions import Cursor, Edge, Next
from eventstreams.records import NewRecord, TopicPartition
from eventstreams.subscribe.engine import Engine
from eventstreams.subscribe.options import EngineOptions, Form
from tests.subscribe.test_delivery import eventually
from tests.subscribe.test_engine import Client


def stream(*topics: str) -> StreamConfig:
    return StreamConfig("edits", topics, "", None, {})


@asynccontextmanager
async def running(
    catalog: StreamCatalog, options: EngineOptions | None = None
) -> AsyncIterator[tuple[EmbeddedLog, Engine]]:
    def topics(name: str) -> tuple[str, ...]:
        config = catalog.public(name)
        return config.topics if config else ()

    async with open_embedded(":memory:") as log:
        await log.create_topic("a", 2)
        async with Engine(log, options or EngineOptions(), Metrics(), topics=topics).open() as engine:
            yield log, engine


async def subscribe(log: EmbeddedLog, engine: Engine, *numbers: int, streams: tuple[str, ...] = ("edits",)) -> Client:
    client = Client()
    cursor = await log.resolve({TopicPartition("a", n): Edge.EARLIEST for n in numbers})
    cursor.partial = not streams
    client.subscription = await engine.subscribe(cursor, client.wire, Form(), streams=streams)
    client.wire.on_lost = client.subscription.close
    return client


async def add(log: EmbeddedLog, topic: str, *numbers: int) -> None:
    await log.append([NewRecord(topic, b'{"n":%d}' % n, b"%d" % n) for n in numbers])


async def test_added_partitions_are_taken_up_from_their_beginning() -> None:
    async with running(StreamCatalog([stream("a")])) as (log, engine):
        client = await subscribe(log, engine, 0, 1)
        await log.create_topic("a", 4)
        await add(log, "a", *range(20))
        await engine.growth.refresh()
        await client.read(20)
        assert sorted(event["n"] for event in client.events) == list(range(20))
        assert {event["meta"]["partition"] for event in client.events} == {0, 1, 2, 3}
        client.close()


async def test_topic_added_to_a_stream_reaches_who_is_connected() -> None:
    catalog = StreamCatalog([stream("a")])
    async with running(catalog, EngineOptions(partition_refresh=0.02)) as (log, engine):
        client = await subscribe(log, engine, 0, 1)
        catalog.swap([stream("a", "later")])
        await add(log, "a", 1)
        await client.read(1)
        await log.create_topic("later")
        await add(log, "later", 2)
        await client.read(2)
        await add(log, "later", 3)
        await client.read(3)
        assert [(event["n"], event["meta"]["topic"]) for event in client.events[1:]] == [(2, "later"), (3, "later")]
        assert {entry["topic"] for entry in client.last_id} == {"a", "later"}
        client.close()


async def test_stream_that_is_gone_from_the_configuration_goes_on_for_who_is_connected() -> None:
    catalog = StreamCatalog([stream("a")])
    async with running(catalog) as (log, engine):
        client = await subscribe(log, engine, 0, 1)
        catalog.swap([])
        await engine.growth.refresh()
        await add(log, "a", 1)
        await client.read(1)
        client.close()


async def test_who_asked_for_some_partitions_is_left_with_them() -> None:
    async with running(StreamCatalog([stream("a")])) as (log, engine):
        client = await subscribe(log, engine, 1, streams=())
        await log.create_topic("a", 4)
        await engine.growth.refresh()
        assert client.subscription is not None
        assert client.subscription.ids.partitions == (TopicPartition("a", 1),)
        client.close()


async def test_partition_is_read_on_for_the_grace_period_after_its_last_subscriber() -> None:
    partition = TopicPartition("a", 0)
    async with running(StreamCatalog([stream("a")]), EngineOptions(grace=0.2)) as (log, engine):
        (await subscribe(log, engine, 0)).close()
        await log.append([NewRecord("a", b'{"n":%d}' % n, b"k") for n in range(50)])
        # Who comes back within it finds the tail as it was left: there is nothing to be read from the log.
        again = Client()
        again.subscription = await engine.subscribe(Cursor([(partition, Next(0))]), again.wire, Form())
        again.wire.on_lost = again.subscription.close
        assert engine.tail.covers(partition, 0)
        again.close()
        await eventually(lambda: partition not in engine.tail.partitions)
        read = engine.metrics.registry.get_sample_value("eventstreams_live_records_total")
        await log.append([NewRecord("a", b'{"n":1}', b"k")])
        other = await subscribe(log, engine, 0, 1)
        other.close()
        assert engine.metrics.registry.get_sample_value("eventstreams_live_records_total") == read


async def test_stream_that_grows_beyond_what_an_id_can_tell_ends_with_the_reason() -> None:
    async with running(StreamCatalog([stream("a")])) as (log, engine):
        client = await subscribe(log, engine, 0, 1)
        await log.create_topic("a", 2000)
        await engine.growth.refresh()
        said = await client.rest()
        assert b"event: error" in said
        assert b"2000 partitions: its event ids may take" in said
        client.close()
        assert engine.subscriptions() == []
