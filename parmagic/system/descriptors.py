"""Descriptors of ours beside those of code that closes what it did not open (``os.closerange(3, 256)``, to become a daemon, say).

They live high, where nobody's loop comes by and no file that is opened next gets their
numbers; and they are known by the file that they are of. A number that has become another
file's is neither written to nor closed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import sys
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

from parmagic.system.real import Poll, Socket, close_descriptor, open_descriptor, read_descriptor, write_descriptor

CEILING = 4096
"""Our numbers lie below this: the kernel keeps, and copies at a fork, a table up to the highest one."""

ROOM = 256
"""How far below that, or below the limit where that is lower, they begin."""


class Lost(OSError):
    """A descriptor of ours was closed by somebody else, or is another file's now."""

    def __init__(self) -> None:
        super().__init__(errno.EBADF, "a descriptor of parmagic's was closed by somebody else")


def readable(descriptor: int, seconds: float | None = 0.0) -> bool:
    """Wait at most that long, or forever, until there is something to read (or an end); select would refuse numbers above 1,023."""
    if Poll is None:
        return bool(select.select([descriptor], [], [], seconds)[0])
    poll = Poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))


def high(descriptor: int, base: int | None = None) -> int:
    """Move a descriptor up and return its new number; where that cannot be done it stays. ``base`` is :func:`base_of_ours`, if known."""
    try:
        import fcntl  # noqa: PLC0415  (POSIX only)

        moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, base_of_ours() if base is None else base)
    except (ImportError, OSError):
        return descriptor  # nothing is free up there, or nothing at all
    close_descriptor(descriptor)
    return moved


def base_of_ours() -> int:
    """Return where our numbers begin; ImportError where there are no limits to read (Windows)."""
    import resource  # noqa: PLC0415  (POSIX only)

    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    top = CEILING if allowed == resource.RLIM_INFINITY else min(allowed, CEILING)
    return top - min(ROOM, top // 4)


def to_spare(most: int) -> int:
    """Return how many descriptors may be ours beside a body that opens more itself: at most ``most``, and an eighth of what is free."""
    try:
        import resource  # noqa: PLC0415  (POSIX only)

        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        close_descriptor(lowest := open_descriptor(os.devnull, os.O_RDONLY))
    except ImportError:
        return most
    except OSError as error:
        return 0 if error.errno in {errno.EMFILE, errno.ENFILE} else most  # a system without it
    return most if allowed == resource.RLIM_INFINITY else max(0, min(most, (allowed - lowest) // 8))


@cache
def _libc() -> ctypes.PyDLL:
    return ctypes.PyDLL(None, use_errno=True)


def opened(path: str, flags: int) -> int:
    """Open a file where our numbers are, beside threads that may close what they did not open; an opener for :func:`open`.

    It is opened and moved with the GIL held: no thread can meanwhile have given the low
    number to a file of its own, which would then be closed here. Raises OSError.
    """
    if not sys.platform.startswith("linux"):
        return open_descriptor(path, flags)
    import fcntl  # noqa: PLC0415  (POSIX only)

    base, libc = base_of_ours(), _libc()
    low = libc.open(os.fsencode(path), flags | os.O_CLOEXEC)
    if low < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    moved = int(libc.fcntl(low, fcntl.F_DUPFD_CLOEXEC, base))
    if moved < 0:
        return int(low)  # nothing is free up there
    libc.close(low)
    return moved


def identity(descriptor: int) -> tuple[int, int] | None:
    """Return which file a descriptor is of, by device and inode; None where it is of none."""
    try:
        about = os.fstat(descriptor)
    except OSError:
        return None
    return about.st_dev, about.st_ino


class Descriptor:
    """A descriptor of ours; ``number`` is to be used at once, after :meth:`fileno` or :meth:`is_ours` has looked."""

    __slots__ = ("_file", "number")

    def __init__(self, descriptor: int) -> None:
        self.number = descriptor
        self._file = identity(descriptor)

    def is_ours(self) -> bool:
        """Tell whether it is open, and still of the same file."""
        return self.number >= 0 and self._file is not None and identity(self.number) == self._file

    def fileno(self) -> int:
        """Return the number; raises :class:`Lost` where it is not ours any more."""
        if not self.is_ours():
            raise Lost
        return self.number

    def close(self) -> None:
        """Close it, where it is ours to close."""
        ours, number = self.is_ours(), self.number
        self.number = -1
        if ours:
            try:  # noqa: SIM105  (no function that a Ctrl-C could strike at the begin of: finalizers come by here, where it would be lost)
                close_descriptor(number)
            except OSError:
                pass  # closed in this very moment


def adopted(descriptor: int) -> Socket:
    """Return a socket for a descriptor, which waits as long as it takes, whatever ``socket.setdefaulttimeout`` says."""
    sock = Socket(fileno=descriptor)
    sock.settimeout(None)
    return sock


def socketpair() -> tuple[Socket, Socket]:
    """Return two sockets that are connected with each other."""
    import _socket  # noqa: PLC0415  (what lies below socket, whose own function makes sockets of whoever has patched it; POSIX only)

    ours, theirs = (adopted(each.detach()) for each in _socket.socketpair())
    return ours, theirs


class OwnSocket(Socket):
    """A socket that is closed only where its number is still its own; made of another socket, and moved up."""

    def __init__(self, of: Socket) -> None:
        super().__init__(fileno=high(of.detach()))
        self.settimeout(None)
        self._file = identity(self.fileno())

    def is_ours(self) -> bool:
        """Tell whether it is open, and still this socket."""
        return self._file is not None and identity(self.fileno()) == self._file

    def must_be_ours(self) -> None:
        """Raise :class:`Lost` where it is not."""
        if not self.is_ours():
            raise Lost

    def _real_close(self) -> None:
        if self.is_ours():
            super()._real_close()  # type: ignore[misc]
        else:
            self.detach()


class OwnConnection(Connection):
    """A connection that neither writes to, reads from nor closes any file but its own."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._file = identity(self._handle)  # type: ignore[attr-defined]

    def _check_closed(self) -> None:
        super()._check_closed()  # type: ignore[misc]
        if identity(self._handle) != self._file:  # type: ignore[attr-defined]
            raise Lost

    # Connection's own leave a view of a BytesIO in the frame of what they raise: in a circle of references, that
    # crashes the garbage collection up to Python 3.12

    def send(self, obj: Any) -> None:
        """Send what can be pickled."""
        self.send_bytes(bytes(ForkingPickler.dumps(obj)))

    def recv(self) -> Any:
        """Return the next thing that was sent; EOFError where nothing will be any more."""
        return ForkingPickler.loads(self.recv_bytes())

    def _send(self, data: Any, write: Any = write_descriptor) -> None:
        super()._send(data, write)  # type: ignore[misc]

    def _recv(self, size: int, read: Any = read_descriptor) -> Any:
        return super()._recv(size, read)  # type: ignore[misc]

    def _poll(self, timeout: float | None) -> bool:
        return readable(self._handle, timeout)  # type: ignore[attr-defined]

    def _close(self) -> None:
        if identity(self._handle) == self._file:  # type: ignore[attr-defined]
            close_descriptor(self._handle)  # type: ignore[attr-defined]
