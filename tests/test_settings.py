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
        ("gateway: {port: !env PORT}", r"setting gateway\.port = PORT: expected a whole number from 0 to 65535"),
        ("gateway: {port: 70000}", r"setting gateway\.port = 70000: expected a whole number from 0 to 65535 \(.*:1\)"),
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
        "producer": {"linger.ms": "1", "acks": "all"},
        "consumer": {"fetch.min.bytes": "9"},
    }
    assignments = ["kafka.sasl.password={file: three}", "kafka.producer.linger.ms=5", "kafka.client.id={b"]
    assert load_settings(str(file), assignments).kafka == {
        "client.id": "{b",
        "sasl.password": {"file": "three"},
        "producer": {"linger.ms": "5", "acks": "all"},
        "consumer": {"fetch.min.bytes": "9"},
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
        ('gateway: {title: "now {here}"}', "gateway.title", "now {here}"),
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


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("gateway.port=x", r"^setting gateway\.port = x: expected a whole number from 0 to 65535 \(--set\)$"),
        (
            "gateway.prot=1",
            r"^setting gateway\.prot: there is no such setting; the nearest is gateway\.port \(--set\)$",
        ),
        ("gateway.port.x=1", r"^setting gateway\.port\.x: there is no such setting; the nearest is gateway\.port \("),
        ("trusted_proxies=10.0.0.0/8,nonsense", r"trusted_proxies\.1 = nonsense: expected an address, a network"),
        ("intake.denied_user_agents=bot(", r"intake\.denied_user_agents\.0 = 'bot\(': expected a regular expression"),
        ("intake.denied_user_agents=a{9999999999999}", "expected a regular expression"),
        (
            "gateway.redaction={streams: /(/}",
            r"gateway\.redaction\.0\.streams = '/\(/': expected a stream's name, or a reg",
        ),
        ("gateway.redaction={strems: x}", r"redaction\.0\.strems: there is no such setting; the nearest is streams"),
        ("gateway.redaction={when: {field: a}}", r"redaction\.0\.when\.0\.one_of: expected a list of values, or lists"),
        ("gateway.csp=a\nb", r"gateway\.csp = 'a\\nb': expected a header's value"),
        ("gateway.cors=☃", "expected a header's value"),
        ("intake.formats=lax", "intake.formats = lax: expected one of production, strict"),
        ("gateway.heartbeat=inf", "gateway.heartbeat = inf: expected seconds"),
        ("gateway.send_timeout=1e300", "expected seconds"),
        ("gateway.title=null", "gateway.title = null: expected a text"),
        ("schemas=null", "schemas = null: expected a list"),
        ("gateway.title={file: /no/such}", "gateway.title: file /no/such cannot be read: No such file or directory"),
        ("log=kafka://h", r"log = kafka://h: expected embedded:PATH, embedded::memory: or kafka://HOST:PORT"),
        ("log=kafka://h:1,h:99999", "log = "),
        ("intake.topic_prefix=a b", "intake.topic_prefix = 'a b': expected up to 200 of"),
        ("gateway.schema_version=1", "gateway.schema_version = 1: expected latest or X.Y.Z"),
    ],
)
def test_assignments_that_cannot_be_used_are_told_in_one_sentence(assignment: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_settings(None, [assignment])
    assert str(caught.value).endswith("(--set)")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("EVENTSTREAMS_NOSUCH", "1", r"^setting nosuch: there is no such setting \(EVENTSTREAMS_NOSUCH\)$"),
        ("EVENTSTREAMS_GATEWAY__NOSUCH", "1", r"^setting gateway\.nosuch: there is no such setting \("),
        ("EVENTSTREAMS_GATEWAY_PORT", "1", r"the nearest is EVENTSTREAMS_GATEWAY__PORT \(EVENTSTREAMS_GATEWAY_PORT\)$"),
        ("EVENTSTREAMS_GATEWAY__PORT", "x", r"expected a whole number from 0 to 65535 \(EVENTSTREAMS_GATEWAY__PORT\)$"),
        ("EVENTSTREAMS_GATEWAY", "5", r"^setting gateway = 5: expected settings by name \(EVENTSTREAMS_GATEWAY\)$"),
        ("EVENTSTREAMS_GATEWAY", "{prot: 5}", r"^setting gateway\.prot: there is no such setting"),
    ],
)
def test_variables_that_cannot_be_used_are_told_by_their_own_names(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=message):
        load_settings()


