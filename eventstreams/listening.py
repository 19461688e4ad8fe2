"""Where services listen: several addresses, files of unix sockets, or sockets that a service manager has opened."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from errno import EADDRINUSE, EADDRNOTAVAIL
from itertools import zip_longest
from typing import NamedTuple

from eventstreams.errors import ConfigurationError
from eventstreams.server import BACKLOG, PATIENCE, bound_connections, listen
from eventstreams.settings import Settings

UNIX = "unix:"
"""Before the path of a socket in the file system, in place of an address."""

UNIX_MODE = 0o666
"""Whoever may enter its directory may connect, as with a port of loopback."""

EVERYWHERE = "::"
FIRST_PASSED = 3
"""The first descriptor of a service manager's (sd_listen_fds(3))."""

MOST_DIGITS = 5
"""Of the number of sockets that are passed."""

FREE_PORT_ATTEMPTS = 10
"""A port that is free at one address may be taken at the next."""


class Listening:
    """Listening sockets of one service. `close` removes the files of those that were made here."""

    def __init__(self, sockets: Sequence[socket.socket], files: Sequence[SocketFile] = ()) -> None:
        self.sockets = list(sockets)
        self._files = list(files)

    def close(self) -> None:
        """Close all. Idempotent."""
        for listener in self.sockets:
            listener.close()
        for file in self._files:
            file.remove()
        self._files.clear()


class SocketFile(NamedTuple):
    """The file of a unix socket, as it was when it was made."""

    path: str
    device: int
    inode: int

    def remove(self) -> None:
        """Remove the file, unless another process has put its own there meanwhile."""
        with contextlib.suppress(OSError):
            found = os.lstat(self.path)
            if (found.st_dev, found.st_ino) == (self.device, self.inode):
                os.unlink(self.path)


class Sockets(NamedTuple):
    """What a process listens on, for its service and for its operators."""

    main: Listening
    admin: Listening


class Passed(NamedTuple):
    """A service manager's sockets."""

    main: Sequence[socket.socket] = ()
    admin: Sequence[socket.socket] = ()
    """Those that it named `admin`."""
    intake: Sequence[socket.socket] = ()
    """Those that it named `intake`, where that is a part of the process."""


def urls_of(listening: Listening) -> Sequence[str]:
    """Return the URLs at which listening sockets are reached; of a unix socket `unix:` and its path."""
    return [_url(listener) for listener in listening.sockets]


def url_of(listening: Listening) -> str:
    """Return the first URL that a client can open; where there are only unix sockets the first of them."""
    urls = urls_of(listening)
    return next((url for url in urls if url.startswith("http")), urls[0])


