"""The board of an arm: integers on which its workers write what they are on, and the notebook what they are to do."""

from __future__ import annotations

from array import array
from typing import Protocol


class Board(Protocol):
    """Integers that an arm's workers and the notebook see alike: an array, or shared memory."""

    def __getitem__(self, place: int, /) -> int:
        """Read a place."""
        ...

    def __setitem__(self, place: int, value: int, /) -> None:
        """Write a place."""
        ...


STOP = 0
"""The place on the board that tells all workers to take no further item."""


NOTHING = -1
"""What a worker that is on no item writes in the place of its current item."""


def loading(item: int) -> int:
    """Return what stands in the place of the current item while a claim that begins with ``item`` is loaded: never an item's number."""
    return -2 - item


def item_slot(rank: int) -> int:
    """Return the place on the board where worker ``rank`` writes its current item.

    The two places behind it hold the begin and the end of what it claimed last from those that are for all; then
    come, where they are wanted, :data:`OPEN`, :data:`SINCE` and :data:`TRY`.
    """
    return 1 + _PLACES * rank


_PLACES = 6
"""How many places each worker has on a board."""

OPEN, SINCE, TRY = 3, 4, 5
"""Behind a worker's item: how many context managers of ``worker.once`` it has entered and not left; since when it tries its item
(ns on our clock, 0: it does not, negative: it is to end); and for which time."""


def rank_of(place: int) -> int:
    """Return whose place on a board this is."""
    return (place - 1) // _PLACES


def claimed_until(board: Board, workers: int) -> int:
    """Return the end of the last claim on a board: the first item that nobody has claimed."""
    return max(map(board.__getitem__, range(item_slot(0) + 2, board_size(workers), _PLACES)))


def board_size(workers: int) -> int:
    """Return how many places a board for that many workers has."""
    return item_slot(workers)


def blank_board(workers: int) -> array[int]:
    """Return a board on which nobody has claimed anything, as 8-byte integers."""
    return array("q", [0, *[NOTHING, *[0] * (_PLACES - 1)] * workers])
