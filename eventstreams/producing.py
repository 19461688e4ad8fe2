"""`eventstreams produce`: events from a file or standard input to intake."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import click

from eventstreams.command_group import Number, writable
from eventstreams.deliveries import Refusal, identity
from eventstreams.errors import NoIntake, ProducerError
from eventstreams.produce_input import Line, Progress, batches, lines_after, lines_after_id, read_lines
from eventstreams.producer import Producer

PROGRESS_SECONDS = 2.0
SHOWN = 300
EXIT_REFUSED = 1
EXIT_NO_INTAKE = 2
EXIT_STOPPED = 3
EXIT_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Options:
    """The command's options, as --help tells them."""

    url: str
    batch: int
    batch_bytes: int
    gzip: bool
    hasty: bool
    validate_only: bool
    patience: float
    progress: Path | None
    rejected: Path | None
    resume_after: str | None


_path = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--url", default="http://127.0.0.1:8192", show_default=True, help="Intake to send to.")
@click.option("--batch", default=100, show_default=True, type=click.IntRange(1, 10_000), help="Events a request.")
@click.option("--batch-bytes", default=2**20, show_default=True, type=click.IntRange(1, 2**30), help="Bytes a request.")
@click.option("--gzip", is_flag=True, help="Send bodies with gzip.")
@click.option("--hasty", is_flag=True, help="Do not wait until the events are stored.")
@click.option("--validate-only", is_flag=True, help="Only tell what would become of the events; nothing is stored.")
@click.option(
    "--patience",
    default=60.0,
    show_default=True,
    type=Number(0, 1e6, times=True),
    help="Seconds to try a batch that is not taken, or a time such as 5m.",
)
@click.option("--progress", type=_path, help="Note there what is settled; a later run of the same goes on from it.")
@click.option("--rejected", type=_path, help="Append what was refused, with line and reason, as JSON lines.")
@click.option("--resume-after", metavar="ID", help="Skip all events up to the one with this meta.id.")
def produce(file: BinaryIO, **given: Any) -> None:
    """Send events to intake: one JSON object a line, from FILE or standard input.

    What intake cannot take for the moment is sent again; what it refuses is told with the reason.

    \b
    Exit status: 0 all accepted; 1 some refused; 2 wrong options; 3 stopped
    before the end, because intake did not take a batch; 130 interrupted.
    2 is also for a URL at which no intake is.

    \b
    Example: eventstreams produce events.ndjson --progress events.progress --rejected rejected.ndjson
    Example: echo '{"$schema":"/test/event/1.0.0","meta":{"stream":"test.event"}}' | eventstreams produce
    """
    options = Options(**given)
    if options.validate_only and options.progress:
        raise click.UsageError("--validate-only notes no progress: leave out --progress")
    writable(options.rejected, "--rejected")
    Progress.check(options.progress)
    with contextlib.ExitStack() as held:
        rejected = held.enter_context(options.rejected.open("a")) if options.rejected else None
        sys.exit(_Run(options, rejected).status(file))


class _Run:
    """One run over the input, and how far it has come."""

    def __init__(self, options: Options, rejected: Any) -> None:
        self._options = options
        self._rejected = rejected
        self._accepted = 0
        self._refused = 0
        self._has_begun = False
        self._last_id: str | None = None
        self._began = self._told = time.monotonic()

    def status(self, file: BinaryIO) -> int:
        """Send the input and return the exit status."""
        try:
            asyncio.run(self._send_all(file))
        except NoIntake as exc:
            click.echo(f"eventstreams: {exc}", err=True)
            if not self._has_begun:
                return EXIT_NO_INTAKE
            self._say_how_to_go_on()
            return EXIT_STOPPED
        except ProducerError as exc:
            click.echo(f"eventstreams: {exc}", err=True)
            self._say_how_to_go_on()
            return EXIT_STOPPED
        except KeyboardInterrupt:
            self._say_how_to_go_on()
            return EXIT_INTERRUPTED
        would = "would be " if self._options.validate_only else ""
        click.echo(f"{self._accepted} {would}accepted, {self._refused} refused", err=True)
        return EXIT_REFUSED if self._refused else 0

    def _say_how_to_go_on(self) -> None:
        click.echo(f"{self._accepted} accepted, {self._refused} refused until then", err=True)
        if self._options.progress is not None:
            click.echo("to go on: run the same again", err=True)
        elif self._last_id is not None:
            click.echo(f"to go on: eventstreams produce --resume-after {self._last_id} ...", err=True)

    async def _send_all(self, file: BinaryIO) -> None:
        options = self._options
        progress = Progress.load(options.progress)
        self._start(progress)
        unsettled = lines_after(read_lines(file), progress, stable_ids=options.progress is not None)
        lines = lines_after_id(unsettled, options.resume_after)
        async with Producer(options.url, patience=options.patience, compress=options.gzip) as producer:
            async for batch in batches(lines, options.batch, options.batch_bytes):
                await self._send(producer, batch)
                progress = self._note(progress, batch)
        if options.progress is not None:
            options.progress.unlink(missing_ok=True)

    def _start(self, progress: Progress) -> None:
        self._accepted, self._refused = progress.accepted, progress.refused
        if progress.lines:
            click.echo(f"going on after line {progress.lines}", err=True)
        elif self._options.progress is not None:
            progress.save(self._options.progress)

    async def _send(self, producer: Producer, batch: list[Line]) -> None:
        events = [line for line in batch if line.problem is None]
        sent = await producer.send(
            [line.event for line in events], hasty=self._options.hasty, validate_only=self._options.validate_only
        )
        self._has_begun = True
        self._accepted += sent.accepted
        unread = (_Rejected(line, None) for line in batch if line.problem is not None)
        self._reject([*unread, *(_Rejected(events[refusal.index], refusal) for refusal in sent.refused)])

    def _reject(self, rejected: Iterable[_Rejected]) -> None:
        for one in sorted(rejected, key=lambda one: one.line.number):
            self._refused += 1
            click.echo(one.sentence(), err=True)
            if self._rejected is not None:
                self._rejected.write(json.dumps(one.item()) + "\n")
        if self._rejected is not None:
            self._rejected.flush()

    def _note(self, progress: Progress, batch: list[Line]) -> Progress:
        progress = progress.moved(batch[-1], self._accepted, self._refused)
        if self._options.progress is not None:
            progress.save(self._options.progress)
        self._last_id = next((found for line in reversed(batch) if (found := identity(line.event))), self._last_id)
        now = time.monotonic()
        if now - self._told > PROGRESS_SECONDS:
            self._told = now
            seconds = f"line {batch[-1].number}, {now - self._began:.0f} s"
            click.echo(f"{self._accepted} accepted, {self._refused} refused so far ({seconds})", err=True)
        return progress


@dataclass(frozen=True, slots=True)
class _Rejected:
    line: Line
    refusal: Refusal | None

    def sentence(self) -> str:
        """Return what standard error shows."""
        if self.refusal is None:
            return f"line {self.line.number} {self.line.problem}"
        text = self.line.text.decode(errors="replace").strip()[:SHOWN]
        return f"line {self.line.number}: {self.refusal.status}: {self.refusal.message}: {text}"

    def item(self) -> dict[str, Any]:
        """Return what the file of rejected events holds."""
        if self.refusal is None:
            text = self.line.text.decode(errors="replace").rstrip("\r\n")
            return {"line": self.line.number, "status": "error", "message": self.line.problem, "text": text}
        found = {"line": self.line.number, "status": self.refusal.status, "message": self.refusal.message}
        return found | {"errors": list(self.refusal.errors), "event": self.refusal.event}
