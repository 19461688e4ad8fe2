"""`eventstreams streams`: the stream configuration, shown and checked."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from eventstreams.catalog.load import Problem, check
from eventstreams.catalog.streams import StreamConfig
from eventstreams.errors import ConfigurationError
from eventstreams.services import catalog_options
from eventstreams.settings import load_settings

EXIT_PROBLEMS = 1

config_option = click.option("--config", metavar="FILE", help="Settings file (YAML).")
set_option = click.option("--set", "assignments", metavar="NAME=VALUE", multiple=True, help="Set one setting.")


@click.group()
def streams() -> None:
    """Show and check the stream configuration."""


def _load(config: str | None, assignments: tuple[str, ...]) -> tuple[Sequence[StreamConfig], Sequence[Problem]]:
    try:
        settings = load_settings(config, assignments)
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
