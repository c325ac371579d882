"""VizTracer in the threads of one process, within a budget.

One tracer per process, made once and never freed: each constructor takes a
pthread key for good, and freeing a tracer whose threads live corrupts memory.

``auto`` keeps the slowdown within 5 % or 50 ms, whichever is more. Tracing
makes a call up to five times as dear, so no more than four fifths of the CPU
time that is spent while tracing can be lost. A controller thread therefore
counts *traced CPU seconds*: it switches tracing off when a window is used up,
and on again when the allowance has grown by another one. Cells that mostly
wait (sleep, I/O) use little CPU and keep all their functions; cells that
compute keep windows of them, ever more rarely.

Without a GIL, VizTracer 1.1.1 crashes where it is stopped while other threads
record. On free-threaded builds ``auto`` therefore keeps the first window only, at
whose end the recording falls silent; it is stopped when the workers have ended.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import mmap
import os
import re
import sys
import tempfile
import threading
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import accumulate, chain, repeat, takewhile
from pathlib import Path
from time import perf_counter, process_time, sleep
from typing import IO, Any

from parmagic.model.plan import Trace
from parmagic.model.private import Private, say
from parmagic.model.recording import CALLS_KEPT, TraceFile, on_our_clock
from parmagic.record.ring import Ring
from parmagic.system import limits
from parmagic.system.files import RunFile, anonymous_file
from parmagic.system.gil import FREE_THREADED
from parmagic.system.interrupts import Latch, held_back

ENTRIES = CALLS_KEPT
"""Events that fit into the ring.

88 bytes each, of pages that are touched when they are used: at most 88 MB in a process, and for
good in the notebook's, as VizTracer can neither free the ring nor make another.
"""

LOOK = 0.05
"""Seconds between two looks at the ring, which takes two to three times as long to be filled."""

WINDOW = 0.015
"""Traced CPU seconds that a window gets at least."""

LATENCY = 0.02
"""What a window may run over: the controller waits for the GIL as every thread does."""

AT_ONCE = 0.04
"""Traced CPU seconds that any run may use."""

SHARE = 0.045
"""Traced CPU seconds per second of wall time that a long run may use."""

CHECK = 0.01
"""Seconds between two looks at the CPU clock while tracing is on."""

SMALL = 1 << 18
"""Bytes up to which what was recorded needs no file: it comes with a worker's last words."""

CALM = 0.01
"""Seconds for threads to finish recording a call that they had begun to record, which takes microseconds."""

_TOOL = 2  # sys.monitoring's place for profilers, which VizTracer takes
_BY_MONITORING = sys.version_info >= (3, 12)
_ANCHOR_TRIES = 60


