"""`eventstreams streams`: the stream configuration, shown and checked."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

import click
import httpx

from eventstreams.catalog.load import check, gather, judged, load_streams
from eventstreams.catalog.review import review, titles_without_schema, unknown_names
from eventstreams.catalog.streams import StreamConfig, TopicSettings, topics_to_make
from eventstreams.command_group import config_option, set_option
from eventstreams.errors import EventStreamsError
from eventstreams.eventlog.embedded.log import EmbeddedLog
from eventstreams.eventlog.kafka.admin import Plan, TopicsAdmin, WantedTopic, plan
from eventstreams.eventlog.kafka.options import record_bytes
from eventstreams.eventlog.open import kafka_servers, open_log
from eventstreams.schemas.repository import SchemaRepository
from eventstreams.services import SCHEMA_TIMEOUT, catalog_options, check_configured, schema_repository
from eventstreams.settings import Settings, load_settings

EXIT_PROBLEMS = 1


@click.group()
def streams() -> None:
    """Show and check the stream configuration, and make its topics."""


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Tell a mistake of the stream configuration, or of the log, and exit; those of settings come before."""
    try:
        yield
    except EventStreamsError as exc:
        click.echo(f"eventstreams: {exc}", err=True)
        sys.exit(EXIT_PROBLEMS)


def _configured(config: str | None, assignments: tuple[str, ...]) -> Settings:
    settings = load_settings(config, assignments)
    check_configured(settings)
    return settings


def _count(streams: Sequence[StreamConfig]) -> str:
    """Return how many streams there are: an alias is another name of one."""
    aliases = sum(stream.alias_of is not None for stream in streams)
    names = f" with {aliases} alias{'es' * (aliases != 1)}" if aliases else ""
    count = len(streams) - aliases
    return f"{count} stream{'s' * (count != 1)}{names}"


@streams.command("list")
@config_option
@set_option
def list_command(config: str | None, assignments: tuple[str, ...]) -> None:
    """Show each stream with its schema and topics.

    Example: eventstreams streams list --set streams=config/streams.yaml
    """
    settings = _configured(config, assignments)
    with _told():
        streams, problems = check(settings.streams, catalog_options(settings))
    for problem in problems:
        click.echo(str(problem), err=True)
    for stream in streams:
        note = f" (alias of {stream.alias_of})" if stream.alias_of else ""
        click.echo(f"{stream.name}{note}\t{stream.schema_title or '-'}\t{','.join(stream.topics) or '-'}")


@streams.command("check")
@config_option
@set_option
def check_command(config: str | None, assignments: tuple[str, ...]) -> None:
    """Check the stream configuration; exit status 1 when something is wrong.

    Beside what keeps a service from starting it tells settings that look misspelt, and schema titles that no
    repository has.

    Example: eventstreams streams check --set streams=config/streams.yaml
    """
    settings = _configured(config, assignments)
    http = httpx.AsyncClient(timeout=SCHEMA_TIMEOUT, trust_env=False)
    repository = schema_repository(settings.schemas, http)
    with _told():
        found, problems = asyncio.run(_review(settings, http, repository))
    for problem in problems:
        click.echo(problem, err=True)
    click.echo(f"{_count(found)}, {len(problems) or 'nothing'} wrong")
    if problems:
        sys.exit(EXIT_PROBLEMS)


async def _review(
    settings: Settings, http: httpx.AsyncClient, repository: SchemaRepository
) -> tuple[Sequence[StreamConfig], Sequence[str]]:
    """Return the usable streams, and what is wrong with these or others."""
    options = catalog_options(settings)
    entries = gather(settings.streams, options)
    found, problems = judged(entries, options, review)
    async with http:
        titles = [stream.schema_title for stream in found if stream.schema_title and stream.alias_of is None]
        missing = await titles_without_schema(titles, repository)
    problems = [
        *problems,
        *(
            entries[stream.name].problem(("schema_title",), f"schema_title of stream {stream.name}: {reason}")
            for stream in found
            if stream.alias_of is None and (reason := missing.get(stream.schema_title or "")) is not None
        ),
    ]
    unknown = unknown_names(settings.allowed_streams, [stream.name for stream in found])
    return found, [*map(str, problems), *unknown]


@streams.command("apply")
@config_option
@set_option
@click.option("--dry-run", is_flag=True, help="Only print what would be done.")
def apply_command(config: str | None, assignments: tuple[str, ...], dry_run: bool) -> None:
    """Make missing topics in the log, on Kafka also missing partitions. Nothing is removed or made smaller.

    Example: eventstreams streams apply --set log=kafka://localhost:9092 --dry-run
    """
    settings = _configured(config, assignments)
    with _told():
        asyncio.run(_apply(settings, dry_run=dry_run))


async def _apply(settings: Settings, *, dry_run: bool) -> None:
    check_configured(settings)
    streams = load_streams(settings.streams, catalog_options(settings))
    topics = topics_to_make(streams, settings.intake.topic_prefix)
    wanted = [_wanted(name, topics[name]) for name in sorted(topics)]
    servers = kafka_servers(settings.log)
    if servers is None:
        await _apply_embedded(settings, wanted, dry_run=dry_run)
        return
    wanted = [_with_room(topic, settings.intake.max_event_bytes) for topic in wanted]
    admin = TopicsAdmin(servers, settings.kafka)
    made = plan(wanted, await admin.topics())
    _print(made)
    if dry_run:
        return
    for topic in made.create:
        await admin.create(topic)
    for name, partitions in made.grow.items():
        await admin.grow(name, partitions)
    click.echo(f"{len(made.create)} topics made, {len(made.grow)} grown")


async def _apply_embedded(settings: Settings, wanted: Sequence[WantedTopic], *, dry_run: bool) -> None:
    async with open_log(settings.log) as log:
        present = {topic.name: len(await log.partitions(topic.name)) for topic in wanted}
        made = plan(wanted, {name: count for name, count in present.items() if count})
        _print(Plan(made.create, {}, made.notes))
        if not dry_run and isinstance(log, EmbeddedLog):
            for topic in made.create:
                await log.create_topic(topic.name, topic.partitions or 1)
            click.echo(f"{len(made.create)} topics made")


def _wanted(name: str, settings: TopicSettings) -> WantedTopic:
    texts = {setting: str(value) for setting, value in settings.config.items()}
    return WantedTopic(name, settings.partitions, settings.replication_factor, texts)


def _with_room(topic: WantedTopic, event_bytes: int) -> WantedTopic:
    """Return the topic with room for the largest event that intake takes, unless configuration says how much."""
    return replace(topic, config={"max.message.bytes": str(record_bytes(event_bytes)), **topic.config})


def _print(made: Plan) -> None:
    for topic in made.create:
        settings = "".join(f" {name}={value}" for name, value in topic.config.items())
        partitions, replicas = topic.partitions or "default", topic.replication_factor or "default"
        click.echo(f"create {topic.name}: partitions {partitions}, replicas {replicas}{settings}")
    for name, partitions in made.grow.items():
        click.echo(f"grow {name} to {partitions} partitions")
    for note in made.notes:
        click.echo(note)
    if not made.create and not made.grow:
        click.echo("nothing to do")
