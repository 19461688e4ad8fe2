"""Sockets that a service manager passes, as sd_listen_fds(3) has it: which are taken, which refused."""

from __future__ import annotations

import os
import re
import socket

import pytest

from eventstreams.errors import ConfigurationError
from eventstreams.listening import passed_sockets
from tests.test_listening import listening


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"LISTEN_FDS": "x"}, "LISTEN_FDS='x'"),
        ({"LISTEN_FDS": "-1"}, "LISTEN_FDS='-1'"),
        ({"LISTEN_FDS": "1" * 400}, "LISTEN_FDS='111"),
        ({}, "LISTEN_FDS=''"),
        ({"LISTEN_FDS": "9999"}, "of LISTEN_FDS: expected a listening stream socket"),
    ],
)
def test_sockets_that_are_passed_wrongly_are_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], words: str
) -> None:
    monkeypatch.setattr("eventstreams.listening.FIRST_PASSED", 100_000)
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        passed_sockets()


def test_sockets_of_another_process_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getppid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert not any(passed_sockets())


def test_socket_that_does_not_listen_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as idle:
        monkeypatch.setattr("eventstreams.listening.FIRST_PASSED", os.dup(idle.fileno()))
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", "1")
        with pytest.raises(ConfigurationError, match="expected a listening stream socket"):
            passed_sockets()


def test_sockets_go_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4") as opened:
        block = 500
        for at_, listener in enumerate(opened.sockets):
            os.dup2(listener.fileno(), block + at_)
        monkeypatch.setattr("eventstreams.listening.FIRST_PASSED", block)
        for with_intake in (True, False):
            monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
            monkeypatch.setenv("LISTEN_FDS", "4")
            monkeypatch.setenv("LISTEN_FDNAMES", "web:admin:intake")
            passed = passed_sockets(with_intake=with_intake)
            hosts = [[s.getsockname()[0][-1] for s in sockets] for sockets in passed]
            assert hosts == ([["1", "4"], ["2"], ["3"]] if with_intake else [["1", "3", "4"], ["2"], ["3"]])
            for kept in {s for sockets in passed for s in sockets}:
                kept.detach()
        for at_ in range(4):
            os.close(block + at_)
