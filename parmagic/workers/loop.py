"""What every worker does, in a thread or in a process: take a claim, run it, report it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from parmagic.dispatch import Deck
from parmagic.model import Batch, Clocks
from parmagic.recorder import STOP, Board, Meter, Worker, item_slot, perform

Call = Callable[[Any, Worker], Any]


def work(
    call: Call,
    load: Callable[[range], Sequence[Any]],
    deck: Deck,
    worker: Worker,
    meter: Meter,
    board: Board,
    report: Callable[[Batch, Clocks], None],
    between: Callable[[], None],
    *,
    keep_going: bool,
) -> None:
    """Run claims until the deck has none or the board says stop.

    ``load(claim)`` returns the claimed items; ``between`` is called before and
    ``report`` after each claim.
    """
    slot = item_slot(worker.rank)
    while not board[STOP] and (claim := deck.take()) is not None:
        board[slot + 1], board[slot + 2] = claim.start, claim.stop
        between()
        items = load(claim)
        begin = perf_counter()
        meter.read()
        batch = perform(call, items, claim, worker, meter, board, keep_going=keep_going)
        deck.took(len(batch.begins), perf_counter() - begin)
        report(batch, meter.take())


class InTurn:
    """Runs the ranks of an SPMD body one after another on one worker, as a serial run does.

    Item ``rank`` sees a worker of that rank and of the arm's count.
    """

    def __init__(self, call: Call, count: int) -> None:
        self._call = call
        self._count = count

    def __call__(self, rank: int, worker: Worker) -> Any:
        """Run the body as that rank."""
        worker.count = self._count
        worker.rank = rank
        try:
            return self._call(rank, worker)
        finally:
            worker.rank = 0
