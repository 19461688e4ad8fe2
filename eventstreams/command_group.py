"""What commands have in common: how they end, and their options for settings, numbers and files."""

from __future__ import annotations

import math
import signal
import sys
from pathlib import Path
from typing import Any

import click

from eventstreams.errors import ConfigurationError, EventStreamsError
from eventstreams.server import EXIT_INTERRUPTED
from eventstreams.setting_types import seconds
from eventstreams.settings_file import settings_file

EXIT_CONFIGURATION = 2

config_option = click.option(
    "--config", metavar="FILE", default=settings_file, help="Settings file (YAML); eventstreams.yaml where it is here."
)
set_option = click.option(
    "--set",
    "assignments",
    metavar="NAME=VALUE",
    multiple=True,
    help="Set one setting, over environment and file; repeatable.",
)


class Commands(click.Group):
    """Commands that end with a sentence for what is wrong, and quietly when they are interrupted."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; exit status 2 for errors of this project, 130 for Ctrl-C."""
        try:
            return super().invoke(ctx)
        except EventStreamsError as exc:
            click.echo(f"eventstreams: {exc}", err=True)
            sys.exit(EXIT_CONFIGURATION)
        except KeyboardInterrupt:
            # A second Ctrl-C at the very end would still show a traceback.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            sys.exit(EXIT_INTERRUPTED)


class Number(click.ParamType):  # type: ignore[type-arg]
    """A finite number in a range, or with `times` seconds, as in `90`, `90s` or `1h30m`."""

    def __init__(self, least: float, most: float, *, times: bool = False) -> None:
        self.name = "seconds" if times else "number"
        self._least = least
        self._most = most
        self._times = times

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number; told as a wrong option otherwise."""
        try:
            number = float(seconds(value) if self._times else value)
        except (ValueError, OverflowError):
            number = math.nan
        if not self._least <= number <= self._most:
            kind = "seconds, or a time such as 5m," if self._times else "a number"
            self.fail(f"{value!r}: expected {kind} from {self._least:.15g} to {self._most:.15g}", param, ctx)
        return number


def writable(path: Path | None, option: str) -> None:
    """Make sure that a file can be written where an option says. Raises: ConfigurationError."""
    if path is None:
        return
    try:
        with path.open("ab"):
            pass
    except OSError as exc:
        raise ConfigurationError(f"{option} {path}: cannot be written: {exc.strerror}") from exc
