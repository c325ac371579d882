"""What a worker waited for: single waits, as the hooks write them, and sums of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

from parmagic.model.kinds import EVENTS


class Wait(NamedTuple):
    """A single wait: begin and end (ns on our clock), the object, kind, holder, line, whether it held the GIL, and whether it is one.

    ``object`` is an address (a lock's, or its Python object's), for I/O a descriptor; ``kind`` is a place in ``WAIT_KINDS``; ``holder`` is
    the rank that held the GIL when the wait began, or -1; ``line`` is the cell's, or 0. ``what`` is a place in ``EVENTS``.
    """

    begin: int
    end: int
    object: int
    kind: int
    holder: int
    line: int
    with_gil: int
    what: int = 0


WAIT_LAYOUT = Struct("=qqQiiihh")
"""A wait as the hooks write it: each field's format. ``waits/waits.h`` has the same, and is compared."""

WAITED = EVENTS.index("waited")  # 0: nothing but zero bytes


@dataclass(frozen=True, slots=True)
class Waits:
    """Single waits as they were recorded, one :class:`Wait` behind another; events that tell of something else are kept, and are no waits.

    ``lost`` is how many more there were that did not fit; their seconds are in the
    tally and in the totals all the same.
    """

    events: bytes = b""
    lost: int = 0

    @property
    def waited(self) -> bytes:
        """The events that tell of a wait; whoever reads waits reads these, or looks at ``what`` itself."""
        size = WAIT_LAYOUT.size
        if not any(self.events[place::size].strip(b"\0") for place in (size - 2, size - 1)):  # the bytes of ``what``: as yet, all are waits
            return self.events
        return b"".join(WAIT_LAYOUT.pack(*event) for event in self.every() if event.what == WAITED)

    @property
    def last(self) -> Wait | None:
        """The one that ended last."""
        waited = self.waited
        return Wait._make(WAIT_LAYOUT.unpack(waited[-WAIT_LAYOUT.size :])) if waited else None

    def __iter__(self) -> Iterator[Wait]:
        """Yield them in the order in which they ended."""
        return map(Wait._make, WAIT_LAYOUT.iter_unpack(self.waited))

    def every(self) -> Iterator[Wait]:
        """Yield all events in their order, also those that tell of no wait."""
        return map(Wait._make, WAIT_LAYOUT.iter_unpack(self.events))

    def first(self, most: int) -> Waits:
        """Return so many of these events at most; the others are lost."""
        size = WAIT_LAYOUT.size * most
        more = max(0, len(self.events) - size) // WAIT_LAYOUT.size
        return Waits(self.events[:size], self.lost + more) if more else self

    def shifted(self, seconds: float) -> Waits:
        """Return all events so much later."""
        by = round(seconds * 1e9)
        moved = (event._replace(begin=event.begin + by, end=event.end + by) for event in self.every())
        return Waits(b"".join(WAIT_LAYOUT.pack(*wait) for wait in moved), self.lost)


NO_WAITS = Waits()


@dataclass(frozen=True, slots=True)
class Total:
    """All waits of one kind for one object at one place: how many, their seconds, the longest.

    ``line`` is the cell's, ``place`` where they really were, also outside of the cell: the innermost line outside of the standard
    library's own locks and queues. Workers report the file's name as Python has it, the line, and from which byte of it to which; and
    :mod:`parmagic.analyze.places` makes that one to read. ``with_gil_s`` are the seconds in which the worker held the GIL while blocked;
    ``name`` is what the object is called, where that is known, and ``thing`` what it is (a name of :data:`parmagic.model.things.THINGS`).
    """

    kind: str
    object: int
    line: int
    n: int
    total_s: float
    max_s: float
    with_gil_s: float = 0.0
    name: str = ""
    place: str = ""
    thing: str = ""
