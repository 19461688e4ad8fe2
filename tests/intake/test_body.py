import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

import pytest

from intake.body import Deadline

SECONDS = 0.01

Job = Callable[[], Awaitable[object]]
Bound = Callable[[Job], Awaitable[None]]


async def by_asyncio(job: Job) -> None:
    async with asyncio.timeout(SECONDS):
        await job()


async def by_deadline(job: Job) -> None:
    with Deadline(asyncio.get_running_loop(), SECONDS):
        await job()


async def forever() -> None:
    await asyncio.Event().wait()


async def done_as_it_expires() -> None:
    """Finish in the turn of the loop in which the time is over: what was awaited is there, and so is the end."""
    loop = asyncio.get_running_loop()
    arrived = loop.create_future()
    loop.call_later(SECONDS / 2, arrived.set_result, None)
    loop.call_soon(time.sleep, 2 * SECONDS)  # the loop stalls: both timers are due then
    await arrived


async def keeps_to_itself() -> None:
    """Go on though cancelled."""
    try:
        await forever()
    except asyncio.CancelledError:
        await asyncio.sleep(0)


async def in_time() -> None:
    await asyncio.sleep(0)


async def has_a_bound_of_its_own() -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SECONDS / 2):
            await forever()
    await forever()


async def fails() -> None:
    raise KeyError("own")


async def fails_when_cancelled() -> None:
    try:
        await forever()
    finally:
        await fails()


async def cancelled_by_others() -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)
    await forever()


async def cancelled_by_others_as_it_expires() -> None:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    loop.call_later(SECONDS / 2, task.cancel)
    loop.call_soon(time.sleep, 2 * SECONDS)
    await forever()


ENDS: dict[Job, tuple[type[BaseException] | None, int]] = {
    forever: (TimeoutError, 0),
    in_time: (None, 0),
    has_a_bound_of_its_own: (TimeoutError, 0),
    done_as_it_expires: (TimeoutError, 0),
    keeps_to_itself: (None, 0),
    fails: (KeyError, 0),
    fails_when_cancelled: (KeyError, 0),
    cancelled_by_others: (asyncio.CancelledError, 1),
    cancelled_by_others_as_it_expires: (asyncio.CancelledError, 1),
}
"""How each ends, and how many cancellations its task is left with."""


@pytest.mark.parametrize("bound", [by_asyncio, by_deadline])
@pytest.mark.parametrize("job", ENDS, ids=lambda job: job.__name__)
async def test_deadline_ends_as_asyncio_timeout_does(bound: Bound, job: Job) -> None:
    async def work() -> tuple[type[BaseException] | None, int]:
        task = asyncio.current_task()
        assert task is not None
        try:
            await bound(job)
        except BaseException as exc:
            return type(exc), task.cancelling()
        await asyncio.sleep(2 * SECONDS)  # a timer that is left would cancel it
        return None, task.cancelling()

    assert await asyncio.create_task(work()) == ENDS[job]
