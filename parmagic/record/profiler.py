"""This process's VizTracer: made once and never freed; how it gets into threads, and out of them again.

Each constructor takes a pthread key for good, and freeing a tracer whose threads live corrupts memory.

Without a GIL, VizTracer 1.1.1 crashes where it is stopped while other threads record: it falls silent first.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from time import perf_counter
from types import BuiltinMethodType
from typing import Any

from parmagic.model.recording import CALLS_KEPT
from parmagic.record import threadhooks
from parmagic.record.place import Place
from parmagic.record.ring import Ring
from parmagic.system.gil import FREE_THREADED
from parmagic.system.interrupts import held_back
from parmagic.system.real import Lock, sleep

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

_ANCHOR_TRIES = 60
_CALLS = 500


class Profiler:
    """A VizTracer whose ring has room for ``entries``, one for each process; see :func:`get`."""

    def __init__(self, entries: int) -> None:
        os.getcwd()  # noqa: PTH109  (VizTracer asks as well, but is half made by then, and must not be freed)
        kind = _kind()
        # an interrupted thread leaves functions that it never returned from: nothing that its user could mend
        warnings.filterwarnings("ignore", "VizTracer: Unexpected function return", RuntimeWarning)

        def make() -> None:
            _tracers.append(kind(tracer_entries=entries, register_global=False, verbose=0))

        if BY_MONITORING:
            make()
        else:
            threadhooks.aside(make, lambda _: False)
        self._tracer = _tracers[-1]
        self._hook = self._tracer.threadtracefunc
        self.in_place: object = self._tracer  # of its function, in a thread that is hooked (3.11)
        self._ours = (self._tracer, self._hook)
        if not BY_MONITORING:
            threadhooks.offset()  # while this thread has no profile function
        self.place = Place()
        self.ring = Ring(self._tracer, entries)
        self.owner: object = None
        self._owning = Lock()

    def take(self, who: object) -> bool:
        """Make it somebody's, if it is free; tell whether it is theirs."""
        with self._owning:
            if self.owner is None:
                self.owner = who
            return self.owner is who

    def give_back(self, who: object) -> None:
        """Forget what was recorded, and let others have it, if it is theirs."""
        if self.owner is who:
            try:
                self._tracer.clear()
            finally:
                self.owner = None

    def trace_c(self, *, wanted: bool) -> None:
        """Record functions that are written in C, or leave them out."""
        self._tracer.ignore_c_function = not wanted

    def start(self) -> str | None:
        """Record from here on; on 3.11, the threads that are hooked. Where another tool has the place for it, only return its name."""
        with held_back():
            if not BY_MONITORING:
                threadhooks.aside(self._tracer.start, self.is_ours)
                return None
            if self._tracer.enable and not self.place.is_ours():  # another tool had the place when this was to be stopped
                self.place.leave(self._tracer.stop)
            return self.place.enter(self._tracer.start)

    def stop(self) -> None:
        """Stop recording. This goes through the stacks of all threads: without a GIL none may record meanwhile.

        Where another tool has the place, nothing is recorded, and VizTracer is stopped when that has left.
        """
        with held_back():
            if not BY_MONITORING:
                if self._tracer.enable:
                    threadhooks.aside(self._tracer.stop, self.is_ours)
                return
            if FREE_THREADED and self.place.is_ours():
                self.place.silence()
                sleep(CALM)
            if self._tracer.enable or self.place.is_ours():
                self.place.leave(self._tracer.stop)

    def holds(self) -> bool:
        """Tell whether nobody has taken the place for profilers from us."""
        return not BY_MONITORING or self.place.is_ours()

    def shared(self) -> bool:
        """Tell whether another tool has moved in with us, and would fail where we leave."""
        return BY_MONITORING and self.place.shared()

    def clear(self) -> None:
        """Forget what was recorded."""
        self._tracer.clear()

    def dump(self, path: str) -> None:
        """Write what was recorded to a file; OSError or ValueError where it cannot be opened or written."""
        self._tracer.dump(path)

    def is_ours(self, found: object) -> bool:
        """Tell whether a profile function is this tracer's (3.11): VizTracer puts itself in the place of its function."""
        return found is self._tracer or (type(found) is BuiltinMethodType and found.__self__ is self._tracer)

    def foreign(self) -> object:
        """Return the calling thread's profile function where it is not ours (3.11), or None."""
        if BY_MONITORING:
            return None
        found = sys.getprofile()
        return None if self.is_ours(found) else found

    def hook_thread(self) -> None:
        """Hook the calling thread (3.11), as ``VizTracer.enable_thread_tracing`` does, by an object that lives on.

        3.11 calls a profile function without keeping it alive. The controller may take it away in
        that moment, and the call then goes to whatever took its place in memory.
        """
        if not BY_MONITORING:
            self._tracer.reset_stack()
            sys.setprofile(self._hook)

    def unhook_thread(self) -> None:
        """Take our profile function off the calling thread (3.11)."""
        if not BY_MONITORING and self.is_ours(sys.getprofile()):
            sys.setprofile(None)

    def unhook_threads(self) -> None:
        """Take it off all threads (3.11), where VizTracer's ``stop`` leaves it, to cost at each call."""
        if not BY_MONITORING:
            threadhooks.unhook_all(self._ours)

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
        self.owner, self._owning = None, Lock()
        self.stop()
        self._tracer.clear()
        self._tracer.reset_stack()


