"""What an arm's threads report, in order; a Ctrl-C that strikes the listening thread loses none of it, and is not lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from time import perf_counter
from typing import Generic, TypeVar

from parmagic.system.interrupts import held_back
from parmagic.system.real import Empty, Lock

T = TypeVar("T")
D = TypeVar("D")


class Reports(Generic[T]):
    """A queue whose last report counts as taken only when it has been delivered.

    Ctrl-C is held back only where a report changes hands, never in a wait. (Up to Python 3.12, a
    ``SimpleQueue.get`` that a signal interrupts, and that is back only behind its time, waits for ever.)
    """

    def __init__(self) -> None:
        self._put: deque[T] = deque()
        self._taken: list[T] = []
        self._bell = Lock()  # open where something was put since the last wait
        self._bell.acquire()

    def put(self, report: T) -> None:
        """Hand over a report, in any thread."""
        self._put.append(report)
        try:
            self._bell.release()
        except RuntimeError:  # it has not been heard yet
            return

    def empty(self) -> bool:
        """Tell whether nothing waits to be taken."""
        return not self._put

    def take(self, seconds: float) -> T:
        """Wait for the next report, at most that long; raises ``Empty``."""
        until = perf_counter() + seconds
        while not self._put:
            if not self._bell.acquire(timeout=max(0.0, until - perf_counter())):
                raise Empty
        with held_back():  # else what the queue has given away would be lost with the call
            self._taken = [self._put.popleft()]
        return self._taken[0]

    def delivered(self, report: D) -> Iterator[D]:
        """Yield what was taken last: from then on it is where it was to go."""
        try:
            yield report
        finally:
            self._taken = []

    def rest(self) -> Iterator[T]:
        """Yield what was not delivered, or not even taken."""
        taken, self._taken = self._taken, []
        yield from taken
        while self._put:
            yield self._put.popleft()
