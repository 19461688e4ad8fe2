"""Where services listen: several addresses, unix sockets, sockets of a service manager."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from eventstreams.errors import ConfigurationError
from eventstreams.eventlog.embedded.log import open_embedded
from eventstreams.listening import Listening, open_listening, url_of, urls_of
from eventstreams.records import NewRecord
from eventstreams.server import BACKLOG
from tests.conftest import missing_tools
from tests.support import needed
from tests.support.kafka import free_port
from tests.support.processes import ROOT, CommandProcess, GatewayProcess, IntakeProcess
from tests.test_cli import FREE_PORTS, run

EVENT = {"$schema": "/test/event/1.0.0", "meta": {"stream": "test.event"}, "test": "hello"}
SOMAXCONN = int(Path("/proc/sys/net/core/somaxconn").read_text())


@contextlib.contextmanager
def listening(*hosts: str, port: int = 0) -> Iterator[Listening]:
    opened = open_listening(list(hosts), port)
    with contextlib.closing(opened):
        yield opened


def is_reached(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=5).close()
    except OSError:
        return False
    return True


def port_of(opened: Listening) -> int:
    return int(opened.sockets[0].getsockname()[1])


# -- addresses


def test_all_hosts_are_listened_on_at_one_port() -> None:
    with listening("127.0.0.1", "[::1]", "127.0.0.2", "127.0.0.1") as opened:
        port = port_of(opened)
        assert urls_of(opened) == [f"http://{host}:{port}" for host in ("127.0.0.1", "[::1]", "127.0.0.2")]
        assert all(is_reached(address, port) for address in ("127.0.0.1", "::1", "127.0.0.2"))
        assert not is_reached("127.0.0.3", port)
    assert not is_reached("127.0.0.1", port)


def test_all_of_ipv6_serves_ipv4_too_unless_an_address_of_that_is_named_beside() -> None:
    with listening("::") as opened:
        assert is_reached("127.0.0.3", port_of(opened))
        assert is_reached("::1", port_of(opened))
    with listening("::", "127.0.0.1") as opened:
        assert [is_reached(address, port_of(opened)) for address in ("::1", "127.0.0.1", "127.0.0.3")] == [1, 1, 0]
    with listening("0.0.0.0", "::") as opened:
        assert is_reached("127.0.0.3", port_of(opened))
        assert is_reached("::1", port_of(opened))


def test_name_stands_for_its_addresses() -> None:
    with listening("localhost") as opened:
        assert urls_of(opened)[0] == f"http://127.0.0.1:{port_of(opened)}"
    with contextlib.closing(open_listening("localhost,127.0.0.2", 0)) as opened:
        assert is_reached("127.0.0.2", port_of(opened))


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        ("nosuch.invalid", "cannot listen on nosuch.invalid port 0: "),
        ("192.0.2.1", "cannot listen on 192.0.2.1 port 0: Cannot assign requested address"),
        ("127.0.0.1,", "expected addresses to listen on"),
        ("", "expected addresses to listen on"),
        ([], "expected addresses to listen on"),
        ("unix:", "expected addresses to listen on"),
        ("a" * 300, "cannot listen on aaa"),
        ("::1::2", "cannot listen on ::1::2 port 0: "),
        ("unix:/nowhere/at/all", "cannot listen on unix:/nowhere/at/all: No such file or directory"),
        ("unix:/" + "x" * 200, "AF_UNIX path too long"),
    ],
)
def test_host_that_cannot_be_listened_on_is_named(hosts: str | list[str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        open_listening(hosts, 0)


def test_port_that_is_taken_at_one_host_leaves_none_open(tmp_path: Path) -> None:
    with listening("127.0.0.2") as taken:
        port = port_of(taken)
        with pytest.raises(ConfigurationError, match=f"127.0.0.2 port {port}: Address already in use"):
            open_listening(["127.0.0.1", "127.0.0.2", f"unix:{tmp_path / 'socket'}"], port)
        assert not is_reached("127.0.0.1", port)
    assert not (tmp_path / "socket").exists()


# -- files of sockets


def test_file_of_a_socket_is_open_to_all_and_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with listening(f"unix:{path}", "127.0.0.1") as opened:
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        assert urls_of(opened) == [f"http://127.0.0.1:{port_of(opened)}", f"unix:{path}"]
        assert url_of(opened) == f"http://127.0.0.1:{port_of(opened)}"
        with pytest.raises(ConfigurationError, match="another process does"):
            open_listening(f"unix:{path}", 0)
        assert path.exists()
    assert not path.exists()


def test_file_that_a_killed_process_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with listening(f"unix:{path}"), socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(path))


def test_file_that_another_process_has_put_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with listening(f"unix:{path}"):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
    assert path.exists()


def test_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    path.write_text("precious")
    with pytest.raises(ConfigurationError, match="a file that is no socket"):
        open_listening(f"unix:{path}", 0)
    assert path.read_text() == "precious"


# -- processes


@asynccontextmanager
async def service(folder: Path, command: str, *settings: str, workers: int) -> AsyncIterator[CommandProcess]:
    process = await made(folder, command, *settings, workers=workers)
    async with process.running():
        yield process


async def made(folder: Path, command: str, *settings: str, workers: int) -> CommandProcess:
    """Return a service on a log with an event."""
    log = f"embedded:{folder / 'events.db'}"
    async with open_embedded(str(folder / "events.db")) as made:
        await made.create_topic("test.event")
        await made.append([NewRecord("test.event", b'{"n":0}', None, 1000)])
    if command == "intake":
        return IntakeProcess(log, *settings, workers=workers)
    (folder / "streams.yaml").write_text("streams: {edits: {topics: [test.event]}}")
    return GatewayProcess(log, folder / "streams.yaml", *settings, workers=workers)


def at(url: str) -> httpx.AsyncClient:
    """Return a client of a service at one of its URLs."""
    if url.startswith("unix:"):
        transport = httpx.AsyncHTTPTransport(uds=url.removeprefix("unix:"))
        return httpx.AsyncClient(transport=transport, base_url="http://here", timeout=30)
    return httpx.AsyncClient(base_url=url, timeout=30)


async def serves(url: str, **headers: str) -> bool:
    """Whether a gateway sends its event there, or intake takes one."""
    async with at(url) as http:
        if (await http.get("/_info")).json()["name"] == "eventstreams-intake":
            return (await http.post("/v1/events", json=EVENT, headers=headers)).status_code == 201
        async with http.stream("GET", "/v2/stream/edits?since=1", headers=headers) as answer, asyncio.timeout(30):
            return any([line async for line in until_event(answer)])


async def until_event(answer: httpx.Response) -> AsyncIterator[bool]:
    async for line in answer.aiter_lines():
        if line.startswith("data: "):
            yield True
            return


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("command", ["serve", "intake"])
async def test_service_serves_at_all_its_hosts(tmp_path: Path, command: str, workers: int) -> None:
    path, name = tmp_path / "socket", "gateway" if command == "serve" else "intake"
    hosts = f"{name}.host=127.0.0.1,::1,unix:{path}"
    given = (hosts, f"admin.host=127.0.0.1,unix:{tmp_path / 'admin'}", "trusted_proxies=unix")
    process = await made(tmp_path, command, *given, workers=workers)
    for end in (signal.SIGKILL, signal.SIGTERM):
        # The second time the files of the first are there.
        with (tmp_path / "errors").open("wb") as errors:
            process.errors = errors.fileno()
            async with process.running():
                urls = process.said.partition(" at ")[2].split(", ")
                assert [url.partition(":")[0] for url in urls] == ["http", "http", "unix"]
                assert [await serves(url, **{"x-client-ip": "7.7.7.7"}) for url in urls] == [True] * 3
                async with at(f"unix:{tmp_path / 'admin'}") as http:
                    assert (await http.get("/readyz")).status_code == 200
                await process.end(end)
                await gone(process)
        lines = map(json.loads, (tmp_path / "errors").read_text().splitlines())
        clients = [line["client"] for line in lines if line.get("path", "").startswith("/v")]
        assert clients == ["127.0.0.1", "::1", "7.7.7.7"]
    assert not path.exists()
    assert not (tmp_path / "admin").exists()


async def gone(process: CommandProcess) -> None:
    """Return when nobody listens any more, workers neither."""
    async with asyncio.timeout(30):
        while is_reached(*process.address):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_demo_wants_an_address_for_its_events(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    given = (f"intake.host=unix:{path}", f"log=embedded:{tmp_path / 'events.db'}")
    flags = [part for assignment in given for part in ("--set", assignment)]
    code, _, error = await run("dev", *FREE_PORTS, *flags)
    assert (code, error.count("\n")) == (2, 1)
    assert f"intake.host unix:{path}: expected an address beside it" in error
    assert not path.exists()


@pytest.mark.parametrize("workers", [1, 2])
async def test_backlog_is_the_documented_one(tmp_path: Path, workers: int) -> None:
    needed.program("ss", missing_tools)
    async with service(tmp_path, "serve", workers=workers) as process:
        asked = await asyncio.create_subprocess_exec("ss", "-Hltn", stdout=asyncio.subprocess.PIPE)
        told, _ = await asked.communicate()
        (line,) = [line.split() for line in told.decode().splitlines() if f":{process.address[1]} " in line]
        assert int(line[2]) == min(BACKLOG, SOMAXCONN)


# -- a service manager's sockets


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("command", ["serve", "intake"])
async def test_sockets_of_systemd_are_served_in_place_of_host_and_port(
    tmp_path: Path, command: str, workers: int
) -> None:
    activate, path, ports = (
        needed.program("systemd-socket-activate", missing_tools),
        tmp_path / "socket",
        (free_port(), free_port()),
    )
    process = await made(tmp_path, command, "log_level=error", workers=workers)
    sockets = ["-l", f"127.0.0.1:{ports[0]}", "-l", str(path), "-l", f"127.0.0.1:{ports[1]}"]
    names = "--fdname=web:web:admin"
    arguments = [activate, *sockets, names, "-E", f"PYTHONPATH={ROOT}", sys.executable, *process._arguments]
    running = await asyncio.create_subprocess_exec(*arguments, cwd=ROOT, stderr=asyncio.subprocess.DEVNULL)
    try:
        for url in (f"http://127.0.0.1:{ports[0]}", f"unix:{path}", f"http://127.0.0.1:{ports[0]}"):
            # The first connection starts the process; it waits in the queue meanwhile.
            assert await serves(url)
        async with at(f"http://127.0.0.1:{ports[1]}") as http:
            assert (await http.get("/readyz")).status_code == 200
        assert not is_reached("127.0.0.1", process.admin_port)
        running.terminate()
        assert await asyncio.wait_for(running.wait(), 30) == 0
        # It is the service manager's.
        assert path.exists()
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()


@pytest.mark.parametrize(
    "preamble",
    [b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", b"PROXY UNKNOWN\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12)],
)
async def test_proxy_protocol_is_answered_400(tmp_path: Path, preamble: bytes) -> None:
    async with service(tmp_path, "serve", "log_level=error", workers=1) as process:
        reader, writer = await asyncio.open_connection(*process.address)
        writer.write(preamble + b"GET /_info HTTP/1.1\r\nHost: here\r\n\r\n")
        async with asyncio.timeout(30):
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()
