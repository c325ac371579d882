"""What is made once a run for the workers of its arms: what has to be shipped or forked for them."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import ModuleType
from typing import TYPE_CHECKING, Any

from parmagic.errors import NotShippable, ParmagicError
from parmagic.model.plan import Arm, Plan
from parmagic.model.timeline import Packed
from parmagic.record.items import Call
from parmagic.system.interrupts import held_back
from parmagic.system.real import patched_threads
from parmagic.workers import patched
from parmagic.workers.loop import names_around
from parmagic.workers.processes import capacity, covered, forkable, forked, hub, preload
from parmagic.workers.processes.isolated import IsolatedWorkers
from parmagic.workers.processes.orders import ForkOnly
from parmagic.workers.processes.watch import watch

if TYPE_CHECKING:
    from parmagic.workers.processes.ship import Cargo, Weight

HEAVY_BYTES, HEAVY_SECONDS = 10_000_000, 0.1
"""A name that takes this much to ship is named in the notes, and so are items that do together."""

FORKED = (
    "The body uses multiprocessing primitives of the fork context (the default up to Python 3.13), so the workers were "
    "forked from the notebook. multiprocessing.get_context('forkserver').Lock() and the like need no fork."
)

_GREENLETS = (
    "{who} has patched threading: its threads are greenlets of one thread, which take turns. "
    "Use procs=N or serial here, or {patch} in a new session."
)
_PATCHES = {"gevent": "gevent.monkey.patch_all(thread=False)", "eventlet": "eventlet.monkey_patch(thread=False)"}


class Supply:
    """What the workers of one run live on: a cargo packed once, a server, or a fork of the notebook."""

    def __init__(self, call: Call, items: Sequence[Any], plan: Plan, names: frozenset[str]) -> None:
        self._call = call
        self._items = items
        self._plan = plan
        self._names = names
        self._space = names_around(call) or vars(sys.modules["__main__"])
        self._modules: list[str] | None = None  # what the notebook has imported
        self._cargo: Cargo | None = None
        self._server: hub.Hub | None = None  # borrowed, for all arms and the baseline
        self._fork: hub.Hub | None = None
        self._forks: list[hub.Hub] = []
        self._room = ExitStack()
        self._closed = False
        self.notes: list[str] = []
        # whether a serial run has to be apart from the arms, which change what it reads
        self.shares_memory = any(arm.model.shares_memory and not arm.model.one_at_a_time for arm in plan.arms)
        self._processes = [arm for arm in plan.arms if arm.model.own_process and arm.model.same_host]

    def prepare(self) -> None:
        """Pack or fork what processes need, with the memory as it is before the first arm."""
        if self.shares_memory and (who := patched_threads()):
            raise ParmagicError(_GREENLETS.format(who=who, patch=_PATCHES[who]))
        hub.hold(starts=bool(self._processes))
        if not self._processes:
            return
        if not hub.supported():
            raise ParmagicError("Processes need a system that can fork (Linux, macOS); this one cannot. Use threads here.")
        largest = max(self._processes, key=lambda arm: arm.count)
        self._room.enter_context(capacity.made(largest.count, largest.label))
        self.notes += covered.left_out()
        if self._plan.start_method == "fork":
            self._fork_now("--start-method fork", "leave --start-method away: processes then start from a clean one")
            return
        try:
            hub.get()
            self._modules = hub.refresh(self._space)  # while we pack
            cargo = self.cargo()
            self.notes += [*_heavy(cargo.weights), *_heavy_items(cargo.items), *_emptied(cargo.emptied), *_apart(cargo.apart), *cargo.unset]
            self.notes += self._same_generators() + _replaced(patched.replaced(cargo.modules))
        except ForkOnly:
            if self._plan.start_method is not None:
                raise NotShippable(
                    "The body uses multiprocessing primitives of the fork context, which only forked workers can share. "
                    f"Make them with multiprocessing.get_context({self._plan.start_method!r}) instead."
                ) from None
            self._fork_now("multiprocessing primitives of the fork context", "make them with multiprocessing.get_context('forkserver')")
            self.notes.append(FORKED)

    def _same_generators(self) -> list[str]:
        """Say which random generators every worker gets in the same state: they draw the same numbers."""
        generators = self.cargo().generators
        if not generators:
            return []
        names = {id(value): name for name, value in sorted(self._space.items(), reverse=True)}
        known = {id(each): (names.get(id(each), ""), through) for each, through in generators}
        found = sorted(name if name in self._names else _reached(name, through) for name, through in known.values())
        one = next((name for name, _ in known.values() if name), "rng")
        advice = f"worker.rng is each item's own, and {one}.spawn(worker.count)[worker.rank] of a NumPy generator each worker's."
        return [f"{', '.join(found)}: shipped in one state to all processes, which therefore draw the same numbers. {advice}"]

    @property
    def modules(self) -> list[ModuleType]:
        """The modules that the body reads, as far as it was packed."""
        return [] if self._cargo is None or self._fork is not None else self._cargo.modules

    def _fork_now(self, reason: str, instead: str) -> None:
        why_not = forkable.obstacle()
        if why_not is not None:
            advice = why_not.first + instead
            raise NotShippable(
                f"This run needs to fork the notebook ({reason}), which is not safe: {why_not.why}. {advice[0].upper()}{advice[1:]}."
            )
        hub.hold(starts=False)
        self._fork = self.fork(self._call, self._items)

    def fork(self, call: Call, items: Sequence[Any]) -> hub.Hub:
        """Fork a server off the notebook; it lives until this supply is closed."""
        with held_back():
            self._forks.append(forked.fork(call, items))
        return self._forks[-1]

    def cargo(self) -> Cargo:
        """Return the packed body and items, packing them on the first call.

        Raises NotShippable, which names what cannot be pickled, or ForkOnly.
        """
        if self._cargo is None:
            from parmagic.workers.processes.ship import Cargo  # noqa: PLC0415  (cloudpickle loads when something is shipped)

            self._cargo = Cargo(self._call, self._items, self._names)
        return self._cargo

    def packed(self, arm: Arm) -> Packed | None:
        """Return what packing took, for an arm that lives on it."""
        if self._cargo is None or arm.model.shares_memory or self._fork is not None:
            return None
        return Packed(self._cargo.size, self._cargo.seconds)

    def isolated(self) -> IsolatedWorkers:
        """Return workers with memory of their own."""
        if self._fork is not None:
            return IsolatedWorkers(self._fork, None)
        return IsolatedWorkers(self._borrowed(), self.cargo())

    def _borrowed(self) -> hub.Hub:
        """Return the server, another one where an arm has lost it."""
        if self._server is not None and self._server.alive():
            return self._server
        self._return()
        if self._modules is None:
            self._modules = preload.wanted(self._space)
        until = time.monotonic() + self._plan.timeout if self._plan.timeout else math.inf
        self._server, notes = hub.borrow(self._modules, until)
        self.notes += notes
        return self._server

    def wait_for_the_sampler(self) -> None:
        """Have what infers waits be there when the first arm begins; what starts processes comes before it."""
        if self._processes and self._fork is None:
            self._borrowed()
        watch.wait_until_ready()

    def _return(self) -> None:
        borrowed, self._server = self._server, None
        if borrowed is not None:
            hub.give_back(borrowed)

    def close(self) -> None:
        """Give everything back; once."""
        if self._closed:
            return
        for fork in self._forks:
            fork.close()
        if self._cargo is not None:
            self._cargo.close()
        self._return()
        self._room.close()
        shipped = self._cargo is not None and self._plan.start_method is None
        hub.spare(max((arm.count for arm in self._processes), default=1) if shipped else None)
        self._closed = True


def _emptied(names: Sequence[str]) -> list[str]:
    """Say which functions have caches that the workers begin without."""
    different = list(dict.fromkeys(names))  # one that calls itself is met twice
    if not different:
        return []
    return [f"What the cache of {', '.join(different[:5])} holds stayed in the notebook: in every process it begins empty."]


def _apart(names: Sequence[str]) -> list[str]:
    """Say of which tensors that share their memory with other processes each worker has a copy."""
    if not names:
        return []
    apart = "tensors in shared memory, of which each process has a copy of its own. multiprocessing.Array is shared with all."
    return [f"{', '.join(names[:5])}: {apart}"]


def _replaced(names: Sequence[str]) -> list[str]:
    """Say what the notebook has put into modules, and processes have not."""
    if not names:
        return []
    here = f"{', '.join(names[:5])}: put into {'its module' if len(names) == 1 else 'their modules'} by the notebook"
    return [f"{here}; processes import modules as they are. Do it in the body, too, or use threads, or --start-method fork."]


def _heavy(weights: Sequence[Weight]) -> list[str]:
    """Name what took most to ship."""
    heavy = [w for w in weights if _is_heavy(w)]
    largest = sorted(heavy, key=lambda w: -w.size)[:3]
    names = "; ".join(f"{w.name}: {w.size / 1e6:.0f} MB, {w.seconds:.2f} s" for w in largest)
    return [f"The largest names that were shipped to processes: {names}."] if names else []


def _is_heavy(weight: Weight) -> bool:
    return weight.size >= HEAVY_BYTES or weight.seconds >= HEAVY_SECONDS


def _heavy_items(weight: Weight) -> list[str]:
    """Tell what the items took to ship, where that is much."""
    said = f"The items that were shipped to processes took {weight.size / 1e6:.0f} MB, {weight.seconds:.2f} s."
    instead = "Loop over what is small: a path, or a place in a name that the body reads, whose memory all workers share."
    return [f"{said} {instead}"] if _is_heavy(weight) else []


def _reached(name: str, through: str) -> str:
    """Name a generator that the body does not: by the notebook's name for it, and that of the body's which leads to it."""
    known = name or "a random generator"
    return f"{known} (by way of {through})" if through else f"{known} (the body holds it)"
