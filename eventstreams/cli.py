"""The command line: `eventstreams` and its commands."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable

import click

from eventstreams import logs, processes
from eventstreams.command_group import Commands, Number, config_option, set_option
from eventstreams.producing import produce
from eventstreams.runtime import LOOPS
from eventstreams.settings import Settings, load_settings
from eventstreams.streams_commands import streams
from eventstreams.tailing import tail

HINTS = """\
Streams are served at {gateway}, events taken at {intake}. Try, in another terminal:

  curl -N {gateway}/v2/stream/recentchange
  curl -N "{gateway}/v2/stream/recentchange,page-create?since=$(date -u -d '10 minutes ago' +%FT%TZ)"
  curl -N -H 'Accept: application/json' {gateway}/v2/stream/test.event
  curl -i {intake}/v1/events -H 'Content-Type: application/json' -d \\
    '{{"$schema":"/test/event/1.0.0","meta":{{"stream":"test.event"}},"test":"hello"}}'

Ctrl-C stops it."""


@click.group(cls=Commands)
@click.version_option(package_name="eventstreams")
def main() -> None:
    """Public server-sent event streams over an event log, with validated intake."""


main.add_command(produce)
main.add_command(streams)
main.add_command(tail)


workers_option = click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(1, 1024), help="Processes that share the port."
)


@main.command("serve")
@config_option
@set_option
@workers_option
def serve_command(config: str | None, assignments: tuple[str, ...], workers: int) -> None:
    """Serve the gateway.

    Example: eventstreams serve --set gateway.port=8092 --set log=embedded:data/events.db
    """
    _serve("serve", config, assignments, workers, _says("serving streams at {}"))


@main.command("intake")
@config_option
@set_option
@workers_option
def intake_command(config: str | None, assignments: tuple[str, ...], workers: int) -> None:
    """Take events: POST /v1/events.

    Example: eventstreams intake --set intake.port=8192 --set log=kafka://localhost:9092
    """
    _serve("intake", config, assignments, workers, _says("taking events at {}"))


@main.command("worker", hidden=True)
@click.argument("name", type=click.Choice(sorted(processes.SERVICES)))
@config_option
@set_option
@click.argument("sockets")
def worker_command(name: str, config: str | None, assignments: tuple[str, ...], sockets: str) -> None:
    """Be one of the processes of `--workers`: started by their supervisor, on descriptors of its sockets."""
    given = processes.Sockets(*(socket.socket(fileno=int(fd)) for fd in sockets.split(",")))
    _run(config, assignments, lambda settings: processes.worker(name, settings, given), loop=LOOPS.get(name))


@main.command()
@config_option
@set_option
@click.option(
    "--rate", default=5.0, show_default=True, type=Number(0.01, 1000), help="Demo events a second: 0.01 to 1000."
)
def dev(config: str | None, assignments: tuple[str, ...], rate: float) -> None:
    """Serve gateway and intake with demo traffic, on the embedded log.

    Example: eventstreams dev --rate 50
    """

    def ready(gateway: str, intake: str) -> None:
        click.echo(HINTS.format(gateway=gateway, intake=intake))

    # Deliberate: refused demo events are told by the error stream, not by error events that nobody configured.
    errors = ("intake.error_stream=eventstreams-intake.error.validation",)
    _run(config, (*errors, *assignments), lambda settings: processes.dev(settings, rate, ready), log_level="warning")


def _serve(name: str, config: str | None, assignments: tuple[str, ...], workers: int, ready: processes.Ready) -> None:
    """Run a service in this process, or in several below this one."""
    if workers == 1:
        service, loop = processes.SERVICES[name], LOOPS.get(name)
        _run(config, assignments, lambda settings: service(settings, ready), loop=loop)
        return
    given = ["--config", config] if config else []
    flags = [part for assignment in assignments for part in ("--set", assignment)]
    arguments = ["-m", "eventstreams", "worker", name, *given, *flags]
    _run(config, assignments, lambda settings: processes.supervise(name, settings, workers, arguments, ready))


def _says(words: str) -> Callable[[str], None]:
    return lambda url: click.echo(words.format(url))


def _run(
    config: str | None,
    assignments: tuple[str, ...],
    job: Callable[[Settings], Awaitable[int | None]],
    *,
    log_level: str = "info",
    loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """Run a process to its end on a loop that `loop` makes; `log_level` is for where the settings leave it open."""

    async def run() -> int | None:
        settings = load_settings(config, assignments)
        logs.set_up(settings.log_level or log_level)
        return await job(settings)

    with asyncio.Runner(loop_factory=loop) as runner:
        sys.exit(runner.run(run()))
