"""Which worker runs which items: chunks that adapt (:mod:`parmagic.model.pace`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from parmagic.model.pace import Pace
from parmagic.record.board import NOTHING, STOP, Board, item_slot, loading
from parmagic.system.real import Lock

Share = Literal["common", "own", "fixed"]
"""What a worker takes of an arm's items: the next ones that nobody has; its own, the one of its rank; those of a list."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """How the items of an arm are shared out among its workers.

    ``own``: worker ``rank`` runs item ``rank``, and only that, all starting together (SPMD). ``fixed``: only the items of
    ``claims``, in this order (a sampled baseline). ``in_turn``: the items are the ranks of an SPMD body, which one worker
    runs one after another.
    """

    share: Share
    claims: tuple[range, ...] = ()
    in_turn: bool = False

    @property
    def together(self) -> bool:
        """Whether all workers start together, each with its own item."""
        return self.share == "own"

    def claims_of(self, rank: int) -> tuple[range, ...] | None:
        """Return the items that worker ``rank`` is to run, in their order; None where it takes what nobody has."""
        if self.share == "common":
            return None
        return (range(rank, rank + 1),) if self.together else self.claims


COMMON, OWN = Sharing("common"), Sharing("own")


class Deck(Protocol):
    """Hands out claims of item numbers until none are left."""

    def take(self) -> range | None:
        """Return the next claim, or None."""
        ...

    def took(self, items: int, seconds: float) -> None:
        """Learn how long the last claim took."""
        ...


class Counter:
    """The next item number, shared by threads."""

    def __init__(self, n_items: int) -> None:
        self.n_items = n_items
        self.next = 0
        self.lock = Lock()


class SharedDeck:
    """A thread's view of the common counter."""

    def __init__(self, counter: Counter, workers: int, chunk: int | None, board: Board) -> None:
        self._counter = counter
        self._pace = Pace(workers, chunk)
        self._board = board
        self.took = self._pace.took

    def take(self) -> range | None:
        """Claim from the counter, unless the board says stop."""
        counter = self._counter
        with counter.lock:
            first = counter.next
            last = first + self._pace.size(counter.n_items - first)
            counter.next = last
        return range(first, last) if last > first and not self._board[STOP] else None


class OwnItem:
    """The deck of an SPMD worker, of a todo list, of a sample: fixed claims in order."""

    def __init__(self, *claims: range) -> None:
        self._claims = list(reversed(claims))

    def take(self) -> range | None:
        """Return the next claim, or None."""
        return self._claims.pop() if self._claims else None

    def took(self, items: int, seconds: float) -> None:
        """Nothing to learn: the claims are fixed."""


class Chain:
    """A deck behind another: first what a dead worker left, then the common counter."""

    def __init__(self, first: Deck, then: Deck) -> None:
        self._first = first
        self._then = then
        self.took = then.took

    def take(self) -> range | None:
        """Return the next claim, or None."""
        return self._first.take() or self._then.take()


def claimed(board: Board, rank: int, since: int) -> range:
    """Return what a process claimed last of what is for all; nothing where that ends before ``since``: it was another one of its rank."""
    slot = item_slot(rank)
    return range(max(board[slot + 1], since), board[slot + 2])


def lost(mark: int, had: Iterable[range], reported: int) -> tuple[int | None, tuple[range, ...]]:
    """Return the item that a dead worker was on, None where on none, and what else it had and did not report, in order.

    ``mark`` is what it wrote in the place of its current item, ``had`` all that it had claimed, in the order
    in which it ran it, ``reported`` the item behind the last one that it reported.
    """
    item = loading(mark) if mark < NOTHING else mark
    left = [range(max(part.start, reported), part.stop) for part in had]
    if not any(item in part for part in left):
        return None, tuple(part for part in left if part)
    parts = [half for part in left for half in ((range(part.start, item), range(item + 1, part.stop)) if item in part else (part,))]
    return item, tuple(part for part in parts if part)
