"""`eventstreams produce`: events from a file or standard input to intake."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

import click
import orjson

from eventstreams.errors import ProducerError
from eventstreams.producer import Producer, Sent

MAX_BATCH_BYTES = 1024 * 1024
PROGRESS_SECONDS = 2.0
EXIT_REFUSED = 1
EXIT_STOPPED = 3


@click.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--url", default="http://127.0.0.1:8192", show_default=True, help="Intake to send to.")
@click.option("--batch", default=100, show_default=True, type=click.IntRange(1, 10_000), help="Events a request.")
@click.option("--hasty", is_flag=True, help="Do not wait until the events are stored.")
@click.option("--patience", default=60.0, show_default=True, help="Seconds to try a batch that is not taken.")
@click.option("--resume-after", metavar="ID", help="Skip all events up to the one with this meta.id.")
def produce(file: BinaryIO, url: str, batch: int, hasty: bool, patience: float, resume_after: str | None) -> None:
    """Send events to intake: one JSON object a line, from FILE or standard input.

    Tells what was refused, and why. When intake stays away it says after which event to go on.

    \b
    Example: eventstreams produce events.ndjson --batch 500
    Example: echo '{"$schema":"/test/event/1.0.0","meta":{"stream":"test.event"}}' | eventstreams produce
    """
    work = _Work(resume_after)
    try:
        asyncio.run(work.run(file, url, batch=batch, hasty=hasty, patience=patience))
    except ProducerError as exc:
        click.echo(f"eventstreams: {exc}", err=True)
        if work.last_id is not None:
            click.echo(f"to go on: eventstreams produce --resume-after {work.last_id} ...", err=True)
        sys.exit(EXIT_STOPPED)
    click.echo(f"{work.accepted} accepted, {work.refused} refused", err=True)
    if work.refused:
        sys.exit(EXIT_REFUSED)


class _Work:
    """One run over the input, and how far it has come."""

    def __init__(self, resume_after: str | None) -> None:
        self.accepted = 0
        self.refused = 0
        self.last_id: str | None = resume_after
        self._skip_to = resume_after
        self._told = time.monotonic()

    async def run(self, file: BinaryIO, url: str, *, batch: int, hasty: bool, patience: float) -> None:
        async with Producer(url, patience=patience) as producer:
            for events in self._batches(file, batch):
                self._note(await producer.send(events, hasty=hasty), events)
        if self._skip_to is not None:
            raise ProducerError(f"--resume-after {self._skip_to}: no event of the input has this meta.id")

    def _note(self, sent: Sent, events: list[Any]) -> None:
        self.accepted += sent.accepted
        self.refused += len(sent.refused)
        for refusal in sent.refused:
            click.echo(f"{refusal.status}: {refusal.message}: {orjson.dumps(refusal.event).decode()[:300]}", err=True)
        self.last_id = _id(events[-1]) or self.last_id
        if time.monotonic() - self._told > PROGRESS_SECONDS:
            self._told = time.monotonic()
            click.echo(f"{self.accepted} accepted, {self.refused} refused so far", err=True)

    def _batches(self, file: BinaryIO, size: int) -> Iterator[list[Any]]:
        events: list[Any] = []
        held = 0
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            event = self._event(line, number)
            if event is None:
                continue
            if events and (len(events) == size or held + len(line) > MAX_BATCH_BYTES):
                yield events
                events, held = [], 0
            events.append(event)
            held += len(line)
        if events:
            yield events

    def _event(self, line: bytes, number: int) -> Any:
        """Return the event of a line; None for one that was sent by an earlier run, or is no JSON (counted)."""
        try:
            event = orjson.loads(line)
        except orjson.JSONDecodeError as exc:
            self.refused += 1
            click.echo(f"line {number} is no JSON: {exc}", err=True)
            return None
        if self._skip_to is not None:
            if _id(event) == self._skip_to:
                self._skip_to = None
            return None
        return event


def _id(event: Any) -> str | None:
    meta = event.get("meta") if isinstance(event, dict) else None
    identity = meta.get("id") if isinstance(meta, dict) else None
    return identity if isinstance(identity, str) else None
