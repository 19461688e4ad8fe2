"""A service started, used and ended several times in one process, and what the process has after each.

`python -m tests.support.cycles serve|intake LOG STREAMS [PREFIX]` prints a line of JSON per cycle.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Awaitable, Callable

import httpx

from eventstreams import processes
from eventstreams.runtime import LOOPS
from eventstreams.settings import load_settings
from eventstreams.startup import Started

CYCLES = 4
EVENT = {"$schema": "/test/event/1.0.0", "meta": {"stream": "test.event"}, "test": "hello"}


async def held() -> dict[str, list[str]]:
    """Return the process's descriptors, threads and tasks by what they are.

    Threads of libraries end as well: those that there are come to be Python's, in a moment, since the system takes one
    down after it was waited for.
    """
    gc.collect()
    async with asyncio.timeout(20):
        while len(os.listdir("/proc/self/task")) != threading.active_count():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    descriptors = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that lists
            descriptors.append(re.sub(r"\d+", "N", os.readlink(f"/proc/self/fd/{name}")))
    tasks = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    threads = [thread.name for thread in threading.enumerate()]
    return {"descriptors": sorted(descriptors), "threads": sorted(threads), "tasks": tasks}


async def use_gateway(url: str) -> None:
    """Read what is stored, go in the middle of it, ask for what is refused, and leave streams open to the end."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        for accept in ("text/event-stream", "application/json"):
            async with http.stream("GET", "/v2/stream/test.event?since=1", headers={"accept": accept}) as stream:
                async for line in stream.aiter_lines():
                    if "{" in line:
                        break
        assert (await http.get("/v2/stream/nothing")).status_code == 400
        assert (await http.get("/v2/stream/test.event?since=never")).status_code == 400
    host, port = httpx.URL(url).host, httpx.URL(url).port
    request = b"GET /v2/stream/test.event HTTP/1.1\r\nHost: gateway\r\nAccept: text/event-stream\r\n\r\n"
    opened = [await asyncio.open_connection(host, port) for _ in range(5)]
    for _, writer in opened:
        writer.write(request)
    for reader, _ in opened:
        await reader.readuntil(b"\r\n\r\n")
    os.kill(os.getpid(), signal.SIGTERM)
    for reader, writer in opened:
        await reader.read()
        writer.close()
        await writer.wait_closed()


async def use_intake(url: str) -> None:
    """Post what is taken and what is refused."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        answers = [await http.post(path, json=[EVENT] * 5) for path in ("/v1/events", "/v1/events?hasty=true")]
        answers.append(await http.post("/v1/events", content=b"{", headers={"content-type": "application/json"}))
        assert [answer.status_code for answer in answers] == [201, 202, 400]
    os.kill(os.getpid(), signal.SIGTERM)


USES: dict[str, Callable[[str], Awaitable[None]]] = {"serve": use_gateway, "intake": use_intake}


async def once(name: str, log: str, streams: str, prefix: str) -> None:
    """Start a service, use it, and see it end."""
    free = ("gateway.port=0", "intake.port=0", "admin.port=0", "log_level=error", "gateway.drain_timeout=0.2")
    given = (f"log={log}", f"streams={streams}", f"intake.topic_prefix={prefix}")
    settings = load_settings(None, [*given, *free])
    up: asyncio.Queue[Started] = asyncio.Queue()
    async with asyncio.TaskGroup() as group:
        group.create_task(processes.SERVICES[name](settings, up.put_nowait))
        urls = (await up.get()).urls
        await USES[name](urls["gateway" if name == "serve" else "intake"][0])


async def run(name: str, log: str, streams: str, prefix: str = "") -> None:
    """Do it again and again."""
    for _ in range(CYCLES):
        await once(name, log, streams, prefix)
        print(json.dumps(await held()), flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=LOOPS.get(sys.argv[1])) as runner:
        runner.run(run(*sys.argv[1:]))
