"""What is replayed: the work of items, who does it, on which machine; and what comes of it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

Op = tuple[str, float | Hashable]
"""A step of an item.

``("running", seconds)`` computes with the GIL, ``("native", seconds)`` and ``("transfer", seconds)`` without it, ``("sleep", seconds)`` and
``("io_wait", seconds)`` need no core. ``("take", name)`` waits for a permit, ``("give", name)`` gives one back: a lock has one, a
semaphore some. A queue is two of these: who puts takes of its free places and gives to what is in it, who gets does the opposite.
"""

COMPUTES = frozenset({"running", "native", "transfer", "startup"})
"""Steps that need a core; of these, only running needs the GIL."""


@dataclass(frozen=True)
class Work:
    """What items have to do: ``seconds`` with the GIL of each that does nothing else, the ``programs`` of the others, by their numbers.

    ``permits`` are what names can be taken of at the begin.
    """

    seconds: Sequence[float]
    programs: Mapping[int, Sequence[Op]] = field(default_factory=dict)
    permits: Mapping[Hashable, int] = field(default_factory=dict)

    @property
    def n_items(self) -> int:
        """How many items there are."""
        return len(self.seconds)


@dataclass(frozen=True)
class Crew:
    """Who does the work: ``count`` workers, threads of one process or processes of their own.

    ``chunk`` items are claimed at a time; without it, as many as a worker of ours would. They are claimed in ``order``, without it
    by their numbers. ``gil`` is False for interpreters without one. Each worker is born after the ``ready_s`` of its rank (of the last
    one there, for all others), and computes for ``boot_s`` before its first claim. Each claim costs ``claim_s`` with the GIL.
    """

    count: int
    processes: bool = False
    chunk: int | None = None
    order: Sequence[int] | None = None
    gil: bool = True
    claim_s: float = 0.0
    boot_s: float = 0.0
    ready_s: Sequence[float] = (0.0,)


@dataclass(frozen=True)
class Machine:
    """Where it is done; seconds, all of them.

    ``latency_s`` is what it takes from being woken, on a core, to being at work. A thread that has no core gets one after ``slice_s`` of
    another's turn, or at once where it was woken and the other has had ``grain_s`` of its own; ``hot_s`` is for how long a thread
    that lost its core is left to it, where another one is free. While more than one core computes, each is ``slowdown`` times slower.
    """

    cores: int
    switch_s: float = 5e-3
    latency_s: float = 0.0
    slice_s: float = 3e-3
    grain_s: float = 0.7e-3
    hot_s: float = 4e-3
    slowdown: float = 1.0


@dataclass(frozen=True)
class Replayed:
    """What came of it: the wall time, what the workers' seconds went to, and when each of them had done its last item.

    ``stuck`` are the ranks of those that waited for what nobody gave.
    """

    wall_s: float
    seconds: Mapping[str, float]
    ends_s: Sequence[float]
    stuck: Sequence[int] = ()
