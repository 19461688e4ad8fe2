"""What is known of topics when brokers tell different things: one that lags behind never takes it back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from eventstreams.eventlog.base import TopicDescription
from eventstreams.eventlog.kafka.topics import LAG_SECONDS, Known, newer
from eventstreams.records import TopicPartition

NOTHING = Known(0.0, None)


def told(identity: str, partitions: int) -> TopicDescription:
    return TopicDescription(identity, [TopicPartition("t", number) for number in range(partitions)])


def test_broker_that_has_not_heard_of_added_partitions_takes_none_away() -> None:
    known = newer(newer(NOTHING, 1.0, told("a", 2)), 2.0, told("a", 5))
    assert newer(known, 3.0, told("a", 2)) == known._replace(asked=3.0)


def test_broker_that_has_not_heard_of_a_new_topic_tells_nothing() -> None:
    known = newer(newer(NOTHING, 1.0, told("a", 2)), 2.0, told("b", 1))
    assert known.found == told("b", 1)
    assert newer(known, 3.0, told("a", 2)) == known
    gone = known._replace(asked=4.0, found=None)
    assert newer(gone, 5.0, told("a", 2)) == gone
    assert newer(gone, 5.0, told("b", 1)).found == told("b", 1)


def test_topic_without_identity_is_as_it_is_told() -> None:
    known = newer(newer(NOTHING, 1.0, told("", 5)), 2.0, told("", 2))
    assert known.found == told("", 2)


def test_broker_that_is_right_after_all_is_believed_in_time() -> None:
    """The one that lagged may have been the first that told anything else."""
    known = newer(newer(NOTHING, 1.0, told("b", 1)), 2.0, told("a", 1))
    assert newer(known, 3.0, told("b", 1)) == known
    assert newer(known, 2.0 + LAG_SECONDS, told("b", 1)).found == told("b", 1)


@given(st.lists(st.integers(0, 3), max_size=30))
def test_what_is_known_is_the_newest_that_any_broker_told(lags: list[int]) -> None:
    """Each life of a topic is told by one that is up to date, and after it earlier ones by those that lag."""
    known = NOTHING
    for life, lag in enumerate(lags):
        known = newer(known, life + 0.1, told(f"life {life}", 1))
        known = newer(known, life + 0.2, told(f"life {max(0, life - lag)}", 1))
        assert known.found == told(f"life {life}", 1)
