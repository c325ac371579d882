"""Workers that wait for each other in a circle: found where their locks are, and ended in their waits."""

from __future__ import annotations

from time import perf_counter
from typing import Any, NamedTuple

from parmagic.errors import Deadlock, Entangled
from parmagic.model.sources import short
from parmagic.record import objects
from parmagic.record.hooks import extension

SURE = 0.2
"""Seconds for which a circle has to stand: who has just been woken does not know yet that it has what it wanted."""


class _Held(NamedTuple):
    lock: int
    thing: int
    of: str
    file: str | None
    line: int
    since: float


class _Waiter(NamedTuple):
    """A thread: the handle of its account, its worker's rank, what it wants since when and where, and what it has."""

    serial: int
    rank: int
    wants: int
    thing: int
    of: str
    file: str | None
    line: int
    since: float
    held: list[_Held]


class Circles:
    """Looks for them in one run's threads; ``function`` is the body, by whose names locks are called."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self._seen: dict[frozenset[tuple[int, int]], float] = {}

    def end(self) -> Deadlock | None:
        """Where there is a circle that stands, end it; return what it was."""
        waits, _ = extension()
        if waits is None:
            return None
        threads = {each.serial: each for each in map(_waiter, waits.holds())}
        circle = _circle(threads)
        key = frozenset((each.serial, each.wants) for each in circle)
        now = perf_counter()
        self._seen = {key: self._seen.get(key, now)} if circle else {}
        if not circle or now - self._seen[key] < SURE:
            return None
        error = Deadlock(self._words(circle, now))
        for each in circle:
            waits.end_wait(each.serial, Entangled(error))
        return error

    def _words(self, circle: list[_Waiter], now: float) -> str:
        names = objects.names(self._function, {each.wants for each in circle}, 1.0)
        called = {each.wants: f"`{names[each.wants].name}`" if each.wants in names else "a lock" for each in circle}
        after = now - max(each.since for each in circle)
        who = f"{len(circle)} workers wait in a circle" if len(circle) > 1 else f"worker {circle[0].rank} waits for what it has"
        lines = [f"Deadlock: {who} (found after {after:.1f} s, and ended: all locks are free again)."]
        for before, each, then in zip([circle[-1], *circle], circle, [*circle[1:], circle[0]], strict=False):
            has = next(held for held in each.held if held.lock == before.wants)
            lines.append(
                f"  worker {each.rank} holds {called[has.lock]} ({_at(has.file, has.line)}, for {now - has.since:.1f} s), "
                f"wants {called[each.wants]} ({_at(each.file, each.line)}), which worker {then.rank} holds"
            )
        advice = "Take them in one order everywhere." if len(circle) > 1 else "An RLock may be taken again by who has it."
        return "\n".join([*lines, advice])


def _at(file: str | None, line: int) -> str:
    place = short(file) if file else ""
    return f"line {line}" if not place or place.startswith("In[") else f"{place}:{line}"


def _waiter(row: Any) -> _Waiter:
    return _Waiter(*row)._replace(held=[_Held(*each) for each in row[-1]])


def _circle(threads: dict[int, _Waiter]) -> list[_Waiter]:
    """Return threads of which each wants what the next one has, and the last what the first has; none where there are none."""
    holders = {held.lock: each.serial for each in threads.values() for held in each.held}
    for start in threads.values():
        path, at = list[_Waiter](), start
        while at.wants and at not in path and at.wants in holders:
            path.append(at)
            at = threads[holders[at.wants]]
        if at in path:
            return path[path.index(at) :]
    return []
