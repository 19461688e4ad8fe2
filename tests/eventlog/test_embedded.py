"""What only the embedded log promises: the file, several processes, retention."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstreams.errors import ConfigurationError, LogUnavailable, UnknownTopic
from eventstreams.eventlog.embedded import storage
from eventstreams.eventlog.embedded.log import EmbeddedOptions, open_embedded
from eventstreams.eventlog.open import open_log
from eventstreams.positions import AtTime
from eventstreams.records import NewRecord, Record, TopicPartition

P = TopicPartition("t", 0)

WRITER = """
import asyncio, sys
from eventstreams.eventlog.embedded.log import EmbeddedLog, open_embedded
from eventstreams.records import NewRecord

async def main():
    async with open_embedded(sys.argv[1]) as log:
        while True:
            outcomes = await log.append([NewRecord("t", b"x" * 500)] * 5)
            print(outcomes[-1].offset, flush=True)

asyncio.run(main())
"""


async def test_acknowledged_records_survive_kill_and_reach_other_processes(tmp_path: Path) -> None:
    path = str(tmp_path / "events.db")
    async with open_embedded(path) as log:
        await log.create_topic("t")
        reader = await log.open_reader({P: 0})
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, path, stdout=asyncio.subprocess.PIPE
        )
        assert writer.stdout is not None
        acknowledged = -1
        while acknowledged < 200:
            acknowledged = int(await writer.stdout.readline())
        assert (await reader.read(10, 30.0))[0].offset == 0
        writer.send_signal(signal.SIGKILL)
        acknowledged = max([acknowledged, *(int(line) for line in (await writer.stdout.read()).split())])
        await writer.wait()
    async with open_embedded(path) as log:
        assert (await log.extents([P]))[P].end > acknowledged
        block = await log.fetch(P, acknowledged, acknowledged + 1, 1000)
        assert [r.offset for r in block.records] == [acknowledged]


async def test_log_survives_a_restart_with_its_cluster(tmp_path: Path) -> None:
    path = str(tmp_path / "events.db")
    async with open_embedded(path) as log:
        cluster = log.cluster
        await log.create_topic("t")
        await log.append([NewRecord("t", b"a", b"k", 5)])
    async with open_embedded(path) as log:
        assert log.cluster == cluster
        assert (await log.fetch(P, 0, 9, 99)).records == [Record("t", 0, 0, 5, b"a", b"k")]


async def test_topic_that_another_process_made_takes_records_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "events.db")
    async with open_embedded(path) as log, open_embedded(path) as other:
        (refused,) = await log.append([NewRecord("t", b"a", None, 1)])
        assert isinstance(refused, UnknownTopic)
        assert await log.partitions("t") == []
        await other.create_topic("t")
        assert await log.append([NewRecord("t", b"a", None, 1)]) == [Record("t", 0, 0, 1, b"a", None)]


async def test_newer_format_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "events.db")
    async with open_embedded(path):
        pass
    connection = apsw.Connection(path)
    connection.pragma("user_version", 99)
    connection.close()
    with pytest.raises(ConfigurationError, match="has format 99; this version reads up to 2"):
        async with open_embedded(path):
            pass


async def test_file_that_is_no_log_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(ConfigurationError, match=r"log file .*events\.db cannot be opened for writing"):
        async with open_embedded(str(path)):
            pass


async def test_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="cannot be made"):
        async with open_embedded(str(tmp_path / "file" / "events.db")):
            pass


@pytest.mark.parametrize("url", ["", "embedded:", "redis://x", "events.db"])
def test_open_log_says_what_it_expects(url: str) -> None:
    with pytest.raises(ConfigurationError, match="expected embedded:PATH"):
        open_log(url)


async def test_full_disk_stores_nothing_of_a_batch_and_later_appends_work(tmp_path: Path) -> None:
    async with open_embedded(str(tmp_path / "events.db")) as log:
        await log.create_topic("t")
        await log.append([NewRecord("t", b"first")])
        connection = log._connections[0]
        pages = connection.pragma("page_count")
        connection.pragma("max_page_count", int(str(pages)) + 5)
        outcomes = await log.append([NewRecord("t", b"small"), NewRecord("t", b"x" * 1_000_000)])
        assert [str(o) for o in outcomes if isinstance(o, LogUnavailable)] == [
            "the disk of the event log is full: nothing was stored"
        ] * 2
        connection.pragma("max_page_count", 1_000_000)
        (record,) = await log.append([NewRecord("t", b"after")])
        assert isinstance(record, Record)
        assert record.offset == 1


async def test_retention_by_bytes_keeps_the_newest(tmp_path: Path) -> None:
    options = EmbeddedOptions(retention_bytes=250)
    async with open_embedded(str(tmp_path / "events.db"), options) as log:
        await log.create_topic("t")
        await log.append([NewRecord("t", b"x" * 100) for _ in range(10)])
        await log.expire()
        assert (await log.extents([P]))[P] == (8, 10)


async def test_retention_by_age_goes_by_the_time_of_appending(tmp_path: Path) -> None:
    async with open_embedded(str(tmp_path / "events.db"), EmbeddedOptions(retention_age=3600.0)) as log:
        await log.create_topic("t")
        await log.append([NewRecord("t", b"recorded long ago", None, 1)])
        await log.expire()
        assert (await log.extents([P]))[P] == (0, 1)
    async with open_embedded(str(tmp_path / "events.db"), EmbeddedOptions(retention_age=-3600.0)) as log:
        await log.expire()
        assert (await log.extents([P]))[P] == (1, 1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 20), max_size=25), st.integers(0, 25), st.integers(-1, 21))
def test_first_record_at_or_after_a_time_is_found_whatever_the_order(
    timestamps: list[int], removed: int, wanted: int
) -> None:
    async def run() -> tuple[int, int]:
        async with open_embedded(":memory:") as log:
            await log.create_topic("t")
            await log.append([NewRecord("t", b"x", None, ts) for ts in timestamps])
            await log.delete_before(P, min(removed, len(timestamps)))
            return (await log.resolve({P: AtTime(wanted)}))[P].offset, (await log.extents([P]))[P].earliest

    offset, earliest = asyncio.run(run())
    assert offset == expected(timestamps, earliest, wanted)


def expected(timestamps: Sequence[int], earliest: int, wanted: int) -> int:
    later = [i for i, ts in enumerate(timestamps) if i >= earliest and ts >= wanted]
    return later[0] if later else len(timestamps)


async def test_reader_takes_turns_between_partitions() -> None:
    async with open_embedded(":memory:") as log:
        await log.create_topic("t")
        await log.create_topic("u")
        await log.append([NewRecord("t", b"", None, n) for n in range(20)])
        await log.append([NewRecord("u", b"", None, 1)])
        reader = await log.open_reader({P: 0, TopicPartition("u", 0): 0})
        first, second = await reader.read(5, 1.0), await reader.read(5, 1.0)
        assert "u" in {record.topic for record in [*first, *second]}
        await reader.aclose()


def test_processes_that_make_the_file_at_once_all_open_it(tmp_path: Path) -> None:
    def open_at_once(barrier: threading.Barrier, path: str) -> str:
        barrier.wait(30)
        connection = storage.connect(path)
        try:
            return storage.cluster(connection)
        finally:
            connection.close()

    for number in range(20):
        barrier = threading.Barrier(6)
        with ThreadPoolExecutor(6) as pool:
            opened = [pool.submit(open_at_once, barrier, str(tmp_path / f"{number}.db")) for _ in range(6)]
        assert len({future.result() for future in opened}) == 1


@pytest.mark.parametrize(("count", "size"), [(1, 10), (64, 1000), (500, 10), (70, 5000)])
async def test_reader_gives_what_is_fresh_once_and_in_order(tmp_path: Path, count: int, size: int) -> None:
    """Around the bounds of what is read without a thread, and after it."""
    value = b"x" * size
    async with open_embedded(str(tmp_path / "events.db")) as log:
        await log.create_topic("a", 2)
        partitions = await log.partitions("a")
        reader = await log.open_reader(dict.fromkeys(partitions, 0))
        expected: dict[int, int] = dict.fromkeys(range(2), 0)
        for _ in range(3):
            assert not await reader.read(10_000, 0)  # at the end
            appended = await log.append([NewRecord("a", value, None, n) for n in range(count)])
            got: list[Record] = []
            while more := await reader.read(10_000, 0):
                got.extend(more)
            assert len(got) == count == len(appended)
            for record in got:
                assert (record.offset, record.value) == (expected[record.partition], value)
                expected[record.partition] += 1


async def test_what_is_fresh_is_what_a_fetch_gives_and_is_left_to_the_threads_without_a_file(tmp_path: Path) -> None:
    path = str(tmp_path / "events.db")
    async with open_embedded(path) as log:
        await log.create_topic("a")
        await log.append([NewRecord("a", b"{}", None, 1)])
        first = TopicPartition("a", 0)
        fresh = log.fetch_fresh(first, 0, 10, 1000)
        assert fresh == await log.fetch(first, 0, 10, 1000)
        assert fresh is not None
        assert fresh.next_offset == 1
    assert log.fetch_fresh(first, 0, 10, 1000) is None  # closed
    async with open_embedded(":memory:") as memory:
        await memory.create_topic("a")
        assert memory.fetch_fresh(first, 0, 10, 1000) is None


@pytest.mark.parametrize("replaced", [True, False])
async def test_file_that_is_removed_or_replaced_is_told_and_not_served(tmp_path: Path, replaced: bool) -> None:
    path = tmp_path / "events.db"
    async with open_embedded(str(path)) as log:
        await log.create_topic("a")
        path.rename(tmp_path / "away.db")
        if replaced:
            path.write_bytes(b"another")
        said = ""
        async with asyncio.timeout(30):
            while not said:
                await asyncio.sleep(0.01)
                try:
                    await log.partitions("a")
                except LogUnavailable as exc:
                    said = exc.message
        assert f"{path} was removed or replaced" in said
        (outcome,) = await log.append([NewRecord("a", b"{}")])
        assert isinstance(outcome, LogUnavailable)


async def test_file_of_an_older_format_is_brought_up(tmp_path: Path) -> None:
    path = str(tmp_path / "events.db")
    async with open_embedded(path) as log:
        await log.create_topic("a", 2)
        await log.append([NewRecord("a", b"{}", b"k", 7)])
    connection = apsw.Connection(path)
    connection.execute("ALTER TABLE partitions DROP COLUMN identity")
    connection.pragma("user_version", 1)
    connection.close()
    async with open_embedded(path) as log:
        described = (await log.describe(["a"]))["a"]
        assert described.identity
        assert [partition.partition for partition in described.partitions] == [0, 1]
        assert sum(extent.end for extent in (await log.extents(described.partitions)).values()) == 1
        await log.create_topic("a", 3)
        assert (await log.describe(["a"]))["a"] == (described.identity, [*described.partitions, ("a", 2)])
