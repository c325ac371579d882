"""This process's VizTracer: made once and never freed; how it gets into threads, and out of them again.

Each constructor takes a pthread key for good, and freeing a tracer whose threads live corrupts memory.

Without a GIL, VizTracer 1.1.1 crashes where it is stopped while other threads record: it falls silent first.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import sys
import threading
import warnings
from collections import deque
from itertools import accumulate, chain, repeat, takewhile
from time import perf_counter, sleep
from typing import Any

from parmagic.model.recording import CALLS_KEPT
from parmagic.record.ring import Ring
from parmagic.system.gil import FREE_THREADED
from parmagic.system.interrupts import held_back

ENTRIES = CALLS_KEPT
"""Events that fit into the ring.

88 bytes each, of pages that are touched when they are used: at most 88 MB in a process, and for
good in the notebook's, as VizTracer can neither free the ring nor make another.
"""

CALM = 0.01
"""Seconds for threads to finish recording a call that they had begun to record, which takes microseconds."""

BY_MONITORING = sys.version_info >= (3, 12)
"""Whether recording is switched for all threads at once; on 3.11, each thread has a hook of its own."""

_tracers: list[Any] = []
"""All that were made, which must not be freed."""

_TOOL = 2  # sys.monitoring's place for profilers, which VizTracer takes
_ANCHOR_TRIES = 60
_CALLS = 500


class Profiler:
    """A VizTracer whose ring has room for ``entries``, one for each process; see :func:`get`."""

    def __init__(self, entries: int) -> None:
        os.getcwd()  # noqa: PTH109  (VizTracer asks as well, but is half made by then, and must not be freed)
        from viztracer import VizTracer  # noqa: PLC0415  (loads when a run traces)

        # an interrupted thread leaves functions that it never returned from: nothing that its user could mend
        warnings.filterwarnings("ignore", "VizTracer: Unexpected function return", RuntimeWarning)
        before = sys.getprofile()
        self._tracer = VizTracer(tracer_entries=entries, register_global=False, verbose=0)
        _tracers.append(self._tracer)  # whatever is raised from here on
        if not BY_MONITORING:
            sys.setprofile(before)
            threading.setprofile(None)
            self._hook = self._tracer.threadtracefunc
        self.ring = Ring(self._tracer, entries)
        self.owner: object = None
        self._owning = threading.Lock()

    def take(self, who: object) -> bool:
        """Make it somebody's, if it is free; tell whether it is theirs."""
        with self._owning:
            if self.owner is None:
                self.owner = who
            return self.owner is who

    def give_back(self, who: object) -> None:
        """Forget what was recorded, and let others have it, if it is theirs."""
        if self.owner is who:
            self._tracer.clear()
            self.owner = None

    def trace_c(self, *, wanted: bool) -> None:
        """Record functions that are written in C, or leave them out."""
        self._tracer.ignore_c_function = not wanted

    def start(self) -> None:
        """Record from here on; on 3.11, the threads that are hooked."""
        self._tracer.start()
        if not BY_MONITORING:
            _unhook(sys.setprofile, threading.setprofile)

    def stop(self) -> None:
        """Stop recording. This goes through the stacks of all threads: without a GIL none may record meanwhile."""
        with held_back():
            if FREE_THREADED and sys.monitoring.get_tool(_TOOL):  # type: ignore[attr-defined, unused-ignore]
                silence()
                sleep(CALM)
            self._tracer.stop()

    def clear(self) -> None:
        """Forget what was recorded."""
        self._tracer.clear()

    def dump(self, path: str) -> None:
        """Write what was recorded to a file; OSError or ValueError where it cannot be opened or written."""
        self._tracer.dump(path)

    def hook_thread(self) -> None:
        """Hook the calling thread (3.11), as ``VizTracer.enable_thread_tracing`` does, by an object that lives on.

        3.11 calls a profile function without keeping it alive. The controller may take it away in
        that moment, and the call then goes to whatever took its place in memory.
        """
        if not BY_MONITORING:
            self._tracer.reset_stack()
            sys.setprofile(self._hook)

    def anchor(self) -> tuple[float, float]:
        """Return one moment on VizTracer's clock (µs) and on ours (s): the tightest of some tries."""
        best = (float("inf"), 0.0, 0.0)
        for _ in range(_ANCHOR_TRIES):
            before = perf_counter()
            theirs = self._tracer.getts()
            after = perf_counter()
            best = min(best, (after - before, theirs, (before + after) / 2))
        return best[1], best[2]

    def forked(self) -> None:
        """In a forked child: let go of the parent's recording."""
        self.owner, self._owning = None, threading.Lock()
        self._tracer.stop()
        self._tracer.clear()
        self._tracer.reset_stack()


