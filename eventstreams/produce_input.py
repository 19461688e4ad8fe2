"""What `eventstreams produce` reads, and how far it has come: lines, batches of them, and the progress file."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from eventstreams.deliveries import identity, with_id
from eventstreams.errors import ConfigurationError, ProducerError

PAUSE = 0.1
"""Seconds without another line after which a batch is sent as it is: who types or follows a log waits no longer."""

READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the input, counted from 1: an event, or why it is none."""

    number: int
    text: bytes
    event: Any = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """All lines up to `lines` are settled. Kept in a file, it lets the next run go on there."""

    run: str
    """Random; the ids of events without one follow from it and their line, so that the next run gives the same."""
    lines: int = 0
    digest: str = ""
    """Of the last settled line: tells another file from this one."""
    accepted: int = 0
    refused: int = 0

    def moved(self, line: Line, accepted: int, refused: int) -> Progress:
        """Return the progress after a batch that ends with `line`."""
        return replace(self, lines=line.number, digest=_digest(line.text), accepted=accepted, refused=refused)

    def save(self, path: Path) -> None:
        """Write it whole or not at all. Raises: ProducerError."""
        beside = path.with_name(f"{path.name}.new")
        try:
            with beside.open("w") as file:
                json.dump(asdict(self), file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except OSError as exc:
            raise ProducerError(f"--progress {path}: cannot be written: {exc.strerror}") from exc

    @classmethod
    def check(cls, path: Path | None) -> None:
        """Make sure that progress can be noted there, and is what an earlier run noted if there is some.

        Raises: ConfigurationError.
        """
        if path is None:
            return
        try:
            cls.load(path)
            tempfile.TemporaryFile(dir=path.parent).close()
        except ProducerError as exc:
            raise ConfigurationError(exc.message) from exc
        except OSError as exc:
            raise ConfigurationError(f"--progress {path}: cannot be written: {exc.strerror}") from exc

    @classmethod
    def load(cls, path: Path | None) -> Progress:
        """Return what an earlier run noted, else a new one. Raises: ProducerError for what is no progress file."""
        if path is None or not path.exists():
            return cls(str(uuid.uuid4()))
        try:
            found = cls(**json.loads(path.read_text()))
            uuid.UUID(found.run)
        except (ValueError, TypeError, AttributeError, OSError) as exc:
            raise ProducerError(f"--progress {path}: it is no progress file of `eventstreams produce`") from exc
        return found


async def read_lines(file: BinaryIO) -> AsyncIterator[bytes | None]:
    """Yield the lines of a file, a pipe or a terminal as they come, and None whenever no more has come for a while."""
    pieces: list[bytes] = []
    idle = True
    while True:
        if not await _readable(file.fileno(), None if idle else PAUSE):
            idle = True
            yield None
            continue
        piece = os.read(file.fileno(), READ_BYTES)
        if not piece:
            break
        idle = False
        first, *others = piece.split(b"\n")
        pieces.append(first)
        for other in others:
            yield b"".join(pieces)
            pieces = [other]
    if last := b"".join(pieces):
        yield last


async def _readable(descriptor: int, timeout: float | None) -> bool:
    """Wait until reading does not block, not longer than so many seconds: a blocked read would not see Ctrl-C."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(descriptor, ready.set)
    except PermissionError:
        return True  # A file on disk: there is nothing to wait for.
    try:
        async with asyncio.timeout(timeout):
            await ready.wait()
        return True
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)


async def lines_after(
    source: AsyncIterator[bytes | None], progress: Progress, *, stable_ids: bool
) -> AsyncIterator[Line | None]:
    """Yield the lines that are not settled, blank ones left out. Raises: ProducerError for another input."""
    reached, number = progress.lines == 0, 0
    run = uuid.UUID(progress.run) if stable_ids else None
    async for text in source:
        if text is None:
            yield None
            continue
        number += 1
        if number == progress.lines:
            reached = _digest(text) == progress.digest
            if not reached:
                break
        if number > progress.lines and text.strip():
            yield _line(number, text, run)
    if not reached:
        raise ProducerError(f"line {progress.lines} is not the one of the progress file: it belongs to another input")


async def lines_after_id(lines: AsyncIterator[Line | None], wanted: str | None) -> AsyncIterator[Line | None]:
    """Yield the lines that follow the event of a `meta.id`. Raises: ProducerError when none has it."""
    found = wanted is None
    async for line in lines:
        if line is None or found:
            yield line
        else:
            found = identity(line.event) == wanted
    if not found:
        raise ProducerError(f"--resume-after {wanted}: no event of the input has this meta.id")


async def batches(lines: AsyncIterator[Line | None], most: int, most_bytes: int) -> AsyncIterator[list[Line]]:
    """Yield the lines in lists of at most `most`, of `most_bytes` in all unless one alone is larger; less at a None."""
    batch: list[Line] = []
    held = 0
    async for line in lines:
        if batch and (line is None or len(batch) == most or held + len(line.text) > most_bytes):
            yield batch
            batch, held = [], 0
        if line is not None:
            batch.append(line)
            held += len(line.text)
    if batch:
        yield batch


def _line(number: int, text: bytes, run: uuid.UUID | None) -> Line:
    try:
        # Not the faster parser: it rounds integers over 64 bits and refuses lone surrogates.
        event = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        return Line(number, text, problem="is nested too deep")
    except ValueError as exc:
        return Line(number, text, problem=f"is no JSON: {exc}")
    return Line(number, text, event if run is None else with_id(event, str(uuid.uuid5(run, str(number)))))


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _digest(text: bytes) -> str:
    return hashlib.sha256(text.rstrip(b"\r")).hexdigest()[:32]
