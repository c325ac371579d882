"""What stands in the place of the standard library's functions while runs are on, and is gone behind the last of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from parmagic.system.interrupts import held_back
from parmagic.system.real import Lock


class StandIn:
    """Stands in a module of the standard library, or a class, in the place of a function, for all runs that go on at the same time.

    Who has kept it, or puts it back later, has the original by it.
    """

    stands: Any
    """What is put there: itself, unless a kind of it says otherwise."""

    def __init__(self, module: Any, name: str) -> None:
        self.original = vars(module)[name]
        self.module = module
        self.stands = self
        self._name = name
        self.users: set[object] = set()

    def let_go(self, user: object) -> None:
        """Be there for one run less; behind the last, put back what was there, unless somebody else has put something there."""
        self.users.discard(user)
        if not self.users:
            self.step_down()

    def step_down(self) -> None:
        """Put back what was there, unless somebody else has put something there."""
        _standing.discard(self)
        if vars(self.module).get(self._name) is self.stands:
            setattr(self.module, self._name, self.original)


_standing: set[StandIn] = set()
_made: dict[tuple[type[StandIn], Any, str], StandIn] = {}  # the last of each place: to make one takes longer than to put it there
_changing = Lock()


def leave() -> None:
    """In a fork: put back what was there, whatever its process needs."""
    global _changing  # noqa: PLW0603  (another thread may have had it, which is not here)
    _changing = Lock()
    for each in list(_standing):
        each.step_down()


class Standing:
    """All that stands in for one run."""

    def __init__(self) -> None:
        self._all: list[StandIn] = []

    def add(self, places: Iterable[tuple[type[StandIn], Any, str]]) -> None:
        """Stand in these places as well: a kind of stand-in, a module or class, and the name of its function."""
        with held_back(), _changing:
            for place in places:
                self._all.append(_installed(*place, self))

    def end(self) -> None:
        """Put back what was there, where no other run needs it; once."""
        if not self._all:
            return
        with held_back(), _changing:
            while self._all:
                self._all.pop().let_go(self)


def _installed(kind: type[StandIn], module: Any, name: str, user: object) -> StandIn:
    """Have a stand-in of this kind there for one more run: the one that is there, or was the last time, or a new one."""
    made, there = _made.get((kind, module, name)), vars(module)[name]
    if made is None or (there is not made.stands and there is not made.original):
        made = _made[kind, module, name] = kind(module, name)
    made.users.add(user)
    _standing.add(made)
    if there is not made.stands:
        setattr(module, name, made.stands)
    return made
