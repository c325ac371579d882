"""What happens when: a clock that goes from one thing to the next."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from typing import Any

Event = list[Any]
"""When, in which order, what is called, with what; nothing is called of one that was cancelled."""


class Clock:
    """Calls what was asked for when it is time.

    ``after_work`` counts seconds of computing, of which ``speed`` go by in each second, the same on all cores.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._worked = 0.0
        self._speed = 1.0
        self._n = 0
        self._events: list[Event] = []
        self._bursts: list[Event] = []

    def after(self, seconds: float, call: Callable[[Any], None], what: Any) -> Event:
        """Call something in that many seconds."""
        return self._add(self._events, self.now + seconds, call, what)

    def after_work(self, seconds: float, call: Callable[[Any], None], what: Any) -> Event:
        """Call something when that many seconds were computed from now on."""
        return self._add(self._bursts, self._worked + seconds, call, what)

    def left(self, burst: Event) -> float:
        """Return the seconds that a burst has still to compute."""
        return max(0.0, float(burst[0]) - self._worked)

    def run_at(self, speed: float) -> None:
        """Compute at this speed from now on."""
        self._speed = speed

    def run(self) -> None:
        """Go on until nothing is left to happen."""
        while True:
            first = _first(self._events)
            burst = _first(self._bursts)
            ends = self.now + (burst[0] - self._worked) / self._speed if burst else inf
            if first is not None and first[0] < ends:
                self._worked += (first[0] - self.now) * self._speed
                self.now = first[0]
                _call(heappop(self._events))
            elif burst is not None:
                self._worked, self.now = burst[0], ends
                _call(heappop(self._bursts))
            else:
                return

    def _add(self, heap: list[Event], at: float, call: Callable[[Any], None], what: Any) -> Event:
        self._n += 1
        event = [at, self._n, call, what]
        heappush(heap, event)
        return event


def cancel(event: Event | None) -> None:
    """Call nothing of it."""
    if event is not None:
        event[2] = None


def _first(heap: list[Event]) -> Event | None:
    while heap and heap[0][2] is None:
        heappop(heap)
    return heap[0] if heap else None


def _call(event: Event) -> None:
    call, event[2] = event[2], None
    call(event[3])
