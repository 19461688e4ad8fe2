"""What the operating system tells of processes, and what it is asked for: Linux only."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

DESCRIPTORS = 10_500
"""What a process with 10,000 connections needs, and some more."""

SERVER_CORE = 0
LOAD_CORE = 1
ALL_CORES = -1


def raise_descriptors() -> str | None:
    """Raise the bound on open files for this process and its children; return what is wrong where it stays too low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else max(soft, 1 << 20)
    if hard < DESCRIPTORS:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        except (OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return f"ulimit -n is {hard} and cannot be raised here: 10,000 connections need {DESCRIPTORS}"
        return None
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return None


def tree(pid: int) -> Iterator[int]:
    """Yield a process and all below it."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from tree(int(child))


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and those below it, user and system, all threads that are still there."""
    return sum(
        int((task / "schedstat").read_text().split()[0]) / 1e9
        for process in tree(pid)
        for task in Path(f"/proc/{process}/task").iterdir()
    )


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process and those below it."""
    page = os.sysconf("SC_PAGESIZE")
    return sum(int(Path(f"/proc/{process}/statm").read_text().split()[1]) * page for process in tree(pid))


def pin(pid: int, core: int) -> None:
    """Keep a process, with its threads and what it starts, on one core or on all; nothing where there is only one."""
    cores = set(range(os.cpu_count() or 1))
    if len(cores) < 2:
        return
    mine = cores if core == ALL_CORES else {core}
    for process in tree(pid):
        for task in Path(f"/proc/{process}/task").iterdir():
            os.sched_setaffinity(int(task.name), mine)


def description() -> str:
    """Return what this machine is, in a line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    return f"{model}, {os.cpu_count()} cores, Linux {os.uname().release}"
