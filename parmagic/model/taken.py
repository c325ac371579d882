"""What workers took, and from each other: locks, and what is made of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from parmagic.model.sent import sent

NOWHERE = ("", 0)
"""A place that is not known; others are a file's name and a line."""


@sent
@dataclass(frozen=True, slots=True)
class Level:
    """How full a thing was that lets several in, by what all threads of the process had done with it when this was read.

    That is how many permits a semaphore has left, how many wait at a barrier, how much is in a queue: at the least, at the most, and
    over time (``area``, in seconds) for ``span`` seconds, from its first operation to its last one, at ``until``. ``capacity`` is how
    much it can be; infinite for a queue without a bound, and NaN where it does not say. For ``full_s`` at least one thread waited
    for room in it, for ``empty_s`` for something in it.
    """

    capacity: float
    low: int
    high: int
    area: float
    span: float
    until: float
    full_s: float
    empty_s: float


@sent
@dataclass(frozen=True, slots=True)
class Taken:
    """What a worker, or a thread of its body's, did with one thing in one of its methods; ``method`` is empty for a lock by itself.

    ``object`` is the thing's address, ``of`` its class. It was done ``n`` times, ``contended`` of these after a wait, and held for
    ``hold_s`` where to have the lock is to have the thing: of that, ``blocked_s`` asleep, in I/O or waiting for another lock.
    ``bytes`` went through it pickled, which took ``pickle_s``. ``waits`` are how many waits there were by their length: place k counts
    those below 2**k ns. ``level`` is the thing's, where it has one. ``made`` is where it was made, by one of the run's workers.
    """

    object: int
    of: str
    method: str
    n: int
    contended: int
    wait_s: float
    wait_max_s: float
    hold_s: float
    hold_max_s: float
    blocked_s: float
    bytes: int = 0
    pickle_s: float = 0.0
    waits: tuple[int, ...] = ()
    name: str = ""
    thing: str = ""
    level: Level | None = None
    made: tuple[str, int] = NOWHERE


@sent
@dataclass(frozen=True, slots=True)
class Handoff:
    """Waits of a worker for one thing at one place that one worker caused, who was at another: it had the thing, or woke the worker.

    ``object`` is the thing's address, ``of`` its class. Places are a file's name and a line; empty and 0 where they are not known.
    ``blocker`` is the rank of who caused them, or -1, and ``serial`` the number of that thread's account.
    """

    object: int
    of: str
    blocker: int
    serial: int
    waited: tuple[str, int]
    blocked: tuple[str, int]
    n: int
    total_s: float
    max_s: float
    name: str = ""
    thing: str = ""
    made: tuple[str, int] = NOWHERE


SHARED = 63
"""The bit that is set in the numbers of locks between processes, and in no others."""


@sent
@dataclass(frozen=True, slots=True)
class Handover:
    """A single wait of a worker for one thing, from ``begin`` to ``end``; ``got``: it ended with the thing, and was not given up.

    ``blocker``, ``serial`` and ``blocked`` are who caused it, as in a :class:`Handoff`. ``waker``, ``waker_serial`` and ``woke`` are the
    same of who let go of the thing last, or woke the worker, before it had the thing: at ``woken``, NaN where that is not known.
    """

    begin: float
    end: float
    got: bool
    object: int
    of: str
    waited: tuple[str, int]
    blocker: int
    serial: int
    blocked: tuple[str, int]
    waker: int
    waker_serial: int
    woke: tuple[str, int]
    woken: float
    name: str = ""
    thing: str = ""
    made: tuple[str, int] = NOWHERE

    def shifted(self, seconds: float) -> Handover:
        """Return it so much later."""
        return replace(self, begin=self.begin + seconds, end=self.end + seconds, woken=self.woken + seconds)


@sent
@dataclass(frozen=True, slots=True)
class Order:
    """That a worker took one lock while it had another one: ``second`` while it had ``first``.

    These are the locks' numbers, which no other lock of the same process ever has, and those of locks between processes no lock of any
    process; ``objects`` are the addresses of what they are, or are part of, and
    ``classes`` its classes. Places are a file's name and a line. ``gates`` are the numbers of what else it had. ``alone``:
    no other thread of the same worker was there. It was done ``n`` times, between ``begin`` and ``end``.
    """

    first: int
    second: int
    objects: tuple[int, int]
    classes: tuple[str, str]
    places: tuple[tuple[str, int], tuple[str, int]]
    gates: frozenset[int]
    alone: bool
    n: int
    begin: float
    end: float
    names: tuple[str, str] = ("", "")
    made: tuple[tuple[str, int], tuple[str, int]] = (NOWHERE, NOWHERE)


@sent
@dataclass(frozen=True, slots=True)
class Synced:
    """All that a thread did with locks, told once, at its end; ``serials`` are the numbers that its accounts had in its process.

    ``handovers`` are its longest waits for others, in no order; ``n_shorter`` are how many more there were.
    """

    taken: tuple[Taken, ...] = ()
    handoffs: tuple[Handoff, ...] = ()
    orders: tuple[Order, ...] = ()
    serials: tuple[int, ...] = ()
    handovers: tuple[Handover, ...] = ()
    n_shorter: int = 0

    @property
    def has_things(self) -> bool:
        """Whether it tells of any lock."""
        return bool(self.taken or self.handoffs or self.orders or self.handovers)

    def __add__(self, other: Synced) -> Synced:
        """Put two together."""
        both = self.taken + other.taken, self.handoffs + other.handoffs, self.orders + other.orders
        return Synced(*both, self.serials + other.serials, self.handovers + other.handovers, self.n_shorter + other.n_shorter)

    def shifted(self, seconds: float) -> Synced:
        """Return all single waits so much later."""
        return replace(self, handovers=tuple(each.shifted(seconds) for each in self.handovers)) if self.handovers else self


NONE = Synced()
"""Of who did nothing with locks."""
