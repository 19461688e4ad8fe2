"""Settings: where they come from, what is refused, and that each is documented."""

from __future__ import annotations

import json
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

import pytest
from pydantic import BaseModel

from eventstreams.errors import ConfigurationError
from eventstreams.settings import Settings, load_settings

DOCS = Path(__file__).parent.parent / "docs"


def rows(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            yield from rows(type(default), f"{prefix}{name}.")
        else:
            yield f"| `{prefix}{name}` | `{default}` | {field.description} |"


def test_every_setting_is_documented_and_nothing_else() -> None:
    documented = [row for row in (DOCS / "settings.md").read_text().splitlines() if row.startswith("| `")]
    assert documented == list(rows(Settings))


def test_assignments_go_before_the_environment_and_that_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("gateway: {port: 1, heartbeat: 2, send_timeout: 3}\n")
    monkeypatch.setenv("EVENTSTREAMS_GATEWAY__HEARTBEAT", "20")
    monkeypatch.setenv("EVENTSTREAMS_GATEWAY__SEND_TIMEOUT", "30")
    gateway = load_settings(str(file), ["gateway.send_timeout=300"]).gateway
    assert (gateway.port, gateway.heartbeat, gateway.send_timeout) == (1, 20.0, 300.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gateway: {prot: 1}", r"setting gateway\.prot: there is no such setting"),
        ("gateway: {port: 70000}", r"setting gateway\.port = 70000: .*less than or equal to 65535"),
        ("[1]", "expected settings by name, found \\[1\\]"),
        ("a: {", "is no YAML"),
    ],
)
def test_bad_settings_say_which_and_what_was_expected(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        load_settings(str(file))


def test_missing_settings_file_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"settings file nowhere\.yaml cannot be read: No such file"):
        load_settings("nowhere.yaml")


@pytest.mark.parametrize("assignment", ["nope=1", "gateway=1=2", "gateway.port", "log.x=1", "kafka.a={b: c: d}"])
def test_bad_assignments_are_refused(assignment: str) -> None:
    with pytest.raises(ConfigurationError):
        load_settings(None, [assignment])


def test_properties_of_kafka_are_taken_from_file_environment_and_assignments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("kafka: {client.id: a, sasl.password: {file: one}, producer: {linger.ms: 1, acks: all}}\n")
    assert load_settings(str(file)).kafka["sasl.password"] == {"file": "one"}
    monkeypatch.setenv("EVENTSTREAMS_KAFKA", '{"sasl.password": {"file": "two"}, "consumer": {"fetch.min.bytes": 9}}')
    assert load_settings(str(file)).kafka == {
        "client.id": "a",
        "sasl.password": {"file": "two"},
        "producer": {"linger.ms": 1, "acks": "all"},
        "consumer": {"fetch.min.bytes": 9},
    }
    assignments = ["kafka.sasl.password={file: three}", "kafka.producer.linger.ms=5", "kafka.client.id={b"]
    assert load_settings(str(file), assignments).kafka == {
        "client.id": "{b",
        "sasl.password": {"file": "three"},
        "producer": {"linger.ms": "5", "acks": "all"},
        "consumer": {"fetch.min.bytes": 9},
    }


def test_time_that_the_log_may_be_away_is_seconds_or_without_end() -> None:
    assert load_settings(None, ["log_wait=null"]).log_wait is None
    assert load_settings(None, ["log_wait=0"]).log_wait == 0
    with pytest.raises(ConfigurationError, match="log_wait"):
        load_settings(None, ["log_wait=-1"])


@pytest.mark.parametrize(
    ("text", "name", "wanted"),
    [
        ('log: "embedded:{here}/data/events.db"', "log", "embedded:FOLDER/data/events.db"),
        ('streams: ["{here}/a.yaml", b.yaml, "https://x.example/{here}"]', "streams", ["FOLDER/a.yaml", "b.yaml"]),
        ('schemas: ["{here}"]', "schemas", ["FOLDER"]),
        ('kafka: {ssl.ca.location: "{here}/ca.pem"}', "kafka", {"ssl.ca.location": "FOLDER/ca.pem"}),
        ('kafka: {producer: {x: {file: "{here}/x"}}}', "kafka", {"producer": {"x": {"file": "FOLDER/x"}}}),
        ('intake: {spool: "{here}/spool"}', "intake.spool", "FOLDER/spool"),
        ("intake: {spool: null}", "intake.spool", None),
        ('gateway: {title: "{here}"}', "gateway.title", "{here}"),
        ("stream_overrides: {a: {description: '{here}'}}", "stream_overrides", {"a": {"description": "{here}"}}),
    ],
)
def test_here_is_the_folder_of_the_settings_file_in_paths(tmp_path: Path, text: str, name: str, wanted: object) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    found = attrgetter(name)(load_settings(str(file)))
    if isinstance(found, list):
        found = found[:2]
    assert json.loads(json.dumps(found).replace(str(tmp_path), "FOLDER")) == wanted
