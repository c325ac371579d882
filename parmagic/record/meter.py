"""What a worker's time went to, read inside of the worker.

Two meters with one face. Where our C extension can hook what waits, its account
is read, which costs next to nothing. Elsewhere the thread's CPU clock and its
run queue are read, and what it was blocked on is inferred from samples that
another process takes (:mod:`parmagic.record.sampler`).
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import threading
from array import array
from time import perf_counter, thread_time
from types import CodeType, ModuleType
from typing import Any, Protocol

from parmagic.model.kinds import KIND, MEASURED, WAIT_KINDS
from parmagic.model.recording import Clocks, Readings, Tally, Usage, WorkerId
from parmagic.model.taken import NONE, Synced
from parmagic.model.waits import Total, Waits
from parmagic.record import holding
from parmagic.record.hooks import extension
from parmagic.record.totals import named, told
from parmagic.record.usage import Used
from parmagic.system.descriptors import Descriptor, opened
from parmagic.system.gil import gil_enabled
from parmagic.system.real import get_ident

Left = tuple[float, Readings | None, tuple[Total, ...]]
"""What a worker left that will not report any more: its item's begin (0: not known), readings, what it waited for."""


JUST_NOW = 500_000
"""Nanoseconds: a thread that has waited for the GIL for less gave it to us, who look."""


def doing(worker: WorkerId, left: Left | None, now: float) -> str:
    """Say what a worker does; ``left`` is its account, read at ``now`` from outside. Empty where that is not known."""
    at, state = int(now * 1e9), state_of(worker.pid, worker.tid)
    if state in HALTED:
        return "was stopped (SIGSTOP, a debugger)"
    wait = left[1].waits.last if left is not None and left[1] is not None and left[1].waits is not None else None
    if wait is not None and wait.end >= at:  # the account closes with the wait that goes on
        kind = KIND[WAIT_KINDS[wait.kind]]
        if kind.name == "gil" and worker.pid == os.getpid() and at - wait.begin < JUST_NOW:
            return "runs Python"
        return kind.doing
    return {"": "", "R": "runs"}.get(state, "is blocked")


HALTED = frozenset({"T", "t"})
"""The states of a thread that somebody has stopped, or that a debugger has."""


def state_of(pid: int, tid: int) -> str:
    """Return the letter that Linux has for what a thread does (R, S, D, T …); empty where that cannot be seen."""
    try:
        with open(f"/proc/{pid}/task/{tid}/stat", "rb", opener=opened) as status:
            return status.read().rpartition(b")")[2].split()[0].decode()
    except (OSError, IndexError):
        return ""


class Meter(Protocol):
    """The calling thread's account. Make it in the thread that it measures; close it there.

    ``every`` is how many seconds should lie between two readings at least;
    ``measures`` tells whether its waits are measured, else samples have to say.
    """

    every: float
    measures: bool

    def watch(self, code: CodeType | None, function: Any = None) -> None:
        """Tell waits by the lines of this code's file from now on, and things by the names that a function has for them."""
        ...

    def read(self) -> None:
        """Note the account at this moment."""
        ...

    def take(self) -> Readings:
        """Read once more, hand over what was read so far and begin anew."""
        ...

    def usage(self) -> Usage:
        """Return what the thread (and the process, where it is the worker's own) used so far."""
        ...

    def synced(self) -> Synced:
        """Return what the thread did with locks, and who made it wait, where that was measured; to be asked before the account ends."""
        ...

    def close(self, *, nameless: bool = False) -> tuple[Total, ...]:
        """End the account; return what was waited for, where that was measured, and ``nameless`` where that is enough."""
        ...

    def peek(self, now: float, cpu_s: float) -> Left | None:
        """Return, from another thread, what this one left that is blocked and will not report; see :func:`autopsy`."""
        ...


