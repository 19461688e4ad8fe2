"""From what a record holds to the line that is sent of it."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eventstreams.filters.compile import compile_filters
from eventstreams.metrics import Metrics
from eventstreams.records import Record, TopicPartition
from eventstreams.subscribe.javascript_json import javascript_number
from eventstreams.subscribe.redaction import Redaction, Rule
from eventstreams.subscribe.rendering import Item, Renderer
from eventstreams.subscribe.verbatim_json import MAX_DEPTH

PLACE = {"topic": "t", "partition": 1, "offset": 7}


def rendered(value: bytes, key: bytes | None = None) -> bytes:
    return Item(Record("t", 1, 7, 0, value, key), TopicPartition("t", 1)).data(Renderer(None, Metrics()))


def nested(depth: int, opening: bytes = b'{"a":', closing: bytes = b"}") -> bytes:
    return opening * depth + b"1" + closing * depth


@pytest.mark.parametrize(
    ("value", "event"),
    [
        (b'{"meta":{"offset":"z","x":1,"topic":"old"}}', {"meta": {"x": 1, **PLACE}}),
        (b'\xef\xbb\xbf{"bom":1}', {"bom": 1, "meta": PLACE}),
        (b' {\r\n"x" : [1 , 2]\r\n}\n', {"x": [1, 2], "meta": PLACE}),
        (b'{"s":"\xff\xe9"}', {"s": "\ufffd\ufffd", "meta": PLACE}),
        (b'{"s":"\\ud800 \\u00e9\\/"}', {"s": "\ud800 \u00e9/", "meta": PLACE}),
        (b"[]", []),
        (b'[{"meta":{}},2e2]', [{"meta": {}}, 200]),
    ],
)
def test_record_goes_out_as_the_event_that_javascript_would_read(value: bytes, event: Any) -> None:
    line = rendered(value)
    assert json.loads(line, parse_constant=pytest.fail) == event
    assert not {b"\r", b"\n"} & {line[i : i + 1] for i in range(len(line))}


DIGITS = (
    "9007199254740993",
    "-9007199254740993",
    "9223372036854775808",
    "12345678901234567890",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775809",
    "123456789012345678901234567890",
    "7" * 5000,
    "1.50",
    "1.0",
    "-0",
    "-0.0",
    "0.1234567890123456789012",
    "1e3",
    "1E3",
    "1E+3",
    "-2.50e-7",
    "1e400",
    "-1e400",
    "1e-400",
)


@pytest.mark.parametrize("number", DIGITS)
@pytest.mark.parametrize(
    "event",
    [
        '{"n":%s,"meta":{"x":1}}',
        '{"meta":{"x":1},"n":[%s]}',
        '{"n": [1, %s], "meta": {"x": %s, "offset": 3}}',
        '{\n"meta":{"x":{"y":%s\n}},"a":"\\ud800"}',
        '{"n":%s}',
        '{"a":"\\ud800 \\u0022","n":{"m":[%s,%s]}}',
        '[1,{"n":%s}]',
    ],
)
def test_number_is_sent_with_the_digits_that_are_stored(event: str, number: str) -> None:
    value = event.replace("%s", number)
    stored = Digits.of(value)
    sent = Digits.of(rendered(value.encode()))
    if isinstance(sent, dict):
        assert isinstance(stored, dict)
        stored["meta"] = stored.get("meta", {}) | Digits.of(json.dumps(PLACE))
    assert sent == stored


class Digits(str):
    """A number's text."""

    @classmethod
    def of(cls, text: str | bytes) -> Any:
        return json.loads(text, parse_int=cls, parse_float=cls, parse_constant=pytest.fail)


def test_number_keeps_its_digits_where_a_part_of_its_event_is_hidden() -> None:
    rules = [Rule(remove=["secret"])]
    item = Item(Record("t", 1, 7, 0, b'{"n":1.50,"secret":9007199254740993,"meta":{}}'), TopicPartition("t", 1))
    metrics = Metrics()
    line = item.data(Renderer(Redaction(rules), metrics))
    assert line == b'{"n":1.50,"meta":{"topic":"t","partition":1,"offset":7}}'
    assert "eventstreams_events_redacted_total 1.0" in metrics.exposition().decode()


