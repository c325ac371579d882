"""Threads that wait for each other in a circle, or for who will not come: found where their locks are, and ended in their waits."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from time import perf_counter
from types import FrameType, ModuleType
from typing import Any

from parmagic.errors import Deadlock, Entangled, Stuck
from parmagic.model.classes import attributes_of, module_of
from parmagic.record import entangled, objects, stuck
from parmagic.record.children import Children
from parmagic.record.hooks import extension
from parmagic.record.notices import Notice, Row
from parmagic.record.waiting import Called, Held, Waiter, held_here, lost_here, waiters
from parmagic.system.interrupts import raise_in
from parmagic.system.real import Lock, get_ident, is_ours, sleep

SURE = 0.2
"""Seconds for which a circle has to stand: who has just been woken does not know yet that it has what it wanted."""

OWN = "Each process has its own of these: what another one does there does not come here. Those of multiprocessing are for all."

GRACE = 1.0
"""Seconds in which a thread ends whose wait was ended."""

PATIENCE = 0.2
"""Seconds for which a look waits for that of another thread, which may be kept from going on by what we have."""

SURE_OF_ALL = 0.8
"""Seconds for which all have to wait, where that is no circle: code that is no Python's may still call who wakes them."""

_KERNELS = frozenset(
    {
        "IPython", "ipykernel", "ipyparallel", "jupyter_client", "prompt_toolkit", "tornado", "traitlets", "zmq",
        "debugpy", "pydevd", "tqdm", "viztracer",
    },
)  # fmt: skip
"""Packages whose threads wake nobody in a body."""


_WAKING = {
    *(getattr(signal, name, 0) for name in ("SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGIO")),
    *range(getattr(signal, "SIGRTMIN", 0), getattr(signal, "SIGRTMAX", -1) + 1),
}
"""Signals that come when something has happened, or are programs' own; the others ask for an end, or are errors."""


