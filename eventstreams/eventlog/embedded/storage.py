"""The embedded log's file: tables, format version, and the statements on them. Blocking: run it on threads.

Each partition keeps its next offset in a row of its own, so that an offset is never given twice, not even after
retention has removed every record. Each record keeps the highest timestamp up to it (`reach`): it rises with the
offset, so that the first record at or after a time is one index look-up, however unordered the timestamps are.
"""

from __future__ import annotations

import base64
import time
import uuid
import zlib
from collections.abc import Iterable
from typing import Any, NamedTuple, cast

import apsw

from eventstreams.errors import ConfigurationError, LogError, LogUnavailable, UnknownTopic
from eventstreams.eventlog.base import TopicDescription
from eventstreams.records import NewRecord, Record, TopicPartition

FORMAT = 2
"""Rises when a file of an older version could not be read any more."""

BUSY_TIMEOUT_MS = 10_000
"""How long one process waits for another's write transaction; they last milliseconds."""

RETRY = 0.005
"""Seconds between tries where SQLite itself does not wait."""

SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE partitions (
  id INTEGER PRIMARY KEY, topic TEXT NOT NULL, number INTEGER NOT NULL,
  earliest INTEGER NOT NULL, next INTEGER NOT NULL, reach INTEGER NOT NULL, bytes INTEGER NOT NULL,
  identity TEXT NOT NULL DEFAULT '', UNIQUE (topic, number));
CREATE TABLE records (
  partition INTEGER NOT NULL, "offset" INTEGER NOT NULL, timestamp INTEGER NOT NULL, reach INTEGER NOT NULL,
  appended INTEGER NOT NULL, key BLOB, value BLOB NOT NULL, PRIMARY KEY (partition, "offset"));
CREATE INDEX records_by_reach ON records (partition, reach, "offset");
"""

NO_REACH = -(2**63)

CHECK_BYTES = 16 * 1024

ELSEWHERE = "--set log=embedded:PATH names another"


def connect(path: str) -> apsw.Connection:
    """Open the file, making it when it isn't there.

    Raises: ConfigurationError when it cannot be opened or written, or is of a newer format.
    """
    try:
        connection = apsw.Connection(path)
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        _write_ahead(connection)
        # FULL: an acknowledged record survives the loss of power, not only of the process.
        connection.pragma("synchronous", "full")
        connection.pragma("foreign_keys", False)
        _create_or_check(connection, path)
    except apsw.Error as exc:
        raise ConfigurationError(f"log file {path} cannot be opened for writing: {exc} ({ELSEWHERE})") from exc
    return connection


def _write_ahead(connection: apsw.Connection) -> None:
    """Have the file written ahead; of processes that make it at once, those that come second wait.

    SQLite does not wait here: two that read and want to write would wait for each other.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.pragma("journal_mode", "wal")
        except apsw.BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY)
        else:
            return


def _create_or_check(connection: apsw.Connection, path: str) -> None:
    if _format(connection, path) == FORMAT:
        return
    # Immediate: of two that have read and want to write, SQLite would refuse one at once.
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = _format(connection, path)
        if found == 0:
            connection.execute(SCHEMA)
            connection.execute("INSERT INTO about VALUES ('cluster', ?)", (uuid.uuid4().hex,))
        elif found == 1:
            _add_identities(connection)
        connection.pragma("user_version", FORMAT)
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _add_identities(connection: apsw.Connection) -> None:
    """Bring a file of format 1 up to 2: topics get identities."""
    connection.execute("ALTER TABLE partitions ADD COLUMN identity TEXT NOT NULL DEFAULT ''")
    topics = connection.execute("SELECT DISTINCT topic FROM partitions").fetchall()
    connection.executemany(
        "UPDATE partitions SET identity = ? WHERE topic = ?", [(_new_identity(), *topic) for topic in topics]
    )


