"""Which runs are at work in this process: beside each other in several threads, or in subshells of a kernel; or one in another's body."""

from __future__ import annotations

import os

from parmagic.system.interrupts import held_back
from parmagic.system.real import Lock, local

_changing = Lock()
_at_work: list[AtWork] = []


class _Here(local):
    """What the calling thread is busy with: a run that it has begun, or whose body it runs."""

    run: AtWork | None = None


_here = _Here()


class AtWork:
    """A run from ``begin`` to ``end``; ``others`` is how many more were at work at some time of it, ``within`` how many in its own body.

    Those are not counted among the others; and one within counts that around it where that has more workers than the one.
    """

    def __init__(self) -> None:
        self.others = self.within = 0
        self.around: AtWork | None = None
        self.workers = 1

    def begin(self) -> None:
        """Be at work, in the calling thread."""
        with held_back(), _changing:
            self.around, _here.run = _here.run, self
            within = list(self._outward())
            for other in _at_work:
                if other not in within:
                    other.others += 1
                    self.others += 1
            for around in within:
                around.within += 1
                self.others += around.workers > 1
            _at_work.append(self)

    def _outward(self) -> list[AtWork]:
        """Return the runs in whose bodies this one is, innermost first."""
        found, run = [], self.around
        while run is not None:
            found.append(run)
            run = run.around
        return found

    def end(self) -> None:
        """Be at work no longer; once."""
        with held_back(), _changing:
            if self in _at_work:
                _at_work.remove(self)
            if _here.run is self:
                _here.run = self.around

    def attach(self, workers: int) -> None:
        """Take the calling thread for one of so many that run this one's body."""
        self.workers = workers
        _here.run = self


def current() -> AtWork | None:
    """Return the run that the calling thread has begun, or whose body it runs; None where there is none."""
    return _here.run


def alone() -> bool:
    """Tell whether no other run is at work than the calling thread's own."""
    return all(run is _here.run for run in tuple(_at_work))


def some() -> bool:
    """Tell whether any run is at work."""
    return bool(_at_work)


def _in_child() -> None:
    """In a forked child, runs of its parent are at work no longer."""
    global _changing, _here  # another thread may have held it
    _changing, _here = Lock(), _Here()
    _at_work.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
