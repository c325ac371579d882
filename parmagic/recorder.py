"""The meter inside a worker: items, clocks and usage.

A worker reads two clocks around every item. Its CPU clock and its run queue
are dearer to read, so they are read at most every half millisecond; between
two readings they are taken to run evenly.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any, Protocol

from parmagic.errors import Ended
from parmagic.model import Batch, Clocks, Usage

CHECK_EVERY = 500e-6
"""Seconds between two readings of the dear clocks (about 2 µs together)."""

class Board(Protocol):
    """Integers that an arm's workers and the notebook see alike: a list, or shared memory."""

    def __getitem__(self, place: int, /) -> int:
        """Read a place."""
        ...

    def __setitem__(self, place: int, value: int, /) -> None:
        """Write a place."""
        ...


STOP = 0
"""The place on the board that tells all workers to take no further item."""


def item_slot(rank: int) -> int:
    """Return the place on the board where worker ``rank`` writes its current item.

    The two places behind it hold the begin and the end of its current claim.
    """
    return 1 + 3 * rank


def board_size(workers: int) -> int:
    """Return how many places a board for that many workers has."""
    return 1 + 3 * workers


class Worker:
    """What the body knows as ``worker``.

    ``rank`` counts from 0, ``count`` is the number of workers in the arm,
    ``model`` is ``serial``, ``threads`` or ``procs``.
    """

    __slots__ = ("count", "model", "rank")

    def __init__(self, rank: int, count: int, model: str) -> None:
        self.rank = rank
        self.count = count
        self.model = model

    def __repr__(self) -> str:
        """Show all three."""
        return f"<worker {self.rank} of {self.count}, {self.model}>"


_here = threading.local()


def current_worker() -> Worker:
    """Return the worker that runs the calling thread.

    Raises RuntimeError outside of a parallel body.
    """
    try:
        worker: Worker = _here.worker
    except AttributeError:
        raise RuntimeError("there is no worker here: this thread runs no parallel body") from None
    return worker


def enter(worker: Worker | None) -> None:
    """Make ``worker`` the calling thread's, or take it away with None."""
    if worker is not None:
        _here.worker = worker
    elif hasattr(_here, "worker"):
        del _here.worker


def runtime_address() -> int:
    """Return where this process keeps ``_PyRuntime``, CPython's global state."""
    return ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime"))


class Meter:
    """The calling thread's dear clocks, and what it used since it began.

    Make it in the thread that it measures; close it there.
    """

    def __init__(self, *, own_process: bool) -> None:
        self._own_process = own_process
        self._schedstat = _open_schedstat()
        self._switches = _switches()
        self._process_cpu = time.process_time()
        self._clear()
        self.read()
        self._first_cpu = self._cpu[0]

    def read(self) -> None:
        """Note the clocks at this moment."""
        self._at.append(perf_counter())
        self._cpu.append(thread_time())
        if self._schedstat is None:
            self._queue.append(math.nan)
        else:
            self._queue.append(int(os.pread(self._schedstat, 96, 0).split()[1]) * 1e-9)

    def take(self) -> Clocks:
        """Read once more, hand over the readings so far and begin anew."""
        self.read()
        clocks = Clocks(self._at, self._cpu, self._queue)
        self._clear()
        for ours, theirs in ((self._at, clocks.at), (self._cpu, clocks.cpu), (self._queue, clocks.queue)):
            ours.append(theirs[-1])
        return clocks

    def usage(self) -> Usage:
        """Return what the thread (and the process, where it is the worker's own) used so far."""
        voluntary, involuntary = _switches()
        return Usage(
            cpu_s=thread_time() - self._first_cpu,
            process_cpu_s=time.process_time() - self._process_cpu if self._own_process else math.nan,
            ctx_voluntary=voluntary - self._switches[0],
            ctx_involuntary=involuntary - self._switches[1],
            rss_mb=peak_rss_mb(),
        )

    def close(self) -> None:
        """Give the descriptor back."""
        if self._schedstat is not None:
            os.close(self._schedstat)
            self._schedstat = None

    def _clear(self) -> None:
        self._at, self._cpu, self._queue = array("d"), array("d"), array("d")


def _open_schedstat() -> int | None:
    """Open the calling thread's scheduler figures, where the system has them."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def _switches() -> tuple[float, float]:
    """Return the calling thread's context switches so far: voluntary, involuntary."""
    try:
        import resource  # noqa: PLC0415  (POSIX only)

        usage = resource.getrusage(resource.RUSAGE_THREAD)
    except (ImportError, AttributeError):
        return math.nan, math.nan
    return usage.ru_nvcsw, usage.ru_nivcsw


def peak_rss_mb() -> float:
    """Return the peak resident memory of this process, in MB (10**6 bytes)."""
    if sys.platform.startswith("linux"):
        # not getrusage: a forked child inherits its parent's peak there
        with Path("/proc/self/status").open("rb") as status:
            for line in status:
                if line.startswith(b"VmHWM"):
                    return int(line.split()[1]) * 1024 / 1e6
    import psutil  # noqa: PLC0415  (only where Linux does not tell)

    memory = psutil.Process().memory_info()
    return float(getattr(memory, "peak_wset", memory.rss)) / 1e6


def perform(
    call: Callable[[Any, Worker], Any],
    items: Sequence[Any],
    claim: range,
    worker: Worker,
    meter: Meter,
    board: Board,
    *,
    keep_going: bool,
) -> Batch:
    """Run ``call(item, worker)`` for the claimed item numbers and record each.

    ``items[0]`` is item ``claim.start``. Ends early when the board says stop,
    after an exception unless ``keep_going``, and on :class:`Ended`.
    """
    begins, ends = array("d"), array("d")
    values: list[Any] = []
    errors: dict[int, BaseException] = {}
    clock, slot = perf_counter, item_slot(worker.rank)
    first = index = claim.start
    checked = begin = clock()
    while index < claim.stop:
        try:
            for index in range(index, claim.stop):  # noqa: B020  (goes on behind a failed item)
                if board[STOP]:
                    return Batch(first, begins, ends, values, errors)
                board[slot] = index
                begin = clock()
                value = call(items[index - first], worker)
                end = clock()
                begins.append(begin)
                ends.append(end)
                values.append(value)
                if end - checked > CHECK_EVERY:
                    meter.read()
                    checked = end
            break
        except BaseException as error:  # noqa: BLE001  (it is the user's: recorded, and raised by the run)
            done = len(values)
            del begins[done:], ends[done:]
            if first + done == index:
                begins.append(begin)
                ends.append(clock())
                values.append(None)
                errors[index] = _below(error)
            if isinstance(error, Ended) or not keep_going:
                board[STOP] = 1
                break
            index += 1
    return Batch(first, begins, ends, values, errors)


def _below(error: BaseException) -> BaseException:
    """Return ``error`` with our own frame taken off its traceback."""
    if error.__traceback__ is not None:
        return error.with_traceback(error.__traceback__.tb_next)
    return error