def _new_identity() -> str:
    """Return what tells a topic from all others: 128 random bits, written as Kafka writes its topics' ids."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def _format(connection: apsw.Connection, path: str) -> int:
    version = cast(int, connection.pragma("user_version"))
    if version > FORMAT:
        raise ConfigurationError(
            f"log file {path} has format {version}; this version reads up to {FORMAT}: use a newer eventstreams"
        )
    return version


def cluster(connection: apsw.Connection) -> str:
    """Return the cluster id: random, made with the file."""
    return cast(str, connection.execute("SELECT value FROM about WHERE name = 'cluster'").get)


def write_something(connection: apsw.Connection) -> None:
    """Write what nobody reads, as large as an event may well be. Call within a transaction, which has to be committed.

    One that is rolled back as a whole meets neither a full disk nor a file that is read-only now. What was there before
    is written over, in the pages that it has; so room is asked for first, and given back.
    """
    connection.execute("SAVEPOINT room")
    connection.execute("INSERT INTO about VALUES ('room', hex(randomblob(?)))", (CHECK_BYTES // 2,))
    connection.execute("ROLLBACK TO room; RELEASE room")
    connection.execute("INSERT OR REPLACE INTO about VALUES ('checked', hex(randomblob(?)))", (CHECK_BYTES // 2,))


def unavailable(exc: apsw.Error) -> LogUnavailable:
    """Return what SQLite's refusal means to callers: nothing was written."""
    if isinstance(exc, apsw.FullError):
        return LogUnavailable("the disk of the event log is full: nothing was stored")
    return LogUnavailable(f"the event log cannot be used: {exc}")


def create_topic(connection: apsw.Connection, topic: str, count: int) -> None:
    """Make the partitions 0 to count - 1 that are missing. Call within a transaction."""
    row = connection.execute("SELECT identity FROM partitions WHERE topic = ? LIMIT 1", (topic,)).fetchone()
    identity = _new_identity() if row is None else row[0]
    connection.executemany(
        "INSERT OR IGNORE INTO partitions (topic, number, earliest, next, reach, bytes, identity)"
        " VALUES (?, ?, 0, 0, ?, 0, ?)",
        [(topic, number, NO_REACH, identity) for number in range(count)],
    )


def delete_topic(connection: apsw.Connection, topic: str) -> None:
    """Remove a topic with its records. Call within a transaction."""
    connection.execute("DELETE FROM records WHERE partition IN (SELECT id FROM partitions WHERE topic = ?)", (topic,))
    connection.execute("DELETE FROM partitions WHERE topic = ?", (topic,))


class Appender:
    """Writes batches in transactions of the caller; chooses partitions by key, else in turn."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._turn = 0

    def append(self, records: Iterable[NewRecord], now: int) -> list[Record | LogError]:
        """Insert the records and return them as stored; `UnknownTopic` for those whose topic is not there.

        Call within a transaction; `now` in ms.
        """
        states: dict[str, list[list[int]]] = {}
        rows: list[tuple[Any, ...]] = []
        stored: list[Record | LogError] = []
        for new in records:
            partitions = states.get(new.topic)
            if partitions is None:
                partitions = states[new.topic] = self._load(new.topic)
            if not partitions:
                stored.append(UnknownTopic.of(new.topic))
                continue
            number = self._choose(new.key, len(partitions))
            state = partitions[number]
            partition_id, offset, reach, _ = state
            timestamp = now if new.timestamp is None else new.timestamp
            state[1], state[2] = offset + 1, max(reach, timestamp)
            state[3] += len(new.value)
            rows.append((partition_id, offset, timestamp, state[2], now, new.key, new.value))
            stored.append(Record(new.topic, number, offset, timestamp, new.value, new.key))
        self._connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        changed = [(s[1], s[2], s[3], s[0]) for partitions in states.values() for s in partitions]
        self._connection.executemany(
            "UPDATE partitions SET next = ?, reach = ?, bytes = bytes + ? WHERE id = ?", changed
        )
        return stored

    def _load(self, topic: str) -> list[list[int]]:
        query = "SELECT id, next, reach, 0 FROM partitions WHERE topic = ? ORDER BY number"
        return [cast(list[int], list(row)) for row in self._connection.execute(query, (topic,))]

    def _choose(self, key: bytes | None, count: int) -> int:
        if key is not None:
            return zlib.crc32(key) % count
        self._turn += 1
        return self._turn % count


class PartitionRow(NamedTuple):
    """A partition as the file has it: offsets from `earliest` (inclusive) to `next` (exclusive)."""

    id: int
    earliest: int
    next: int
    identity: str


def partition_row(connection: apsw.Connection, partition: TopicPartition) -> PartitionRow | None:
    """Return a partition's row, None when there is none."""
    row = connection.execute(
        "SELECT id, earliest, next, identity FROM partitions WHERE topic = ? AND number = ?", partition
    ).fetchone()
    return None if row is None else PartitionRow(*cast("tuple[int, int, int, str]", row))


