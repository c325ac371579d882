"""How much of a run is traced: a thread that counts what is recorded, and keeps ``auto`` within its budget.

``auto`` keeps the slowdown within 5 % or 50 ms, whichever is more. Tracing
makes a call up to five times as expensive, so no more than four fifths of the CPU
time that is spent while tracing can be lost; and where calls are few, no more than what these cost. The thread therefore
counts *traced CPU seconds*, or as many as go with what the calls cost, where these are far fewer: it switches tracing off when
a window is used up, and on again when the allowance has grown by another one. Cells that mostly
wait (sleep, I/O), or whose time is spent in few calls, keep all their functions; cells that
call many keep windows of them, ever more rarely.

Without a GIL, recording cannot be stopped safely while threads record. On free-threaded builds ``auto``
therefore keeps the first window only, at whose end the recording falls silent; it is stopped when the workers have ended.
"""

from __future__ import annotations

from time import perf_counter, process_time
from typing import Protocol

from parmagic.model.plan import TraceMode
from parmagic.model.recording import CALLS_KEPT
from parmagic.record.ring import Ring
from parmagic.system import limits
from parmagic.system.debugger import hide
from parmagic.system.gil import FREE_THREADED
from parmagic.system.interrupts import Latch
from parmagic.system.real import new_thread

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

PER_COST = 2.5
"""Traced CPU seconds that count for each second that recording calls costs: four fifths of them can be lost, and costs vary by two."""

FEW = 0.1
"""The share of the traced CPU seconds up to which those that go with the calls are counted instead: short items are no longer traced.

What stays within ``SHARE`` of the wall time is few as well: a run that mostly waits, on a machine where each wait costs much CPU."""

MOST_CALLS = CALLS_KEPT // 5
"""Calls of one window: it must not fill the ring, nor its user's time when it is written."""

CHECK = 0.01
"""Seconds between two looks at the CPU clock while tracing is on."""


class Recorded(Protocol):
    """What is switched on and off."""

    @property
    def ring(self) -> Ring:
        """Where the calls go."""
        ...

    @property
    def on(self) -> bool:
        """Whether functions are recorded at this moment."""
        ...

    def switch(self, *, on: bool) -> None:
        """Switch the recording of functions on or off for all threads of this process; it stays off where another tool has its place."""
        ...

    def look(self) -> None:
        """Count what was recorded, and switch it off where another tool has taken its place."""
        ...

    def shared(self) -> bool:
        """Tell whether another tool has moved in, and would fail where it is switched off."""
        ...

    def failed(self, error: Exception) -> None:
        """Record nothing any more, for that reason."""
        ...

    def silence(self) -> None:
        """Record no further call, without touching what other threads have recorded."""
        ...


class Controller:
    """Counts what is recorded, and keeps ``auto`` within its budget, from a thread of its own."""

    def __init__(self, recorded: Recorded, mode: TraceMode, cost: float = float("nan")) -> None:
        self._recorded = recorded
        self._cost = cost  # seconds that recording a call takes, where that is known
        self._mode = mode
        self._ended = Latch()
        self._begin = perf_counter()
        self._spent = 0.0
        self._thread = hide(new_thread(self._run, name="parmagic tracing"))

    def start(self) -> None:
        """Begin to look at the clocks."""
        limits.start(self._thread)

    def end(self) -> None:
        """Let tracing be as it is."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            if self._mode == "auto":
                self._keep_within_budget()
            else:
                self._keep_on()
        except Exception as error:  # noqa: BLE001  (of VizTracer: the run goes on without it)
            self._recorded.failed(error)

    def _keep_on(self) -> None:
        self._recorded.ring.hide()
        while not self._ended.wait(LOOK):
            self._recorded.look()
            if not self._recorded.on and not FREE_THREADED:
                self._recorded.switch(on=True)
                self._recorded.ring.hide()

    def _keep_within_budget(self) -> None:
        while True:
            if self._recorded.on and not self._window():
                return
            if self._ended.wait(self._until_allowed()):
                return
            self._recorded.switch(on=True)

    def _window(self) -> bool:
        """Look on while it is recorded, until that is used up; tell whether there may be another window.

        One in which another tool has moved in stays open for as long as that is there.
        """
        ring = self._recorded.ring
        ring.hide()
        opened, cpu, calls = perf_counter(), process_time(), ring.taken
        while self._recorded.on and (not self._is_full(calls, process_time() - cpu, perf_counter() - opened) or self._recorded.shared()):
            if self._ended.wait(CHECK):
                return False
            self._recorded.look()
        if FREE_THREADED:
            self._recorded.silence()
            return False
        if self._recorded.on:
            self._recorded.switch(on=False)
        self._spent += self._traced(process_time() - cpu, perf_counter() - opened, calls)
        return True

    def _traced(self, cpu_s: float, seconds: float, before: int | None) -> float:
        """Return the traced CPU seconds of a window of so many, ``before`` which so many calls had been recorded (None: not known)."""
        taken, cost = self._recorded.ring.taken, self._cost
        if taken is None or before is None or cost != cost:
            return cpu_s
        counted = (taken - before) * cost * PER_COST
        return counted if counted < max(FEW * cpu_s, SHARE * seconds) else cpu_s

    def _is_full(self, before: int | None, cpu_s: float, seconds: float) -> bool:
        """Tell whether a window has to close now, which has used that much CPU in so many seconds."""
        many = (self._recorded.ring.taken or 0) - (before or 0) > MOST_CALLS
        return many or self._used_up(self._traced(cpu_s, seconds, before), seconds)

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
