"""`eventstreams init`: a first configuration, with one stream and its schema."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from eventstreams.demo.sample import CONFIG
from eventstreams.errors import ConfigurationError
from eventstreams.settings import GatewaySettings, IntakeSettings
from eventstreams.settings_file import HERE, NAME

EXIT_CONFIGURATION = 2
STARTER = Path(__file__).parent / "starter"
OURS = {
    "log": f'"embedded:{HERE}/data/events.db"',
    "streams": f'"{HERE}/streams.yaml"',
    "schemas": f'["{HERE}/schemas"]',
}
"""What differs from the defaults: everything is beside the file, wherever it is started from."""

HEAD = f"""\
# Settings of eventstreams. What is commented out is as it is by default: take the # away, and that of its section, to
# change it. {HERE} is the folder of this file. Times are seconds, sizes bytes.
"""

STREAM = "example.greeting"
EVENT = '{"$schema":"/example/greeting/1.0.0","meta":{"stream":"example.greeting"},"greeting":"hello"}'
HINTS = """\
{written}

Start gateway and intake{inside}:

  eventstreams dev{config}

and in other terminals listen, and send an event:

  curl -N {gateway}/v2/stream/{stream}
  curl -i {intake}/v1/events -H 'Content-Type: application/json' -d \\
    '{event}'

As services, whose topics the first of these makes:

  eventstreams streams apply{config}
  eventstreams intake{config}
  eventstreams serve{config}"""


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Write a first configuration into DIR: settings, a stream and its schema. Nothing is overwritten.

    Example: eventstreams init shop
    """
    try:
        written = write(folder, starter_files())
    except ConfigurationError as exc:
        click.echo(f"eventstreams: {exc}", err=True)
        sys.exit(EXIT_CONFIGURATION)
    click.echo(_hints(folder, written))


def _hints(folder: Path, written: list[Path]) -> str:
    is_here = folder.resolve() == Path.cwd()
    return HINTS.format(
        written="\n".join(f"wrote {path}" for path in written),
        inside="" if is_here else f" (in {folder} itself without --config)",
        config="" if is_here else f" --config {shlex.quote(str(folder / NAME))}",
        gateway=f"http://127.0.0.1:{GatewaySettings.model_fields['port'].default}",
        intake=f"http://127.0.0.1:{IntakeSettings.model_fields['port'].default}",
        stream=STREAM,
        event=EVENT,
    )


def starter_files() -> Mapping[str, str]:
    """Return the texts of a first configuration by their paths."""
    files = sorted(path for path in STARTER.rglob("*") if path.is_file())
    sample = (CONFIG / NAME).read_text(encoding="utf-8")
    return {NAME: HEAD + commented(sample)} | {
        str(path.relative_to(STARTER)): path.read_text(encoding="utf-8") for path in files
    }


def commented(sample: str) -> str:
    """Return the sample of all settings with the defaults commented out, but for those that are OURS."""
    lines = sample.splitlines()[1:]
    return "".join(_commented(line) + "\n" for line in lines)


def _commented(line: str) -> str:
    name = line.partition(":")[0]
    if name in OURS:
        return f"{name}: {OURS[name]}"
    # A setting has no blank behind its #, so that it is told from what is said about it.
    return line if not line.strip() or line.lstrip().startswith("#") else "#" + line


def write(folder: Path, files: Mapping[str, str]) -> list[Path]:
    """Write the files below a folder, all or none; return where they are.

    Raises: ConfigurationError where one is there already, or the folder cannot be written.
    """
    paths = [folder / name for name in files]
    there = [path for path in paths if path.exists() or path.is_symlink()]
    if there:
        raise ConfigurationError(f"{there[0]} is there already: nothing was written")
    made: list[Path] = []
    try:
        for path, text in zip(paths, files.values(), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                made.append(path)
                file.write(text)
    except OSError as exc:
        for path in made:
            path.unlink()
        raise ConfigurationError(f"{exc.filename or folder} cannot be written: {exc.strerror}") from exc
    return paths
