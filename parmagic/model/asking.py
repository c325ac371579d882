"""Calls into the user's code that may raise, exit, or never return: a helper thread makes them, each for a limited time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from parmagic.model.classes import type_name
from parmagic.system.interrupts import Latch, calm, raise_in
from parmagic.system.real import Lock, start_new_thread

SECONDS = 0.1
"""What the code of one object gets to describe it."""

_TO_START, _LAST_CHANCE, _PATIENCE = 5.0, 0.05, 5


class _Enough(BaseException):
    """Raised in a helper thread whose time is up."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """What comes of a call that raised, or did not end."""

    why: str


def ask(calls: Sequence[Callable[[], Any]], seconds: float = SECONDS) -> list[Any]:
    """Call all of them, each for at most ``seconds``; return what they return, or :class:`NoAnswer`.

    After five that do not end, none is called.
    """
    answers: list[Any] = []
    patience = _PATIENCE
    while len(answers) < len(calls) and patience:
        helper = _Helper(calls[len(answers) :], seconds, patience)
        answers += helper.wait()
        patience = helper.patience
    return answers + [NoAnswer("was not called, as others before did not end")] * (len(calls) - len(answers))


class _Helper:
    """A thread that calls one thing after another, until one of them does not end.

    It is none of ``threading``'s: no tracer or profiler that waits for new threads sees it.
    """

    def __init__(self, calls: Sequence[Callable[[], Any]], seconds: float, patience: int) -> None:
        self._calls = calls
        self._seconds = seconds
        self.patience = patience
        self._answers: list[Any] = []
        self._since = perf_counter() + _TO_START
        self._over = False
        self._ending = Lock()
        self._ended = Latch()

    def wait(self) -> list[Any]:
        """Return the answers, up to the first call that does not end."""
        try:
            self._ident = start_new_thread(copy_context().run, (self._run,))
        except RuntimeError as error:
            return [NoAnswer(f"could not be called: {error}")] * len(self._calls)
        try:
            return self._watch()
        finally:
            self._strike()  # where an interrupt has ended the wait

    def _run(self) -> None:
        while not self._over:
            try:
                self._answer()
                with self._ending:
                    self._over = True  # from here on nothing is raised in this thread; what was, comes at the next turn
                for _ in range(2):
                    pass
            except _Enough:
                pass
        self._ended.set()

    def _answer(self) -> None:
        while not self._over and self.patience and len(self._answers) < len(self._calls):
            self._since = perf_counter()
            answer: Any = NoAnswer(f"did not end in {self._seconds:g} s")
            try:
                answer = self._calls[len(self._answers)]()
            except _Enough:
                self.patience -= 1
            except BaseException as error:  # noqa: BLE001  (the user's own code may raise anything)
                answer = NoAnswer(f"raised {type_name(error)}")
            self._answers.append(answer)

    def _watch(self) -> list[Any]:
        """Wait until all is answered; interrupt a call that takes too long, and give up on one that goes on all the same."""
        while not self._ended.wait(self._seconds / 4):
            place, since = len(self._answers), self._since
            if perf_counter() - since < self._seconds:
                continue
            for _ in range(3):
                self._strike()
                if self._ended.wait(_LAST_CHANCE) or len(self._answers) > place:
                    break
            else:
                self._over = True
                self.patience -= 1
                calm()
                return [*self._answers[:place], NoAnswer(f"did not end in {self._seconds:g} s, and was left behind")]
        return self._answers

    def _strike(self) -> None:
        with self._ending:
            if not self._over:
                raise_in(self._ident, _Enough)
