"""Sockets of the system's own that listen, and a wait for many of them, whoever has patched the standard library's."""

from __future__ import annotations

import math
import os
import select
import selectors
import socket
from typing import Any

from parmagic.system.descriptors import adopted
from parmagic.system.real import Poll, Socket


def listener() -> Socket:
    """Return a socket that listens on a port of 127.0.0.1."""
    sock = Socket()
    sock.settimeout(None)
    try:
        if os.name == "posix":  # elsewhere it would let others take the port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        sock.listen(1024)
    except OSError:
        sock.close()
        raise
    return sock


def accepted(listener: Socket) -> Socket:
    """Accept a connection, as ``socket.accept`` does, which makes sockets of whoever has patched it."""
    return adopted(listener._accept()[0])  # type: ignore[attr-defined]  # noqa: SLF001


class Selector(selectors.SelectSelector):
    """Waits by the system's own poll, which needs no descriptor, and takes numbers above 1,023; where there is none, by select."""

    def _select(self, readers: set[int], writers: set[int], _: Any, timeout: float | None = None) -> Any:
        if Poll is None:
            return super()._select(readers, writers, [], timeout)  # type: ignore[misc]
        poll = Poll()
        for descriptor in readers | writers:
            poll.register(descriptor, select.POLLIN * (descriptor in readers) | select.POLLOUT * (descriptor in writers))
        ready = {descriptor for descriptor, _ in poll.poll(None if timeout is None else math.ceil(timeout * 1e3))}
        return [*ready & readers], [*ready & writers], []
