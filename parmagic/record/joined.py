"""In a process that a body has started: begin its account, in the file that its parent has as well.

It is loaded by each such process that starts anew, and imports no more than that needs.
"""

from __future__ import annotations

import os
import struct
import sys
from contextlib import suppress

from parmagic.record import hooks

HEAD = struct.Struct("=i80p")
"""Behind the account: the number of the process (0: it never began), and its name. Behind that, what it did with locks, as JSON."""


class Head:
    """What a process says of itself: written by it, and read by its parent, in the ``file`` at ``place``; its forks have no part in it."""

    def __init__(self, file: int, place: int, serial: int) -> None:
        self._file = file
        self._place = place
        self._pid = os.getpid()
        self._serial = serial

    def write(self, name: str = "") -> None:
        """Say that this process is there, and its name."""
        with suppress(OSError):
            os.pwrite(self._file, HEAD.pack(self._pid, name.encode(errors="replace")[:79]), self._place)

    def name_it(self) -> None:
        """Say its name, now that multiprocessing knows it: that of the parent until then. From here on, locks are looked at."""
        process = sys.modules.get("multiprocessing.process")
        if process is not None and os.getpid() == self._pid and process.current_process()._parent_pid == os.getppid():  # noqa: SLF001
            self.write(process.current_process().name)
            self.tell_at_the_end()
            if (waits := hooks.extension()[0]) is not None:
                waits.look_at_locks()

    def tell_at_the_end(self) -> None:
        """Have multiprocessing call us when the process ends."""
        sys.modules["multiprocessing.util"].Finalize(None, self.tell, exitpriority=_LAST)

    def tell(self) -> None:
        """Say what this process did with locks."""
        extension, _ = hooks.extension()
        if extension is not None and (extension.synced() or extension.handoffs()):
            from parmagic.record.holding import told  # noqa: PLC0415  (who has no locks need not load all that this needs)

            process = sys.modules["multiprocessing.process"].current_process()
            with suppress(OSError):
                os.pwrite(self._file, told(extension, self._serial, process), self._place + HEAD.size)


_LAST = -100
"""Behind what the body has end with its process."""

_mine: list[Head] = []  # kept: multiprocessing forgets what nobody else has


def begin(file: int, place: int, rank: int, filename: str, name: str = "") -> None:
    """Begin the calling thread's account in a file, below the worker ``rank``; lines are those of ``filename``.

    Raises OSError where there is no memory for it, RuntimeError where this thread has an account.
    """
    extension, _ = hooks.extension()
    if extension is None or not (extension.resume() or extension.start()):
        return
    serial = extension.attach(rank, file)
    extension.lines_of(filename)
    extension.mark()
    head = Head(file, place, serial)
    head.write(name)
    _mine[:] = [head]
    if name:
        head.tell_at_the_end()
    if util := sys.modules.get("multiprocessing.util"):  # called when a Process knows its name, and has forgotten what to do at its end
        util.register_after_fork(head, Head.tell_at_the_end if name else Head.name_it)
