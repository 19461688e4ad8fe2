"""The streaming half of a kit: gateways over the kit's broker double."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.acceptance.servers import KitError, Server, ended, run_python
from tests.support.acceptance.translate import GATEWAY, Settings, translate

RUNNER, FIXTURE, BROKER = "run_cases.py", "eventstreams_fixture.json", "fakebroker.py"
PREFIX = "config_"
BUILT_IN = {"gateway.title": "Wikimedia EventStreams"}
"""What the original says of itself whatever its settings are."""

ANSWER_TIMEOUT = 20.0
TRIES = 5


@contextlib.contextmanager
def environment(kit: Path, folder: Path, say: Any) -> Iterator[tuple[Mapping[str, str], list[Server]]]:
    """Start broker double and a gateway for each configuration; yield what the runner reads, and the servers."""
    fixture = json.loads((kit / FIXTURE).read_text(encoding="utf-8"))
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(_broker(kit))
        control = {"CTL": str(port + 1)}
        status, said = run_python([kit / RUNNER, "seed"], control, kit)
        if status:
            raise KitError(f"{RUNNER} seed ended with {status}: {said[-2000:]}")
        servers = []
        for name, settings in gateways(fixture, folder, say).items():
            log = {"log": f"kafka://127.0.0.1:{port}", "log_level": "error"}
            servers.append(stack.enter_context(Server(name, "serve", {**settings, **log}, folder).running()))
        yield {**control, **{server.name: str(server.port) for server in servers}}, servers


def gateways(fixture: Mapping[str, Any], folder: Path, say: Any) -> Mapping[str, Settings]:
    """Return the settings of each gateway that the fixture configures: the first as it is, others laid over it."""
    document = folder / "streams.json"
    document.write_text(json.dumps(fixture.get("stream_config_document", {})), encoding="utf-8")
    schemas = folder / "schemas"
    schemas.mkdir(exist_ok=True)
    _write_schemas(fixture, schemas)
    configs = {key.removeprefix(PREFIX): value for key, value in fixture.items() if key.startswith(PREFIX)}
    first: Mapping[str, Any] = next(iter(configs.values()), {})
    made = {}
    for name, config in configs.items():
        settings, unknown = translate({**first, **config}, GATEWAY)
        for left_out in unknown:
            say(f"{FIXTURE}: {left_out} of {name} has no counterpart here and is left out")
        made[name] = {**BUILT_IN, "streams": str(document), "schemas": [str(schemas)], **settings}
    return made


def _write_schemas(fixture: Mapping[str, Any], folder: Path) -> None:
    """Write the schemas: as they are given, or, where a fixture only describes one, a plain one with an example."""
    for place, given in fixture.get("schema_repository", {}).items():
        title, _, version = place.strip("/").rpartition("/")
        version = "1.0.0" if version == "latest" else version
        path = folder / title / version
        path.parent.mkdir(parents=True, exist_ok=True)
        schema = given if isinstance(given, dict) else _any_schema(title, version)
        path.write_text(json.dumps(schema), encoding="utf-8")


def _any_schema(title: str, version: str) -> Mapping[str, Any]:
    uri = f"/{title}/{version}"
    return {
        "title": title,
        "$id": uri,
        "$schema": "https://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {"$schema": {"type": "string"}, "meta": {"type": "object"}},
        "examples": [{"$schema": uri, "meta": {"stream": title.replace("/", ".")}}],
    }


@contextlib.contextmanager
def _broker(kit: Path) -> Iterator[int]:
    """Run the kit's broker double; yield its port. Its control port is the next."""
    for _ in range(TRIES):
        port = _free_pair()
        process = subprocess.Popen([sys.executable, str(kit / BROKER), str(port)], text=True, cwd=kit)
        with ended(process):
            if _answers(process, port + 1):
                yield port
                return
    raise KitError(f"{BROKER} did not start")


def _free_pair() -> int:
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port: int = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError), socket.create_server(("127.0.0.1", port + 1)):
                return port


def _answers(process: subprocess.Popen[str], port: int) -> bool:
    deadline = time.monotonic() + ANSWER_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return True
        time.sleep(0.02)
    return False
