"""The command line: `eventstreams dev` and `eventstreams serve`."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable

import click

from eventstreams.demo import traffic
from eventstreams.errors import EventStreamsError
from eventstreams.server import open_log_of, serve
from eventstreams.settings import Settings, load_settings

EXIT_CONFIGURATION = 2

HINTS = """\
Streams are served at {url}. Try, in another terminal:

  curl -N {url}/v2/stream/recentchange
  curl -N -H 'Accept: application/json' {url}/v2/stream/recentchange,page-create
  curl -N "{url}/v2/stream/recentchange?since=$(date -u -d '10 minutes ago' +%FT%TZ)"

Ctrl-C stops it."""

config_option = click.option("--config", metavar="FILE", help="Settings file (YAML).")
set_option = click.option("--set", "assignments", metavar="NAME=VALUE", multiple=True, help="Set one setting.")


@click.group()
@click.version_option(package_name="eventstreams")
def main() -> None:
    """Public server-sent event streams over an event log."""


@main.command("serve")
@config_option
@set_option
def serve_command(config: str | None, assignments: tuple[str, ...]) -> None:
    """Serve the gateway.

    Example: eventstreams serve --set gateway.port=8092 --set log=embedded:data/events.db
    """
    _run(config, assignments, _serve)


@main.command()
@config_option
@set_option
@click.option("--rate", default=5.0, type=click.FloatRange(min=0.01, max=1000), help="Demo events per second.")
def dev(config: str | None, assignments: tuple[str, ...], rate: float) -> None:
    """Serve the gateway with demo traffic on the embedded log.

    Example: eventstreams dev --rate 50
    """
    _run(config, assignments, lambda settings: _dev(settings, rate))


def _run(config: str | None, assignments: tuple[str, ...], job: Callable[[Settings], Awaitable[None]]) -> None:
    async def run() -> None:
        await job(load_settings(config, assignments))

    try:
        # uvicorn raises the signal that it has caught once more, after its own end: it is obeyed already.
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(run())
    except EventStreamsError as exc:
        click.echo(f"eventstreams: {exc}", err=True)
        sys.exit(EXIT_CONFIGURATION)


async def _serve(settings: Settings) -> None:
    async with open_log_of(settings) as log:
        await serve(settings, log, ready=lambda url: click.echo(f"serving streams at {url}"))


async def _dev(settings: Settings, rate: float) -> None:
    async with open_log_of(settings) as log:
        producing = asyncio.create_task(traffic.run(log, rate), name="demo traffic")
        try:
            await serve(settings, log, ready=lambda url: click.echo(HINTS.format(url=url)))
        finally:
            producing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await producing
