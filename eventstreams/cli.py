"""The command line: `eventstreams` and its commands."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

import click

from eventstreams import logs, processes, startup
from eventstreams.command_group import Commands, Number, config_option, set_option
from eventstreams.demo.sample import with_demo
from eventstreams.init_command import init
from eventstreams.listening import Listening, Sockets
from eventstreams.producing import produce
from eventstreams.runtime import LOOPS
from eventstreams.settings import Settings, load_settings
from eventstreams.startup import Started, lines
from eventstreams.streams_commands import streams
from eventstreams.tailing import tail


@click.group(cls=Commands)
@click.version_option(package_name="eventstreams")
def main() -> None:
    """Public server-sent event streams over an event log, with validated intake."""


main.add_command(init)
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
    _serve("serve", config, assignments, workers)


@main.command("intake")
@config_option
@set_option
@workers_option
def intake_command(config: str | None, assignments: tuple[str, ...], workers: int) -> None:
    """Take events: POST /v1/events.

    Example: eventstreams intake --set intake.port=8192 --set log=kafka://localhost:9092
    """
    _serve("intake", config, assignments, workers)


@main.command("worker", hidden=True)
@click.argument("name", type=click.Choice(sorted(processes.SERVICES)))
@config_option
@set_option
@click.argument("sockets")
def worker_command(name: str, config: str | None, assignments: tuple[str, ...], sockets: str) -> None:
    """Be one of the processes of `--workers`: started by their supervisor, on descriptors of its sockets."""
    *main, admin = (socket.socket(fileno=int(fd)) for fd in sockets.split(","))
    given = Sockets(Listening(main), Listening([admin]))
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

    def ready(told: Started, hints: str) -> None:
        _tell(config, told)
        click.echo(hints)

    def job(settings: Settings) -> Awaitable[int]:
        return processes.dev(with_demo(settings, config), rate, ready)

    _run(config, assignments, job, log_level="warning")


def _serve(name: str, config: str | None, assignments: tuple[str, ...], workers: int) -> None:
    """Run a service in this process, or in several below this one."""
    ready = partial(_tell, config)
    if workers == 1:
        service, loop = processes.SERVICES[name], LOOPS.get(name)
        _run(config, assignments, lambda settings: service(settings, ready), loop=loop)
        return
    given = ["--config", config] if config else []
    flags = [part for assignment in assignments for part in ("--set", assignment)]
    arguments = ["-m", "eventstreams", "worker", name, *given, *flags]
    _run(config, assignments, lambda settings: processes.supervise(name, settings, workers, arguments, ready))


def _tell(config: str | None, told: Started) -> None:
    """Say what has started: to people, and to whoever reads the log where that is not the same screen."""
    told = replace(told, settings=config)
    if not sys.stderr.isatty():
        startup.logger.info("started", extra=told.fields())
    for line in lines(told):
        click.echo(line)


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
        if settings.log_level is None:
            # One line that `dev` tells too, whose lines for each request would be in the way.
            startup.logger.setLevel(logging.INFO)
        return await job(settings)

    with asyncio.Runner(loop_factory=loop) as runner:
        sys.exit(runner.run(run()))
