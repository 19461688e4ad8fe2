"""One reader for settings: a value means the same from the file, the environment and the command line."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from eventstreams.errors import ConfigurationError
from eventstreams.setting_words import Wanted
from eventstreams.settings import Settings, load_settings
from eventstreams.settings_given import Given, from_assignments, from_environment, from_file, variable
from eventstreams.settings_reading import read_settings


def leaves(model: type[BaseModel], prefix: str = "") -> Sequence[str]:
    """Return the dotted names of all settings."""
    found: list[str] = []
    for name, field in model.model_fields.items():
        section = Wanted.of(field).model
        found += leaves(section, f"{prefix}{name}.") if section else [prefix + name]
    return found


def wanted(name: str) -> Wanted:
    """Return what a setting is declared as."""
    found = Wanted(Settings)
    for step in name.split("."):
        found = found.inner(step)
    return found


NAMES = leaves(Settings)
ENTRIES = (
    "kafka.client.id",
    "kafka.producer.linger.ms",
    "streams_headers.x-key",
    "stream_defaults.x",
    "gateway",
    "intake",
)
TEXT_NAMES = (*(name for name in NAMES if wanted(name).kind is str), *ENTRIES[:3])
ODD = (
    *(
        "null",
        "~",
        "NULL",
        "",
        " ",
        "[]",
        "{}",
        "[null]",
        "a,b",
        "a, b,",
        ",",
        "[a",
        "{a",
        "{a: b}",
        "{file: /nowhere}",
        "{file:}",
    ),
    *(
        "{file: null}",
        "0",
        "-1",
        "1e3",
        "1_000",
        "0x10",
        "0123",
        "nan",
        "inf",
        ".inf",
        "1e999",
        "9" * 5000,
        "5m",
        "1h30m",
        "1.5.5s",
    ),
    *(
        "true",
        "True",
        "yes",
        "off",
        "1",
        "*",
        "&a [*a]",
        "*a",
        "!x y",
        "!!int x",
        "- a",
        "a: b",
        "a: b: c",
        "<<: 5",
        "[" * 200,
    ),
    *(
        "10.0.0.0/8",
        "::1",
        "[::1]",
        "nonsense",
        "kafka://",
        "kafka://h",
        "kafka://h:1",
        "kafka://h:x",
        "embedded:",
        "embedded::memory:",
    ),
    *(
        "[a-",
        "a{99999999999999}",
        "/(/",
        "//",
        "x\r\ny: z",
        "a\x00b",
        "ü",
        "☃",
        "\x7f",
        '"quoted"',
        "'single'",
        "[{}]",
        '[{"streams": 5}]',
    ),
    *(
        '[{"strams": "x"}]',
        '{"x": {"a": null}}',
        '{"x": 5}',
        "{x: [1, b]}",
        "latest",
        "1.2.3",
        "/error/2.1.0",
        "a..b",
        "2026-01-01",
    ),
)
TEXTS = (
    st.sampled_from(ODD)
    | st.text(max_size=12)
    | st.from_regex(r"[\[{]?[-a-z0-9:,.'\"{}\[\]&*!|>#%@ ]{0,12}[\]}]?", fullmatch=True)
)


def outcome(given: Callable[[], Iterable[Given]]) -> Mapping[str, Any] | str:
    """Return what the settings are, or that they are refused in one line; anything else is raised."""
    try:
        return read_settings(Settings, given()).model_dump()
    except ConfigurationError as exc:
        message = exc.message
    return "refused" if "\n" not in message and "pydantic" not in message else message


def from_text_file(name: str, value: Any) -> Mapping[str, Any] | str:
    """Read one setting from a file, nested as a user writes it."""
    *sections, last = name.split(".", 1) if name.split(".")[0] in ("gateway", "intake", "admin", "embedded") else [name]
    document: Any = {last: value}
    for section in sections:
        document = {section: document}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        file.write(json.dumps(document))
        file.flush()
        return outcome(lambda: from_file(file.name))


def assert_same_from_everywhere(name: str, value: Any) -> None:
    """Read one value from a file, the environment and the command line."""
    text = value if isinstance(value, str) else json.dumps(value)
    expected = from_text_file(name, value)
    assert expected == "refused" or isinstance(expected, dict)
    assert outcome(lambda: from_environment({variable(name): text})) == expected, text
    assert outcome(lambda: from_assignments([f"{name}={text}"])) == expected, text


@settings(deadline=None)
@given(st.sampled_from([*NAMES, *ENTRIES]), TEXTS)
def test_text_means_the_same_from_file_environment_and_assignment(name: str, text: str) -> None:
    assert_same_from_everywhere(name, text)


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_takes_or_refuses_each_odd_text_alike(name: str) -> None:
    for text in ODD:
        assert_same_from_everywhere(name, text)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["file", "streams", "when", "a", "producer", "x"]) | st.text(max_size=3), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.sampled_from([*NAMES, *ENTRIES]), VALUES)
def test_value_written_as_json_means_the_same_from_everywhere(name: str, value: Any) -> None:
    # A text may begin with a bracket, `[::1]` for one: only the file can tell it from a list.
    assume(not isinstance(value, list) or name not in TEXT_NAMES)
    assert_same_from_everywhere(name, value)


@settings(deadline=None)
@given(st.text(max_size=40) | st.from_regex(r"([a-z]+: ?[-\[\]{}&*!|>#%@`\"', a-z0-9]{0,12}\n?){0,4}", fullmatch=True))
def test_any_settings_file_is_read_or_refused_in_one_line(text: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8", errors="surrogatepass") as file:
        file.write(text)
        file.flush()
        found = outcome(lambda: from_file(file.name))
    assert found == "refused" or isinstance(found, dict)


@pytest.mark.parametrize(
    "raw", [b"\xff\xfe", b"a: \xff", b"\x00", b"[" * 5000, b"%YAML 9.9\n---\na: 1", b"--- 1\n--- 2"]
)
def test_file_that_is_no_yaml_is_told_in_our_words(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "settings.yaml"
    file.write_bytes(raw)
    with pytest.raises(ConfigurationError, match=r"^settings file .*settings\.yaml(:\d+)? is no YAML: [\w ,-]+$"):
        load_settings(str(file))
