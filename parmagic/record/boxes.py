"""Processes that bodies start: each keeps its account in memory that its parent has as well, so that it is there whatever ends the process.

::

    parent, before the start ─ a file without a name ──┐
    child, behind it: its account, and who it is ──────┤ shared
    parent, at the arm's end: account, who it was ◀────┘

A forked one has the file from its parent. One that multiprocessing starts anew is handed it with what it is to do, and loads
:mod:`parmagic.record.joined`, if it can. Where nothing is hooked, nothing is known of them.
"""

from __future__ import annotations

import os
import re
import struct
from contextlib import suppress
from dataclasses import replace
from multiprocessing.reduction import DupFd
from time import perf_counter
from typing import Any

from parmagic.model.private import Private
from parmagic.model.recording import Child, WorkerId
from parmagic.record import holding, joined, meter, usage
from parmagic.record.joined import HEAD
from parmagic.system.descriptors import Descriptor, high, to_spare
from parmagic.system.files import anonymous_file
from parmagic.system.gil import gil_enabled

AT_ONCE = 64
"""Processes that are looked at at a time, or fewer, as each takes a descriptor, which a body may need."""

MOST_WAITS = 4096
"""Single waits that are kept of each; the seconds of all are."""

MOST_TOLD = 2**24
"""Bytes of what each did with locks: there are at most some thousand rows."""

_GIVEN = re.compile(r"((Fork|Spawn|ForkServer)?(Process|PoolWorker)|(Sync|SharedMemory)Manager)-\d+(:\d+)*")
"""Names that the standard library gives processes."""

_ENDED = frozenset({"", "Z", "X"})
"""The states of a process that has ended, also where nobody has waited for it yet."""


JOIN = """
try:
    from parmagic.record.joined import begin
    begin(file.detach(), *about)
except Exception:
    pass
"""
"""What a process that starts anew runs first: it may be one that has no parmagic, and then nothing is known of it."""


class Token:
    """What is sent to a process that multiprocessing starts anew: where it is unpickled, an account begins."""

    def __init__(self, file: Descriptor, *about: Any) -> None:
        self._file = file
        self._about = about

    def __reduce__(self) -> tuple[Any, tuple[str, dict[str, Any]]]:
        """Be a few lines of Python, and a descriptor that goes the way of multiprocessing's own."""
        return exec, (JOIN, {"file": DupFd(self._file.number), "about": self._about})


class Box:
    """What one process keeps its account in; ``rank`` is the worker's below which it was started."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self._born = perf_counter()
        self._size = meter.box_size()
        self._file = Descriptor(high(anonymous_file()))
        try:
            os.ftruncate(self._file.number, self._size + HEAD.size)
        except OSError:  # RLIMIT_FSIZE, say
            self.close()
            raise

    def begin(self, filename: str) -> None:
        """In the forked process: begin the account; waits are told by the lines of this file."""
        joined.begin(self._file.number, self._size, self.rank, filename)

    def token(self, filename: str, name: str) -> Token:
        """Return what begins the account of a process that starts anew, by the name that it will have, where it is unpickled."""
        return Token(self._file, self._size, self.rank, filename, name)

    def child(self, now: float) -> Child | None:
        """Return what the process did until now, or its end; None where there never was one."""
        pid, name = self._head()
        if not pid:
            return None
        ended = meter.state_of(pid, pid) in _ENDED
        left = meter.autopsy(self._file.number, *((0.0, 0.0) if ended else (now, usage.cpu_seconds(pid, pid))))
        readings, totals = (left[1], left[2]) if left else (None, ())
        if readings is not None and readings.waits is not None:
            readings = replace(readings, waits=readings.waits.first(MOST_WAITS))
        who = WorkerId(self.rank, pid, pid, gil=gil_enabled(), takes_items=False)
        end = readings.tally.times[-1] if readings is not None and readings.tally is not None else self._born
        called = name if _GIVEN.fullmatch(name) else Private(name, f"process {pid}") if name else f"process {pid}"
        synced = holding.as_told(self._told())
        return Child(who, called, "process", self._born, end, not ended, readings, totals, synced)

    def _told(self) -> bytes:
        """Return what the process said at its end."""
        with suppress(OSError):
            return os.pread(self._file.fileno(), MOST_TOLD, self._size + HEAD.size)
        return b""

    def _head(self) -> tuple[int, str]:
        try:
            pid, name = HEAD.unpack(os.pread(self._file.fileno(), HEAD.size, self._size))
        except (OSError, struct.error):  # a body may have closed it, or cut it short
            return 0, ""
        return pid, name.decode(errors="replace")

    @property
    def is_over(self) -> bool:
        """Whether its process has ended."""
        pid = self._head()[0]
        return bool(pid) and meter.state_of(pid, pid) in _ENDED

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


class Boxes:
    """The boxes of the processes that one run's bodies start from this one."""

    def __init__(self, most: int) -> None:
        self.n_left_out = 0
        self._most = most
        self._open: list[Box] = []
        self._done: list[Child] = []

    def new(self, rank: int) -> Box | None:
        """Return a box for a process that is about to be started; None where there are too many, or no descriptor is left."""
        room = to_spare(AT_ONCE)
        if len(self._open) >= room:
            self._put_away()
        if len(self._open) < room and len(self._open) + len(self._done) < self._most:
            with suppress(OSError):
                self._open.append(Box(rank))
                return self._open[-1]
        self.n_left_out += 1
        return None

    def _put_away(self) -> None:
        """Take what those have left that have ended, and close their boxes."""
        for box in [each for each in self._open if each.is_over]:
            self._open.remove(box)
            if (child := box.child(0.0)) is not None:
                self._done.append(child)
            box.close()

    def take(self, now: float) -> list[Child]:
        """Return what all processes did, and close their boxes."""
        found, self._done = self._done, []
        while self._open:
            box = self._open.pop(0)
            if (child := box.child(now)) is not None:
                found.append(child)
            box.close()
        return found

    def only(self, mine: Box) -> None:
        """In a forked process: have no box but one's own."""
        for box in self._open:
            if box is not mine:
                box.close()
        self._open, self._done = [], []
