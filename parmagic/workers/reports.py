"""What an arm's threads report, in order; a Ctrl-C that strikes the listening thread loses none of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from parmagic.system.interrupts import held_back
from parmagic.system.real import SimpleQueue

T = TypeVar("T")
D = TypeVar("D")


class Reports(Generic[T]):
    """A queue whose last report counts as taken only when it has been delivered."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[T] = SimpleQueue()
        self._taken: list[T] = []
        self.put = self._queue.put
        self.empty = self._queue.empty

    def take(self, seconds: float) -> T:
        """Wait for the next report, at most that long; raises ``Empty``."""
        with held_back():  # else what the queue has given away would be lost with the call
            self._taken = [self._queue.get(timeout=seconds)]
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
        while not self._queue.empty():
            yield self._queue.get()