def meter(rank: int, *, own_process: bool, measuring: bool, box: int = -1, born: float = 0.0) -> Meter:
    """Return a meter for the calling thread; ``measuring`` is what :class:`~parmagic.record.hooks.hooked` yielded.

    ``box`` is a file of :func:`box_size` bytes that the account survives in. ``born`` is when the thread was created: where waits
    are measured, the account begins there.
    """
    waits, _ = extension()
    used = Used(own_process=own_process)
    if not measuring or waits is None:
        return InferringMeter(used)
    return MeasuringMeter(waits, rank, box, used, born)


WORTH = 1e-3
"""Seconds of a birth in a run queue that are worth a reading."""

_waited_before = 0.0  # in run queues, by a process that was made ahead, until it only waited for what to do


def made_ahead() -> None:
    """Note that from now on this process, which was made ahead, waits for what to do: until now nobody has waited for it."""
    global _waited_before  # noqa: PLW0603  (a process has one birth)
    _waited_before = _queued_so_far()


def birth(begin: float, *, measuring: bool) -> Readings | None:
    """Return the account of a process before its own one begins: how long it stood in run queues since it was forked, or woken.

    It is told as if that had been right before now, and not before ``begin``, when it was asked for. None where that is not worth
    it, the system does not tell, or waits are not measured.
    """
    if not measuring:
        return None
    now = perf_counter()
    late = min(_queued_so_far() - _waited_before, now - begin)
    if not late > WORTH:
        return None
    rows = [0.0] * (2 * (1 + len(MEASURED)))
    rows[0], rows[1 + len(MEASURED)], rows[-len(MEASURED) + MEASURED.index("cpu_wait")] = now - late, now, late
    return Readings(tally=Tally(array("d", rows)))


def _queued_so_far() -> float:
    """Return the seconds for which the calling thread has stood in run queues; NaN where the system does not tell."""
    try:
        with open("/proc/thread-self/schedstat", "rb", buffering=0, opener=opened) as file:
            return int(file.read().split()[1]) * 1e-9
    except (OSError, ValueError, IndexError):
        return math.nan


def _born() -> None:
    global _waited_before  # noqa: PLW0603
    _waited_before = 0.0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_born)  # the kernel counts anew


def runtime_address() -> int:
    """Return where this process keeps ``_PyRuntime``, CPython's global state."""
    return ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime"))


def who(rank: int, gauge: Meter) -> WorkerId:
    """Return who the calling thread is for the system, and what a sampler would need to know."""
    return WorkerId(rank, os.getpid(), threading.get_native_id(), 0 if gauge.measures else runtime_address(), gil_enabled())


class MeasuringMeter:
    """Reads the account that the hooks keep."""

    every = 50e-6
    measures = True

    def __init__(self, extension: ModuleType, rank: int, box: int, used: Used, born: float) -> None:
        self._extension = extension
        self._used = used
        self._function: Any = None
        self.read = extension.mark
        self._owner = os.getpid(), get_ident()
        self._handle: int | None = extension.attach(rank, box, born)

    def __del__(self) -> None:
        """Where an interrupt kept everybody from knowing of it; only its own thread can end it."""
        if getattr(self, "_handle", None) is not None and (os.getpid(), get_ident()) == self._owner:
            self._handle = None
            self._extension.detach()

    def watch(self, code: CodeType | None, function: Any = None) -> None:
        """Tell waits by the lines of this code, and the names of this function, from now on."""
        self._function = function
        self._extension.lines_of(code.co_filename if code is not None else "")

    def take(self) -> Readings:
        """Read once more, hand over what was read so far and begin anew."""
        return _readings(*self._extension.take())

    def usage(self) -> Usage:
        """Return what was used so far."""
        return self._used.so_far()

    def synced(self) -> Synced:
        """Return what was done with locks, and for whom it was waited."""
        return NONE if self._handle is None else holding.synced(self._extension, self._handle)

    def close(self, *, nameless: bool = False) -> tuple[Total, ...]:
        """End the account and take the thread out of the hooks' sight."""
        if self._handle is None:
            return ()
        self._handle = None
        totals = told(self._extension.detach(), self._extension.library_at)
        return totals if nameless else named(totals, self._function)

    def peek(self, now: float, cpu_s: float) -> Left | None:
        """Return what a blocked thread left."""
        handle = self._handle
        if handle is None:
            return None
        left = _left(self._extension.peek(handle, now, cpu_s), self._extension)
        return left and (left[0], left[1], named(left[2], self._function))


