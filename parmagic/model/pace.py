"""How many items a worker claims at a time.

Trivial items go out by the thousand, long ones one by one: a chunk aims at
2 ms, grows at most fourfold, and is at most half of an even share of what is
left, so that uneven items balance.
"""

from __future__ import annotations

AIM = 2e-3
"""Seconds that a chunk is to take."""


class Pace:
    """One worker's chunk size: how many items it claims next."""

    def __init__(self, workers: int, fixed: int | None) -> None:
        self._workers = workers
        self._fixed = fixed
        self._size = fixed or 1

    def size(self, left: int) -> int:
        """Return how many of ``left`` items to claim, at least 1 where any are left."""
        if self._fixed:
            return min(self._fixed, left)
        return max(1, min(self._size, left // (2 * self._workers))) if left > 0 else 0

    def took(self, items: int, seconds: float) -> None:
        """Learn from the last chunk."""
        if not self._fixed and items:
            wanted = int(items * AIM / max(seconds, 1e-9))
            self._size = max(1, min(wanted, 4 * items))