def _kind() -> Any:
    """Return the class of our tracers."""
    from viztracer import VizTracer  # noqa: PLC0415  (loads when a run traces)

    class Tracer(VizTracer):  # type: ignore[misc, unused-ignore]
        """A VizTracer that goes on where a body, on 3.11, sets the profile function again that it has found."""

        def __call__(self, frame: Any, event: str, arg: Any) -> None:
            """Be a profile function."""
            if self.enable:
                self.reset_stack()  # what was called and has returned meanwhile is not known
                self.threadtracefunc(frame, event, arg)
            else:
                sys.setprofile(None)

    return Tracer


_profiler: Profiler | None = None
_making = Lock()


def get() -> Profiler:
    """Return this process's VizTracer; an OSError where it cannot be made, as the working directory is gone."""
    global _profiler  # noqa: PLW0603  (one per process, forever)
    if _profiler is None:
        with held_back(), _making:
            _profiler = _profiler or Profiler(ENTRIES)
    return _profiler


def forked() -> None:
    """In a forked child: let go of the parent's recording, if there was one, and of a profile function of the forking thread's alone.

    That counts for nobody here; a baseline would be slower by it than an arm of threads, which have none.
    """
    global _making  # noqa: PLW0603  (another thread may have held it)
    _making = Lock()
    if threading.getprofile() is None:
        sys.setprofile(None)
    if _profiler is not None:
        _profiler.forked()


def other() -> str | None:
    """Return the name of another profiler that is at work, or None; another run's, which is ours, is none: its owner says so."""
    if _profiler is not None and _profiler.owner is not None:
        return None
    if BY_MONITORING:
        return (_profiler.place if _profiler is not None else Place()).other()
    found = threadhooks.other(_profiler.is_ours if _profiler is not None else lambda _: False)
    return None if found is None else name_of(found)


def name_of(function: object) -> str:
    """Return what a profile function is called in notes."""
    return f"the profile function {getattr(function, '__qualname__', type(function).__qualname__)!r}"


_cost: float | None = None


def call_cost() -> float:
    """Return what recording one call costs in this process, in seconds; measured once, by the profiler's owner.

    NaN while another profiler is at work, which would be measured as well.
    """
    global _cost  # noqa: PLW0603  (one per process)
    if _cost is None:
        _cost = _measure(get())
    return float("nan") if _cost is None else _cost


def is_calibrated() -> bool:
    """Tell whether :func:`call_cost` knows it."""
    return _cost is not None


def _measure(profiler: Profiler) -> float | None:
    if profiler.foreign():
        return None
    plain = min(_time_calls() for _ in range(3))
    if profiler.start() is not None:
        return None
    try:
        profiler.hook_thread()
        traced = min(_time_calls() for _ in range(3))
    finally:
        profiler.unhook_thread()
        profiler.stop()
        profiler.clear()
    return max(traced - plain, 0.0) / _CALLS


def _time_calls() -> float:
    def nothing() -> None:
        pass

    begin = perf_counter()
    for _ in range(_CALLS):
        nothing()
    return perf_counter() - begin
