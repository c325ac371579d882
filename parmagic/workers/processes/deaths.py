"""What becomes of a crew where something happens to one of its processes: a table, written as a function.

::

    State (of the worker and its crew) + Event (what happened) ── decide ──▶ Action, Action, …

The crew carries the actions out, in their order. Nothing in here looks at a process, a file or a clock.
"""

from __future__ import annotations

from typing import NamedTuple, assert_never

from parmagic.errors import ItemTimeout, LimitReached, NotShippable, ParmagicError, WorkerDied
from parmagic.system.limits import why_not
from parmagic.workers.dispatch import Share, lost
from parmagic.workers.endings import how_it_ended, over_time


class State(NamedTuple):
    """What is known of a worker and its crew when something happens to it.

    ``share`` is how the items are shared out: in ``common``, in claims that are ``fixed`` from the beginning, or each worker has
    its ``own``, and all start together.
    """

    rank: int
    workers: int
    n_items: int
    share: Share
    keep_going: bool
    greeted: bool  # it has said that it is there,
    all_greeted: bool  # and so has every other one
    done: bool  # it has said its last word
    ended: bool
    fault: str  # what was wrong with what it has sent
    mark: int  # what it wrote in the place of its current item
    had: tuple[range, ...]  # all that it had claimed, in the order in which it runs that
    claimed_until: int  # the item behind the last one that it claimed of what is in common
    reported: int  # the item behind the last one that it reported
    tries: int = 1  # how often it, and others before, have tried the item that it was on, and how often more that may be
    retry: int = 0
    overdue: int | None = None  # the item that it was ended for, as that was over its time,
    allowed: float = 0.0  # which is so many seconds

    @property
    def replaces(self) -> bool:
        """Whether another worker takes a dead one's place."""
        return self.keep_going and self.share == "common"

    @property
    def tries_again(self) -> bool:
        """Whether the item that it was on is to be tried once more."""
        return self.tries <= self.retry

    @property
    def none_left(self) -> bool:
        """Whether no item is left that a worker in its place could claim."""
        return self.share != "common" or self.claimed_until >= self.n_items


class Refused(NamedTuple):
    """The system has no process for it: its error's number and text."""

    number: int
    text: str


class Died(NamedTuple):
    """Its process has ended, and all that it had sent was taken; ``code`` is negative for a signal."""

    pid: int
    code: int


class HungUp(NamedTuple):
    """Its way to us is closed; its end comes, or has come."""


class Distrusted(NamedTuple):
    """It sent what cannot be right, so what would come next cannot be read either."""

    fault: str


class Exhausted(NamedTuple):
    """A limit of the system was reached, in the worker or here, so that no result can arrive."""

    text: str
    cause: BaseException | None = None


class BodyUnreadable(NamedTuple):
    """It cannot unpickle the body; ``hint`` is what may be the cause."""

    why: str
    hint: str = "Is a module missing, or does it live only in the notebook?"


class ResultUnreadable(NamedTuple):
    """What it sent can be unpickled there, and not here."""

    why: str
    cause: BaseException | None = None


Event = Refused | Died | HungUp | Distrusted | Exhausted | BodyUnreadable | ResultUnreadable
"""Something that has happened to a worker."""


class Ignore(NamedTuple):
    """Take nothing from this worker any more; ``fault`` is what was wrong with what it has sent."""

    fault: str = ""


class Kill(NamedTuple):
    """End this worker: it counts as died."""


class Replace(NamedTuple):
    """Start another worker of this rank, which runs first what the dead one has left undone; it has ``tried`` that so often."""

    undone: tuple[range, ...]
    tried: dict[int, int] = {}  # noqa: RUF012  (nobody writes to it)


class Stop(NamedTuple):
    """Let no worker begin another item."""


class Dismiss(NamedTuple):
    """End all others: they wait for this one, and would forever."""


class Fail(NamedTuple):
    """Report the item that the worker was on as failed, with an error of this kind and text."""

    item: int
    text: str
    kind: type[ParmagicError] = WorkerDied


class TryAgain(NamedTuple):
    """Tell of a death that has cost a try of this item, and no more."""

    item: int
    text: str


class Note(NamedTuple):
    """Tell of a death that has cost no item."""

    text: str


class Abort(NamedTuple):
    """End the arm with this error."""

    kind: type[ParmagicError]
    text: str
    cause: BaseException | None = None


Action = Ignore | Kill | Replace | Stop | Dismiss | Fail | TryAgain | Note | Abort
"""Something that the crew is to do."""


def decide(state: State, event: Event) -> tuple[Action, ...]:
    """Return what the crew is to do about an event, in this order."""
    match event:
        case Died(pid, code):
            return () if state.done else _died(state, pid, code)
        case Refused(number, text):
            return (Abort(WorkerDied, f"Worker {state.rank} of {state.workers} could not be started: {why_not(number, text)}"),)
        case HungUp():
            return (Ignore(),)
        case Distrusted(fault):
            return (Ignore(fault),) if state.ended else (Ignore(fault), Kill())
        case Exhausted(text, cause):
            return (Abort(LimitReached, text, cause),)
        case BodyUnreadable(why, hint):
            return (Abort(NotShippable, f"A worker process cannot read the body: {why.rstrip('.')}. {hint}".rstrip()),)
        case ResultUnreadable(why, cause):
            instead = "Return what is in it (a list, an array, a number), or use threads."
            return (Abort(NotShippable, f"A result of worker {state.rank} cannot be read here ({why}). {instead}", cause),)
        case _:
            assert_never(event)


def _died(state: State, pid: int, code: int) -> tuple[Action, ...]:
    """Return what a worker's end leads to that has not said its last word before."""

    def told(when: str) -> str:
        if state.overdue is not None:
            return f"Worker {state.rank} (process {pid}) was ended {when}, which {over_time(state.allowed)}."
        return f"Worker {state.rank} (process {pid}) {how_it_ended(code, when, state.fault)}."

    if not state.greeted:
        return (Abort(WorkerDied, told("before its first item")),)
    item, undone = _lost(state)
    if state.overdue is not None and item != state.overdue:  # it had come to its end in the last moment: nobody has failed
        undone = undone if item is None else (range(item, item + 1), *undone)
        return (Replace(undone, {}),) if undone or not state.none_left else ()
    if item is not None and state.tries_again:
        words = f"{told(f'in item {item}').rstrip('.')}; the item was tried again."
        return Replace((range(item, item + 1), *undone), {item: state.tries}), TryAgain(item, words)
    if item is not None and item == state.overdue:
        return (*_without_it(state, undone), Fail(item, over_time(state.allowed), ItemTimeout))
    if item is not None:
        return (*_without_it(state, undone), Fail(item, told(f"in item {item}")))
    if state.none_left and not undone:
        return (Note(told("after its last item")),)
    if state.replaces:
        return Replace(undone), Note(told("between two items"))
    return (Abort(WorkerDied, told("between two items")),)


def _lost(state: State) -> tuple[int | None, tuple[range, ...]]:
    """Return the item that a dead worker was on, None where it was between two, and what else it had and did not report."""
    if state.share == "own":
        return (None if state.reported > state.rank else state.rank), ()
    return lost(state.mark, state.had, state.reported)


def _without_it(state: State, undone: tuple[range, ...]) -> tuple[Action, ...]:
    """Return how the others go on where a worker has died in an item."""
    if state.replaces:
        return (Replace(undone),)
    together = state.share == "own"
    stop = () if together and state.keep_going else (Stop(),)
    return (*stop, Dismiss()) if together and not state.all_greeted else stop