class Tracing:
    """One arm's recording in this process; see :func:`prepare`."""

    def __init__(self, tracer: Any, mode: Trace, notes: tuple[str, ...] = ()) -> None:
        self._tracer = tracer
        self._mode = mode
        self._notes = list(notes)
        self._workers: dict[int, int] = {}
        self._on = self._started = False
        self._window = 0  # how often it was switched on
        self._hooked: dict[int, int] = {}  # thread -> the window in which it was hooked last
        self._until: float | None = None
        self._controller: _Controller | None = None

    def start(self) -> None:
        """Begin to record; threads join by ``attach``. Whatever interrupts this, ``end`` ends what was begun.

        There is one tracer in a process: a run within a run, or beside one, records no functions.
        """
        if self._tracer is None:
            return
        if not self._own():
            self._tracer = None
            self._notes.append("Functions were not traced: another run traces this process.")
            return
        self._first = _anchor(self._tracer)
        self._started = True
        self.ring.begin()
        self.switch(on=True)
        self.ring.look()
        self._control()

    def _control(self) -> None:
        """Count what is recorded, and keep within the budget, by a thread; where none can be started, nothing is recorded."""
        self._controller = _Controller(self, self._mode)
        try:
            self._controller.start()
        except RuntimeError as error:
            self.end()
            self._started, self._tracer = False, None
            self._notes.append(f"Functions were not traced: {error}.")

    @property
    def ring(self) -> Ring:
        """The tracer's ring."""
        assert _ring is not None  # as there is a tracer
        return _ring

    def _own(self) -> bool:
        """Make the tracer ours, if it is free."""
        global _owner  # noqa: PLW0603  (as the tracer itself)
        with _owning:
            if _owner is None:
                _owner = self
            return _owner is self

    def attach(self, rank: int) -> None:
        """Begin to record the calling thread as worker ``rank``."""
        if self._tracer is None:
            return
        self._workers[threading.get_native_id()] = rank
        self.refresh()

    def refresh(self) -> None:
        """Hook the calling thread where tracing was switched on again meanwhile (3.11: only it can do so)."""
        if not _BY_MONITORING and self._on and sys.getprofile() is None:
            self._tracer.reset_stack()
            _hook_thread()
            self._hooked[threading.get_ident()] = self._window

    def detach(self) -> None:
        """Stop recording the calling thread, and leave no hook in it."""
        if self._tracer is None or _BY_MONITORING:
            return
        # a window that opened during the last item has not hooked this thread yet
        if self._on and sys.getprofile() is None and self._hooked.get(threading.get_ident()) == self._window:
            self._notes.append("The body set a profile function of its own, which ended the tracing of functions there.")
        sys.setprofile(None)

    def switch(self, *, on: bool) -> None:
        """Switch the recording of functions on or off for all threads of this process."""
        if on:
            self._on = True
            self._window += 1
            self._tracer.start()
            if not _BY_MONITORING:
                _unhook(sys.setprofile, threading.setprofile)
            return
        _stop(self._tracer)
        self._on = False
        if self._until is None:
            self._until = perf_counter()
        if not _BY_MONITORING:
            _unhook_threads()

    def silence(self) -> None:
        """Record no further call, without touching what other threads have recorded."""
        _silence()
        self._until = perf_counter()

    def finish(self, file: RunFile | None) -> TraceFile | None:
        """Hand over what was recorded, by ``file`` where it is large, and forget it; None where nothing was to be.

        ``overhead_s`` is the number of recorded calls times what recording one
        costs here: CPU seconds, which threads under one GIL pay one after another
        (see :func:`parmagic.analyze.merge.overhead_of`).
        """
        if self._tracer is None:
            note = tuple(self._notes)
            return TraceFile("", os.getpid(), ((0.0, 0.0), (1.0, 1.0)), {}, None, 0.0, note) if note else None
        if not self._started:
            return None
        if self._controller is not None:
            self._controller.end()
        cut = self._until  # switched off before its end
        self._stop()
        anchors = (self._first, _anchor(self._tracer))
        counted = self.ring.lost()
        data = self._dump()
        lost, exactly = counted or (float("nan") if _OVERFLOWED in data[-_TAIL:] else 0, True)
        events = data.count(b'"ph":"X"') + (lost if lost == lost else 0)
        large = len(data) > SMALL
        path = self._write(data, file) if large and file is not None else ""
        if cut is not None:
            self._notes.append(_CUT)
        return TraceFile(
            path, os.getpid(), anchors, dict(self._workers), cut, events * call_cost(), tuple(self._notes),
            b"" if large else data, lost, exactly, _first_end(data, anchors) if lost else None,
        )  # fmt: skip

    def _stop(self) -> None:
        if self._controller is not None:
            self._controller.end()
        if self._on:
            self.switch(on=False)

    def end(self) -> None:
        """Record no more, and let others have the tracer; what ``finish`` has not written is forgotten."""
        global _owner  # noqa: PLW0603
        self._stop()
        if _owner is self:
            self._tracer.clear()
            _owner = None

    def _dump(self) -> bytes:
        """Return what was recorded, which VizTracer only writes to files: one in memory, where the system has such."""
        try:
            with held_back(), _file_with_a_path() as (file, path):
                self._tracer.dump(path)
                _leave_names_out(file.fileno())
                file.seek(0)
                return bytes(file.read())
        except (OSError, ValueError) as error:  # the latter is VizTracer's, where it cannot open the file
            self._notes.append(_unwritten(error))
            return b""
        finally:
            self._tracer.clear()

    def _write(self, data: bytes, file: RunFile) -> str:
        """Write what was recorded to a private file of the run; return its path, empty where that is not possible."""
        try:
            with held_back():
                descriptor, path = file.create()
                with os.fdopen(descriptor, "wb") as stream:
                    stream.write(data)
        except OSError as error:
            self._notes.append(_unwritten(error))
            return ""
        finally:
            self._notes += file.folder.notes
        return path


_CUT = (
    "The timeline shows functions in windows only, to keep tracing within 5 % or 50 ms; items and waits are complete "
    f"(--trace full keeps the last {ENTRIES:,} calls of a process)."
)

