"""The rig's own eyes: what it must notice, it notices."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.support.oracle import Report
from tests.support.oracle_client import Client
from tests.support.processes import GatewayProcess
from tests.support.sse import BrokenStream, ChunkedReader, Ids, SseReader

TRUTH = {("busy", 0): [(0, 10), (1, 11), (2, 12)]}


def judged(*seen: tuple[int, int], at: int = 3) -> Report:
    """Judge a client that saw these, and whose last id was at offset `at`."""
    client = Client(GatewayProcess("embedded:x", Path("x")), ["busy"], random.Random(0), whole=True)
    client.seen["busy", 0] = list(seen)
    client.ids.see(f'[{{"topic":"busy","partition":0,"offset":{at}}}]')
    report = Report()
    report.judge(client, TRUTH)
    return report


def test_report_counts_what_was_lost_repeated_reordered() -> None:
    assert judged((0, 10), (1, 11), (2, 12)).clean
    assert judged((0, 10), (2, 12)).lost == 1
    behind = judged((0, 10), at=1)
    assert (behind.behind, behind.lost, behind.clean) == (2, 0, False)
    assert judged((0, 10), (1, 11), (1, 11), (2, 12)).repeated == 1
    assert judged((0, 10), (2, 12), (1, 11)).reordered == 1
    assert not judged((0, 10), (1, 99), (2, 12)).clean


def test_ids_that_fall_or_forget_a_partition_are_counted() -> None:
    ids = Ids()
    ids.see('[{"topic":"a","partition":0,"offset":5},{"topic":"b","partition":0,"offset":1}]')
    ids.see('[{"topic":"a","partition":0,"offset":6},{"topic":"b","partition":0,"offset":0}]')
    assert ids.fallen == 1
    ids.see('[{"topic":"a","partition":0,"offset":7}]')
    assert ids.fallen == 2


def test_reader_takes_an_id_only_with_its_whole_block() -> None:
    reader = SseReader()
    assert list(reader.feed(b":ok\n\nid: 1\n\nevent: message\nid: 2\ndata: x\n")) == []
    assert (reader.last_event_id, reader.blocks_without_data) == ("1", 2)
    assert [tuple(message) for message in reader.feed(b"\n")] == [("message", "x", "2")]


@pytest.mark.parametrize("line", [b"data:x\n", b"foo: x\n", b"data: x\r\n", b"id: \0\n", b"retry: x\n", b"data\n"])
def test_reader_refuses_what_the_wire_never_holds(line: bytes) -> None:
    with pytest.raises(BrokenStream):
        list(SseReader().feed(line))


def test_chunks_are_read_wherever_the_bytes_are_cut() -> None:
    wire = b"3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n"
    for cut in range(len(wire)):
        reader = ChunkedReader()
        assert reader.feed(wire[:cut]) + reader.feed(wire[cut:]) == b"abc0123456789abcdef"
        assert reader.ended
