"""What is compared: ours, the floor, and the rivals; each a server with a way to publish to all its streams."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from bench import events
from bench.machine import SERVER_CORE
from bench.processes import BenchError, Unavailable, compiled, python, running
from eventstreams.errors import EventStreamsError
from eventstreams.eventlog.base import EventLog
from eventstreams.eventlog.embedded.log import open_embedded
from tests.support.kafka import free_port

MODULE = "ngx_nchan_module.so"
MODULE_FOLDERS = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules")
GATEWAY = "from eventstreams.cli import main; main()"


@dataclass(frozen=True, slots=True)
class Target:
    """A server that is up."""

    pid: int
    port: int
    path: str
    publish: Callable[[int], Awaitable[None]]
    """Makes so many events and publishes them in one go."""


Opening = Callable[[Path], AbstractAsyncContextManager[Target]]


def write_streams(folder: Path) -> Path:
    """Write a stream configuration with the one stream of the benches; return its place."""
    path = folder / "streams.json"
    path.write_bytes(
        orjson.dumps({"streams": {events.TOPIC: {"topics": [events.TOPIC], "schema_title": "test/event"}}})
    )
    return path


def database(folder: Path) -> Path:
    """Return where the embedded log of a bench is."""
    return folder / "events.db"


@asynccontextmanager
async def fresh_log(folder: Path) -> AsyncIterator[EventLog]:
    """Open the embedded log of a bench anew, with its topic; in a process beside the one that reads it."""
    _remove_log(folder)
    async with open_embedded(str(database(folder))) as log:
        await log.create_topic(events.TOPIC)
        yield log


def _remove_log(folder: Path) -> None:
    for left in folder.glob("events.db*"):
        left.unlink()


def publisher(log: EventLog) -> Callable[[int], Awaitable[None]]:
    """Return what appends events made now."""

    async def publish(count: int) -> None:
        for outcome in await log.append(events.records(count)):
            if isinstance(outcome, EventStreamsError):
                raise BenchError(f"an event was not stored: {outcome}")

    return publish


def gateway_command(log: str, streams: Path, *settings: str, service: str = "serve") -> Sequence[str]:
    """Return the command of a gateway (or intake) process on free ports, quiet."""
    given = (f"log={log}", f"streams={streams}", "gateway.port=0", "intake.port=0", "admin.port=0", *settings)
    flags = [part for assignment in (*given, "log_level=error") for part in ("--set", assignment)]
    return python("-c", GATEWAY, service, *flags)


def port_in(line: str) -> int:
    """Return the port in what a process says when it is up."""
    return int(line.rsplit(":", 1)[-1].split()[-1].rstrip("/"))


@asynccontextmanager
async def ours(folder: Path) -> AsyncIterator[Target]:
    """The gateway as it is started by anybody: `eventstreams serve`, direct path."""
    command = gateway_command(f"embedded:{database(folder)}", write_streams(folder))
    async with fresh_log(folder) as log, running(command, SERVER_CORE) as process:
        port = port_in(await process.line_with("serving streams at"))
        yield Target(process.pid, port, f"/v2/stream/{events.TOPIC}", publisher(log))


@asynccontextmanager
async def portable(folder: Path) -> AsyncIterator[Target]:
    """The same engine behind `EventSourceResponse`."""
    command = python("-m", "bench.servers.portable", f"embedded:{database(folder)}", str(write_streams(folder)))
    async with fresh_log(folder) as log, running(command, SERVER_CORE) as process:
        port = port_in(await process.line_with("port"))
        yield Target(process.pid, port, f"/v2/stream/{events.TOPIC}", publisher(log))


@asynccontextmanager
async def queues(folder: Path) -> AsyncIterator[Target]:
    """A queue and an `EventSourceResponse` for each client."""
    command = python("-m", "bench.servers.queues", f"embedded:{database(folder)}")
    async with fresh_log(folder) as log, running(command, SERVER_CORE) as process:
        yield Target(process.pid, port_in(await process.line_with("port")), "/", publisher(log))


@asynccontextmanager
async def sendloop(folder: Path) -> AsyncIterator[Target]:
    """The floor: a C program that does nothing but send()."""
    async with running([compiled("sendloop")], SERVER_CORE) as process:

        async def publish(count: int) -> None:
            await process.say(b"\n".join(events.frame_line() for _ in range(count)))

        yield Target(process.pid, port_in(await process.line_with("port")), "/", publish)


NGINX = """\
load_module {module};
daemon off;
user {user};
worker_processes 1;
worker_rlimit_nofile 20000;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log error;
events {{ worker_connections 19000; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 100000000;
  tcp_nodelay on;
  nchan_shared_memory_size 256M;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = /publish {{ nchan_publisher; nchan_channel_id bench; nchan_message_buffer_length 5000; }}
    location = /subscribe {{
      nchan_subscriber eventsource; nchan_channel_id bench; nchan_subscriber_first_message newest;
    }}
  }}
}}
"""


def nchan_module() -> Path:
    """Return nchan's module, installed where that is possible. Raises: Unavailable."""
    found = _installed_module()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (["update", "-q"], ["install", "-qy", "nginx", "libnginx-mod-nchan"]):
            quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            subprocess.run(["apt-get", *command], stdout=subprocess.DEVNULL, env=quiet, check=False)
        found = _installed_module()
    if found is None:
        raise Unavailable("nginx with nchan is not here (Debian: nginx, libnginx-mod-nchan)")
    return found


def _installed_module() -> Path | None:
    if shutil.which("nginx") is None:
        return None
    return next((path for folder in MODULE_FOLDERS if (path := Path(folder) / MODULE).exists()), None)


@asynccontextmanager
async def nchan(folder: Path) -> AsyncIterator[Target]:
    """nginx with nchan, one worker. Raises: Unavailable."""
    module, port = nchan_module(), free_port()
    config = folder / "nginx.conf"
    user = "root" if os.geteuid() == 0 else "nobody"
    config.write_text(NGINX.format(module=module, folder=folder, port=port, user=user))
    async with running(["nginx", "-p", folder, "-c", config], SERVER_CORE) as process:
        reader, writer = await _connect(port)
        head = f"POST /publish HTTP/1.1\r\nHost: bench\r\nContent-Length: {events.SIZE}\r\n\r\n".encode()

        async def publish(count: int) -> None:
            writer.write(b"".join(head + events.event() for _ in range(count)))
            for _ in range(count):
                await _read_answer(reader)

        try:
            yield Target(process.pid, port, "/subscribe", publish)
        finally:
            writer.close()


async def _connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    for _ in range(100):
        try:
            return await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.05)  # nginx says nothing when it is up
    raise BenchError("nginx did not come up")


async def _read_answer(reader: asyncio.StreamReader) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if not head.startswith((b"http/1.1 201", b"http/1.1 202")):
        raise BenchError(f"nchan refused an event: {head[:60]!r}")
    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
    await reader.readexactly(length)