_OVERFLOWED, _TAIL = b'"overflow":true', 200
_ENDED = re.compile(rb'"ts":([\d.]+),"ph":"X","cat":"fee","dur":([\d.]+)')


def _first_end(data: bytes, anchors: tuple[tuple[float, float], tuple[float, float]]) -> float | None:
    """Return when the first call of a recording ended, on our clock: VizTracer writes calls in the order of their ends."""
    first = _ENDED.search(data)
    return on_our_clock(anchors, float(first[1]) + float(first[2])) if first else None


def _unwritten(error: OSError | ValueError) -> str:
    why = Private(str(error), getattr(error, "strerror", None) or type(error).__name__)  # without the paths
    return say("The functions that were traced could not be written: {why}.", why=why)


def _leave_names_out(file: int) -> None:
    """Blank what VizTracer says of threads and processes: they may be called after an item; who is who, we know better."""
    with mmap.mmap(file, 0) as data:
        begin = data.find(b"[") + 1
        if data[begin : begin + len(_NAMED)] == _NAMED:
            first = data.find(b',{"pid":')  # no name can have this in it: its quotes have backslashes
            end = first + 1 if first >= 0 else data.rfind(b"]")
            data[begin:end] = b" " * (end - begin)


_NAMED = b'{"ph":"M"'


_NOWHERE = "Functions were not traced: VizTracer does not start where the working directory is gone. os.chdir() to one that is there."

OFF = Tracing(None, "off")


def prepare(mode: Trace) -> Tracing:
    """Return a recording of functions in this process, which has to be started.

    Where another profiler is at work, nothing is recorded and a note says so.
    """
    if mode == "off":
        return OFF
    other = _other_profiler()
    if other:
        return Tracing(
            None, mode, (f"Functions were not traced: {other} is at work. End it, or use --trace off to hide this note.",)
        )
    try:
        tracer = _get()
    except OSError:
        return Tracing(None, mode, (_NOWHERE,))
    tracer.ignore_c_function = mode == "auto"
    return Tracing(tracer, mode)


def warm(mode: Trace) -> None:
    """Load and calibrate VizTracer, so that no arm pays for it."""
    if mode != "off" and not _other_profiler():
        with suppress(OSError):  # a note says so
            call_cost()


def forked() -> None:
    """In a forked child: let go of the parent's recording."""
    global _owner, _owning
    _owner, _owning = None, threading.Lock()
    if _tracer is not None:
        _tracer.stop()
        _tracer.clear()
        _tracer.reset_stack()


class _Controller:
    """Counts what is recorded, and keeps ``auto`` within its budget, from a thread of its own."""

    def __init__(self, tracing: Tracing, mode: Trace) -> None:
        self._tracing = tracing
        self._mode = mode
        self._ended = Latch()
        self._begin = perf_counter()
        self._spent = 0.0
        self._thread = threading.Thread(target=self._run, name="parmagic tracing", daemon=True)

    def start(self) -> None:
        """Begin to look at the clocks."""
        limits.start(self._thread)

    def end(self) -> None:
        """Let tracing be as it is."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        if self._mode == "auto":
            self._keep_within_budget()
            return
        self._tracing.ring.hide()
        while not self._ended.wait(LOOK):
            self._tracing.ring.look()

    def _keep_within_budget(self) -> None:
        while True:
            self._tracing.ring.hide()
            opened, cpu = perf_counter(), process_time()
            while not self._used_up(process_time() - cpu, perf_counter() - opened):
                if self._ended.wait(CHECK):
                    return
                self._tracing.ring.look()
            if FREE_THREADED:
                self._tracing.silence()
                return
            self._tracing.switch(on=False)
            self._spent += process_time() - cpu
            if self._ended.wait(self._until_allowed()):
                return
            self._tracing.switch(on=True)

    def _used_up(self, used: float, seconds: float) -> bool:
        """Tell whether a window that used that much CPU in so many seconds has to close now.

        What it may run over until it is closed depends on how busy the run is.
        """
        allowed = max(AT_ONCE, SHARE * (perf_counter() - self._begin))
        busy = min(1.0, used / max(seconds, CHECK))
        return self._spent + used + LATENCY * busy >= allowed

    def _until_allowed(self) -> float:
        """Return the seconds until another window fits into the allowance.

        At least as long as the run has lasted: windows grow rarer, so that a
        long run does not fill the ring, nor its user's time when it is written.
        """
        elapsed = perf_counter() - self._begin
        return max((self._spent + WINDOW + LATENCY) / SHARE - elapsed, elapsed)


_tracer: Any = None
_ring: Ring | None = None
_owner: Tracing | None = None
_owning = threading.Lock()
_thread_hook: Any = None
_call_cost: float | None = None


def _get() -> Any:
    """Return this process's tracer."""
    global _tracer, _ring, _thread_hook  # noqa: PLW0603  (one per process, for ever)
    if _tracer is None:
        with held_back():
            os.getcwd()  # noqa: PTH109  (VizTracer asks as well, but is half made by then, and must not be freed)
            from viztracer import VizTracer  # noqa: PLC0415  (loads when a run traces)

        # an interrupted thread leaves functions that it never returned from: nothing that its user could mend
        warnings.filterwarnings("ignore", "VizTracer: Unexpected function return", RuntimeWarning)
        before = sys.getprofile()
        _tracer = VizTracer(tracer_entries=ENTRIES, register_global=False, verbose=0)
        if not _BY_MONITORING:
            sys.setprofile(before)
            threading.setprofile(None)
            _thread_hook = _tracer.threadtracefunc
        _ring = Ring(_tracer, ENTRIES)
    return _tracer


