"""A discrete-event simulation of workers that do the work of items."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from itertools import accumulate
from typing import Any

from parmagic.analyze.replay.clock import Clock
from parmagic.analyze.replay.cores import Cores
from parmagic.analyze.replay.waits import Gil, Permits, Waiter
from parmagic.analyze.replay.work import COMPUTES, Crew, Machine, Op, Replayed, Work
from parmagic.model.kinds import WORKER_STATES
from parmagic.model.pace import Pace


def replay(work: Work, crew: Crew, machine: Machine) -> Replayed:
    """Return what comes of it when this crew does this work on this machine."""
    return _Replay(work, crew, machine).run()


class _Worker(Waiter):
    """One worker, and the steps that it has still to do."""

    def __init__(self, clock: Clock, seconds: dict[str, float], pace: Pace) -> None:
        super().__init__(clock, seconds)
        self.pace = pace
        self.steps: deque[Op] = deque()
        self.claimed: tuple[int, float] | None = None  # how many items, when
        self.end: float | None = None


class _Items:
    """The items in their order: those that only compute are summed up, the others have their steps."""

    def __init__(self, work: Work, crew: Crew) -> None:
        self._work = work
        self._order = range(work.n_items) if crew.order is None else crew.order
        plain = (0.0 if item in work.programs else work.seconds[item] for item in self._order)
        self._sums = [0.0, *accumulate(plain)]
        self._with_steps = [place for place, item in enumerate(self._order) if item in work.programs] if work.programs else []
        self._next = 0

    @property
    def n_left(self) -> int:
        """How many nobody has claimed."""
        return len(self._order) - self._next

    def claim(self, count: int) -> list[Op]:
        """Return the steps of the next items."""
        begin, end = self._next, self._next + count
        self._next, at, steps = end, begin, list[Op]()
        for place in self._with_steps[bisect_left(self._with_steps, begin) : bisect_left(self._with_steps, end)]:
            steps += (*self._plain(at, place), *self._work.programs[self._order[place]])
            at = place + 1
        return [*steps, *self._plain(at, end)]

    def _plain(self, begin: int, end: int) -> tuple[Op, ...]:
        return (("running", self._sums[end] - self._sums[begin]),) if end > begin else ()


class _Replay:
    def __init__(self, work: Work, crew: Crew, machine: Machine) -> None:
        self._crew = crew
        self._clock = clock = Clock()
        self._cores = Cores(clock, machine, self._resumed)
        self._items = _Items(work, crew)
        self._seconds: dict[str, float] = dict.fromkeys(WORKER_STATES, 0.0)
        self._permits = {name: Permits(count, self._cores, machine, self._is_done) for name, count in work.permits.items()}
        self._workers = [_Worker(clock, self._seconds, Pace(crew.count, crew.chunk)) for _ in range(crew.count)]
        gils = [Gil(clock, self._cores, machine, self._go_on) for _ in range(crew.count if crew.processes else 1)] if crew.gil else []
        for rank, worker in enumerate(self._workers):
            worker.steps.extend([("startup", crew.boot_s)] if crew.boot_s else [])
            worker.gil = gils[rank if crew.processes else 0] if gils else None

    def run(self) -> Replayed:
        ready = self._crew.ready_s
        for rank, worker in enumerate(self._workers):
            self._clock.after(ready[min(rank, len(ready) - 1)], self._go_on, worker)
        self._clock.run()
        wall = max((worker.end for worker in self._workers if worker.end is not None), default=0.0)
        stuck = tuple(rank for rank, worker in enumerate(self._workers) if worker.end is None)
        self._seconds["idle"] += sum(wall - worker.end for worker in self._workers if worker.end is not None)
        return Replayed(wall, self._seconds, [worker.end if worker.end is not None else wall for worker in self._workers], stuck)

    def _resumed(self, worker: _Worker) -> bool:
        return worker.gil is None or worker.gil.resumed(worker)

    def _go_on(self, worker: _Worker) -> None:
        """Do the next steps, until one takes time."""
        while worker.steps or self._claim(worker):
            if self._takes_time(worker, *worker.steps[0]):
                return
            worker.steps.popleft()
        self._end(worker)

    def _takes_time(self, worker: _Worker, what: str, how_much: Any) -> bool:
        """Begin with a step; tell whether it ends later."""
        if what == "take":
            return not self._permits[how_much].take(worker)
        if what == "give":
            self._permits[how_much].give()
            return False
        (self._compute if what in COMPUTES else self._block)(worker, what, how_much)
        return True

    def _claim(self, worker: _Worker) -> bool:
        now = self._clock.now
        if worker.claimed is not None:
            count, since = worker.claimed
            worker.pace.took(count, now - since)
        size = worker.pace.size(self._items.n_left)
        if not size:
            return False
        worker.claimed = size, now
        cost = self._crew.claim_s
        worker.steps.extend(((("running", cost),) if cost else ()) + tuple(self._items.claim(size)))
        return True

    def _end(self, worker: _Worker) -> None:
        if worker.gil is not None:
            worker.gil.drop(worker)
        worker.be("idle")
        worker.end = self._clock.now
        self._cores.leave(worker)

    def _compute(self, worker: _Worker, what: str, seconds: float) -> None:
        """Begin to compute, or go on with what is left of it, as soon as the worker has what it needs for that."""
        if worker.gil is not None:
            if what != "running":
                worker.gil.drop(worker)
            elif not worker.gil.take(worker):
                return
        worker.doing = what
        self._cores.compute(worker, seconds if worker.rest is None else worker.rest, self._is_done)

    def _is_done(self, worker: _Worker) -> None:
        worker.rest = None
        worker.steps.popleft()
        self._go_on(worker)

    def _block(self, worker: _Worker, what: str, seconds: float) -> None:
        if worker.gil is not None:
            worker.gil.drop(worker)
        worker.wait(what)
        self._cores.leave(worker)
        self._clock.after(seconds, self._is_done, worker)
