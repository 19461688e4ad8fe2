"""Clients that are gone without a word are counted, whatever the kernel says of them; others are not."""

from __future__ import annotations

import asyncio
import errno
import socket
import subprocess
import sys

import pytest

from eventstreams.subscribe.vanishing import has_vanished
from tests.conftest import missing_namespaces
from tests.support import needed
from tests.support.half_open import HOWS
from tests.support.processes import ROOT

ALONE = ("unshare", "-rn")
"""In a network of its own, with the rights that it takes there."""

OF_THEIR_OWN = {"reset by itself", "closed"}


@pytest.fixture(scope="module")
def namespace() -> tuple[str, ...]:
    """What goes before a command; skipped where the kernel does not allow that: no package changes it."""
    needed.program("ip", missing_namespaces)
    if subprocess.run([*ALONE, "true"], check=False).returncode:
        missing_namespaces.append("there is no network namespace to be had")
        pytest.skip(missing_namespaces[-1])
    return ALONE


@pytest.mark.parametrize("how", HOWS)
async def test_half_open_clients_are_counted_whatever_the_kernel_says(namespace: tuple[str, ...], how: str) -> None:
    command = (*namespace, sys.executable, "-m", "tests.support.half_open", how)
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(90):
        told, _ = await process.communicate()
    assert process.returncode == 0
    assert int(told) == (0 if how in OF_THEIR_OWN else 1)


def test_every_error_is_a_client_s_that_is_none_of_a_reset_or_this_machine_s() -> None:
    """On a connection that lives: a reset alone says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            ours = {errno.ECONNABORTED, errno.ENOBUFS, errno.ENOMEM, errno.EBADF, errno.ECONNRESET, errno.EPIPE}
            assert {number for number in errno.errorcode if not has_vanished(connection, number)} == ours
            assert not has_vanished(connection, None)


def test_end_of_a_unix_socket_is_never_a_client_s_that_vanished() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert not any(has_vanished(one, number) for number in errno.errorcode)