def _url(listener: socket.socket) -> str:
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"{UNIX}{name}"
    host, port = name[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def gateway_listener(settings: Settings, passed: Sequence[socket.socket] = ()) -> Listening:
    """Return where the gateway listens. Raises: ConfigurationError."""
    given = settings.gateway
    # Twice: the gateway is to be the one that closes a client that takes nothing, and says so.
    patience = max(PATIENCE, 2 * given.send_timeout)
    return _taken(passed, patience) or open_listening(given.host, given.port, patience=patience)


def intake_listener(settings: Settings, passed: Sequence[socket.socket] = ()) -> Listening:
    """Return where intake listens. Raises: ConfigurationError."""
    return _taken(passed, PATIENCE) or open_listening(settings.intake.host, settings.intake.port)


def admin_listener(settings: Settings, port: int, passed: Sequence[socket.socket] = ()) -> Listening:
    """Return where operators ask, at `port` unless the settings name one. Raises: ConfigurationError."""
    chosen = settings.admin.port
    return _taken(passed, PATIENCE) or open_listening(settings.admin.host, port if chosen is None else chosen)


def _taken(sockets: Sequence[socket.socket], patience: float) -> Listening | None:
    for listener in sockets:
        bound_connections(listener, patience)
    return Listening(sockets) if sockets else None


def open_listening(hosts: str | Sequence[str], port: int, *, patience: float = PATIENCE) -> Listening:
    """Listen on all of these hosts, at one port. Raises: ConfigurationError, when the port is taken for instance.

    A host is an address, a name, which stands for all of its addresses, or `unix:` and a path. `::` serves IPv4 too
    unless an address of IPv4 is named beside it. Port 0 is a free one, the same at all addresses.
    """
    given = _hosts(hosts)
    with contextlib.ExitStack() as undo:
        listening = Listening([])
        undo.callback(listening.close)
        for host in (host for host in given if host.startswith(UNIX)):
            listening.sockets.append(_listen_at_path(host.removeprefix(UNIX), listening._files))
        addresses = list(dict.fromkeys(address for host in given for address in _addresses(host, port)))
        listening.sockets[:0] = _listen_on(addresses, port, patience)
        undo.pop_all()
    return listening


def _hosts(given: str | Sequence[str]) -> Sequence[str]:
    hosts = [host.strip() for host in (given.split(",") if isinstance(given, str) else given)]
    if not hosts or not all(host.removeprefix(UNIX) for host in hosts):
        raise ConfigurationError(f"host {given!r}: expected addresses to listen on, or unix: and a path")
    return hosts


def _addresses(host: str, port: int) -> Iterator[str]:
    """Yield the addresses that a host stands for, those of IPv4 first."""
    if host.startswith(UNIX):
        return
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if ":" in host:
        yield host
        return
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as exc:
        raise ConfigurationError(f"cannot listen on {host} port {port}: no host of this name is known") from exc
    yield from (str(entry[4][0]) for entry in sorted(found, key=lambda entry: entry[0] != socket.AF_INET))


def _listen_on(addresses: Sequence[str], port: int, patience: float) -> Sequence[socket.socket]:
    """Listen on all addresses; of several those that this machine does not have are left out."""
    for attempt in range(FREE_PORT_ATTEMPTS):
        try:
            return _listen_once(addresses, port, patience)
        except ConfigurationError as exc:
            last = attempt == FREE_PORT_ATTEMPTS - 1
            if port or last or not isinstance(exc.__cause__, OSError) or exc.__cause__.errno != EADDRINUSE:
                raise
    raise AssertionError("the last attempt returns or raises")


def _listen_once(addresses: Sequence[str], port: int, patience: float) -> Sequence[socket.socket]:
    missing: ConfigurationError | None = None
    dualstack = all(":" in address for address in addresses)
    with contextlib.ExitStack() as undo:
        made: list[socket.socket] = []
        for address in addresses:
            try:
                is_both = dualstack and address == EVERYWHERE
                made.append(undo.enter_context(listen(address, port, patience=patience, dualstack=is_both)))
            except ConfigurationError as exc:
                if not isinstance(exc.__cause__, OSError) or exc.__cause__.errno != EADDRNOTAVAIL:
                    raise
                missing = exc
                continue
            port = port or made[0].getsockname()[1]
        if missing is not None and not made:
            raise missing
        undo.pop_all()
        return made


def _listen_at_path(path: str, files: list[SocketFile]) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        listener.bind(path)
        made = os.lstat(path)
        files.append(SocketFile(path, made.st_dev, made.st_ino))
        os.chmod(path, UNIX_MODE)
        bound_connections(listener, PATIENCE)
        listener.listen(BACKLOG)
    except OSError as exc:
        listener.close()
        raise ConfigurationError(f"cannot listen on {UNIX}{path}: {exc.strerror or exc}") from exc
    except ConfigurationError:
        listener.close()
        raise
    return listener


def _remove_stale(path: str) -> None:
    """Remove the socket of a process that is gone. Raises: ConfigurationError for whatever else is there; OSError."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigurationError(f"cannot listen on {UNIX}{path}: there is a file that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # its queue is full
    raise ConfigurationError(f"cannot listen on {UNIX}{path}: another process does")


def passed_sockets(*, with_intake: bool = False) -> Passed:
    """Return the sockets that a service manager has passed to this process (sd_listen_fds(3)).

    They are taken out of the environment: no child takes them for its own. Raises: ConfigurationError.
    """
    given = {name: os.environ.get(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
    if given["LISTEN_PID"] != str(os.getpid()):
        return Passed()
    for name in given:
        os.environ.pop(name, None)
    count = given["LISTEN_FDS"]
    if not (count.isascii() and count.isdecimal() and len(count) < MOST_DIGITS):
        raise ConfigurationError(f"LISTEN_FDS={count!r}: expected how many sockets are passed")
    sockets = [_passed_socket(FIRST_PASSED + number) for number in range(int(count))]
    named = list(zip_longest(given["LISTEN_FDNAMES"].split(":")[: len(sockets)], sockets))
    apart = {"admin", "intake"} if with_intake else {"admin"}
    return Passed(
        [listener for name, listener in named if name not in apart],
        [listener for name, listener in named if name == "admin"],
        [listener for name, listener in named if name == "intake"],
    )


def _passed_socket(descriptor: int) -> socket.socket:
    words = f"descriptor {descriptor} of LISTEN_FDS: expected a listening stream socket (Accept=no)"
    try:
        os.set_inheritable(descriptor, False)
        listener = socket.socket(fileno=descriptor)
        if listener.type != socket.SOCK_STREAM or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            listener.close()
            raise ConfigurationError(words)
    except OSError as exc:
        raise ConfigurationError(words) from exc
    return listener
