"""EventGate as it comes, where somebody has installed it: the stock factory, guaranteed, one worker."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from bench import machine
from bench.processes import BenchError, running
from tests.support.kafka import free_port

PLACES = (".", "node_modules/eventgate")
START_TIMEOUT = 30.0


def find_eventgate(folder: Path) -> Path:
    """Return EventGate's own directory in `folder`. Raises: BenchError where it, or Node, is not there."""
    if shutil.which("node") is None:
        raise BenchError("--eventgate: there is no node")
    for place in PLACES:
        home = (folder / place).resolve()
        with suppress(OSError, ValueError):
            if json.loads((home / "package.json").read_text())["name"] == "eventgate" and (home / "server.js").exists():
                return home
    raise BenchError(f"--eventgate {folder}: no package eventgate there, nor in its node_modules")


def write_config(path: Path, port: int, servers: str, schemas: Path) -> Path:
    """Write the configuration of a service runner with one EventGate (JSON is YAML)."""
    conf = {
        "port": port,
        "interface": "127.0.0.1",
        "max_body_size": "10mb",
        "user_agent": "bench",
        "eventgate_factory_module": "../lib/factories/default-eventgate",
        "schema_uri_field": "$schema",
        "schema_base_uris": [schemas.as_uri()],
        "schema_file_extension": ".yaml",
        "stream_field": "meta.stream",
        "kafka": {
            "conf": {
                "metadata.broker.list": servers,
                "compression.codec": "snappy",
                "queue.buffering.max.ms": 2,
            },
            "topic_conf": {"request.required.acks": -1},
        },
    }
    service = {"name": "eventgate", "module": "./app.js", "conf": conf}
    path.write_text(json.dumps({"num_workers": 0, "logging": {"level": "error"}, "services": [service]}, indent=1))
    return path


@asynccontextmanager
async def open_eventgate(home: Path, folder: Path, servers: str, schemas: Path) -> AsyncIterator[tuple[int, int]]:
    """Run EventGate while the context lasts; yields its process and port. Raises: BenchError."""
    place, port = find_eventgate(home), free_port()
    config = write_config(folder / "eventgate.yaml", port, servers, schemas)
    async with running(["node", "server.js", "-c", config], machine.SERVER_CORE, folder=place) as process:
        await wait_for_port(port)
        yield process.pid, port


async def wait_for_port(port: int) -> None:
    """Return when something listens. Raises: BenchError."""
    for _ in range(int(START_TIMEOUT / 0.1)):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.1)  # it says nothing when it is up
            continue
        writer.close()
        return
    raise BenchError(f"nothing listens on port {port} after {START_TIMEOUT:g} s")
