"""Messages through a socket, in frames that show whether something is wrong with them.

::

    header   mark, whose stream, number in it, sizes, whether a file comes along, checksums of what follows and of this
    head     a few bytes
    body     as many as you like

Nothing that is read is believed before its checksum is right, and no memory is taken for what has not arrived.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import zlib
from contextlib import suppress
from typing import NamedTuple

from parmagic.system.real import Poll, close_descriptor
from parmagic.workers.processes.wire import Garbled

Bytes = bytes | bytearray | memoryview

_HEADER = struct.Struct("!4sIIIQ?I")
_CHECK = struct.Struct("!I")
_SIZE = _HEADER.size + _CHECK.size
_MARK = b"pm\r\n"
_FIRST = 1 << 16
ENDS = 1 << 19
"""Of a body of more than twice as many bytes, so many at either end are checked: what is lost or inserted shows there."""


class Frame(NamedTuple):
    """What arrived: two parts, and a descriptor that came along, or -1; whoever takes it closes that."""

    head: memoryview
    body: memoryview
    file: int


def _checksum(head: Bytes, body: Bytes) -> int:
    view = memoryview(body)
    parts = (view,) if len(view) <= 2 * ENDS else (view[:ENDS], view[-ENDS:])
    found = zlib.crc32(head)
    for part in parts:
        found = zlib.crc32(part, found)
    return found


class Outbox:
    """The end of a socket that sends; ``stream`` tells those of several senders apart."""

    def __init__(self, sock: socket.socket, stream: int) -> None:
        sock.setblocking(True)  # whatever socket.setdefaulttimeout was told
        self._sock = sock
        self._stream = stream
        self._number = 0

    def send(self, head: Bytes, body: Bytes, file: int = -1) -> None:
        """Send a frame, and a descriptor with it."""
        header = _HEADER.pack(_MARK, self._stream, self._number, len(head), len(body), file >= 0, _checksum(head, body))
        first = b"".join((header, _CHECK.pack(zlib.crc32(header)), head))
        along = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", file))] if file >= 0 else []
        sent = self._sock.sendmsg((first, body), along)
        self._number = (self._number + 1) & 0xFFFFFFFF
        if sent < len(first):
            self._sock.sendall(memoryview(first)[sent:])
        if sent < len(first) + len(body):
            self._sock.sendall(memoryview(body)[max(0, sent - len(first)) :])


class Inbox:
    """The end of a socket that receives what one :class:`Outbox` sends; never waits."""

    def __init__(self, sock: socket.socket, stream: int) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._stream = stream
        self._number = 0
        self._data = bytearray()
        self._have = 0  # bytes of it that have arrived
        self._told: tuple[int, int, bool, int] | None = None  # by the header: sizes of head and body, whether a file, checksum
        self._files: list[int] = []

    def fileno(self) -> int:
        """Be something that poll can wait for; -1 when closed."""
        return self._sock.fileno()

    def waits(self) -> bool:
        """Tell whether there is something to take, or the end of it."""
        if self._sock.fileno() < 0:
            return False
        poll = Poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(0))

    def answer(self, word: bytes) -> None:
        """Send the other side a few bytes, which its socket has room for; nothing where it has gone."""
        with suppress(OSError):
            self._sock.send(word)

    def close(self) -> None:
        """Close the socket, and what came along and was not taken."""
        self._sock.close()
        while self._files:
            close_descriptor(self._files.pop())

    def take(self) -> Frame | None:
        """Return the next frame, None where it has not arrived yet.

        Raises EOFError or OSError where the other end has gone, or a file that came along could not be taken (EMFILE),
        Garbled where what it sent cannot be right.
        """
        while self._told is None:
            if not self._fill(_SIZE):
                return None
            self._told = self._read_header()
            self._data, self._have = bytearray(), 0
        head, body, with_file, checksum = self._told
        if not self._fill(head + body):
            return None
        view = memoryview(self._data)
        if _checksum(view[:head], view[head:]) != checksum:
            raise Garbled(f"the checksum of message {self._number} is wrong")
        file = self._files.pop() if with_file else -1
        self._number, self._told, self._data, self._have = (self._number + 1) & 0xFFFFFFFF, None, bytearray(), 0
        return Frame(view[:head], view[head:], file)

    def _read_header(self) -> tuple[int, int, bool, int]:
        header, (check,) = self._data[: _HEADER.size], _CHECK.unpack_from(self._data, _HEADER.size)
        mark, stream, number, head, body, with_file, checksum = _HEADER.unpack(header)
        if mark != _MARK or zlib.crc32(header) != check:
            raise Garbled(f"something else came where message {self._number} begins")
        if stream != self._stream:
            raise Garbled(f"a message of worker {stream} came where message {self._number} was expected")
        if number != self._number:
            raise Garbled(f"message {number} came where message {self._number} was expected")
        if len(self._files) != with_file:
            raise Garbled(f"message {number} came with {len(self._files)} files, not {int(with_file)}")
        return head, body, with_file, checksum

    def _fill(self, size: int) -> bool:
        """Have ``size`` bytes, as far as they have arrived; tell whether that is all of them."""
        while self._have < size:
            if self._have == len(self._data):
                self._data += bytes(min(size - self._have, max(_FIRST, self._have)))
            try:
                with memoryview(self._data) as whole, whole[self._have :] as room:
                    arrived = self._receive(room)
            except BlockingIOError:
                return False
            if not arrived:
                raise EOFError
            self._have += arrived
        return True

    def _receive(self, room: memoryview) -> int:
        """Read into a place; a file comes along with the begin of a header only, and what comes with anything else is dropped."""
        if self._told is not None:
            return self._sock.recv_into(room)
        arrived, along, flags, _ = self._sock.recvmsg_into([room], socket.CMSG_SPACE(8), getattr(socket, "MSG_CMSG_CLOEXEC", 0))
        for level, kind, data in along:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._files += [file for (file,) in struct.iter_unpack("i", data[: len(data) // 4 * 4])]
        if flags & socket.MSG_CTRUNC:
            close_descriptor(os.dup(self._sock.fileno()))  # an OSError where this process may not have so many; else we did not send that
            raise Garbled(f"message {self._number} came with more files than one")
        return arrived
