"""The functions that an arm calls, recorded by VizTracer in the threads of one process.

:func:`prepare` → :meth:`Tracing.start` → in every worker :meth:`Tracing.attach`, and around each claim
:meth:`Tracing.refresh` and :meth:`Tracing.detach` → :meth:`Tracing.finish`, and :meth:`Tracing.end` whatever happens.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from typing import Concatenate, ParamSpec, TypeVar

from parmagic.model import classes, words
from parmagic.model.plan import TraceMode
from parmagic.model.private import Private, say
from parmagic.model.recording import Batch, TraceFile
from parmagic.record import clashes, dump, profiler
from parmagic.record.budget import Controller
from parmagic.record.profiler import BY_MONITORING, Profiler
from parmagic.record.ring import Ring
from parmagic.system import debugger
from parmagic.system.files import RunFile
from parmagic.system.interrupts import undo
from parmagic.system.real import get_ident

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _harmless(step: Callable[Concatenate[Tracing, _P], _R]) -> Callable[Concatenate[Tracing, _P], _R | None]:
    """Have a run go on without a trace, and with a note, whatever is raised by a step of ours."""

    def guarded(self: Tracing, /, *args: _P.args, **kwargs: _P.kwargs) -> _R | None:
        try:
            return step(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001  (of VizTracer, or of the tool that it met)
            self.failed(error)
            return None

    functools.update_wrapper(guarded, step)
    return guarded


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
        self._closed = float("-inf")  # when it was switched off last
        self._gap: float | None = None  # since when it is off for the budget
        self._gaps: list[tuple[float, float]] = []
        self.controller: Controller | None = None

    @_harmless
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
        profiler.call_cost()  # the budget needs it
        self._made.trace_c(wanted=self._mode != "auto")
        self._first = self._made.anchor()
        self._started = True
        self.ring.begin()
        self.switch(on=True)
        self.ring.look()
        self._control()

    def _control(self) -> None:
        """Count what is recorded, and keep within the budget, by a thread; where none can be started, nothing is recorded."""
        self.controller = Controller(self, self._mode, profiler.call_cost())
        try:
            self.controller.start()
        except RuntimeError as error:
            self._stop()
            self.failed(error)

    def failed(self, error: Exception) -> None:
        """Record no further call, and say why."""
        made = self._made
        if made is None:
            return
        self._note(_why_not(error))
        for step in (made.stop, made.unhook_threads, lambda: made.give_back(self)):
            with suppress(Exception):
                step()
        self._on = self._started = False
        self._made = None

    def _note(self, note: str) -> None:
        if note not in self._notes:
            self._notes.append(note)

    @property
    def _profiler(self) -> Profiler:
        assert self._made is not None
        return self._made

    @property
    def ring(self) -> Ring:
        """Where the calls go."""
        return self._profiler.ring

    @property
    def on(self) -> bool:
        """Whether functions are recorded at this moment."""
        return self._on

    @_harmless
    def attach(self, rank: int) -> None:
        """Know the calling thread as worker ``rank``; what it calls is recorded from ``refresh`` to ``detach``, again and again."""
        if self._made is None:
            return
        self._workers[threading.get_native_id()] = rank
        self._hooked.pop(get_ident(), None)  # of a thread that has ended
        other = self._made.foreign()
        if other is not None:
            self._make_room(profiler.name_of(other))

    def refresh(self) -> None:
        """Begin to record the calling thread, or go on: 3.11 has a hook for each, which only itself can set."""
        made = self._made
        if not BY_MONITORING and self._on and made is not None and sys.getprofile() is not made.in_place:
            self._hook()

    @_harmless
    def _hook(self) -> None:
        if self._has_no_hook() and self._on:
            self._profiler.hook_thread()
            self._hooked[get_ident()] = self._window

    def _has_no_hook(self) -> bool:
        """Tell whether the calling thread has no profile function; say so where the body has taken ours away."""
        found = sys.getprofile()  # first: the controller takes ours away when tracing is off
        window = self._window if self._on else -1
        hooked = self._hooked.get(get_ident())
        if not self._profiler.is_ours(found) and hooked is not None and (found is not None or hooked == window):
            self._note(_ENDED)
        return found is None

    @_harmless
    def detach(self) -> None:
        """Stop recording the calling thread (3.11), and leave no hook of ours in it: what a worker does between claims is our own."""
        if self._made is not None and not BY_MONITORING:
            self._has_no_hook()
            self._made.unhook_thread()
            self._hooked.pop(get_ident(), None)

    @_harmless
    def leave(self) -> None:
        """Record nothing of the calling thread any more, also where all threads are recorded (3.12): what it still does is our own."""
        self.detach()
        if self._made is not None and BY_MONITORING and self._on:
            self._made.ring.hide()

    @_harmless
    def explain(self, batch: Batch) -> None:
        """Add a hint to what items raised because two profilers met, where we were one of them."""
        for error in batch.errors.values():
            if batch.begins and (self._on or self._closed >= batch.begins[0]) and clashes.met_another_profiler(error):
                words.add_note(error, clashes.HINT)

    def switch(self, *, on: bool) -> None:
        """Switch the recording of functions on or off for all threads of this process.

        Where another tool has Python's place for profilers, it stays off, and a note says so.
        """
        if not on:
            self._close()
            self._gap = self._closed
            return
        self._window += 1
        self._on = True  # before it is: whatever interrupts this, it is switched off
        other = self._profiler.start()
        self._end_gap()
        if other is not None:
            self._make_room(other)
            self._is_off()

    def _close(self) -> None:
        if not self._profiler.holds():
            self._make_room(self._profiler.place.other() or "another tool")
        self._profiler.stop()
        self._is_off()
        self._profiler.unhook_threads()

    def _is_off(self) -> None:
        self._on = False
        self._closed = perf_counter()

    def _end_gap(self) -> None:
        if self._gap is not None:
            self._gaps.append((self._gap, perf_counter()))
            self._gap = None

    def _make_room(self, other: str) -> None:
        self._note(_ASIDE.format(other="another VizTracer" if other == "viztracer" else other))

    def look(self) -> None:
        """Count what was recorded, and make room for a tool that has taken the place meanwhile."""
        self.ring.look()
        if self._on and not self._profiler.holds():
            self._close()

    def shared(self) -> bool:
        """Tell whether another tool has moved in with us, and would fail where tracing is switched off."""
        return self._profiler.shared()

    def silence(self) -> None:
        """Record no further call, without touching what other threads have recorded."""
        self._profiler.place.silence()
        self._gap = perf_counter()

    def finish(self, file: RunFile | None) -> TraceFile | None:
        """Hand over what was recorded, by ``file`` where it is large, and forget it; None where nothing was to be.

        ``overhead_s`` is the number of recorded calls times what recording one
        costs here: CPU seconds, which threads under one GIL pay one after another
        (see :attr:`parmagic.model.timeline.Timeline.overhead_s`).
        """
        found = self._gather(file) if self._started else None
        if self._made is None and self._notes:
            return TraceFile("", os.getpid(), ((0.0, 0.0), (1.0, 1.0)), {}, (), 0.0, tuple(self._notes))
        return found

    @_harmless
    def _gather(self, file: RunFile | None) -> TraceFile:
        if self.controller is not None:
            self.controller.end()
        self._end_gap()
        self._stop()
        anchors = (self._first, self._profiler.anchor())
        counted = self.ring.lost()
        data = self._dump()
        lost, exactly = counted or (float("nan") if dump.overflowed(data) else 0, True)
        calls = dump.calls(data) + (lost if lost == lost else 0)
        path = self._write(data, file) if len(data) > dump.SMALL and file is not None else ""
        cost = calls * profiler.call_cost() if calls else 0.0
        return TraceFile(
            path, os.getpid(), anchors, dict(self._workers), tuple(self._gaps), cost, tuple(self._notes),
            b"" if len(data) > dump.SMALL else data, lost, exactly, dump.first_end(data, anchors) if lost else None,
        )  # fmt: skip

    def _stop(self) -> None:
        if self.controller is not None:
            self.controller.end()
        if self._on:
            self._close()

    @_harmless
    def end(self) -> None:
        """Stop recording, and let others have the tracer; what ``finish`` has not written is forgotten."""
        self._stop()
        self.controller = None  # which has this one
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


_ASIDE = "Functions were not traced while {other} had Python's place for profilers, which is for one (--trace off hides this note)."

_ENDED = "The body set a profile function of its own, which ended the tracing of functions there."

_NOWHERE = "Functions were not traced: VizTracer does not start where the working directory is gone. os.chdir() to one that is there."

OFF = Tracing(None, "off")


def prepare(mode: TraceMode) -> Tracing:
    """Return a recording of functions in this process, which has to be started.

    Where another profiler is at work, nothing is recorded and a note says so. Nor is anything beside a debugger, which
    loses sight of threads where VizTracer asks for their names as they are born; the run's own note on it says so.
    """
    if mode == "off" or debugger.is_attached():
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
    except Exception as error:  # noqa: BLE001  (of VizTracer: a run goes on without it)
        return Tracing(None, mode, (_why_not(error),))
    return Tracing(made, mode)


def _why_not(error: Exception) -> str:
    return say("Functions were not traced: {why}.", why=Private(words.message(error), classes.type_name(error)))


def warm(mode: TraceMode) -> None:
    """Load and calibrate VizTracer, so that no arm pays for it; not while another run of this process has it."""
    if mode == "off" or profiler.is_calibrated() or debugger.is_attached() or profiler.other():
        return
    with suppress(Exception):  # a note says so
        made, me = profiler.get(), object()
        try:
            if made.take(me):
                profiler.call_cost()
        finally:
            try:
                undo(lambda: made.give_back(me))
            finally:
                undo(lambda: made.give_back(me))
