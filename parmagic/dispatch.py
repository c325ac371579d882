"""Which worker runs which items: chunks that adapt.

Trivial items go out by the thousand, long ones one by one: a chunk aims at
2 ms, grows at most fourfold, and is at most half of an even share of what is
left, so that uneven items balance.
"""

from __future__ import annotations

import os
import struct
import threading
from typing import Protocol

from parmagic.recorder import STOP, Board, item_slot

AIM = 2e-3
_TOKEN = struct.Struct("q")


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


class Deck(Protocol):
    """Hands out claims of item numbers until none are left."""

    def take(self) -> range | None:
        """Return the next claim, or None."""
        ...

    def took(self, items: int, seconds: float) -> None:
        """Learn how long the last claim took."""
        ...


class Counter:
    """The next item number, shared by threads."""

    def __init__(self, n_items: int) -> None:
        self.n_items = n_items
        self.next = 0
        self.lock = threading.Lock()


class SharedDeck:
    """A thread's view of the common counter."""

    def __init__(self, counter: Counter, workers: int, chunk: int | None, board: Board) -> None:
        self._counter = counter
        self._pace = Pace(workers, chunk)
        self._board = board
        self.took = self._pace.took

    def take(self) -> range | None:
        """Claim from the counter, unless the board says stop."""
        counter = self._counter
        with counter.lock:
            first = counter.next
            last = first + self._pace.size(counter.n_items - first)
            counter.next = last
        return range(first, last) if last > first and not self._board[STOP] else None


class PipeDeck:
    """A process's view of the common counter: a token of 8 bytes in a pipe.

    Who reads the token owns the counter until it writes it back. A worker
    that is killed in between takes it along: the kernel then puts a new one
    into the pipe, from the claims on the board.
    """

    def __init__(
        self, pipe: tuple[int, int], n_items: int, workers: int, chunk: int | None, board: Board, rank: int
    ) -> None:
        self._read, self._write = pipe
        self._n_items = n_items
        self._pace = Pace(workers, chunk)
        self._board = board
        self._slot = item_slot(rank)
        self.took = self._pace.took

    def take(self) -> range | None:
        """Claim from the token, unless the board says stop."""
        if self._board[STOP]:
            return None
        (first,) = _TOKEN.unpack(os.read(self._read, _TOKEN.size))
        last = first + self._pace.size(self._n_items - first)
        # the claim is on the board before the token goes on: a killed worker leaves a trace of it
        self._board[self._slot + 1] = first
        self._board[self._slot + 2] = last
        os.write(self._write, _TOKEN.pack(last))
        return range(first, last) if last > first and not self._board[STOP] else None


def put_token(pipe: tuple[int, int], index: int) -> None:
    """Put the counter into the pipe: at the start, and after a death that took it along."""
    os.write(pipe[1], _TOKEN.pack(index))


def take_token(pipe: tuple[int, int]) -> int:
    """Take the counter out of the pipe (which has one)."""
    return int(_TOKEN.unpack(os.read(pipe[0], _TOKEN.size))[0])


class OwnItem:
    """The deck of an SPMD worker, of a todo list, of a sample: fixed claims in order."""

    def __init__(self, *claims: range) -> None:
        self._claims = list(reversed(claims))

    def take(self) -> range | None:
        """Return the next claim, or None."""
        return self._claims.pop() if self._claims else None

    def took(self, items: int, seconds: float) -> None:
        """Nothing to learn: the claims are fixed."""


class Chain:
    """A deck behind another: first what a dead worker left, then the common counter."""

    def __init__(self, first: Deck, then: Deck) -> None:
        self._first = first
        self._then = then
        self.took = then.took

    def take(self) -> range | None:
        """Return the next claim, or None."""
        return self._first.take() or self._then.take()