def _readings(rows: bytes, events: bytes, lost: int) -> Readings:
    tally = array("d")
    tally.frombytes(rows)
    return Readings(tally=Tally(tally), waits=Waits(events, lost))


def box_size() -> int:
    """Return how many bytes a file must have that a worker's account is kept in; 0 where none is kept."""
    waits, _ = extension()
    return int(waits.box_size()) if waits is not None else 0


def autopsy(box: int, now: float, cpu_s: float) -> Left | None:
    """Return what a killed worker left in its box: its item's begin, its last readings, what it waited for.

    ``now`` is when it died, ``cpu_s`` what its process had used by then. None
    where it left nothing.
    """
    waits, _ = extension()
    return _left(waits.autopsy(box, now, cpu_s), waits) if waits is not None else None


def _left(found: Any, waits: ModuleType) -> Left | None:
    if found is None:
        return None
    begin, rows, events, lost, totals = found
    return begin, _readings(rows, events, lost), told(totals, waits.library_at)


class InferringMeter:
    """Reads the thread's CPU clock and its run queue; between two readings they are taken to run evenly."""

    every = 500e-6  # a reading takes about 2 µs
    measures = False

    def __init__(self, used: Used) -> None:
        self._used = used
        self._schedstat: Descriptor | None = None
        self._schedstat = _open_schedstat()
        self._clear()
        self.read()

    def __del__(self) -> None:
        """Where an interrupt kept everybody from knowing of it."""
        self.close()

    def watch(self, code: CodeType | None, function: Any = None) -> None:
        """Do nothing: single waits are not known here."""

    def read(self) -> None:
        """Note the clocks at this moment."""
        at, cpu = perf_counter(), thread_time()
        queue = self._queued()
        whole = len(self._queue)
        del self._at[whole:], self._cpu[whole:]  # an interrupt may have torn the reading before
        self._at.append(at)
        self._cpu.append(cpu)
        self._queue.append(queue)

    def _queued(self) -> float:
        """Return the seconds that this thread stood in a run queue so far; NaN where that cannot be read (any more)."""
        if self._schedstat is None:
            return math.nan
        try:
            return int(os.pread(self._schedstat.number, 96, 0).split()[1]) * 1e-9
        except (OSError, ValueError, IndexError):
            return math.nan

    def take(self) -> Readings:
        """Read once more, hand over what was read so far and begin anew."""
        if self._schedstat is not None and not self._schedstat.is_ours():
            self._schedstat = None  # the body has closed it
        self.read()
        clocks = Clocks(self._at, self._cpu, self._queue)
        self._clear()
        for ours, theirs in ((self._at, clocks.at), (self._cpu, clocks.cpu), (self._queue, clocks.queue)):
            ours.append(theirs[-1])
        return Readings(clocks=clocks)

    def usage(self) -> Usage:
        """Return what was used so far."""
        return self._used.so_far()

    def synced(self) -> Synced:
        """Return nothing: it is not known here."""
        return NONE

    def close(self, *, nameless: bool = False) -> tuple[Total, ...]:  # noqa: ARG002  (as all meters)
        """Give the descriptor back; single waits are not known here."""
        if self._schedstat is not None:
            self._schedstat.close()
        return ()

    def peek(self, now: float, cpu_s: float) -> Left | None:  # noqa: ARG002  (as all meters)
        """Return None: nobody else can read these clocks."""
        return None

    def _clear(self) -> None:
        self._at, self._cpu, self._queue = array("d"), array("d"), array("d")


def _open_schedstat() -> Descriptor | None:
    """Open the calling thread's scheduler figures, where the system has them."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return Descriptor(opened(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY))
    except OSError:
        return None
