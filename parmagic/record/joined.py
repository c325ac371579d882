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
"""At the end of the file: the number of the process (0: it never began), and its name."""


class Head:
    """What a process says of itself: written by it, and read by its parent, in the ``file`` at ``place``; its forks have no part in it."""

    def __init__(self, file: int, place: int) -> None:
        self._file = file
        self._place = place
        self._pid = os.getpid()

    def write(self, name: str = "") -> None:
        """Say that this process is there, and its name."""
        with suppress(OSError):
            os.pwrite(self._file, HEAD.pack(self._pid, name.encode(errors="replace")[:79]), self._place)

    def name_it(self) -> None:
        """Say its name, now that multiprocessing knows it: that of the parent until then."""
        process = sys.modules.get("multiprocessing.process")
        if process is not None and os.getpid() == self._pid and process.current_process()._parent_pid == os.getppid():  # noqa: SLF001
            self.write(process.current_process().name)


_mine: list[Head] = []  # kept: multiprocessing forgets what nobody else has


def begin(file: int, place: int, rank: int, filename: str, name: str = "") -> None:
    """Begin the calling thread's account in a file, below the worker ``rank``; lines are those of ``filename``.

    Raises OSError where there is no memory for it, RuntimeError where this thread has an account.
    """
    extension, _ = hooks.extension()
    if extension is None or not (extension.resume() or extension.start()):
        return
    extension.attach(rank, file)
    extension.lines_of(filename)
    extension.mark()
    head = Head(file, place)
    head.write(name)
    _mine[:] = [head]
    if not name and (util := sys.modules.get("multiprocessing.util")):
        util.register_after_fork(head, Head.name_it)  # called when a Process knows its name