_profiler: Profiler | None = None
_making = threading.Lock()


def get() -> Profiler:
    """Return this process's VizTracer; an OSError where it cannot be made, as the working directory is gone."""
    global _profiler  # noqa: PLW0603  (one per process, forever)
    if _profiler is None:
        with held_back(), _making:
            _profiler = _profiler or Profiler(ENTRIES)
    return _profiler


def forked() -> None:
    """In a forked child: let go of the parent's recording, if there was one."""
    global _making  # noqa: PLW0603  (another thread may have held it)
    _making = threading.Lock()
    if _profiler is not None:
        _profiler.forked()


def silence() -> None:
    """Record no further call, in any thread (3.12+)."""
    sys.monitoring.set_events(_TOOL, 0)  # type: ignore[attr-defined, unused-ignore]


def other() -> str | None:
    """Return the name of another profiler that is at work, or None; another run's, which is ours, is none: its owner says so."""
    if _profiler is not None and _profiler.owner is not None:
        return None
    if BY_MONITORING:
        return sys.monitoring.get_tool(_TOOL)  # type: ignore[attr-defined, no-any-return, unused-ignore]
    found = sys.getprofile() or threading.getprofile()
    if found is None:
        return None
    return f"the profile function {getattr(found, '__qualname__', type(found).__qualname__)!r}"


@functools.cache
def call_cost() -> float:
    """Return what recording one call costs in this process, in seconds; measured once, by the profiler's owner."""
    profiler = get()
    plain = min(_time_calls() for _ in range(3))
    profiler.start()
    profiler.hook_thread()
    traced = min(_time_calls() for _ in range(3))
    profiler.stop()
    if not BY_MONITORING:
        _unhook(sys.setprofile, threading.setprofile)
    profiler.clear()
    return max(traced - plain, 0.0) / _CALLS


def _time_calls() -> float:
    def nothing() -> None:
        pass

    begin = perf_counter()
    for _ in range(_CALLS):
        nothing()
    return perf_counter() - begin


def _unhook(*setters: Any) -> None:
    for setter in setters:
        setter(None)


def unhook_threads() -> None:
    """Take the profile function off every thread (3.11), also off those that run on.

    VizTracer's own ``stop`` leaves its hook in threads that it cannot reach,
    where it goes on to cost at each call. The states of threads are gone through within one
    call of C: between two lines of Python another thread may end, and free the state that comes next.
    """
    interpreter, first, following, set_profile = _calls_for_threads()
    states = takewhile(bool, accumulate(chain(map(first, (interpreter,)), repeat(0)), following))
    before = gc.isenabled()
    gc.disable()  # a finalizer is Python as well
    try:
        deque(map(set_profile, states, repeat(None), repeat(None)), maxlen=0)
    finally:
        if before:
            gc.enable()


@functools.cache
def _calls_for_threads() -> tuple[int, Any, Any, Any]:
    """Return the interpreter, and what C calls to go through the states of its threads and to set a profile function there."""
    api, state, number = ctypes.pythonapi, ctypes.c_void_p, ctypes.c_int
    interpreter = ctypes.PYFUNCTYPE(state)(("PyInterpreterState_Get", api))()
    first = ctypes.PYFUNCTYPE(state, state)(("PyInterpreterState_ThreadHead", api))
    following = ctypes.PYFUNCTYPE(state, state, number)(("PyThreadState_Next", api))  # the number is accumulate's, and read by nobody
    return interpreter, first, following, ctypes.PYFUNCTYPE(number, state, state, state)(("_PyEval_SetProfile", api))
