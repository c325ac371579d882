"""Inside a worker: who it is, and its items, one after another.

A worker reads the wall clock around every item; its meter is read now and
then, see :mod:`parmagic.record.meter`.
"""

from __future__ import annotations

import os
import traceback
from array import array
from collections.abc import Callable, Hashable, Sequence
from time import perf_counter, perf_counter_ns
from typing import Any, NoReturn, Protocol, cast

from parmagic.errors import Ended, Entangled
from parmagic.model.plan import Plan
from parmagic.model.recording import Batch
from parmagic.model.words import traceback_of, with_traceback
from parmagic.record.board import NOTHING, OPEN, SINCE, STOP, TRY, Board, item_slot
from parmagic.record.meter import Meter
from parmagic.record.once import Kept
from parmagic.system.real import local


class Broke(BaseException):
    """The body has broken the loop: nothing more is to be started."""


class Guard(Protocol):
    """What a try of an item is ended by from outside when its time is over."""

    def begin(self) -> None:
        """From here on it may be ended."""
        ...

    def end(self) -> bool:
        """From here on it is not; tell whether it was: what was raised for that comes here at the latest. May be called twice."""
        ...


class Worker:
    """What the body knows as ``worker``.

    ``rank`` counts from 0, ``count`` is the number of workers in the arm,
    ``model`` is ``serial``, ``threads``, ``procs`` or another one that is registered. ``plan`` is the run's.
    ``guard`` is what ends a try of an item whose time is over, ``tried`` how often items were tried until now.
    """

    __slots__ = ("_board", "_kept", "_plan", "_rng", "_slot", "count", "guard", "model", "rank", "tried")
    _broke = Broke

    def __init__(self, rank: int, count: int, model: str, plan: Plan) -> None:
        self.rank = rank
        self.count = count
        self.model = model
        self._plan = plan
        self._board: Board = [NOTHING]
        self._slot = 0
        self._rng: tuple[int | None, Any] = (None, None)  # of which item it is
        self._kept = Kept()
        self.guard: Guard | None = None
        self.tried: dict[int, int] = {}

    @property
    def item(self) -> int:
        """The number of the item that runs, from 0; without a ``for``, the rank."""
        return self._board[self._slot]

    @property
    def rng(self) -> Any:
        """A NumPy generator of random numbers that is the item's own: ``default_rng(SeedSequence(seed, spawn_key=(item,)))``.

        It is made when it is first asked for. Whoever runs the item, in whatever order, draws the same
        numbers, with ``--seed N`` in every run. Raises ImportError where there is no NumPy.
        """
        item = self.item
        if self._rng[0] != item:
            self._rng = item, _generator(self._seed, item)
        return self._rng[1]

    def once(self, make: Callable[[], Any], *, key: Hashable = None) -> Any:
        """Return the object that this worker made with ``make()`` at its first call: a connection, a model, a session.

        It is known by the code of ``make``, or by ``key``, and the rank; where ``make()`` raises, the next call tries again.
        A context manager is entered, and left by this worker when it has done its items, as if its block had ended well:
        what that raises is noted. Raises ValueError for a ``make`` without a key that closes over what the body or the
        clause binds, TypeError for what is asynchronous.
        """
        __tracebackhide__ = True  # IPython leaves such frames out
        return self._kept.once(self, make, key, self._tell_open)

    def _tell_open(self) -> None:
        self._board[self._slot + OPEN] = self._kept.n_open

    @property
    def keeps(self) -> bool:
        """Whether it has made something that it has to leave, or to let go of."""
        return bool(self._kept)

    def made_in(self) -> tuple[int, ...]:
        """Return the items in which something was made since last asked."""
        made = self._kept.items
        if not made:
            return ()
        self._kept.items = []
        return tuple(dict.fromkeys(made))

    def leave(self) -> None:
        """Leave what was made once, and let go of it; to be called by the worker itself, behind its last item, whatever has ended it."""
        self._kept.leave(self, self._tell_open)

    @property
    def _seed(self) -> int:
        return self._plan.fresh_seed if self._plan.seed is None else self._plan.seed

    @property
    def is_to_stop(self) -> bool:
        """Whether nothing more is to be started."""
        return bool(self._board[STOP])

    def watch(self, board: Board, slot: int) -> None:
        """Know from now on by a place of a board which item it is on."""
        self._board, self._slot = board, slot

    def begin_try(self, number: int) -> None:
        """Try the item for the ``number``-th time: its random numbers begin anew, and the board tells since when."""
        self._rng = None, self._rng[1]
        self._board[self._slot + TRY] = number
        self._board[self._slot + SINCE] = perf_counter_ns()

    def end_try(self) -> None:
        """The try is over."""
        self._board[self._slot + SINCE] = 0
        self._board[self._slot + TRY] = 0

    def take_tries(self, items: range) -> dict[int, int]:
        """Return how often each of these was tried that needed more than one try, and forget it."""
        return {item: self.tried.pop(item) for item in items if item in self.tried}

    def notes(self) -> list[str]:
        """Return what is to be said of what it was asked for: the seed, where that is the run's own; what could not be left."""
        if self._rng[1] is None or self._plan.seed is not None:
            return self._kept.notes
        return [*self._kept.notes, f"worker.rng drew from seed {self._seed}: --seed {self._seed} gives the same numbers again."]

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to a process that the body starts as it is now: there nobody goes on to another item."""
        return _elsewhere, (self.rank, self.count, self.model, self._plan, self.item)

    def __repr__(self) -> str:
        """Show all three."""
        return f"<worker {self.rank} of {self.count}, {self.model}>"


def _elsewhere(rank: int, count: int, model: str, plan: Plan, item: int) -> Worker:
    made = Worker(rank, count, model, plan)
    made.watch([item], 0)
    made._kept.elsewhere()  # noqa: SLF001  (its own)
    return made


def _generator(seed: int, item: int) -> Any:
    try:
        from numpy.random import SeedSequence, default_rng  # noqa: PLC0415  (loads when it is asked for)
    except ImportError as error:
        raise ImportError("worker.rng is a generator of NumPy's, which is not installed: pip install numpy") from error
    return default_rng(SeedSequence(seed, spawn_key=(item,)))


Call = Callable[[Any, Worker], Any]
"""How a body is called: with an item, and the worker that runs it."""

_here = local()


def current_worker() -> Worker:
    """Return the worker that runs the calling thread.

    Raises RuntimeError outside of a parallel body.
    """
    try:
        worker: Worker = _here.worker
    except AttributeError:
        raise RuntimeError("there is no worker here: this thread runs no parallel body") from None
    return worker


def enter(worker: Worker | None) -> None:
    """Make ``worker`` the calling thread's, or take it away with None."""
    if worker is not None:
        _here.worker = worker
    elif hasattr(_here, "worker"):
        del _here.worker


