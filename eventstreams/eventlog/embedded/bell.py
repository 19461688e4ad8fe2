"""A bell between the processes on one file: who appended touches a file beside it, the others are told by inotify.

Only a hint: who listens looks at SQLite's `data_version` all the same now and then, since a process may die between its
commit and the touch, and since there may be no inotify (another system than Linux, no more watches).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

IN_MODIFY = 0x2
READ_BYTES = 64 * 1024
"""Notes taken at once: the kernel folds equal ones, so that there are few."""


def bell_path(path: str) -> str:
    """Return the file that is touched."""
    return path + "-bell"


class Bell:
    """The touching side. Closed by `close`."""

    def __init__(self, path: str) -> None:
        self._handle = os.open(bell_path(path), os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644)

    def ring(self) -> None:
        """Tell the others. A full disk is no matter: the byte is there already."""
        with contextlib.suppress(OSError):
            os.pwrite(self._handle, b"\n", 0)

    def close(self) -> None:
        """Give the file up."""
        os.close(self._handle)


@contextmanager
def listening(path: str, rung: Callable[[], None]) -> Iterator[bool]:
    """Call `rung` on this event loop whenever the file is touched, while the context lasts; yields whether it will."""
    handle = _watch(bell_path(path))
    if handle is None:
        yield False
        return
    loop = asyncio.get_running_loop()

    def readable() -> None:
        os.read(handle, READ_BYTES)
        rung()

    loop.add_reader(handle, readable)
    try:
        yield True
    finally:
        loop.remove_reader(handle)
        os.close(handle)


def _watch(path: str) -> int | None:
    """Return an inotify descriptor for changes of a file; None where there is no such thing."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "inotify_init1"):
        return None
    handle = int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    if handle < 0:
        return None
    if libc.inotify_add_watch(handle, os.fsencode(path), IN_MODIFY) < 0:
        os.close(handle)
        return None
    return handle
