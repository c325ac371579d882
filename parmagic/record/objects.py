"""What users call the things that their bodies wait for: locks and queues, by their addresses.

A hooked wait knows an address: of what a lock is made of, of the object whose
method was called, or, without a GIL, of the list that several threads change. Names
are looked up once, when a worker ends, and only of what was waited for, along the ways on which the body's code can get there: the
names that it reads, what functions close over and read in their turn, attributes, elements. The nearest way gives the name: ``lock``,
``forks[2]``, ``account.lock``, ``helper.GUARD``, ``save.lock`` of what ``save`` closes over. What is reached on none of these ways is
looked for from the notebook's other names. No code of the user's runs for that: nothing is asked but for what lies there.

A thing that died within the run may have left its address to another one; where the two are of different sorts, that is seen.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from parmagic.model.classes import module_of
from parmagic.record.ways import Way, Ways, spelled
from parmagic.system.gil import FREE_THREADED
from parmagic.system.real import Lock, RLock

MOST, FEW, MORE = 10_000, 2_000, 50_000
"""No more things than these are looked at, as it is done while a user waits: so few, and so many more for each second of waits."""

DEEPEST = 6
"""So many steps may lie between a name of the body's and a lock."""

LOCKS = (type(Lock()), type(RLock()))

_FIRST_FIELD = object.__basicsize__
_OWN_LOCK = struct.calcsize("PH") if FREE_THREADED else None
"""Where an object's own lock lies in it (``ob_mutex``), on free-threaded builds: what changes it waits for that."""

_NONE = -1
"""The address of nothing: who looks for that looks at all there is."""

_FEW = 1 << 12
"""No address is as small."""


class Known(NamedTuple):
    """What a thing is called, and what a wait for it is where that is no plain lock.

    ``thing`` is what it is to the user: what it is part of, or ``library`` where it is a library's own; ``itself`` is what it
    is without that (names of :data:`parmagic.model.things.THINGS`, or empty). ``kind`` is ``queue`` for a queue in C, which waits like
    a lock, and ``object`` for the lock that every object has on free-threaded builds.
    """

    name: str
    thing: str
    itself: str
    kind: str | None


def names(function: Any, wanted: Collection[int], waited_s: float, given: Mapping[str, Any] = MappingProxyType({})) -> dict[int, Known]:
    """Return what users call the things with these addresses, as far as they are found on ways from what ``function`` reads, or is given.

    ``waited_s`` is for how long they were waited for.
    """
    search = _Search(Ways(function), wanted, min(MOST, FEW + int(MORE * waited_s)))
    search.look(search.ways.begin())
    search.look(search.ways.around())
    search.look(Way(name, value) for name, value in given.items())
    return search.found


def semaphores(function: Any) -> list[Any]:
    """Return what multiprocessing's locks are made of, as far as that is found on ways from what ``function`` reads."""
    search = _Search(Ways(function), {_NONE}, MOST)
    search.look(search.ways.begin())
    search.look(search.ways.around())
    return search.semaphores()


class _Search:
    """Looks for addresses, the nearest things first; ``left`` are those not found yet."""

    def __init__(self, ways: Ways, wanted: Collection[int], most: int) -> None:
        self.ways = ways
        self._most = most
        self.found: dict[int, Known] = {}
        self._left = set(wanted)
        self._seen: dict[int, Any] = {}  # kept, so that no other object takes its place meanwhile

    def look(self, begin: Iterator[Way]) -> None:
        """Follow these ways until all is found, or enough was looked at."""
        waiting = deque((0, way) for way in begin)
        while waiting and self._left and len(self._seen) < self._most:
            depth, way = waiting.popleft()
            if id(way.value) in self._seen:
                continue
            self._seen[id(way.value)] = way.value
            self._meet(way)
            if depth < DEEPEST and len(waiting) < self._most:
                waiting.extend((depth + 1, each) for each in self.ways.parts(way))

    def semaphores(self) -> list[Any]:
        """Return what multiprocessing's locks are made of, of all that was looked at."""
        return [each for each in self._seen.values() if module_of(type(each)) == "_multiprocessing"]

    def _meet(self, way: Way) -> None:
        sort = self.ways.sort_of(type(way.value))
        for address in _addresses(way.value) if sort.may_wait else ():
            if address in self._left:
                self._left.discard(address)
                kind = "queue" if sort.module == "_queue" else None
                self.found[address] = Known(spelled(way.name), way.owner or way.thing or sort.thing, sort.thing, kind)
        if _OWN_LOCK is not None and (own := id(way.value) + _OWN_LOCK) in self._left:
            self._left.discard(own)
            self.found[own] = Known(spelled(way.name), "", "", "object")


def _addresses(value: Any) -> Iterator[int]:
    """Yield the addresses by which a wait may know a thing."""
    kind = type(value)
    if any(kind is lock for lock in LOCKS) or module_of(kind) == "_queue":
        yield id(value)  # its methods know it by that
        yield id(value) + _FIRST_FIELD  # where threads park since some 3.13
        if sys.version_info < (3, 14):
            # before, it was a PyThread_type_lock: a pointer to a sem_t
            semaphore = ctypes.c_void_p.from_address(id(value) + _FIRST_FIELD).value
            if semaphore is not None and semaphore > _FEW:  # else it was a lock's state
                yield semaphore
    elif module_of(kind) == "_multiprocessing":
        yield int(value.handle)
    else:
        yield id(value)
