"""`since`: every accepted form, and what is refused."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstreams.errors import InvalidTimestamp
from eventstreams.positions import AtTime, Edge
from eventstreams.subscribe.javascript_date import BLANKS, LAST_TIMESTAMP
from eventstreams.subscribe.since import SECONDS, given_since, number_of, parse_since, with_plus

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
        ("0x7E7", 2023),
        (" 2023\t", 2023),
        ("2023-1-5 22:13", 1672956780000),
        ("2023/11/14 22:13:22", T),
        ("11/14/23", DAY),
        ("14-Nov-2023", DAY),
        ("Nov 14, 2023, 10:13:22 PM", T),
        ("12:00 AM Nov 14 2023", DAY),
        ("Tue Nov 14 2023 23:13:22 GMT+0100 (Central European Time)", T),
        ("14 Nov 2023 17:13:22 EST", T),
        ("14 Nov 2023 22:13:22.5 UTC", T + 500),
        ("31 Nov 2023", DAY + 17 * 86_400_000),
        ("Nov 2023", DAY - 13 * 86_400_000),
        ("a 1", 978307200000),
        ("+012023-01-01T00:00:00Z", 317242051200000),
        # With a plus that was not escaped in the query.
        ("2023-11-14T22:13:22 00:00", T),
        ("2023-11-14T23:13:22.000 01:00", T),
        ("2023-11-14T23:13 0100", T - 22_000),
        ("2023-11-15 03:43:22 05:30", T),
        ("Tue, 14 Nov 2023 22:13:22  0000", T),
        ("Tue Nov 14 2023 23:13:22 GMT 0100 (Central European Time)", T),
        # None was there.
        ("Tue Nov 14 22:13:22 2023", T),
        ("2023-11-14 22:13", T - 22_000),
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
        "2023-11-14T22:13:22 15:00",
        "2023-11-14T25:00:00Z",
        "2023-11-14T24:00:01Z",
        "2023-00-10",
        "99999999999999999999-01",
        "٢٠٢٣",
        "-000000-01-01T00:00:00Z",
        "2023-11-14T22:13:22+24:00",
        "2023-11-14T22:13:22,5Z",
        "2023-11-14T22:13:22Z x",
        "14 Nov 2023 22:13:22 A",
        "14 Nov 2023 13:00 PM",
        "1 2 3 4",
        "+275760-09-13T00:00:00.001Z",
        "0x",
        "1" * 1001,
    ],
)
def test_what_is_no_time_is_refused_with_the_value(text: str) -> None:
    with pytest.raises(InvalidTimestamp) as caught:
        parse_since(text)
    assert caught.value.detail.endswith(f"was not parseable: '{text}'")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("1795821551", "1795821551000"),
        (" 1795821551 ", "1795821551000"),
        ("1795821551.123", "1795821551123"),
        ("1.795821551e9", "1795821551000"),
        ("100000000", "100000000000"),
        ("9999999999", "9999999999000"),
        ("0x6b0a3b2f", "1795832623000"),
    ],
)
def test_seconds_are_refused_with_the_milliseconds_that_are_meant(text: str, hint: str) -> None:
    with pytest.raises(InvalidTimestamp, match=f"looks like seconds .* {hint} perhaps$"):
        parse_since(text)


@pytest.mark.parametrize("number", [1, 99_999_999, 10_000_000_000, 1_795_821_551_000])
def test_numbers_that_may_be_milliseconds_are_taken_as_such(number: int) -> None:
    assert parse_since(str(number)) == AtTime(number)


@pytest.mark.parametrize(
    ("query", "values"),
    [
        ([("since", "a"), ("x", "b")], ["a"]),
        ([("since", "a"), ("since", "b")], ["a", "b"]),
        ([("since[]", "a")], ["a"]),
        ([("since[0]", "a"), ("since[1]", "b")], ["a", "b"]),
        ([("since", "a"), ("since[]", "b")], ["a", "b"]),
        ([("since[a]", "1")], ["[object Object]"]),
        ([("since[a][b]", "1")], ["[object Object]"]),
        ([("Since", "a"), ("since[a", "b"), ("since.a", "c"), ("sinces", "d")], []),
    ],
)
def test_since_is_found_as_the_original_s_query_parser_finds_it(
    query: list[tuple[str, str]], values: list[str]
) -> None:
    assert given_since(query) == values


def test_several_times_are_refused_and_shown() -> None:
    with pytest.raises(InvalidTimestamp, match=r"parseable: '2023,2024'$"):
        parse_since("2023", "2024")


PIECES = """2023|11|14|5|00|24|60|123|000123|12345678901|2023-11-14|+002023|-000000|1e3|+|-|:|::|.|,|/| |\t|\xa0|_|\
(x)|(a(b))|(|)|T|z|GMT|EST|Nov|january|am|PM|foo|é|T22:13:22|22:13|10:|.5|.1234|+01:00|-0800|+2|0x1F|Infinity"""
V8 = """
const read = text => isNaN(Number(text)) ? Date.parse(text) : Math.trunc(Number(text));
const texts = JSON.parse(require('fs').readFileSync(0));
console.log(JSON.stringify(texts.map(read).map(time => time === Infinity ? 8.64e15 : time === -Infinity ? -1 : time)));
"""


def test_since_is_read_as_v8_reads_it(node: str) -> None:
    chance, pieces = random.Random(0), PIECES.split("|")
    texts = ["".join(chance.choices(pieces, k=chance.randint(1, 7))) for _ in range(20_000)]
    times = subprocess.run(
        [node, "-e", V8],
        input=json.dumps([*map(with_plus, texts)]),
        capture_output=True,
        text=True,
        check=True,
        env={"TZ": "UTC"},
    )
    for text, time in zip(texts, json.loads(times.stdout), strict=True):
        try:
            position = parse_since(text)
        except InvalidTimestamp:
            position = None
        if time is not None and SECONDS.start <= time < SECONDS.stop and number_of(text.strip(BLANKS)) is not None:
            time = None
        expected = None if time is None else AtTime(min(time, LAST_TIMESTAMP)) if time > 0 else Edge.EARLIEST
        assert (text, position) == (text, expected)


@given(st.text())
def test_any_text_is_a_position_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidTimestamp):
        parse_since(text)
