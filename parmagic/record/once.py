"""What a worker makes once, and keeps for all of its items: connections, models, sessions.

A context manager is entered when it is made, and left when the worker has done its items, by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from types import CoroutineType
from typing import Any, NamedTuple

from parmagic.errors import Ended
from parmagic.model.classes import definer, type_name
from parmagic.model.private import described, say
from parmagic.record.makers import Maker, label
from parmagic.system.real import Lock, RLock

_ENTERED, _LOCKS = ("__enter__", "__exit__"), ("acquire", "release")

_AWAITED = (
    "worker.once: {what} is asynchronous, and workers have no event loop: "
    "make something that needs none, or have `asyncio.run(...)` make and use it within an item."
)


_first = Lock()


class _Thing(NamedTuple):
    value: Any
    maker: Maker | None  # which holds what it is compared with


class _Open(NamedTuple):
    manager: Any
    label: str
    rank: int  # the worker's when it was made: ranks may run in turn


class Kept:
    """What one worker has made, until it leaves it. Several threads of a body may ask for the same; the first one makes it."""

    def __init__(self) -> None:
        self._things: dict[Hashable, _Thing] = {}
        self._making: set[Hashable] = set()
        self._open: list[_Open] = []
        self._lock: Any = None
        self._pid = os.getpid()
        self._over = False
        self.items: list[int] = []  # in which something was made since last asked
        self.notes: list[str] = []

    def __bool__(self) -> bool:
        """Tell whether there is something to leave, or to let go of."""
        return bool(self._things or self._open)

    @property
    def n_open(self) -> int:
        """How many context managers have been entered, and not left yet."""
        return len(self._open)

    def elsewhere(self) -> None:
        """Make nothing: a worker that was sent to a process of the body's leaves nothing there."""
        self._pid = 0

    def once(self, worker: Any, make: Callable[[], Any], key: Hashable, told: Callable[[], None]) -> Any:
        """Return what ``make()`` gave at the first call; ``told`` is called where the number of those that are open changes."""
        __tracebackhide__ = True  # IPython leaves such frames out: the user's remain
        if not callable(make):
            raise TypeError(f"worker.once takes a function that makes the object, as in worker.once(lambda: …), and no {type_name(make)}.")
        maker = Maker(make, worker) if key is None else None
        by = (worker.rank, ("code", maker.known_by) if maker is not None else ("key", key))
        with self._ready():
            thing = self._things.get(by)
            if thing is None:
                thing = self._made(worker, make, maker, by, told)
            elif maker is not None and thing.maker is not None:
                maker.compare(thing.maker)
            return thing.value

    def _ready(self) -> Any:
        """Return the lock, made when it is first wanted: libraries that patch locks count those that they did not make."""
        with _first:
            self._lock = self._lock or RLock()
        return self._lock

    def _made(self, worker: Any, make: Callable[[], Any], maker: Maker | None, by: Hashable, told: Callable[[], None]) -> _Thing:
        __tracebackhide__ = True
        self._refuse(label(make), by)
        if maker is not None:
            maker.refuse_what_runs()
        self.items.append(worker.item)  # also where it fails: it is not an item like the others
        self._making.add(by)
        try:
            made = _Thing(self._entered(make(), _Open(None, label(make), worker.rank), told), maker)
            self._things[by] = made
            return made
        finally:
            self._making.discard(by)

    def _refuse(self, what: str, by: Hashable) -> None:
        if by in self._making:
            raise RuntimeError(f"worker.once: {what} asks for what it is making itself.")
        if self._over:
            raise RuntimeError(f"worker.once: this worker has done its items, and makes nothing more ({what}).")
        if os.getpid() != self._pid:
            raise RuntimeError(f"worker.once: {what} was called in a process that the body has started, which leaves nothing.")

    def _entered(self, value: Any, opened: _Open, told: Callable[[], None]) -> Any:
        """Enter what is a context manager, and return what it gives; a lock is none here: it would be held by nobody's wish."""
        kind = type(value)
        enters, leaves = (definer(kind, name) for name in _ENTERED)
        if definer(kind, "__await__") or (definer(kind, "__aenter__") and not enters):
            if kind is CoroutineType:
                value.close()
            raise TypeError(_AWAITED.format(what=f"the {type_name(value)} that {opened.label} returned"))
        if not enters or not leaves or all(definer(kind, name) for name in _LOCKS):
            return value
        self._refuse(opened.label, None)  # by now the worker may have ended, where a thread of the body's asks
        given = kind.__enter__(value)
        self._open.append(opened._replace(manager=value))
        told()
        return given

    def leave(self, worker: Any, told: Callable[[], None]) -> None:
        """Leave all, what was made last first, and let go of it; what that raises becomes a note. By the worker's own thread."""
        self._over, rank = True, worker.rank
        if os.getpid() != self._pid:
            return
        while self._open:
            opened = self._open[-1]
            worker.rank = opened.rank
            try:
                type(opened.manager).__exit__(opened.manager, None, None, None)
            except Ended:
                self.notes.append(f"Worker {opened.rank} was ended while it left what {opened.label} made by worker.once.")
            except BaseException as error:  # noqa: BLE001  (the user's: all others are left as well)
                raised = "Worker {rank} could not leave what {made} made by worker.once: {error}"
                self.notes.append(say(raised, rank=opened.rank, made=opened.label, error=described(error)))
            self._open.pop()
            told()
            del opened
        worker.rank = rank
        self._things.clear()