class Circles:
    """Looks for them in one run's threads in this process, from ``__enter__`` to ``__exit__``: those who wait for long do it.

    ``alive`` returns the idents of the workers' threads, ``children`` are the threads that these have started, with the body, by whose
    names things are called. ``shared`` says that other workers have the same memory.
    """

    def __init__(self, alive: Callable[[], Collection[int]], children: Children, *, shared: bool) -> None:
        self._alive = alive
        self._children = children
        self._shared = shared
        self._watcher = get_ident()
        self._looking = Lock()
        self._seen: tuple[frozenset[tuple[int, int, float]], float] = (frozenset(), 0.0)
        self._left: list[tuple[int, Held]] = []
        self._called: list[tuple[int, Called]] = []
        self._told: set[int] = set()  # idents of threads below workers whose waits were ended
        self.outsiders = False  # all wait, and somebody may wake them who is none of the run's
        self._extension: ModuleType | None = None
        self._row: Row | None = None
        self._over: set[tuple[int, float]] = set()  # waits that the notebook has ended
        self._met: dict[tuple[int, float], str | None] = {}  # waits that were seen before, and what is waited for, once that is known

    def begin(self, *, measuring: bool) -> None:
        """Have who waits for long look, where waits are measured."""
        self._extension = extension()[0] if measuring else None
        if self._extension is not None:
            self._extension.look_with(self.look)

    @property
    def measures(self) -> bool:
        """Whether waits are measured here, and looked at."""
        return self._extension is not None

    def tell(self, row: Row) -> None:
        """Tell the notebook from now on who waits here for long, and end the waits that it ends: it sees all processes of the arm."""
        self._row = row
        if self._extension is not None:
            self._extension.look_with(self.look, row.told)

    def end(self) -> None:
        """Have nobody look any more; wait, for a moment at most, until the threads below workers have ended whose waits were."""
        if self._extension is not None:
            self._extension.look_with(None)
            self._extension = None
        self._alive = tuple  # nobody; and no circle of references with who was asked
        until = perf_counter() + GRACE
        while self._told & self._children.running().keys() and perf_counter() < until:
            sleep(0.001)

    def leaves(self, rank: int) -> None:
        """Note what the calling thread, which ends, has and will never let go of, and whom it called in vain."""
        if self._extension is not None:
            self._left += [(rank, each) for each in held_here(self._extension)]
            self._called += [(rank, each) for each in lost_here(self._extension)]

    def look(self, was_told: bool = False) -> None:
        """Where threads stand still for good, end their waits; where the notebook is known to have ended some, see to it that those end."""
        if self._looking.acquire(timeout=PATIENCE if was_told else 0):
            try:
                self._look()
            finally:
                self._looking.release()

    def _look(self) -> None:
        threads, self.outsiders = waiters(), False
        waiting = self._waiting(threads)
        circle = entangled.certain(self._of_ours(threads), all_wait=bool(waiting), outsiders=self.outsiders)
        still = circle or ([] if self.outsiders else waiting)
        if self._row is not None and not circle:
            if self._agreed(self._row, threads, still):
                return
            if any(each.is_between for each in threads):
                still = []  # whether another process wakes them, the notebook knows
        key, now = frozenset((each.serial, each.wants, each.since) for each in still), perf_counter()
        before, since = self._seen
        self._seen = key, since if key == before else now
        if not still or key != before or now - since < (SURE if circle else SURE_OF_ALL):
            return
        self._seen = frozenset(), 0.0
        handles = {each.serial for each in still}
        self._end(still, handles, threads, self._deadlock(circle, now) if circle else self._stuck(still, threads, now))

    def _of_ours(self, threads: list[Waiter]) -> list[Waiter]:
        """Return the same threads, without what they have that another worker's process may let go of: of that, the notebook knows."""
        if self._row is None:
            return threads
        return [each._replace(held=[has for has in each.held if has.own or not has.is_between]) for each in threads]

    def _agreed(self, row: Row, threads: list[Waiter], still: list[Waiter]) -> bool:
        """Tell the notebook of these threads, and end the waits that it has ended; return whether there were such."""
        before, waiting = self._met, [each for each in threads if each.wants]
        self._met = {(each.serial, each.since): before.get((each.serial, each.since)) for each in waiting}
        unnamed = [each for each in waiting if before.get((each.serial, each.since), "") is None]  # that takes a while: not in a short wait
        names = self._names(unnamed)
        self._met.update({(each.serial, each.since): names[each.serial] for each in unnamed})
        called = {each.serial: self._met[each.serial, each.since] or "a lock" for each in waiting}
        who, why = self._who(), {each.serial: stuck.why(each) for each in waiting}
        handles = [each.serial for each in still]
        row.tell(Notice(perf_counter(), os.getpid(), handles, threads, called, {each.serial: who(each) for each in threads}, why))
        for verdict in row.verdicts():
            told = [each for each in waiting if (each.rank, each.serial, each.since) in verdict.told]
            new = {(each.serial, each.since) for each in told} - self._over
            if new:
                self._over |= new
                all_told = {serial for rank, serial, _ in verdict.told if rank == told[0].rank}  # some may have ended by now
                self._end(told, all_told, threads, (Stuck if verdict.stuck else Deadlock)(verdict.text))
                return True
        return False

    def _waiting(self, threads: list[Waiter]) -> list[Waiter]:
        """Return who waits, where all do for as long as it takes; else nobody. Note whether somebody else is there who may wake them."""
        below = self._children.running()
        known = {*self._alive(), *below}
        if not threads or not known <= {each.ident for each in threads}:
            return []  # one begins, or ends
        waiting = [each for each in threads if each.patient]
        frames = sys._current_frames()  # noqa: SLF001  (where the others are)
        try:
            all_wait = bool(waiting) and all(each.patient or _only_waits(frames.get(each.ident)) for each in threads)
            between = any(each.is_between for each in waiting)
            self.outsiders = all_wait and (_may_wake({*known, self._watcher}) or (between and _has_processes()))
            return [each for each in waiting if not _feeds(frames.get(each.ident))] if all_wait else []
        finally:
            frames.clear()  # this frame is among them: it would hold itself, and what the body has below it

    def _deadlock(self, circle: list[Waiter], now: float) -> Deadlock:
        return Deadlock(entangled.words(circle, now, self._names(circle), self._who()))

    def _stuck(self, still: list[Waiter], threads: list[Waiter], now: float) -> Stuck:
        who = self._who()
        holders = {held.lock: f"{who(each)} took at {held.place} and has not let go of" for each in threads for held in each.held}
        for rank, held in self._left:
            holders.setdefault(held.lock, f"worker {rank}, which has ended, took at {held.place} and has not let go of")
        calls = [*((f"worker {rank}", call) for rank, call in self._called), *((who(each), call) for each in threads for call in each.lost)]
        text = stuck.words(still, now, self._names(still), who, holders, {each.serial: stuck.why(each) for each in still}, calls)
        between = any(each.is_between for each in still)
        return Stuck(text if self._shared or between else f"{text}\n{OWN}")

    def _names(self, threads: list[Waiter]) -> dict[int, str]:
        """Return what things are called that are waited for, by the handles of those who wait for them."""
        names = {_address(each.thing): name for each in threads for name in _local_names(each)}
        known = objects.names(self._children.function, {_address(each.thing) for each in threads}, 1.0) if threads else {}
        names |= {thing: each.name for thing, each in known.items()}
        return {each.serial: stuck.called(each, names.get(_address(each.thing))) for each in threads}

    def _who(self) -> Callable[[Waiter], str]:
        below = self._children.running()
        return lambda each: f"worker {each.rank} › {below[each.ident]}" if each.ident in below else f"worker {each.rank}"

    def _end(self, still: list[Waiter], told: set[int], threads: list[Waiter], error: Deadlock) -> None:
        """Raise in the waits, and in the worker below which a thread was: its item is what fails, unless it was ``told`` before."""
        waits = self._extension
        ranks, workers = {each.rank for each in still}, {*self._alive()}
        if waits is None:
            return
        self._told = {each.ident for each in still} - workers
        if self._told:
            self._children.hush()
        for each in threads:
            is_told = each.serial in told
            if is_told or (each.rank in ranks and each.ident in workers):
                kind = type("Entangled", (Entangled,), {"instead": error})
                ended = each.patient and waits.end_wait(each.serial, kind())
                if not ended and not is_told:  # else it has what it wanted, and goes on
                    raise_in(each.ident, kind)


