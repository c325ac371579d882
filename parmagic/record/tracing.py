"""The functions that an arm calls, recorded by VizTracer in the threads of one process.

:func:`prepare` → :meth:`Tracing.start` → :meth:`Tracing.attach` in every worker → :meth:`Tracing.finish`, and
:meth:`Tracing.end` whatever happens.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from time import perf_counter

from parmagic.model.plan import TraceMode
from parmagic.model.recording import TraceFile
from parmagic.record import dump, profiler
from parmagic.record.budget import Controller
from parmagic.record.profiler import BY_MONITORING, ENTRIES, Profiler
from parmagic.record.ring import Ring
from parmagic.system.files import RunFile
from parmagic.system.interrupts import undo


class Tracing:
    """One arm's recording in this process; see :func:`prepare`."""

    def __init__(self, made: Profiler | None, mode: TraceMode, notes: tuple[str, ...] = ()) -> None:
        self._made = made
        self._mode = mode
        self._notes = list(notes)
        self._workers: dict[int, int] = {}
        self._on = self._started = False
        self._window = 0  # how often it was switched on
        self._hooked: dict[int, int] = {}  # thread -> the window in which it was hooked last
        self._until: float | None = None
        self.controller: Controller | None = None

    def start(self) -> None:
        """Begin to record; threads join by ``attach``. Whatever interrupts this, ``end`` ends what was begun.

        There is one tracer in a process: a run within a run, or beside one, records no functions.
        """
        if self._made is None:
            return
        if not self._made.take(self):
            self._made = None
            self._notes.append("Functions were not traced: another run traces this process.")
            return
        self._made.trace_c(wanted=self._mode != "auto")
        self._first = self._made.anchor()
        self._started = True
        self.ring.begin()
        self.switch(on=True)
        self.ring.look()
        self._control()

    def _control(self) -> None:
        """Count what is recorded, and keep within the budget, by a thread; where none can be started, nothing is recorded."""
        self.controller = Controller(self, self._mode)
        try:
            self.controller.start()
        except RuntimeError as error:
            self.end()
            self._started, self._made = False, None
            self._notes.append(f"Functions were not traced: {error}.")

    @property
    def _profiler(self) -> Profiler:
        assert self._made is not None
        return self._made

    @property
    def ring(self) -> Ring:
        """Where the calls go."""
        return self._profiler.ring

    def attach(self, rank: int) -> None:
        """Begin to record the calling thread as worker ``rank``."""
        if self._made is None:
            return
        self._workers[threading.get_native_id()] = rank
        self.refresh()

    def refresh(self) -> None:
        """Hook the calling thread where tracing was switched on again meanwhile (3.11: only it can do so)."""
        if not BY_MONITORING and self._on and sys.getprofile() is None:
            self._profiler.hook_thread()
            self._hooked[threading.get_ident()] = self._window

    def detach(self) -> None:
        """Stop recording the calling thread, and leave no hook in it."""
        if self._made is None or BY_MONITORING:
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
            self._profiler.start()
            return
        self._profiler.stop()
        self._on = False
        if self._until is None:
            self._until = perf_counter()
        if not BY_MONITORING:
            profiler.unhook_threads()

    def silence(self) -> None:
        """Record no further call, without touching what other threads have recorded."""
        profiler.silence()
        self._until = perf_counter()

    def finish(self, file: RunFile | None) -> TraceFile | None:
        """Hand over what was recorded, by ``file`` where it is large, and forget it; None where nothing was to be.

        ``overhead_s`` is the number of recorded calls times what recording one
        costs here: CPU seconds, which threads under one GIL pay one after another
        (see :attr:`parmagic.model.timeline.Timeline.overhead_s`).
        """
        if self._made is None:
            note = tuple(self._notes)
            return TraceFile("", os.getpid(), ((0.0, 0.0), (1.0, 1.0)), {}, None, 0.0, note) if note else None
        if not self._started:
            return None
        if self.controller is not None:
            self.controller.end()
        cut = self._until  # switched off before its end
        self._stop()
        anchors = (self._first, self._made.anchor())
        counted = self.ring.lost()
        data = self._dump()
        lost, exactly = counted or (float("nan") if dump.overflowed(data) else 0, True)
        calls = dump.calls(data) + (lost if lost == lost else 0)
        path = self._write(data, file) if len(data) > dump.SMALL and file is not None else ""
        if cut is not None:
            self._notes.append(_CUT)
        return TraceFile(
            path, os.getpid(), anchors, dict(self._workers), cut, calls * profiler.call_cost(), tuple(self._notes),
            b"" if len(data) > dump.SMALL else data, lost, exactly, dump.first_end(data, anchors) if lost else None,
        )  # fmt: skip

    def _stop(self) -> None:
        if self.controller is not None:
            self.controller.end()
        if self._on:
            self.switch(on=False)

    def end(self) -> None:
        """Stop recording, and let others have the tracer; what ``finish`` has not written is forgotten."""
        self._stop()
        if self._made is not None:
            self._made.give_back(self)

    def _dump(self) -> bytes:
        try:
            return dump.dump(self._profiler)
        except (OSError, ValueError) as error:
            self._notes.append(dump.unwritten(error))
            return b""
        finally:
            self._profiler.clear()

    def _write(self, data: bytes, file: RunFile) -> str:
        """Write what was recorded to a file of the run; return its path, empty where that is not possible."""
        try:
            return dump.write(data, file)
        except OSError as error:
            self._notes.append(dump.unwritten(error))
            return ""
        finally:
            self._notes += file.folder.notes


_CUT = (
    "The timeline shows functions in windows only, to keep tracing within 5 % or 50 ms; items and waits are complete "
    f"(--trace full keeps the last {ENTRIES:,} calls of a process)."
)

_NOWHERE = "Functions were not traced: VizTracer does not start where the working directory is gone. os.chdir() to one that is there."

OFF = Tracing(None, "off")


def prepare(mode: TraceMode) -> Tracing:
    """Return a recording of functions in this process, which has to be started.

    Where another profiler is at work, nothing is recorded and a note says so.
    """
    if mode == "off":
        return OFF
    other = profiler.other()
    if other:
        return Tracing(
            None, mode, (f"Functions were not traced: {other} is at work. End it, or use --trace off to hide this note.",)
        )
    try:
        made = profiler.get()
    except OSError:
        return Tracing(None, mode, (_NOWHERE,))
    return Tracing(made, mode)


def warm(mode: TraceMode) -> None:
    """Load and calibrate VizTracer, so that no arm pays for it; not while another run of this process has it."""
    if mode == "off" or profiler.other():
        return
    with suppress(OSError):  # a note says so
        made, me = profiler.get(), object()
        try:
            if made.take(me):
                profiler.call_cost()
        finally:
            try:
                undo(lambda: made.give_back(me))
            finally:
                undo(lambda: made.give_back(me))
