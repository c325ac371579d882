"""How worker processes share out the items: each claims its next ones by itself, on the board.

Nothing is handed around that could get lost. The first item that nobody has is where the
last claim on the board ends; to take some from there, a worker is alone for a moment::

    lock      a record lock on the board's file: the kernel takes it from a process that ends
    look      first = the greatest end of a claim on the board
    begin     board[my begin] = first    my claim is empty still: it ends where the last one did, not behind first
    commit    board[my end] = last       one store of eight bytes: now it is mine
    unlock

Who is killed before ``commit`` has claimed nothing; who is killed behind it has, and the notebook
reads what. There is nothing to be guessed, and nothing to be mended, however slow anybody is.
"""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Callable
from typing import Protocol

from parmagic.model.pace import Pace
from parmagic.record.board import STOP, Board, claimed_until, item_slot
from parmagic.system.descriptors import Descriptor
from parmagic.system.real import sleep


class Lock(Protocol):
    """What one process of all has at a time."""

    def acquire(self) -> None:
        """Wait for it."""
        ...

    def release(self) -> None:
        """Give it back."""
        ...


class FileLock:
    """A file's record lock: the process's own, which it does not hand down to its forks, and which cannot outlive it."""

    def __init__(self, file: int) -> None:
        self._file = Descriptor(file)

    def acquire(self) -> None:
        """Wait for the lock; Lost where the file is not there any more."""
        file = self._file.fileno()
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX)
            except OSError as error:
                # to the kernel, this process deadlocks where one of its threads waits here, and another one for a lock of the body's
                if error.errno != errno.EDEADLK:
                    raise
                sleep(1e-4)
            else:
                return

    def release(self) -> None:
        """Let the next one in."""
        fcntl.lockf(self._file.number, fcntl.LOCK_UN)


class BoardDeck:
    """A process's view of the items that are for all: see the head of this module."""

    def __init__(self, lock: Lock, n_items: int, workers: int, chunk: int | None, board: Board, rank: int) -> None:
        self._lock = lock
        self._n_items = n_items
        self._workers = workers
        self._pace = Pace(workers, chunk)
        self._board = board
        self._slot = item_slot(rank)
        self.first = self.last = 0
        self.took = self._pace.took

    def take(self) -> range | None:
        """Claim the next items, unless the board says stop."""
        if self._board[STOP]:
            return None
        self._lock.acquire()
        try:
            for step in STEPS:
                step(self)
        finally:
            self._lock.release()
        return self.claim()

    def look(self) -> None:
        """See which items are the next."""
        self.first = claimed_until(self._board, self._workers)
        self.last = self.first + self._pace.size(self._n_items - self.first)

    def begin(self) -> None:
        """Write where the claim begins."""
        self._board[self._slot + 1] = self.first

    def commit(self) -> None:
        """Make the claim."""
        self._board[self._slot + 2] = self.last

    def claim(self) -> range | None:
        """Return what was claimed: None where nothing was left, or where it is not to be run any more."""
        return range(self.first, self.last) if self.last > self.first and not self._board[STOP] else None


STEPS: tuple[Callable[[BoardDeck], None], ...] = (BoardDeck.look, BoardDeck.begin, BoardDeck.commit)
"""What is done under the lock. A test stops and kills workers between any two of them."""
