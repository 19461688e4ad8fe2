"""Which partitions a consumer is told to stand still in."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping

from eventstreams.eventlog.kafka.standstill import LONGEST_REST, Standstill
from eventstreams.records import TopicPartition

A, B, AWAY = TopicPartition("a", 0), TopicPartition("b", 0), TopicPartition("away", 0)


class Ends:
    """Tells the ends that a test gives, and remembers what it was asked for."""

    def __init__(self, ends: Mapping[TopicPartition, int]) -> None:
        self.ends = dict(ends)
        self.asked: list[set[TopicPartition]] = []

    async def __call__(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        self.asked.append(set(partitions))
        return {partition: end for partition, end in self.ends.items() if partition in partitions}


async def test_partition_stands_still_that_has_more_and_does_not_move_from_look_to_look() -> None:
    ends = Ends({A: 9, B: 5})
    standstill = Standstill(ends)
    positions = {A: 5, B: 5, AWAY: 5}
    assert not await standstill.look(positions)
    assert not await standstill.look(positions)
    assert await standstill.look(positions) == [A]
    assert ends.asked[1] == {A, B, AWAY}


async def test_one_that_moves_or_has_nothing_more_does_not() -> None:
    ends = Ends({A: 100, B: 5})
    standstill = Standstill(ends)
    for at in range(20):
        assert not await standstill.look({A: at, B: 5})
    assert all(A not in asked for asked in ends.asked)


async def test_one_that_just_got_more_has_until_the_next_look() -> None:
    ends = Ends({A: 5})
    standstill = Standstill(ends)
    for _ in range(5):
        assert not await standstill.look({A: 5})
    ends.ends[A] = 6
    assert not await standstill.look({A: 5})
    assert not await standstill.look({A: 6})
    ends.ends[A] = 7
    assert not await standstill.look({A: 6})
    assert await standstill.look({A: 6}) == [A]


async def test_what_is_of_no_use_is_done_ever_more_rarely() -> None:
    standstill = Standstill(Ends({A: 9}))
    finds = [number for number in range(400) if await standstill.look({A: 5})]
    pauses = [after - before for before, after in itertools.pairwise(finds)]
    assert pauses == sorted(pauses)
    assert pauses[0] == 3
    assert pauses[-1] == 3 + LONGEST_REST