def test_every_mistake_of_a_file_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(
        "gateway:\n  prot: 1\n  port: x\nkafka: 5\nintake: {transforms: [defaults, nope]}\nnosuch: {a: b}\n"
    )
    with pytest.raises(ConfigurationError) as caught:
        load_settings(str(file))
    told = str(caught.value).split("; ")
    assert [line for line in (2, 4, 6) if not any(f"{file}:{line})" in one for one in told)] == []
    file.write_text("gateway:\n  port: x\nintake:\n  transforms:\n  - defaults\n  - nope\n")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(str(file))
    assert str(caught.value) == (
        f"setting gateway.port = x: expected a whole number from 0 to 65535 ({file}:2);"
        f" setting intake.transforms.1 = nope: expected one of defaults, edge_uniques, test_kitchen ({file}:6)"
    )


@pytest.mark.parametrize(
    "assignment",
    [
        "kafka.sasl.password={secret: secret}",
        "kafka.sasl.password=sec\0ret",
        "kafka=[secret]",
        "kafka.producer=secret",
        "kafka={sasl.password: [secret]}",
        "streams_headers.Authorization=Bearer secret\n",
        "streams_headers={Authorization: [secret]}",
        "streams_headers={a: b: secret}",
        "streams_headers=secret",
        "streams_headers: {Authorization: Bearer secret=}",
        "strems_headers.Authorization=secret",
        "log=kafka://user:secret@host",
    ],
)
def test_secrets_are_not_shown(assignment: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(None, [assignment])
    assert "secret" not in str(caught.value)


def test_texts_are_read_from_files_that_are_named(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("Bearer x\n")
    file = tmp_path / "settings.yaml"
    file.write_text(f"streams_headers: {{Authorization: {{file: {tmp_path}/token}}}}\n")
    assert load_settings(str(file)).streams_headers == {"Authorization": "Bearer x"}
    given = [f"streams_headers.Authorization={{file: {tmp_path}/token}}", "streams_headers.X-Key=k"]
    assert load_settings(None, given).streams_headers == {"Authorization": "Bearer x", "X-Key": "k"}


def test_what_kubernetes_says_of_services_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for service in ("EVENTSTREAMS", "EVENTSTREAMS_GATEWAY"):
        monkeypatch.setenv(f"{service}_SERVICE_HOST", "10.0.0.1")
        monkeypatch.setenv(f"{service}_SERVICE_PORT_HTTP", "8092")
        monkeypatch.setenv(f"{service}_PORT", "tcp://10.0.0.1:8092")
        monkeypatch.setenv(f"{service}_PORT_8092_TCP_ADDR", "10.0.0.1")
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("250ms", 0.25), ("1d", 86400)],
)
def test_times_are_seconds_or_have_units(text: str, seconds: float) -> None:
    assert load_settings(None, [f"log_wait={text}"]).log_wait == seconds


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("one", ["one"]),
        ("one, two,", ["one", "two"]),
        ('["one,two", three]', ["one,two", "three"]),
        ("", []),
        ("[]", []),
    ],
)
def test_lists_are_one_value_several_between_commas_or_json(text: str, items: list[str]) -> None:
    assert load_settings(None, [f"schemas={text}"]).schemas == items
    assert load_settings(None, [f"allowed_streams={text}"]).allowed_streams == (items if text else None)


@pytest.mark.parametrize("text", ["null", "~", ""])
@pytest.mark.parametrize(
    "name", ["gateway.cors", "gateway.csp", "intake.cors", "intake.spool", "admin.port", "log_level"]
)
def test_null_and_nothing_are_null_where_a_setting_takes_it(name: str, text: str) -> None:
    section, _, last = name.rpartition(".")
    settings = load_settings(None, [f"{name}={text}"])
    assert getattr(getattr(settings, section) if section else settings, last) is None


def test_sections_and_kafka_are_laid_over_by_name_and_all_else_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(
        "gateway: {port: 1, title: a}\nkafka: {client.id: a, acks: all}\nstreams_headers: {a: b}\nintake:\n"
    )
    monkeypatch.setenv("EVENTSTREAMS_GATEWAY", '{"port": 2}')
    monkeypatch.setenv("EVENTSTREAMS_KAFKA__PRODUCER__LINGER__MS", "5")
    settings = load_settings(str(file), ["kafka.acks=1", "streams_headers={c: d}"])
    assert (settings.gateway.port, settings.gateway.title) == (2, "a")
    assert settings.kafka == {"client.id": "a", "acks": "1", "producer": {"linger.ms": "5"}}
    assert settings.streams_headers == {"c": "d"}
