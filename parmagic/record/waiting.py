"""Who waits for what at this moment, of all threads of a run in this process, and what each has: as the hooks on locks know it."""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

from parmagic.model.sources import spoken
from parmagic.model.taken import SHARED
from parmagic.record.hooks import extension

_BETWEEN = 63
"""The bit that numbers of locks between processes have, and no address."""


class Held(NamedTuple):
    """A lock that a thread has: its number, the address of the thing that it is part of, the class of that, where it was taken, and when.

    Where it is its ``own``, nobody else lets go of it: it is an RLock, or was taken by a ``with`` block. Else it may be one by which
    threads, or processes, tell each other whose turn it is.
    """

    lock: int
    thing: int
    of: str
    file: str | None
    line: int
    since: float
    own: bool

    @property
    def is_between(self) -> bool:
        """Whether other processes may have it."""
        return self.lock >> _BETWEEN > 0

    @property
    def place(self) -> str:
        """Where it was taken."""
        return spoken(self.file, self.line)


class Called(NamedTuple):
    """A call to wake those who wait for a condition, when nobody did."""

    thing: int
    file: str | None
    line: int
    at: float

    @property
    def place(self) -> str:
        """Where it was."""
        return spoken(self.file, self.line)


class Waiter(NamedTuple):
    """A thread of a run's: the handle of its account, its ident, its worker's rank, and the number of the lock that it wants (0: none).

    That is the lock's address; one between processes has the same number in all of them, and which is no address.
    ``thing`` is the object that the lock is part of, in whose ``method`` it waits since then; ``of`` is its class where it is the
    standard library's. It is ``patient`` where it waits for as long as it takes. ``held`` is what it has, and ``lost`` are the calls
    of its own that nobody heard. ``holder`` is the process that has the lock, where that is known of one between processes.
    """

    serial: int
    ident: int
    rank: int
    wants: int
    thing: Any
    of: str
    method: str
    file: str | None
    line: int
    since: float
    patient: bool
    held: list[Held]
    lost: list[Called]
    holder: int = 0

    @property
    def place(self) -> str:
        """Where it waits."""
        return spoken(self.file, self.line)

    @property
    def is_between(self) -> bool:
        """Whether it wants a lock that other processes may have."""
        return self.wants >> SHARED > 0


def waiters() -> list[Waiter]:
    """Return all threads of the run by their ranks, where one of them waits for a lock; else none."""
    waits, _ = extension()
    if waits is None:
        return []
    rows = (Waiter._make(row) for row in waits.holds())
    found = [row._replace(held=[*map(Held._make, row.held)], lost=[*map(Called._make, row.lost)]) for row in rows]
    return sorted(found, key=lambda each: (each.rank, each.serial))


def held_here(waits: ModuleType) -> list[Held]:
    """Return what the calling thread has, which has an account of the extension's."""
    return [Held._make(each) for each in waits.held()]


def lost_here(waits: ModuleType) -> list[Called]:
    """Return the calls of the calling thread, which has an account of the extension's, that nobody heard."""
    return [Called._make(each) for each in waits.lost()]