@contextmanager
def _file_with_a_path() -> Iterator[tuple[IO[bytes], str]]:
    if Path("/dev/fd").exists():  # a link into /proc
        with os.fdopen(anonymous_file(), "rb") as memory:
            yield memory, f"/dev/fd/{memory.fileno()}"
    else:
        with tempfile.NamedTemporaryFile(prefix="parmagic-") as file:
            yield file, file.name


def _hook_thread() -> None:
    """Hook the calling thread (3.11), as ``VizTracer.enable_thread_tracing`` does, by an object that lives on.

    3.11 calls a profile function without keeping it alive. The controller may take it away in
    that moment, and the call then goes to whatever took its place in memory.
    """
    if not _BY_MONITORING:
        sys.setprofile(_thread_hook)


def call_cost() -> float:
    """Return what recording one call costs in this process, in seconds; measured once."""
    global _call_cost  # noqa: PLW0603
    if _call_cost is None:
        tracer = _get()
        plain = min(_time_calls() for _ in range(3))
        tracer.start()
        _hook_thread()
        traced = min(_time_calls() for _ in range(3))
        _stop(tracer)
        if not _BY_MONITORING:
            _unhook(sys.setprofile, threading.setprofile)
        tracer.clear()
        _call_cost = max(traced - plain, 0.0) / _CALLS
    return _call_cost


def _silence() -> None:
    """Record no further call, in any thread (3.12+)."""
    sys.monitoring.set_events(_TOOL, 0)  # type: ignore[attr-defined, unused-ignore]


def _stop(tracer: Any) -> None:
    """Stop a tracer. It goes through the stacks of all threads: without a GIL none may record meanwhile."""
    with held_back():
        if FREE_THREADED and sys.monitoring.get_tool(_TOOL):  # type: ignore[attr-defined, unused-ignore]
            _silence()
            sleep(CALM)
        tracer.stop()


_CALLS = 500


def _time_calls() -> float:
    def nothing() -> None:
        pass

    begin = perf_counter()
    for _ in range(_CALLS):
        nothing()
    return perf_counter() - begin


def _anchor(tracer: Any) -> tuple[float, float]:
    """Return one moment on VizTracer's clock (µs) and on ours (s): the tightest of some tries."""
    best = (float("inf"), 0.0, 0.0)
    for _ in range(_ANCHOR_TRIES):
        before = perf_counter()
        theirs = tracer.getts()
        after = perf_counter()
        best = min(best, (after - before, theirs, (before + after) / 2))
    return best[1], best[2]


def _other_profiler() -> str | None:
    """Return the name of another profiler that is at work, or None."""
    if _BY_MONITORING:
        return sys.monitoring.get_tool(_TOOL)  # type: ignore[attr-defined, no-any-return, unused-ignore]
    found = sys.getprofile() or threading.getprofile()
    if found is None:
        return None
    return f"the profile function {getattr(found, '__qualname__', type(found).__qualname__)!r}"


def _unhook(*setters: Any) -> None:
    for setter in setters:
        setter(None)


def _unhook_threads() -> None:
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