def _instead(error: BaseException) -> BaseException | None:
    """Return what an item fails with whose wait was ended; no code of an exception's class, which may be the user's, is asked."""
    return cast("Entangled", error).instead if issubclass(type(error), Entangled) else None


def perform(
    call: Call,
    items: Sequence[Any],
    claim: range,
    worker: Worker,
    meter: Meter,
    board: Board,
    *,
    keep_going: bool,
) -> Batch:
    """Run ``call(item, worker)`` for the claimed item numbers and record each.

    ``items[0]`` is item ``claim.start``. Ends early when the board says stop,
    after an exception unless ``keep_going``, on :class:`Ended`, and on :class:`Broke`, which is no error.
    """
    begins, ends = array("d"), array("d")
    values: list[Any] = []
    errors: dict[int, BaseException] = {}
    clock, slot, every, forks = perf_counter, item_slot(worker.rank), meter.every, _forks
    worker.watch(board, slot)
    first = index = claim.start
    checked = begin = clock()
    while index < claim.stop:
        try:
            for index in range(index, claim.stop):  # noqa: B020  (goes on behind a failed item)
                if board[STOP]:
                    return Batch(first, begins, ends, values, errors)
                board[slot] = index
                begin = clock()
                value = call(items[index - first], worker)
                if _forks != forks:
                    os._exit(0)
                end = clock()
                begins.append(begin)
                ends.append(end)
                values.append(value)
                if end - checked > every:
                    meter.read()
                    checked = end
            break
        except BaseException as error:  # noqa: BLE001  (it is the user's: recorded, and raised by the run)
            if _forks != forks:
                _exit_by(error)
            done = len(values)
            del begins[done:], ends[done:]
            if first + done == index:
                begins.append(begin)
                ends.append(clock())
                values.append(None)
                if type(error) is Broke:
                    board[STOP] = 1
                    return Batch(first, begins, ends, values, errors, index)
                errors[index] = _instead(error) or _below(error)
            if issubclass(type(error), Ended) or not keep_going:
                board[STOP] = 1
                break
            index += 1
    return Batch(first, begins, ends, values, errors)


_forks = 0
"""How many forks there are from the first process to this one: where an item ends in another one than it began in, a body has forked."""


def _is_forked() -> None:
    global _forks  # noqa: PLW0603
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_is_forked)


def _exit_by(error: BaseException) -> NoReturn:
    """End a process that the body forked, and that came back from the body: the items are its parent's."""
    if issubclass(type(error), SystemExit):
        code = getattr(error, "code", 1)
        os._exit(code if type(code) is int else int(code is not None))
    traceback.print_exception(error)
    os._exit(1)


def _below(error: BaseException) -> BaseException:
    """Return ``error`` with our own frames, which are the outermost, taken off its traceback."""
    trace = traceback_of(error)
    while trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith("parmagic."):
        trace = trace.tb_next
    return with_traceback(error, trace)