@pytest.mark.parametrize(
    ("number", "filter_"),
    [
        ("9007199254740993", "event.n == 9007199254740993"),
        ("9223372036854775808", "event.n > 9223372036854775807"),
        ("18446744073709551615", "event.n == 18446744073709551615u"),
        ("18446744073709551615", "event.n > 9223372036854775807 && event.n > 1.5"),
        ("-9223372036854775808", "event.n == -9223372036854775808"),
        ("1e400", "event.n > 1.0"),
        ("123456789012345678901234567890", "event.n > 1e29"),
        ("1.50", "event.n == 1.5"),
    ],
)
@pytest.mark.parametrize("rest", ["", ',"s":"\\ud800"', ',"s":"\\u0041"', ',"s":"\xff"'])
def test_number_is_matched_as_it_is_stored(number: str, filter_: str, rest: str) -> None:
    item = Item(Record("t", 1, 7, 0, f'{{"n":{number}{rest}}}'.encode("latin-1")), TopicPartition("t", 1))
    matching = compile_filters([filter_])
    for _ in range(2):
        # The second time from the line.
        assert item.data(Renderer(None, Metrics()))
        view = item.view()
        assert view is not None
        assert matching.matches(view)
        item.forget()


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff\xfe",
        b"true",
        b'"{}"',
        b"a: 1",
        b'{"a":1,}',
        b'{"a":1}{"b":2}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"meta":"x"}',
        b'{"meta":0}',
        b'{"n":{"k":1,"k":1}}',
        b'[{"k":1,"k":2}]',
        b'{"a":1,"a":1,"n":1E6,"meta":{"x":1}}',
        b'{"a":1,"\\u0061":1,"meta":{"x":1}}',
        b'{"a":1,"a":1,"s":"\\u0022\\u0022","meta":{"x":1}}',
        b'{"a":{"b":[{"c":1,"c":1}]},"n":1E6,"meta":{"x":1}}',
        b'{"a":1,"a":1,"big":%b,"meta":{"x":1}}' % (b"7" * 5000),
        b'{"a":1,"a":1,"s":"\xff","meta":{"x":1}}',
        b'{"s":"}","s":"}","meta":{"topic":"t","partition":1,"offset":7}}',
        nested(MAX_DEPTH + 1),
        nested(5000),
        nested(MAX_DEPTH + 1, b"[", b"]"),
        nested(100_000, b"[", b"]"),
    ],
)
def test_record_that_is_no_event_is_skipped(value: bytes) -> None:
    assert rendered(value) == b""


@pytest.mark.parametrize("big", [b"", b"9007199254740993", b'"\\ud800"'])
def test_event_as_deep_as_can_be_written_is_sent(big: bytes) -> None:
    value = nested(MAX_DEPTH, b'{"a":')[:-1] + (b',"b":' + big if big else b"") + b"}"
    assert rendered(value).startswith(b'{"a":{"a":')


def test_key_is_told_as_bytes() -> None:
    assert json.loads(rendered(b"{}", b"\xff\x00k"))["meta"]["key"] == {"type": "Buffer", "data": [255, 0, 107]}
    assert "key" not in json.loads(rendered(b"{}", b""))["meta"]


def test_record_on_which_rendering_fails_is_skipped_and_counted() -> None:
    class Broken(Redaction):
        def redact(self, event: dict[str, Any]) -> Any:
            raise ZeroDivisionError

    metrics = Metrics()
    item = Item(Record("t", 0, 0, 0, b"{}"), TopicPartition("t", 0))
    assert Renderer(Broken([Rule()]), metrics).render(item) == (b"", None)
    assert 'eventstreams_records_skipped_total{reason="failed"} 1.0' in metrics.exposition().decode()


