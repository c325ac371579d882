"""Messages, and descriptors with them, between the notebook, its server, and the server's spares.

Neither end ever waits for the other to read: what cannot be sent now is kept, and goes
when the other end has read. So two ends that send to each other cannot block each other,
and who is interrupted between two pieces of a message goes on where it was.

::

    size, checksum, number of descriptors │ pickle        the descriptors come with the first byte
"""

from __future__ import annotations

import array
import errno
import pickle
import select
import socket
import struct
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from parmagic.system.descriptors import OwnSocket
from parmagic.system.real import Poll, close_descriptor

MOST_DESCRIPTORS = 250
"""Descriptors that one message can carry (the kernel's own limit is 253)."""

_HEADER = struct.Struct("!III")
_PIECE = 1 << 16
_LARGEST = 1 << 30
"""Bytes that no message of ours has: a size beyond that was not written by us."""

Message = tuple[tuple[Any, ...], list[int]]


class Garbled(OSError):
    """What has arrived is not what was sent: somebody else has written to the socket, say. The words tell what is wrong with it."""


@dataclass(slots=True)
class Parcel:
    """What is still to be sent of a message; while it has ``descriptors``, these have to stay open."""

    data: memoryview
    descriptors: Sequence[int]


class Wire:
    """One end of a stream socket, which it takes over; its descriptor can be polled."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = OwnSocket(sock)
        self._sock.setblocking(False)
        self._out: deque[Parcel] = deque()
        self._in = bytearray()
        self._came: deque[list[int] | None] = deque()  # the descriptors of one message each; None: there was no room for them

    def fileno(self) -> int:
        """Return the socket's descriptor; -1 where it is closed."""
        return self._sock.fileno()

    def is_open(self) -> bool:
        """Tell whether the socket is open, and still ours: a body may have closed it, and its number be another file's."""
        return self._sock.is_ours()

    @property
    def pending(self) -> bool:
        """Whether something is still to be sent."""
        return bool(self._out)

    def post(self, message: tuple[Any, ...], descriptors: Sequence[int] = ()) -> Parcel:
        """Queue a message, and return what tells when its descriptors have been sent."""
        body = pickle.dumps(message)
        header = _HEADER.pack(len(body), zlib.crc32(body), len(descriptors))
        parcel = Parcel(memoryview(header + body), descriptors)
        self._out.append(parcel)
        return parcel

    def flush(self) -> bool:
        """Send what can be sent without waiting; tell whether that was all. OSError where the other end has gone."""
        if self._out:
            self._sock.must_be_ours()
        while self._out:
            parcel = self._out[0]
            beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", parcel.descriptors))] if parcel.descriptors else []
            try:
                sent = self._sock.sendmsg([parcel.data], beside)
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno in {errno.ETOOMANYREFS, errno.ENOBUFS}:  # too many descriptors are under way: the other end has to take some
                    return False
                raise
            parcel.data, parcel.descriptors = parcel.data[sent:], ()
            if not parcel.data:
                self._out.popleft()
        return True

    def withdraw(self, parcel: Parcel) -> None:
        """Take back a message whose descriptors are about to be closed, where these have not been sent."""
        if parcel.descriptors:
            self._out.remove(parcel)
            parcel.descriptors = ()

    def take(self) -> Iterator[Message]:
        """Yield the messages that are there, with their descriptors; EOFError where the other end has gone.

        Descriptors are -1 where this process may not have so many. OSError where nothing can be read; :class:`Garbled` is one.
        """
        self._sock.must_be_ours()
        while True:
            yield from self._whole()
            try:
                data, descriptors, lost = _received(self._sock)
            except BlockingIOError:
                return
            if not data:
                raise EOFError
            self._in += data
            if lost or descriptors:
                self._came.append(None if lost else descriptors)

    def _whole(self) -> Iterator[Message]:
        while len(self._in) >= _HEADER.size:
            size, checksum, count = _HEADER.unpack_from(self._in)
            if size > _LARGEST or count > MOST_DESCRIPTORS:
                raise Garbled("a message of an impossible size")
            end = _HEADER.size + size
            if len(self._in) < end:
                return
            body = bytes(self._in[_HEADER.size : end])
            if zlib.crc32(body) != checksum:
                raise Garbled("a message that is not what was sent")
            del self._in[:end]
            yield pickle.loads(body), self._own(count)

    def _own(self, count: int) -> list[int]:
        """Return the descriptors of the next message that has some."""
        if not count:
            return []
        came = self._came.popleft() if self._came else []
        if came is None:
            return [-1] * count
        if len(came) != count:
            raise Garbled("a message without its descriptors")
        return came

    def next(self, seconds: float | None = None) -> Message:
        """Wait for one message, which is the only one that is to come; TimeoutError after so many seconds."""
        poll = Poll()
        poll.register(self._sock, select.POLLIN)
        while poll.poll(None if seconds is None else seconds * 1e3):
            for message in self.take():
                return message
        raise TimeoutError

    def close(self) -> None:
        """Let go of the socket, and of descriptors that nobody has taken."""
        self._sock.close()
        for descriptor in (each for came in self._came for each in came or ()):
            with suppress(OSError):
                close_descriptor(descriptor)
        self._came.clear()


def _received(sock: socket.socket) -> tuple[bytes, list[int], bool]:
    """Receive bytes, the descriptors of at most one message (no child inherits them by exec), and whether these were too many."""
    found = array.array("i")
    room = socket.CMSG_SPACE(MOST_DESCRIPTORS * found.itemsize)
    data, beside, flags, _ = sock.recvmsg(_PIECE, room, getattr(socket, "MSG_CMSG_CLOEXEC", 0))
    for level, kind, content in beside:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(content[: len(content) - len(content) % found.itemsize])
    lost = bool(flags & socket.MSG_CTRUNC)
    if lost:
        for descriptor in found:
            close_descriptor(descriptor)
    return data, [] if lost else list(found), lost
