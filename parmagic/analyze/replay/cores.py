"""Cores with a run queue each, which threads take in turns."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from parmagic.analyze.replay.clock import Clock, Event, cancel
from parmagic.analyze.replay.work import COMPUTES, Machine


class Thread:
    """What cores know of a thread; ``doing`` is what it is about, whether it has a core or not."""

    def __init__(self, clock: Clock, seconds: dict[str, float]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._state, self._since = "startup", clock.now
        self.doing = "startup"
        self.core: Core | None = None
        self.home: Core | None = None  # which it had last
        self.left = 0.0  # seconds that it has still to compute
        self.rest: float | None = None  # of a step that was stopped, what is left of it
        self.then: Callable[[Any], None] = _nothing
        self.burst: Event | None = None
        self.lost_at = 0.0  # when it lost its core

    def wait(self, state: str) -> None:
        """Be about something that needs no core."""
        self.doing = state
        self.be(state)

    def be(self, state: str) -> None:
        """Be in another state from now on."""
        now = self._clock.now
        self._seconds[self._state] += now - self._since
        self._state, self._since = state, now


class Core:
    """One core, who has it, and who waits for it."""

    def __init__(self) -> None:
        self.thread: Thread | None = None
        self.since = 0.0
        self.queue: deque[Thread] = deque()
        self.turn: Event | None = None


class Cores:
    """All cores of a machine; ``resumed`` is called with each thread that goes on computing after it had lost its core."""

    def __init__(self, clock: Clock, machine: Machine, resumed: Callable[[Any], bool]) -> None:
        self._clock = clock
        self._machine = machine
        self._resumed = resumed
        self._cores = [Core() for _ in range(machine.cores)]
        self._n_busy = 0

    def compute(self, thread: Thread, seconds: float, then: Callable[[Any], None], *, woken: bool = False) -> None:
        """Have a thread compute, as soon as it has a core; then call ``then``. ``woken``: it may take a core that another one has."""
        thread.left, thread.then = seconds, then
        if thread.core is not None:
            self._begin(thread)
        else:
            self._find_a_core(thread, woken=woken)

    def leave(self, thread: Thread) -> None:
        """Let go of the thread's core: it waits for something else."""
        core = thread.core
        if core is not None:
            self._take_off(thread)
            self._next(core)

    def stop(self, thread: Thread) -> None:
        """Have a thread that computes stop, with what it has left; it keeps its core."""
        if thread.burst is not None:
            thread.left = self._clock.left(thread.burst)
            cancel(thread.burst)
            thread.burst = None

    def _begin(self, thread: Thread) -> None:
        thread.be(thread.doing)
        thread.burst = self._clock.after_work(thread.left, _ended, thread)

    def _find_a_core(self, thread: Thread, *, woken: bool) -> None:
        home = thread.home or self._cores[0]
        free = home if home.thread is None else next((core for core in self._cores if core.thread is None), None)
        if free is not None:
            self._put_on(free, thread)
            return
        had_enough = (core for core in (home, *self._cores) if woken and self._clock.now - core.since >= self._machine.grain_s)
        taken = next(had_enough, None)
        if taken is None:
            self._queue(min((home, *self._cores), key=lambda core: len(core.queue)), thread)
            return
        self._push_off(taken, first=True)
        self._put_on(taken, thread)

    def _queue(self, core: Core, thread: Thread, *, first: bool = False) -> None:
        if thread.doing in COMPUTES:  # else it waits for something else as well, which counts
            thread.be("cpu_wait")
        thread.lost_at = self._clock.now
        (core.queue.appendleft if first else core.queue.append)(thread)
        if core.turn is None:
            core.turn = self._clock.after(self._machine.slice_s, self._turn, core)

    def _put_on(self, core: Core, thread: Thread) -> None:
        core.thread, core.since = thread, self._clock.now
        thread.core = thread.home = core
        self._count(1)
        if self._resumed(thread):
            self._begin(thread)

    def _take_off(self, thread: Thread) -> None:
        self.stop(thread)
        core, thread.core = thread.core, None
        if core is not None:
            core.thread = None
        self._count(-1)

    def _push_off(self, core: Core, *, first: bool) -> None:
        thread = core.thread
        if thread is not None:
            self._take_off(thread)
            self._queue(core, thread, first=first)

    def _turn(self, core: Core) -> None:
        """A slice is over: who waits longest is next."""
        core.turn = None
        if core.queue:
            self._push_off(core, first=False)
            if core.thread is None:
                self._put_on(core, core.queue.popleft())
            if core.queue and core.turn is None:
                core.turn = self._clock.after(self._machine.slice_s, self._turn, core)

    def _next(self, core: Core) -> None:
        """A core is free: who waits for it has it, or who has waited elsewhere for so long that its own is no better."""
        if core.thread is not None:
            return
        if core.queue:
            self._put_on(core, core.queue.popleft())
            return
        waiting = [(thread.lost_at + self._machine.hot_s, other, thread) for other in self._cores for thread in other.queue]
        if not waiting:
            return
        at, other, thread = min(waiting, key=lambda each: each[0])
        if at <= self._clock.now:
            other.queue.remove(thread)
            self._put_on(core, thread)
        else:
            self._clock.after(at - self._clock.now, self._next, core)

    def _count(self, more: int) -> None:
        self._n_busy += more
        self._clock.run_at(1 / self._machine.slowdown if self._n_busy > 1 else 1.0)


def _ended(thread: Thread) -> None:
    thread.burst, thread.left = None, 0.0
    thread.then(thread)


def _nothing(_: Any) -> None:
    """Do nothing: nothing has been computed yet."""
