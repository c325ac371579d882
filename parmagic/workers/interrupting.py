"""How the threads of an arm are interrupted: soon, and where that breaks nothing."""

from __future__ import annotations

from collections.abc import Container, Sequence
from threading import Thread
from time import perf_counter

from parmagic.errors import Ended, EndedHeld
from parmagic.system import debugger
from parmagic.system.interrupts import raise_in
from parmagic.system.real import Lock, sleep
from parmagic.workers.endings import GRACE
from parmagic.workers.overtime import OUT_OF_LIBRARY
from parmagic.workers.stack import in_library


class Interrupts:
    """Those of one arm's threads, and which of these are not interrupted any more."""

    def __init__(self, threads: Sequence[Thread]) -> None:
        self._threads = threads
        self._leaving = Lock()
        self._left = set[int]()  # ranks that are at their end,
        self._parting = set[int]()  # or close their accounts, and then leave what they keep

    def part(self, rank: int) -> None:
        """From here on, the calling thread is not interrupted before its time is up: its account must be closed."""
        self._note(rank, self._parting)

    def leave(self, rank: int) -> None:
        """From here on, the calling thread is not interrupted: its end must be reported."""
        self._note(rank, self._left)

    def _note(self, rank: int, ranks: set[int]) -> None:
        """Be one of these; what was raised in the calling thread before comes at the latest in this loop, where Python looks.

        (To take it back leaves :func:`~parmagic.system.interrupts.calm`'s alarm.)
        """
        with self._leaving:
            ranks.add(rank)
        for _ in range(2):
            pass

    def raise_in_all(self, heard: Container[int]) -> None:
        """Raise in every thread, as soon as it is out of a fork and of the standard library's own code: locks would stay locked.

        And not while it opens what it is measured by: nobody would close that. It does so until its rank is ``heard`` of.
        """
        waiting, until = list(range(len(self._threads))), perf_counter() + OUT_OF_LIBRARY
        while waiting:
            for rank in list(waiting):
                thread = self._threads[rank]
                with self._leaving:
                    left, held = rank in self._left, debugger.holds(thread)
                    busy = thread.is_alive() and (rank not in heard or rank in self._parting)
                    if not (left or held) and perf_counter() < until and (busy or in_library(thread)):
                        continue
                    if not left and not raise_in(thread.ident, EndedHeld if held else Ended) and perf_counter() < until + GRACE:
                        continue
                waiting.remove(rank)
            debugger.let_go()  # only now: the body does not go on behind a breakpoint
            if waiting:
                sleep(0.001)
