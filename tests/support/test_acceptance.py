"""`make acceptance` on small kits made here: what they describe is started, what they find decides the exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.acceptance import intake, streaming
from tests.support.acceptance.__main__ import verdict
from tests.support.acceptance.translate import GATEWAY, translate
from tests.support.kafka import Broker
from tests.support.processes import ROOT

BROKER = """
# Relays to a real broker, and takes orders as a double does.
import os, socket, sys, threading
port, real = int(sys.argv[1]), int(os.environ["REAL_KAFKA"])

def pump(here, there):
    while data := here.recv(65536):
        there.sendall(data)
    there.shutdown(socket.SHUT_WR)

def relay():
    server = socket.create_server(("127.0.0.1", port))
    while True:
        near, far = server.accept()[0], socket.create_connection(("127.0.0.1", real))
        for pair in ((near, far), (far, near)):
            threading.Thread(target=pump, args=pair, daemon=True).start()

threading.Thread(target=relay, daemon=True).start()
control = socket.create_server(("127.0.0.1", port + 1))
while True:
    connection, _ = control.accept()
    for line in connection.makefile("rb"):
        connection.sendall(b'{"ok": 1}\\n')
"""

COMMON = """
import json, os, sys, urllib.error, urllib.request
HERE = os.path.dirname(os.path.abspath(__file__))

class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *given):
        return None

def ask(port, path, body=None):
    url = f"http://127.0.0.1:{os.environ[port]}{path}"
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    try:
        with urllib.request.build_opener(Stay).open(request, timeout=20) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as answer:
        return answer.code, answer.headers, answer.read().decode()

def judge(verdicts):
    failed = [name for name, well in verdicts.items() if not well]
    for name in failed:
        print("FAIL", name)
    print(f"{len(verdicts) - len(failed)} passed, {len(failed)} failed, 0 skipped")
"""

STREAMING = (
    COMMON
    + """
if sys.argv[1] == "seed":
    import socket
    with socket.create_connection(("127.0.0.1", int(os.environ["CTL"]))) as control:
        control.sendall(b'{"op": "topic", "name": "t", "n": 1}\\n')
        sys.exit(control.recv(100) != b'{"ok": 1}\\n')
spec = json.loads(ask("B", "/?spec")[2])
judge({
    "page of A": ask("A", "/")[1]["location"] == "/v2/ui",
    "page of B": ask("B", "/")[1]["location"] == "/?doc",
    "stream of A": ask("A", "/v2/stream/nope")[0] == 400,
    "names": spec["paths"]["/v2/stream/{streams}"]["get"]["parameters"][0]["schema"]["items"]["enum"] == ["one", "uno"],
    "schema": "example" in json.dumps(spec["paths"]["/v2/stream/uno"]),
    "own": not os.path.exists(HERE + "/fail"),
})
"""
)

STREAMS: Mapping[str, Any] = {
    "config_A": {
        "stream_config_object_path": "here",
        "stream_config_defaults": {"one": {"stream_aliases": ["uno"]}},
        "schema_latest_version": "latest",
        "stream_ui_enabled": True,
        "allowed_streams": ["one"],
    },
    "config_B": {"stream_ui_enabled": False},
    "stream_config_document": {
        "here": {"one": {"topics": ["t"], "schema_title": "one/thing"}, "two": {"topics": ["t"]}}
    },
    "schema_repository": {"one/thing/latest": "any"},
}

INTAKE = (
    COMMON
    + """
if sys.argv[1] == "fixtures":
    os.makedirs(sys.argv[2] + "/X/0/thing")
    schema = {"title": "thing", "$id": "/thing/1.0.0", "$schema": "http://json-schema.org/draft-07/schema#",
              "type": "object", "properties": {"$schema": {"type": "string"}, "meta": {"type": "object"}}}
    json.dump(schema, open(sys.argv[2] + "/X/0/thing/1.0.0", "w"))
    streams = {"x.one": {"schema_title": "thing"}, "x.two": {"schema_title": "thing"}}
    json.dump({"s": streams}, open(sys.argv[2] + "/X/s.json", "w"))
if sys.argv[1] != "run":
    sys.exit()
def post(port, stream):
    event = {"$schema": "/thing/1.0.0", "meta": {"stream": stream}}
    return ask(port, "/v1/events", json.dumps(event).encode())[0]
