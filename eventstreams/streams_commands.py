"""`eventstreams streams`: the stream configuration, shown and checked."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace

import click

from eventstreams.catalog.load import Problem, check, load_streams
from eventstreams.catalog.streams import StreamConfig, TopicSettings, topics_to_make
from eventstreams.errors import ConfigurationError, EventStreamsError
from eventstreams.eventlog.embedded.log import EmbeddedLog
from eventstreams.eventlog.kafka.admin import Plan, TopicsAdmin, WantedTopic, plan
from eventstreams.eventlog.kafka.options import record_bytes
from eventstreams.eventlog.open import kafka_servers, open_log
from eventstreams.services import catalog_options, check_configured
from eventstreams.settings import Settings, load_settings
from eventstreams.settings_file import settings_file

EXIT_PROBLEMS = 1

config_option = click.option(
    "--config", metavar="FILE", default=settings_file, help="Settings file (YAML); eventstreams.yaml where it is here."
)
set_option = click.option("--set", "assignments", metavar="NAME=VALUE", multiple=True, help="Set one setting.")


@click.group()
def streams() -> None:
    """Show and check the stream configuration, and make its topics."""


def _load(config: str | None, assignments: tuple[str, ...]) -> tuple[Sequence[StreamConfig], Sequence[Problem]]:
    try:
        settings = load_settings(config, assignments)
        check_configured(settings)
        return check(settings.streams, catalog_options(settings))
    except ConfigurationError as exc:
        click.echo(f"eventstreams: {exc}", err=True)
        sys.exit(EXIT_PROBLEMS)


@streams.command("list")
@config_option
@set_option
def list_command(config: str | None, assignments: tuple[str, ...]) -> None:
    """Show each stream with its schema and topics.

    Example: eventstreams streams list --set streams=config/streams.yaml
    """
    for stream in _load(config, assignments)[0]:
        note = f" (alias of {stream.alias_of})" if stream.alias_of else ""
        click.echo(f"{stream.name}{note}\t{stream.schema_title or '-'}\t{','.join(stream.topics) or '-'}")


@streams.command("check")
@config_option
@set_option
def check_command(config: str | None, assignments: tuple[str, ...]) -> None:
    """Check the stream configuration; exit status 1 when something is wrong.

    Example: eventstreams streams check --set streams=config/streams.yaml
    """
    found, problems = _load(config, assignments)
    for problem in problems:
        click.echo(str(problem), err=True)
    click.echo(f"{len(found)} streams, {len(problems) or 'nothing'} wrong")
    if problems:
        sys.exit(EXIT_PROBLEMS)


@streams.command("apply")
@config_option
@set_option
@click.option("--dry-run", is_flag=True, help="Only print what would be done.")
def apply_command(config: str | None, assignments: tuple[str, ...], dry_run: bool) -> None:
    """Make missing topics in the log, on Kafka also missing partitions. Nothing is removed or made smaller.

    Example: eventstreams streams apply --set log=kafka://localhost:9092 --dry-run
    """
    try:
        asyncio.run(_apply(load_settings(config, assignments), dry_run=dry_run))
    except EventStreamsError as exc:
        click.echo(f"eventstreams: {exc}", err=True)
        sys.exit(EXIT_PROBLEMS)


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
