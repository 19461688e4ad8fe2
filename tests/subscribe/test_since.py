"""`since`: every accepted form, and what is refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstreams.errors import InvalidTimestamp
from eventstreams.positions import AtTime, Edge
from eventstreams.subscribe.since import parse_since

T = 1700000002000  # 2023-11-14T22:13:22Z
DAY = 1699920000000  # 2023-11-14T00:00:00Z


@pytest.mark.parametrize(
    ("text", "timestamp"),
    [
        ("2023-11-14T22:13:22Z", T),
        ("2023-11-14T22:13:22.000Z", T),
        ("2023-11-14t22:13:22z", T),
        ("2023-11-14T22:13:22+00:00", T),
        ("2023-11-14T23:13:22+01:00", T),
        ("2023-11-14T21:13:22-0100", T),
        ("2023-11-14T22:13:22.123456Z", T + 123),
        ("2023-11-14T22:13:22", T),
        ("2023-11-14 22:13:22", T),
        ("2023-11-14T22:13", T - 22_000),
        ("+002023-11-14T22:13:22Z", T),
        ("2023-11-14", DAY),
        ("2023-11", DAY - 13 * 86_400_000),
        ("Tue, 14 Nov 2023 22:13:22 GMT", T),
        ("14 Nov 2023 22:13:22", T),
        ("Nov 14, 2023", DAY),
        ("November 14, 2023 22:13:22", T),
        ("11/14/2023", DAY),
        ("2023-11-14T24:00:00Z", DAY + 86_400_000),
        ("2023-02-30", 1677715200000),
        ("1700000002000", T),
        ("1.7e12", 1_700_000_000_000),
        ("2023", 2023),
    ],
)
def test_since_is_read_as_a_time(text: str, timestamp: int) -> None:
    assert parse_since(text) == AtTime(timestamp)


@pytest.mark.parametrize("text", ["0", "-5", "1970-01-01T00:00:00Z", "1969-01-01T00:00:00Z", "-000001-01-01"])
def test_since_at_or_before_the_epoch_is_the_start_of_the_log(text: str) -> None:
    assert parse_since(text) is Edge.EARLIEST


def test_empty_since_is_none() -> None:
    assert parse_since("") is None


@pytest.mark.parametrize(
    "text",
    [
        "abc",
        "now",
        "today",
        "NaN",
        "1 hour ago",
        "2023-13-01",
        "20231114T221322Z",
        "2023-W46-2",
        "2023-11-14T22:13:22 00:00",
        "2023-11-14T25:00:00Z",
        "2023-11-14T24:00:01Z",
        "2023-00-10",
        "99999999999999999999-01",
        "٢٠٢٣",
    ],
)
def test_what_is_no_time_is_refused_with_the_value(text: str) -> None:
    with pytest.raises(InvalidTimestamp) as caught:
        parse_since(text)
    assert caught.value.detail.endswith(f"was not parseable: '{text}'")


@given(st.text())
def test_any_text_is_a_position_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidTimestamp):
        parse_since(text)
