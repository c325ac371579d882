"""What stands in the place of the standard library's functions while runs are on, and is gone behind the last of them."""

from __future__ import annotations

from types import ModuleType


class StandIn:
    """Stands in a module of the standard library in the place of one of its functions, for all runs that go on at the same time.

    Who has kept it, or puts it back later, has the original by it.
    """

    def __init__(self, module: ModuleType, name: str) -> None:
        self.original = getattr(module, name)
        self.module = module
        self._name = name
        self._users: set[object] = set()

    def use(self, user: object) -> None:
        """Be there for one more run."""
        self._users.add(user)

    def let_go(self, user: object) -> None:
        """Be there for one run less; behind the last, put back what was there, unless somebody else has put something there."""
        self._users.discard(user)
        if not self._users:
            self.step_down()

    def step_down(self) -> None:
        """Put back what was there, unless somebody else has put something there."""
        _standing.discard(self)
        if getattr(self.module, self._name) is self:
            setattr(self.module, self._name, self.original)


_standing: set[StandIn] = set()


def leave() -> None:
    """In a fork: put back what was there, whatever its process needs."""
    for each in list(_standing):
        each.step_down()


def installed(kind: type[StandIn], module: ModuleType, name: str, user: object) -> StandIn:
    """Have a stand-in of this kind there for one more run: the one that is there, or a new one."""
    there = getattr(module, name)
    made = there if type(there) is kind else kind(module, name)
    made.use(user)
    _standing.add(made)
    setattr(module, name, made)
    return made