def _address(thing: Any) -> int:
    """Return the address by which things are looked for: of a lock between processes, that of its semaphore."""
    return int(thing.handle) if module_of(type(thing)) == "_multiprocessing" else id(thing)


def _local_names(waiter: Waiter) -> Iterator[str]:
    """Yield what a thing is called in the function that waits for it."""
    frame = sys._current_frames().get(waiter.ident)  # noqa: SLF001
    while frame is not None and frame.f_code.co_filename != waiter.file:
        frame = frame.f_back
    for name, value in frame.f_locals.items() if frame is not None else ():
        if name != "self" and any(each is waiter.thing for each in (value, (attributes_of(value) or {}).get("_semlock"))):
            yield name


def _only_waits(frame: FrameType | None) -> bool:
    """Tell whether a thread waits in a pool for work."""
    if frame is None:
        return False
    return frame.f_code.co_name == "_worker" and frame.f_globals.get("__name__") == "concurrent.futures.thread"


def _feeds(frame: FrameType | None) -> bool:
    """Tell whether a thread is a queue's own, which sends what was put there."""
    while frame is not None and frame.f_code.co_name != "_feed":
        frame = frame.f_back
    return frame is not None and frame.f_globals.get("__name__") == "multiprocessing.queues"


def is_alone() -> bool:
    """Tell whether nobody here, where the calling thread only listens, may wake those who wait in processes that were started here."""
    return not (_may_wake({get_ident()}) or _has_processes())


def _has_processes() -> bool:
    """Tell whether multiprocessing has started processes here of which nobody has taken the end yet."""
    return bool(getattr(sys.modules.get("multiprocessing.process"), "_children", None))


def _may_wake(known: set[int]) -> bool:
    """Tell whether a thread is there, or a signal may come, by which the user may wake who waits."""
    frames = sys._current_frames()  # noqa: SLF001
    try:
        return any(_is_foreign(ident, frames[ident]) for ident in frames.keys() - known) or any(_signals())
    finally:
        frames.clear()  # this one is among them


def _is_foreign(ident: int, frame: FrameType) -> bool:
    thread = threading._active.get(ident)  # type: ignore[attr-defined]  # noqa: SLF001  (its lock may be held by who waits)
    kernels = module_of(type(thread)).partition(".")[0] in _KERNELS or _runs_kernels(thread)
    return not (is_ours(thread) or kernels or (_feeds(frame) and _waits_for_work(frame)))


def _waits_for_work(frame: FrameType) -> bool:
    """Tell whether a queue's own thread waits until somebody puts something there: all that was there before, it has sent."""
    own = frame.f_locals.get("self")
    return frame.f_code.co_name == "wait" and frame.f_globals.get("__name__") == "threading" and module_of(type(own)) == "threading"


def _runs_kernels(thread: Any) -> bool:
    """Tell whether a plain thread was started for a function of a kernel's."""
    target = getattr(thread, "_target", None)
    return str(getattr(target, "__module__", "")).partition(".")[0] in _KERNELS


def _signals() -> Iterator[bool]:
    """Yield whether there are handlers of the user's for signals that come by themselves, or by others."""
    if hasattr(signal, "getitimer"):
        yield signal.getitimer(signal.ITIMER_REAL)[0] > 0 and callable(signal.getsignal(signal.SIGALRM))
    for number in _WAKING & signal.valid_signals():
        yield callable(signal.getsignal(number))
