import gzip
import zlib
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstreams.errors import MalformedBody
from intake.inflating import Inflater


def inflated(coding: str, parts: Sequence[bytes], room: int = 10**6) -> tuple[bytes, bool]:
    inflater, out = Inflater(coding), b""
    for part in parts:
        out += inflater.inflate(part, room - len(out))
    return out, inflater.whole


def cut(data: bytes, at: Sequence[int]) -> Sequence[bytes]:
    ends = sorted({0, len(data), *(place % (len(data) + 1) for place in at)})
    return [data[start:end] for start, end in pairwise(ends)]


PLACES = st.lists(st.integers(0, 10**4), max_size=20)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), PLACES, st.sampled_from([b"", b"\0\0\0", b"rest"]))
def test_members_are_joined_wherever_parts_begin(members: list[bytes], places: list[int], rest: bytes) -> None:
    data = b"".join(map(gzip.compress, members)) + rest
    assert inflated("gzip", cut(data, places)) == (b"".join(members), True)


@given(st.binary(max_size=300), PLACES, st.booleans())
def test_deflate_is_read_with_and_without_its_header(data: bytes, places: list[int], bare: bool) -> None:
    coded = zlib.compress(data)[2:-4] if bare else zlib.compress(data)
    assert inflated("deflate", cut(coded, places)) == (data, True)


@given(st.binary(min_size=1, max_size=300), st.integers(1, 10))
def test_what_is_cut_short_is_not_whole(data: bytes, missing: int) -> None:
    assert not inflated("gzip", [(gzip.compress(data) * 2)[:-missing]])[1]


def test_no_more_than_the_room_and_a_byte_is_inflated() -> None:
    bomb = gzip.compress(b"x" * 10**7)
    assert inflated("gzip", [bomb], room=1000)[0] == b"x" * 1001
    assert inflated("gzip", [gzip.compress(b"x") * 900 + bomb], room=1000)[0] == b"x" * 1001


def test_member_after_what_is_none_is_ignored_too() -> None:
    data = gzip.compress(b"a") + b"-", gzip.compress(b"b")
    assert inflated("gzip", data) == (b"a", True)


def test_broken_member_is_refused() -> None:
    with pytest.raises(MalformedBody, match="content-encoding"):
        inflated("gzip", [gzip.compress(b"a") + b"\x1f\x8b" + b"\xff" * 20])
