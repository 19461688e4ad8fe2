"""What the kernel is told of each connection that a service accepts."""

from __future__ import annotations

import socket

from eventstreams.server import SEND_BUFFER, listen


def test_accepted_connections_send_at_once_and_are_bounded() -> None:
    with listen("127.0.0.1", 0, patience=30) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * SEND_BUFFER
