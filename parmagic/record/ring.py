"""How much VizTracer's ring has taken in, and so what has fallen out of it.

VizTracer keeps the last entries of a process; older ones are overwritten, and it does not
count them. The ring's own position tells how many entries came, but for whole rounds.
A mark, which is an entry of ours, tells whether there was one: it is freed when it is
overwritten. Looked at more than once a round, both together give the exact number.
"""

from __future__ import annotations

import ctypes
import weakref
from dataclasses import dataclass
from typing import Any

_MARKS_A_ROUND = 16
_UNSEEN = 1000
"""More frames than a thread of ours returns from."""


class _Mark(dict[str, str]):
    """What a mark holds: an object whose end can be seen, and which VizTracer can write."""

    __slots__ = ("__weakref__",)


@dataclass(slots=True)
class Count:
    """How many entries went into a ring that keeps ``entries`` of them, by where it stands now and then.

    ``place`` is where it stood last, ``marked`` what had been counted when the newest mark was set.
    """

    entries: int
    place: int
    taken: int = 0
    marked: int = 0
    exact: bool = True

    def came(self, place: int) -> int:
        """Return how many entries came until the ring stands at ``place``, but for whole rounds."""
        return (place - self.place) % (self.entries + 1)  # VizTracer keeps one place free

    def add(self, place: int, *, overwritten: bool, in_doubt: bool) -> None:
        """Count what came until the ring stands at ``place``.

        ``overwritten``: the newest mark was, before the ring stood there. The count is a lower bound from then on,
        and where it is ``in_doubt`` whether the mark was.
        """
        came = self.came(place)
        if overwritten and came <= self.entries - (self.taken - self.marked):
            came += self.entries + 1
        self.taken += came
        self.exact = self.exact and not overwritten and not in_doubt
        self.place = place


class Ring:
    """The ring of a tracer with room for ``entries``, one for each tracer: to be looked at more than once a round."""

    def __init__(self, tracer: Any, entries: int) -> None:
        self._tracer = tracer
        self._entries = entries
        self._tail = _find_tail(tracer, entries)
        self._count: Count | None = None
        self._marks: list[weakref.ref[_Mark]] = []

    def begin(self) -> None:
        """Count from here: the ring is empty, and nothing is recorded yet."""
        self._marks = []
        self._count = Count(self._entries, self._tail.value) if self._tail is not None else None

    @property
    def taken(self) -> int | None:
        """How many entries had come when it was looked at last; None where that is not known."""
        return None if self._count is None else self._count.taken

    def look(self) -> None:
        """Count what came since the last look."""
        count = self._count
        if count is None:
            return
        newest = self._marks[-1] if self._marks else None
        self._mark(count)
        overwritten = newest is not None and newest() is None
        place = self._tail.value
        count.add(place, overwritten=overwritten, in_doubt=newest is not None and newest() is None)

    def _mark(self, count: Count) -> None:
        """Set a mark where the newest is overwritten, or will be before long; there is none while nothing is recorded."""
        ahead = count.taken + count.came(self._tail.value)
        gone = not self._marks or self._marks[-1]() is None
        if not gone and ahead - count.marked < self._entries // _MARKS_A_ROUND:
            return
        mark = _Mark()
        seen = weakref.ref(mark)
        self._tracer.add_instant("parmagic", mark, "t")
        del mark
        if seen() is not None:
            self._marks.append(seen)
            count.marked = ahead

    def lost(self) -> tuple[int, bool] | None:
        """Return how many calls the ring no longer has, and whether not more; None where that is not known.

        To be asked when nothing is recorded any more, and before the ring is emptied.
        """
        if self._count is None:
            return None
        self.look()
        marks = sum(mark() is None for mark in self._marks)
        return max(0, self._count.taken - self._entries - marks), self._count.exact

    def hide(self) -> None:
        """Record no calls of the calling thread, until it stops the tracer."""
        self._tracer.setignorestackcounter(_UNSEEN)


def _find_tail(tracer: Any, entries: int) -> Any:
    """Return where a tracer, an empty one, keeps the place of its next entry; None where that is not to be found.

    It is the second number behind the size of the ring, and moves with every entry. Should the tracers of another
    VizTracer look different, nothing there does, and what is lost is not counted.
    """
    size = entries + 1
    base = next(kind for kind in reversed(type(tracer).__mro__) if kind is not object)
    words = (ctypes.c_long * (base.__basicsize__ // ctypes.sizeof(ctypes.c_long))).from_address(id(tracer))
    for place in [place for place in range(2, len(words)) if words[place - 2] == size]:
        before = words[place]
        tracer.add_raw({})
        moved = (words[place] - before) % size
        tracer.clear()
        if moved == 1 and words[place] == words[place - 1]:
            return ctypes.c_long.from_address(ctypes.addressof(words) + place * ctypes.sizeof(ctypes.c_long))
    return None
