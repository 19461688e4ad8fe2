"""Serving while the log may be away: until it has answered, or was waited for in vain."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

from eventstreams.errors import LogError, LogUnavailable
from eventstreams.eventlog.base import EventLog
from eventstreams.server import DrainingServer

LOOK = 1.0
"""Seconds in which a log that was not reached says why."""


def tell(ready: Callable[[], None], *, at_once: bool) -> Callable[[], None]:
    """Tell that a process is ready now, or have what is returned do it: when the log was reached.

    A worker waits for that: one that ends before is not started again.
    """
    if not at_once:
        return ready
    ready()
    return lambda: None


async def serve_while_reaching(
    server: DrainingServer,
    listeners: Sequence[socket.socket],
    log: EventLog,
    wait: float | None,
    reached: Callable[[], None],
) -> LogError | None:
    """Serve until a signal, or until the log was waited for in vain; calls `reached` when it has answered.

    Returns why it was in vain: LogUnavailable when the log was away for `wait` seconds (None: it may be for ever),
    LogRefused as soon as it is known that waiting does not help. It is to be raised when what was opened is closed: a
    task group would wrap it.
    """
    reaching = asyncio.create_task(_reach(log, wait), name="reach the log")

    def ended(task: asyncio.Task[LogError | None]) -> None:
        if task.cancelled():
            return
        if task.result() is None:
            reached()
        else:
            server.stop()

    reaching.add_done_callback(ended)
    try:
        await server.serve(list(listeners))
    finally:
        reaching.cancel()
        await asyncio.wait([reaching])
    return None if reaching.cancelled() else reaching.result()


async def _reach(log: EventLog, wait: float | None) -> LogError | None:
    try:
        async with asyncio.timeout(wait):
            await log.reached()
    except LogError as exc:
        return exc
    except TimeoutError:
        try:
            await log.check(LOOK)
        except LogUnavailable as exc:
            return LogUnavailable(f"{exc.message} (waited {wait:g} s: log_wait)")
    return None
