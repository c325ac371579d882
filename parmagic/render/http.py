"""A server for browsers on this machine: one thread of ours, GET only, and a bound on everything.

::

    accept ──▶ read the head ──▶ answer(path) ──▶ send ──▶ wait for the other end to close
                    │                               │
             400 403 405 414 431                closed when nothing moves

One thread is enough for one reader, and can be known: a thread for each connection, as in
``http.server``, is one that a fork of the notebook has to fear. Whatever arrives, nothing is
printed: it is answered with a 4xx, or the connection is closed.

Sockets of ours may be closed by the body, which can then get their numbers for files of its
own: each is looked at before it is used, and a lost one is let go.
"""

from __future__ import annotations

import os
import re
import selectors
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

from parmagic.render import sockets
from parmagic.system.real import RLock, Socket, new_thread

MOST_CONNECTIONS = 64
"""Connections at a time; one more takes the place of the one that has kept us waiting longest."""

MOST_HEAD = 65536
"""Bytes of a request: a browser sends the cookies of all that is on 127.0.0.1 along."""

MOST_FIELDS = 100

HEAD_WITHIN = 10.0
"""Seconds in which a request must be there, as a whole: one byte now and then does not hold a connection."""

MOVES_WITHIN = 30.0
"""Seconds in which a part of an answer must be taken."""

_LINGER = 1.0
"""Seconds in which the other end may take the last of an answer, and close."""

_AT_ONCE = 16
"""Connections that are accepted in a row: then those that said something are heard, before they might have to give way."""

_REST = 0.5
"""Seconds until connections are accepted again, where there was no descriptor for one."""

_PART = 262144
_LINE = re.compile(rb"([A-Z]{1,20}) (/[!-~]*) HTTP/1\.[01]")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent; ``policy`` is its Content-Security-Policy."""

    status: HTTPStatus
    body: bytes
    kind: str = "text/plain; charset=utf-8"
    policy: str = "default-src 'none'"

    def head(self) -> bytes:
        """Return the status line and the fields."""
        fields = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            f"Content-Type: {self.kind}",
            f"Content-Length: {len(self.body)}",
            f"Content-Security-Policy: {self.policy}",
            "X-Content-Type-Options: nosniff",
            "Cross-Origin-Resource-Policy: same-origin",
            "Referrer-Policy: no-referrer",  # a secret is in the address
            "Cache-Control: no-store",
            "Connection: close",
        ]
        if self.status == HTTPStatus.METHOD_NOT_ALLOWED:
            fields.append("Allow: GET")
        return "\r\n".join([*fields, "", ""]).encode("latin-1")


def refusal(status: HTTPStatus, why: str) -> Answer:
    """Return an answer that says why there is no other."""
    return Answer(status, f"{why}\n".encode())


def path_of(head: bytes, hosts: frozenset[str]) -> str | Answer:
    """Return the path that a request's head asks for, without its query; a refusal where it is not what a browser sends.

    ``head`` ends before the blank line. ``hosts`` are what ``Host`` may be.
    """
    first, *rows = head.split(b"\r\n")
    line = _LINE.fullmatch(first)
    if line is None:
        return refusal(HTTPStatus.BAD_REQUEST, "This is no request of HTTP/1.1.")
    if line[1] != b"GET":
        return refusal(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET is answered here.")
    if len(rows) > MOST_FIELDS:
        return refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The request has too many fields.")
    fields: dict[bytes, list[str]] = {}
    for row in rows:
        field = _FIELD.fullmatch(row)
        if field is None:
            return refusal(HTTPStatus.BAD_REQUEST, "A field of the request cannot be read.")
        fields.setdefault(field[1].lower(), []).append(field[2].rstrip(b" \t").decode("latin-1").lower())
    if len(fields.get(b"host", [])) != 1 or fields[b"host"][0] not in hosts:
        return refusal(HTTPStatus.FORBIDDEN, "This name does not lead here.")
    if b"transfer-encoding" in fields or fields.get(b"content-length", ["0"]) != ["0"]:
        return refusal(HTTPStatus.BAD_REQUEST, "A request has no body here.")
    return line[2].partition(b"?")[0].decode("ascii")


class _Channel:
    """A socket that is surely ours: known by its inode, for the body can close it, and open something else under its number."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._identity = self._look()

    def _look(self) -> tuple[int, int] | None:
        try:
            status = os.fstat(self.sock.fileno())
        except OSError:
            return None  # gone; on Windows always, where no descriptor is a socket
        return status.st_dev, status.st_ino

    def ours(self) -> bool:
        """Tell whether the number still stands for this socket."""
        return self._look() == self._identity

    def close(self) -> None:
        """Close the socket, and nothing else."""
        if self.ours():
            self.sock.close()
        else:
            self.sock.detach()