judge({
    "a topic": post("X", "x.one") == 201,
    "no topic": post("X", "x.two") == 500,
    "no stream": post("X", "x.three") in (400, 500),
    "variant": ask("X9", "/robots.txt")[1]["access-control-allow-origin"] is None,
    "base": ask("X", "/robots.txt")[1]["access-control-allow-origin"] == "*",
    "metrics": b"eventgate_" in __import__("urllib.request").request.urlopen(os.environ["METRICS"]).read(),
    "Kafka": bool(os.environ["KAFKA"]),
})
"""
)

SERVICES: Mapping[str, Any] = {
    "X": {
        "settings": {
            "schema_base_uris": ["X/0/"],
            "stream_config_uri": "s.json",
            "stream_config_object_path": "s",
            "topic_prefix": "p.",
            "max_body_size": "1mb",
        },
        "sink": "Kafka",
        "topics": ["p.x.one"],
        "streams": {},
        "schemas": [],
    },
    "X9": {"settings": {"cors": False}},
}


def kit(folder: Path, **files: str | Mapping[str, Any]) -> Path:
    for name, content in files.items():
        suffix = ".py" if isinstance(content, str) else ".json"
        (folder / (name + suffix)).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def run(folder: Path, broker: Broker | None = None) -> tuple[int, list[str]]:
    command = [sys.executable, "-m", "tests.support.acceptance", str(folder)]
    environment = {**os.environ, **({} if broker is None else {"REAL_KAFKA": str(broker.port)})}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False)
    return done.returncode, (done.stdout or done.stderr).splitlines()


def streaming_kit(folder: Path) -> Path:
    return kit(folder, run_cases=STREAMING, fakebroker=BROKER, eventstreams_fixture=STREAMS)


@pytest.mark.kafka
def test_streaming_kit_is_run_under_each_of_its_configurations(tmp_path: Path, kafka_broker: Broker) -> None:
    status, said = run(streaming_kit(tmp_path), kafka_broker)
    assert (status, said[-1]) == (0, "run_cases.py: 6 passed, 0 failed, 0 skipped"), said


@pytest.mark.kafka
def test_exit_status_tells_a_failed_case(tmp_path: Path, kafka_broker: Broker) -> None:
    (streaming_kit(tmp_path) / "fail").touch()
    status, said = run(tmp_path, kafka_broker)
    assert (status, said[-1]) == (1, "run_cases.py: 5 passed, 1 failed, 0 skipped")


@pytest.mark.parametrize(
    ("status", "said", "well"),
    [
        (0, "chatter\n3 passed, 0 failed, 2 skipped\n", True),
        (0, "3 passed, 1 failed, 2 skipped", False),
        (1, "3 passed, 0 failed, 2 skipped", False),
        (0, "0 passed, 0 failed, 2 skipped", False),
        (0, "3 passed, 0 failed, 2 skipped\nTraceback", False),
        (0, "", False),
    ],
)
def test_crashed_runner_and_a_run_without_cases_are_not_well(status: int, said: str, well: bool) -> None:
    assert verdict(status, said)[1] is well


@pytest.mark.kafka
@pytest.mark.usefixtures("kafka_broker")
def test_intake_kit_is_run_on_a_real_kafka(tmp_path: Path) -> None:
    status, said = run(kit(tmp_path, run_eventgate_cases=INTAKE, eventgate_fixtures=SERVICES))
    assert (status, said[-1]) == (0, "run_eventgate_cases.py: 7 passed, 0 failed, 0 skipped"), said


def test_folder_without_a_kit_is_refused(tmp_path: Path) -> None:
    status, said = run(tmp_path)
    assert status == 1
    assert "holds no kit" in said[-1]


def test_settings_that_are_not_ours_are_told(tmp_path: Path) -> None:
    settings, unknown = translate({"cors": False, "client_ip_connection_limit": 3, "port": 1, "moon": 1}, GATEWAY)
    assert unknown == ["moon"]
    assert settings["gateway.cors"] is None
    assert settings["gateway.connections_per_client"] == 3
    told: list[str] = []
    streaming.gateways({**STREAMS, "config_B": {"moon": 1}}, tmp_path, told.append)
    assert len(told) == 1


def test_variant_has_its_settings_over_those_of_what_it_varies() -> None:
    made = intake.with_variants({"about": "", **SERVICES})
    assert made["X9"]["settings"] == {**SERVICES["X"]["settings"], "cors": False}
    assert made["X9"]["folder"] == made["X"]["folder"] == "X"
