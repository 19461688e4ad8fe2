"""The spool on disk: one SQLite file for each process, locked while it lives. All of it blocks: one thread's work.

A record stays until the log has acknowledged it. `tried` tells that the log may have it already, because an append of
it was begun: it is looked for before it is sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import apsw

from eventstreams.errors import ConfigurationError, LogError
from eventstreams.records import NewRecord, Record

Fate = asyncio.Future[Record | LogError]

FORMAT = 1
SUFFIX = ".spool"
ROW_BYTES = 64
"""What a record costs on disk beside its key and value."""

BUSY_TIMEOUT = 5000

TABLES = """
CREATE TABLE IF NOT EXISTS records (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  topic TEXT NOT NULL, key BLOB, value BLOB NOT NULL, timestamp INTEGER,
  arrived INTEGER NOT NULL, tried INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS by_topic ON records (topic, seq);
CREATE TABLE IF NOT EXISTS refused (
  seq INTEGER PRIMARY KEY, topic TEXT NOT NULL, key BLOB, value BLOB NOT NULL, timestamp INTEGER,
  arrived INTEGER NOT NULL, reason TEXT NOT NULL);
"""


class Kept(NamedTuple):
    """A record in the spool; `arrived` in ms since the epoch. `seq` is given by the file."""

    record: NewRecord
    arrived: int
    tried: bool
    seq: int = 0
    fate: Fate | None = None
    """What will tell how the attempt ends, where this process has begun it. Not in the file."""


class Held(NamedTuple):
    """What a file holds of a topic."""

    events: int
    size: int


def size_of(record: NewRecord) -> int:
    """Return what a record counts against the spool's bound."""
    return len(record.value) + len(record.key or b"") + ROW_BYTES


class SpoolFile:
    """One file. Made by `create` and `adopt`."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        self._db = apsw.Connection(str(path))
        self._db.set_busy_timeout(BUSY_TIMEOUT)
        self._db.pragma("journal_mode", "wal")
        self._db.pragma("synchronous", "full")
        version = self._db.pragma("user_version")
        if version not in (0, FORMAT):
            raise ConfigurationError(f"spool file {path} has format {version}: expected {FORMAT}")
        self._db.execute(TABLES)
        self._db.pragma("user_version", FORMAT)

    def put(self, kept: Sequence[Kept]) -> Sequence[int]:
        """Write records behind what there is, all or none; on disk on return, of their numbers. Raises: apsw.Error."""
        rows = [(*_columns(one.record), one.arrived, one.tried) for one in kept]
        insert = "INSERT INTO records (topic, key, value, timestamp, arrived, tried) VALUES (?, ?, ?, ?, ?, ?)"
        with self._transaction():
            return [seq for (seq,) in self._db.executemany(f"{insert} RETURNING seq", rows)]

    def first(self, topic: str, limit: int, max_bytes: int) -> Sequence[Kept]:
        """Return a topic's oldest records, at most so many and so many bytes; one at least where there is one."""
        columns = "topic, value, key, timestamp, arrived, tried, seq"
        found: list[Kept] = []
        size = 0
        for *record, arrived, tried, seq in self._db.execute(
            f"SELECT {columns} FROM records WHERE topic = ? ORDER BY seq LIMIT ?", (topic, limit)
        ):
            kept = Kept(NewRecord(*record), arrived, bool(tried), seq)
            size += size_of(kept.record)
            if found and size > max_bytes:
                break
            found.append(kept)
        return found

    def mark_tried(self, kept: Sequence[Kept]) -> None:
        """Note durably that the log may come to have these."""
        with self._transaction():
            self._db.executemany("UPDATE records SET tried = 1 WHERE seq = ?", [(one.seq,) for one in kept])

    def remove(self, stored: Sequence[Kept], refused: Sequence[tuple[Kept, str]] = ()) -> None:
        """Forget what the log has acknowledged; put aside, with the reason, what it refuses for good."""
        aside = [(one.seq, *_columns(one.record), one.arrived, reason) for one, reason in refused]
        gone = [*stored, *(one for one, _ in refused)]
        with self._transaction():
            self._db.executemany("INSERT INTO refused VALUES (?, ?, ?, ?, ?, ?, ?)", aside)
            self._db.executemany("DELETE FROM records WHERE seq = ?", [(one.seq,) for one in gone])

    def held(self) -> Mapping[str, Held]:
        """Return what there is to replay, by topic."""
        size = f"sum(length(value) + ifnull(length(key), 0) + {ROW_BYTES})"
        rows = self._db.execute(f"SELECT topic, count(*), {size} FROM records GROUP BY topic")
        return {topic: Held(events, total) for topic, events, total in rows}

    def oldest(self) -> int | None:
        """Return when the oldest record arrived, in ms; None where there is none."""
        row = self._db.execute("SELECT arrived FROM records ORDER BY seq LIMIT 1").fetchone()
        return None if row is None else row[0]

    def shrink(self) -> None:
        """Give the disk back once all is replayed."""
        self._db.execute("VACUUM")
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close, and remove the file where it holds nothing any more."""
        with contextlib.suppress(apsw.Error):
            empty = self.oldest() is None and self._db.execute("SELECT 1 FROM refused LIMIT 1").fetchone() is None
            self._db.close()
            if empty:
                for suffix in ("-wal", "-shm", "", ".lock"):
                    Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        os.close(self._lock)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise


def _columns(record: NewRecord) -> tuple[str, bytes | None, bytes, int | None]:
    return record.topic, record.key, record.value, record.timestamp


def open_files(directory: Path) -> Sequence[SpoolFile]:
    """Return the files that no living process has, oldest first, and behind them a new one that is this process's.

    Raises: ConfigurationError for a directory that cannot be used, or a file of another format.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / "lock").open("w") as turn:
            # One at a time: a file that another process is just making is not taken for one left behind.
            fcntl.flock(turn, fcntl.LOCK_EX)
            left = sorted(directory.glob(f"*{SUFFIX}"))
            paths = [*left, directory / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}{SUFFIX}"]
            locked = [(path, lock) for path in paths if (lock := _locked(path)) is not None]
            return [SpoolFile(path, lock) for path, lock in locked]
    except (OSError, apsw.Error) as exc:
        raise ConfigurationError(
            f"spool {directory} cannot be used: {exc.strerror if isinstance(exc, OSError) else exc}"
        ) from exc


def _locked(path: Path) -> int | None:
    """Return a descriptor that holds the file's lock for this process's life; None where another one has it."""
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock
