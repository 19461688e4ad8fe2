"""Which lost connections are those of clients that are gone without a word: told from those that closed."""

from __future__ import annotations

import errno
import socket
from asyncio.trsock import TransportSocket
from fcntl import ioctl
from struct import unpack, unpack_from
from termios import TIOCOUTQ

SILENT_MS = 1000
"""Milliseconds without an acknowledgement: a client that lives and is sent something acknowledges it sooner."""

RESETS = frozenset((errno.ECONNRESET, errno.EPIPE))
OTHERS = frozenset((errno.ECONNABORTED, errno.ENOBUFS, errno.ENOMEM, errno.EBADF))
"""What is not the client's doing: connections ended by this machine's operator, and this machine's own want."""

LAST_ACK_RECEIVED = 56
NOT_SENT = 144
"""Where Linux has them in `struct tcp_info`, which only grows at its end; both are `__u32`."""


def has_vanished(connection: socket.socket | TransportSocket, error: int | None) -> bool:
    """Whether the client of a connection lost with this errno (None: in good order) is gone without a word.

    A kernel that sends in vain gives up with ETIMEDOUT, or with whatever it last heard of the way: EHOSTUNREACH,
    ENETUNREACH, EACCES and more. So every error counts that tells of neither a reset nor this machine itself.

    A reset is either a client that closes with bytes unread, or the answer of a machine that was started anew, or of a
    firewall that forgot the connection, to what it was sent. The second leaves bytes that were sent and not
    acknowledged, a while after the last acknowledgement.
    """
    if error is None or error in OTHERS or connection.family == socket.AF_UNIX:
        return False
    return error not in RESETS or _answers_nothing(connection)


def _answers_nothing(connection: socket.socket | TransportSocket) -> bool:
    try:
        (unacknowledged,) = unpack("i", ioctl(connection.fileno(), TIOCOUTQ, b"\0\0\0\0"))
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, NOT_SENT + 4)
    except OSError:
        return False
    silent, unsent = (int(unpack_from("I", info, at)[0]) for at in (LAST_ACK_RECEIVED, NOT_SENT))
    return int(unacknowledged) > unsent and silent >= SILENT_MS