class _Connection(_Channel):
    """One request and its answer."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.deadline = time.monotonic() + HEAD_WITHIN
        self.answered = False
        self._head = bytearray()
        self._left: list[memoryview] = []

    def read(self, hosts: frozenset[str]) -> str | Answer | None:
        """Take what has arrived; return the path or the refusal, None while the request is not whole. Raises OSError, EOFError."""
        looked_at = max(0, len(self._head) - 3)
        data = self.sock.recv(_PART)
        if not data:
            raise EOFError
        if self.answered:
            return None  # what is sent behind a request is read, so that its answer is not lost with it
        self._head += data
        end = self._head.find(b"\r\n\r\n", looked_at)
        if 0 <= end <= MOST_HEAD:
            return path_of(bytes(self._head[:end]), hosts)
        if len(self._head) > MOST_HEAD:
            whole = b"\n" in self._head
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if whole else HTTPStatus.REQUEST_URI_TOO_LONG
            return refusal(status, "The request is too long.")
        first, newline, _ = self._head.partition(b"\n")
        if not first[:1].isupper() or (newline and not (first.endswith(b"\r") and _LINE.fullmatch(first[:-1]))):
            return refusal(HTTPStatus.BAD_REQUEST, "This is no request of HTTP/1.1.")  # TLS, for one, which would wait
        return None

    def begin(self, answer: Answer) -> None:
        """Have this to send."""
        self.answered = True
        self._head.clear()
        self._left = [memoryview(answer.head()), memoryview(answer.body)]
        self.deadline = time.monotonic() + MOVES_WITHIN

    def send(self) -> bool:
        """Send a part; tell whether that was the last. Raises OSError."""
        while self._left and not self._left[0]:
            self._left.pop(0)
        if self._left:
            self._left[0] = self._left[0][self.sock.send(self._left[0][:_PART]) :]
            self.deadline = time.monotonic() + MOVES_WITHIN
            return False
        self.sock.shutdown(socket.SHUT_WR)
        self.deadline = time.monotonic() + _LINGER
        return True


class Server:
    """Listens on a port of 127.0.0.1 from its making to :meth:`close`; ``answer`` makes an Answer of a path.

    Raises OSError where there is no socket, RuntimeError where no thread can be started.
    """

    def __init__(self, answer: Callable[[str], Answer]) -> None:
        listener = sockets.listener()
        self.port: int = listener.getsockname()[1]
        self.still = RLock()
        """Held while requests are worked on: who forks, waits for it."""
        self._hosts = frozenset({f"127.0.0.1:{self.port}", f"localhost:{self.port}"})
        self._answer = answer
        self._listener = _Channel(listener)
        self._connections: set[_Connection] = set()
        self._selector = sockets.Selector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._rests_until = 0.0
        self._ending = False
        self._thread = new_thread(_serve, (self,), name="parmagic-viewer")
        try:
            self._thread.start()
        except RuntimeError:
            listener.close()
            raise

    def alive(self) -> bool:
        """Tell whether it can be reached."""
        return self._thread.is_alive() and self._listener.ours()

    def close(self) -> None:
        """End the thread, and close what it has open."""
        self._ending = True
        with suppress(OSError), Socket() as sock:  # this wakes it, with no descriptor kept for that
            sock.settimeout(1)
            sock.connect(("127.0.0.1", self.port))
        self._thread.join(5)

    def let_go(self) -> None:
        """In a fork, where the thread is not: close its ends of the connections, so that theirs is not the last."""
        for channel in (self._listener, *self._connections):
            channel.close()

    def serve(self) -> None:
        """Be the thread."""
        try:
            while not self._ending:
                ready = self._selector.select(self._patience())
                with self.still:
                    self._round(ready)
                    del ready
        finally:
            self.let_go()

    def _patience(self) -> float | None:
        """Return the seconds until something has waited for too long."""
        ends = [connection.deadline for connection in self._connections]
        if self._rests_until:
            ends.append(self._rests_until)
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _round(self, ready: list[tuple[selectors.SelectorKey, int]]) -> None:
        for key, _ in ready:
            connection: _Connection | None = key.data
            if connection is not None:
                self._go_on(connection)
            elif self._listener.ours():
                self._accept()
            else:
                self._ending = True  # the next one who asks for a link starts another
        now = time.monotonic()
        for connection in [each for each in self._connections if each.deadline <= now]:
            self._drop(connection)
        if self._rests_until and self._rests_until <= now and not self._ending:
            self._rests_until = 0.0
            self._selector.register(self._listener.sock, selectors.EVENT_READ)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                sock = sockets.accepted(self._listener.sock)
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError:  # out of descriptors, or memory: it would be tried again at once, and again
                self._selector.unregister(self._listener.sock)
                self._rests_until = time.monotonic() + _REST
                return
            if len(self._connections) >= MOST_CONNECTIONS:
                self._drop(min(self._connections, key=lambda each: (each.answered, each.deadline)))
            connection = _Connection(sock)
            self._connections.add(connection)
            self._selector.register(sock, selectors.EVENT_READ, connection)

    def _go_on(self, connection: _Connection) -> None:
        """Read or send what can be read or sent now."""
        if connection not in self._connections:
            return  # dropped for another in this round
        try:
            if not connection.ours():
                self._drop(connection)
            elif self._selector.get_key(connection.sock).events == selectors.EVENT_READ:
                self._read(connection)
            elif connection.send():
                self._selector.modify(connection.sock, selectors.EVENT_READ, connection)
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, EOFError):
            self._drop(connection)

    def _read(self, connection: _Connection) -> None:
        asked = connection.read(self._hosts)
        if asked is None:
            return
        connection.begin(self._answered(asked) if isinstance(asked, str) else asked)
        self._selector.modify(connection.sock, selectors.EVENT_WRITE, connection)

    def _answered(self, path: str) -> Answer:
        try:
            return self._answer(path)
        except Exception as error:  # noqa: BLE001  (said where it was asked for: under the cell nobody looks for it)
            return refusal(HTTPStatus.INTERNAL_SERVER_ERROR, f"This page could not be made ({type(error).__name__}).")

    def _drop(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        self._selector.unregister(connection.sock)
        connection.close()


def _serve(server: Server) -> None:
    """Be the thread that serves: as a function of ours, so that it is not taken for one of the user's."""
    server.serve()
