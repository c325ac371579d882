"""What every worker does, in a thread or in a process: take a claim, run it, report it."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter
from types import CodeType, MethodType, ModuleType
from typing import Any

from parmagic.model.code import code_of, globals_of, last_of
from parmagic.model.recording import Batch, Readings
from parmagic.parse.strings import named_by
from parmagic.record.board import NOTHING, STOP, Board, item_slot, loading
from parmagic.record.items import Call, Worker, perform
from parmagic.record.meter import Meter
from parmagic.workers.dispatch import Deck


def work(
    call: Call,
    load: Callable[[range], Sequence[Any]],
    deck: Deck,
    worker: Worker,
    meter: Meter,
    board: Board,
    report: Callable[[Batch, Readings], None],
    before: Callable[[], object] = lambda: None,
    after: Callable[[], object] = lambda: None,
    *,
    keep_going: bool,
) -> None:
    """Run claims until the deck has none or the board says stop.

    ``load(claim)`` returns the claimed items; ``before`` is called ahead of that, ``after`` when they have run, and then
    ``report``. The caller has ``worker`` leave what it keeps, behind that and whatever is raised here.
    """
    slot = item_slot(worker.rank)
    body = body_of(call)
    meter.watch(code_of(body), body)
    while not board[STOP] and (claim := deck.take()) is not None:
        board[slot] = loading(claim.start)  # what kills a worker while it loads its items is this item's doing
        before()
        items = load(claim)
        begin = perf_counter()
        meter.read()
        batch = perform(call, items, claim, worker, meter, board, keep_going=keep_going)
        after()
        deck.took(len(batch.begins), perf_counter() - begin)
        if made := worker.made_in():
            batch = replace(batch, made=made)
        if worker.tried:
            batch = replace(batch, tries=worker.take_tries(batch.items))
        report(batch, meter.take())
        board[slot] = NOTHING


class Wrapped:
    """What stands around a body, so that it is called in another way."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function


def body_of(call: Call) -> Any:
    """Return the body itself, out of what it is wrapped in."""
    function: Any = call
    while issubclass(type(function), Wrapped):
        function = function.function
    return function


def globals_read(function: Any) -> frozenset[str]:
    """Return the names that a function, or one within it, reads where it was written; none where a process finds it in its module.

    Those that stand in strings are among them.
    """
    function = _called_in_the_end(function)
    code = code_of(function)
    if code is None or _is_found_by_name(function):
        return frozenset()
    plain: Any = function.__func__ if type(function) is MethodType else function
    return globals_of(code) | named_by(plain)


def _called_in_the_end(function: Any) -> Any:
    """Return what a partial function calls, were it a partial function as well; one that calls itself is returned as it is."""
    # not isinstance, to which a mock may lie
    return last_of(function, lambda each: each.func if issubclass(type(each), functools.partial) else None)


def _is_found_by_name(function: Any) -> bool:
    plain = function.__func__ if type(function) is MethodType else function
    found: Any = sys.modules.get(plain.__module__) if plain.__module__ != "__main__" else None
    for name in plain.__qualname__.split("."):
        found = vars(found).get(name) if isinstance(found, (ModuleType, type)) else None
    return found is plain


def names_around(call: Call) -> dict[str, Any]:
    """Return the names among which a body was written; none of a callable that does not tell."""
    function = _called_in_the_end(body_of(call))
    found: dict[str, Any] = function.__globals__ if code_of(function) is not None else {}
    return found


def code_around(call: Call) -> CodeType | None:
    """Return the code of a body that is a function, or that is of one and some of its arguments; None of any other callable."""
    return code_of(_called_in_the_end(body_of(call)))


def names_in(call: Call) -> tuple[str, ...]:
    """Return the names of attributes, modules and others that a body's code has."""
    code = code_of(body_of(call))
    return code.co_names if code is not None else ()


def body_file(call: Call) -> str:
    """Return the name of the file that a body's lines are in; empty where it is no Python function."""
    code = code_of(body_of(call))
    return code.co_filename if code is not None else ""


class InTurn(Wrapped):
    """Runs the ranks of an SPMD body one after another on one worker, as a serial run does.

    Item ``rank`` sees a worker of that rank and of the arm's count.
    """

    __slots__ = ("_count",)

    def __init__(self, call: Call, count: int) -> None:
        super().__init__(call)
        self._count = count

    def __call__(self, rank: int, worker: Worker) -> Any:
        """Run the body as that rank."""
        worker.count = self._count
        worker.rank = rank
        try:
            return self.function(rank, worker)
        finally:
            worker.rank = 0
