"""What one server has imported ahead, and what it was asked to."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from parmagic.model.private import Private
from parmagic.workers.processes import preload

Failed = tuple[str, str, bool]
"""A module that could not be imported, why, and whether that spoils the server."""


class Imports:
    """The imports of one server, as the notebook knows them; a successor begins with those of the server that it is a fork of."""

    def __init__(self, loaded: Mapping[str, float]) -> None:
        self.loaded = dict(loaded)  # with the time of each one's last change
        self._asked: deque[str] = deque()
        self._failed: list[Failed] = []

    @property
    def now(self) -> str:
        """The module that is being imported; empty where none is."""
        return self._asked[0] if self._asked else ""

    @property
    def failed(self) -> bool:
        """Whether there are :meth:`failures` to be told."""
        return bool(self._failed)

    def knows(self, module: str) -> bool:
        """Tell whether a module is imported, or going to be."""
        return module in self.loaded or module in self._asked

    def ask(self, modules: Iterable[str]) -> list[str]:
        """Note that these are asked for; return those that are new."""
        new = [name for name in modules if not self.knows(name)]
        self._asked += new
        return new

    def came(self, name: str, why: str | None, *, spoils: bool) -> None:
        """Note that a module was imported, or why not; it ``spoils`` the server where it has left threads behind."""
        self._asked.popleft()
        self.loaded[name] = preload.stamp(name)
        if spoils:
            why = "left threads behind, or holds a GPU, with which it is not safe to fork"
        elif why is not None:
            why = Private(why, why.partition(":")[0])  # an error's message may have in it what the environment has
        if why is not None:
            self._failed.append((name, why, spoils))

    def failures(self) -> list[Failed]:
        """Return what could not be imported since the last call."""
        found, self._failed = self._failed, []
        return found