def describe(connection: apsw.Connection, topic: str) -> TopicDescription | None:
    """Return which topic of this name there is, with its partitions; None when there is none."""
    query = "SELECT number, identity FROM partitions WHERE topic = ? ORDER BY number"
    rows = cast("list[tuple[int, str]]", connection.execute(query, (topic,)).fetchall())
    return TopicDescription(rows[0][1], [TopicPartition(topic, number) for number, _ in rows]) if rows else None


def offset_at_time(connection: apsw.Connection, partition_id: int, timestamp: int) -> int | None:
    """Return the offset of the first record whose timestamp is at or after this one, None past the last."""
    row = connection.execute(
        'SELECT "offset", timestamp FROM records WHERE partition = ? AND reach >= ? ORDER BY reach, "offset" LIMIT 1',
        (partition_id, timestamp),
    ).fetchone()
    if row is not None and row[1] < timestamp:
        # What reached that time was removed since; the oldest records still carry its reach.
        row = connection.execute(
            'SELECT "offset" FROM records WHERE partition = ? AND "offset" > ? AND timestamp >= ?'
            ' ORDER BY "offset" LIMIT 1',
            (partition_id, row[0], timestamp),
        ).fetchone()
    return None if row is None else cast(int, row[0])


def select(connection: apsw.Connection, partition_id: int, start: int, stop: int, limit: int) -> apsw.Cursor:
    """Iterate over (offset, timestamp, value, key) with start <= offset < stop, ascending, at most `limit`."""
    return connection.execute(
        'SELECT "offset", timestamp, value, key FROM records'
        ' WHERE partition = ? AND "offset" >= ? AND "offset" < ? ORDER BY "offset" LIMIT ?',
        (partition_id, start, stop, limit),
    )


def delete_before(connection: apsw.Connection, partition_id: int, offset: int) -> None:
    """Remove the records below an offset. Call within a transaction."""
    removed = connection.execute(
        'SELECT coalesce(sum(length(value)), 0) FROM records WHERE partition = ? AND "offset" < ?',
        (partition_id, offset),
    ).get
    connection.execute('DELETE FROM records WHERE partition = ? AND "offset" < ?', (partition_id, offset))
    connection.execute(
        "UPDATE partitions SET earliest = max(earliest, ?), bytes = bytes - ? WHERE id = ?",
        (offset, removed, partition_id),
    )


def expire(connection: apsw.Connection, appended_before: int, max_bytes: int) -> None:
    """Remove what is too old (ms, by the time of appending) or over a partition's bytes. Call within a transaction."""
    partitions = cast(
        "list[tuple[int, int, int]]", connection.execute("SELECT id, next, bytes FROM partitions").fetchall()
    )
    for partition_id, next_offset, held in partitions:
        keep = connection.execute(
            'SELECT "offset" FROM records WHERE partition = ? AND appended >= ? ORDER BY "offset" LIMIT 1',
            (partition_id, appended_before),
        ).fetchone()
        cut = next_offset if keep is None else cast(int, keep[0])
        if held > max_bytes:
            cut = max(cut, _offset_within(connection, partition_id, max_bytes, next_offset))
        delete_before(connection, partition_id, cut)


def _offset_within(connection: apsw.Connection, partition_id: int, max_bytes: int, next_offset: int) -> int:
    """Return the lowest offset from which on the values are within `max_bytes`; the newest record always stays."""
    total, lowest = 0, next_offset
    newest_first = 'SELECT "offset", length(value) FROM records WHERE partition = ? ORDER BY "offset" DESC'
    for offset, size in connection.execute(newest_first, (partition_id,)):
        total += cast(int, size)
        if total > max_bytes and lowest < next_offset:
            break
        lowest = cast(int, offset)
    return lowest