@given(
    st.binary(max_size=40)
    | st.text('{}[]":,\\ue1-+.0 aN\ud800', max_size=30).map(lambda t: t.encode("utf-8", "replace"))
)
@example('{"a":"x\u2028y\u2029z\x85","\x85": 1}'.encode())
@example('["\u2028 \\ud800"]'.encode())
def test_whatever_a_record_holds_a_line_is_one_line_of_json(value: bytes) -> None:
    line = rendered(value)
    # Also for libraries that cut where Unicode ends a line.
    assert len(line.decode().splitlines()) <= 1
    if line:
        assert isinstance(json.loads(line, parse_constant=pytest.fail), dict | list)


@given(st.floats(min_value=2**53 + 2, allow_nan=False, allow_infinity=False) | st.integers(2**53 + 1, 10**400))
def test_large_number_is_written_as_the_nearest_double(value: float) -> None:
    text = javascript_number(value)
    try:
        nearest = float(value)
    except OverflowError:
        assert text == b"null"
        return
    assert float(orjson.loads(text)) == nearest
    assert javascript_number(-value) == b"-" + text
    assert (b"e+" in text) == (nearest >= 1e21)


NUMBERS = ("1", "0", "-0", "1.0", "1E6", "1e-7", "10.50", "18446744073709551616", "9007199254740993", "1e21", "0.1e1")
LETTERS = 'a"\\/é\u2028'
blanks = st.sampled_from(("", "", "", "", " ", "\n"))


@st.composite
def texts(draw: st.DrawFn) -> str:
    """A string as JSON text, each letter written in one of the ways there are."""
    letters = draw(st.text(LETTERS, max_size=2))
    ways = {'"': ['\\"'], "\\": ["\\\\"], "/": ["/", "\\/"]}
    return '"' + "".join(draw(st.sampled_from([*ways.get(c, [c]), f"\\u{ord(c):04x}"])) for c in letters) + '"'


@st.composite
def objects(draw: st.DrawFn, values: st.SearchStrategy[str], more: str = "") -> str:
    """An object as JSON text, some of its keys the same."""
    members = draw(st.lists(st.tuples(texts(), blanks, blanks, values), max_size=3))
    inner = [f"{name}{before}:{after}{value}" for name, before, after, value in members] + [more] * bool(more)
    return "{" + draw(blanks) + ",".join(draw(st.permutations(inner))) + "}"


values = st.recursive(
    st.sampled_from((*NUMBERS, "true", "null")) | texts(),
    lambda inner: objects(inner) | st.lists(inner, max_size=2).map(lambda some: "[" + ",".join(some) + "]"),
    max_leaves=4,
)
NAMES = ("topic", "partition", "offset", "key", "dt")
metas = st.lists(st.tuples(st.sampled_from(NAMES), values), max_size=3).map(
    lambda members: "{" + ",".join(f'"{name}":{value}' for name, value in members) + "}"
)
events = st.one_of(objects(values), metas.flatmap(lambda meta: objects(values, f'"meta":{meta}')))


class TwiceError(Exception):
    pass


def once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise TwiceError
    return dict(pairs)


@settings(max_examples=500, deadline=None)
@given(events, st.none() | st.binary(min_size=1, max_size=3), st.booleans())
@example('{"a":1,"a":1,"n":1E6,"meta":{"x":1}}', None, False)
def test_event_is_skipped_when_and_only_when_a_key_is_there_twice(text: str, key: bytes | None, even: bool) -> None:
    """Also where lengths tell nothing: `even` fills up with blanks what the members that are gone took."""
    if even:
        text = text.ljust(len(orjson.dumps(orjson.loads(text))))
    line = rendered(text.encode(), key)
    try:
        event = json.loads(text, object_pairs_hook=once_each, parse_int=Digits, parse_float=Digits)
    except TwiceError:
        assert line == b""
        return
    event.setdefault("meta", {})
    event["meta"] |= Digits.of(json.dumps(PLACE | ({"key": {"type": "Buffer", "data": list(key)}} if key else {})))
    assert Digits.of(line) == event
