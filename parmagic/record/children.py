"""What a body starts, threads and processes: each has an account of its own, below that of the worker whose code began it.

While a run is on, ``threading`` starts threads through us, and multiprocessing processes. A thread that a worker of a run starts, or one
of these threads in its turn, is metered from its start to its end as a worker is; all others start as ever. What such a thread shows,
raises and returns is untouched. Not seen are threads that nobody started by ``threading``: of C code, and of ``_thread`` itself. Of
processes, those are seen that are forked, or that multiprocessing starts (:mod:`parmagic.record.boxes`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from time import perf_counter
from typing import Any, Self

from parmagic.model.code import code_of
from parmagic.model.recording import Child
from parmagic.record import exchanges, holding, starts
from parmagic.record.boxes import Box, Boxes
from parmagic.record.lives import Family, Life, here, nothing
from parmagic.record.standins import Standing
from parmagic.record.totals import named
from parmagic.system.descriptors import to_spare
from parmagic.system.interrupts import held_back, undo
from parmagic.system.real import Lock

AT_ONCE = 64
"""Threads of one process that are metered at a time; fewer where descriptors are few: each takes one. Of more, the CPU time is known."""

MOST = 10_000
"""Threads, and processes, of one process that a run keeps; of more, a note has how many there were."""


class Children:
    """The threads below the workers of one run in this process, from ``__enter__`` to ``end``."""

    def __init__(self, function: Any = None) -> None:
        self.function = function  # the body, by whose names things are called
        self._n_left_out = 0
        self._process = os.getpid()
        self._lives: list[Life] = []
        self._metered = 0
        self._counting = Lock()
        self._over = False
        self._standing = Standing()
        self._n_loaded = 0
        self._boxes = Boxes(MOST)
        self._families: list[Family] = []

    def __enter__(self) -> Self:
        """Stand where threads, and processes, are started."""
        self._standing.add((*starts.PLACES, *exchanges.places()))
        return self

    def know(self, function: Any) -> None:
        """Know the body, now that it has come; stand as well where messages are exchanged, in what it has loaded."""
        self.function = function
        self._stand_in_exchanges()

    def _stand_in_exchanges(self) -> None:
        self._n_loaded = exchanges.n_loaded()
        self._standing.add(exchanges.places())

    def __exit__(self, *_: object) -> None:
        """Put back what was there."""
        undo(self.end)

    def end(self) -> None:
        """Look at no thread any more, and put back what was there, where no other run needs us; once."""
        self._over = True
        self._standing.end()
        with held_back(), self._counting:
            self._boxes.take(0.0)
        self.function, self._lives = None, []  # a thread that goes on keeps none of it
        while self._families:
            self._families.pop().enter = nothing

    def adopt(self, rank: int, *, measuring: bool, enter: Callable[[], None] | None = None) -> None:
        """Take the threads that the calling thread starts for those of this worker; each calls ``enter`` first.

        ``measuring`` is what :class:`~parmagic.record.hooks.hooked` yielded.
        """
        here.family = Family(self, rank, enter or nothing, measuring=measuring)
        self._families.append(here.family)

    @property
    def filename(self) -> str:
        """The file that the body's lines are in; empty where it has none."""
        code = code_of(self.function)
        return code.co_filename if code is not None else ""

    @property
    def watches(self) -> bool:
        """Whether threads are looked at, and here: not in a fork."""
        return not self._over and os.getpid() == self._process

    def box_for(self, family: Family) -> Box | None:
        """Return what a process keeps its account in that is about to be started; None where there is no room, or the run is over."""
        if self.watches and exchanges.n_loaded() > self._n_loaded:
            self._stand_in_exchanges()  # a body that imports Manager has its calls counted, too: it starts a process first
        with self._counting:
            return self._boxes.new(family.rank) if self.watches else None

    def in_fork(self, box: Box) -> None:
        """In a process that a body has forked: keep an account in its box."""
        self._over = True
        self._boxes.only(box)
        with suppress(OSError, RuntimeError, MemoryError):  # there is no room for it
            box.begin(self.filename)

    def begins(self, life: Life) -> bool:
        """Note that a thread begins; tell whether it is to have a meter."""
        room = to_spare(AT_ONCE)
        with self._counting:
            if len(self._lives) == MOST:
                self._n_left_out += 1
                return False
            self._lives.append(life)
            metered = self._metered < room
            self._metered += metered
            return metered

    def ends(self) -> None:
        """Note that a thread has ended which had a meter."""
        with self._counting:
            self._metered -= 1

    def hush(self) -> None:
        """Have no thread print how it ended where it was told to, as it waited for who will not come."""
        self._standing.add([(starts.Hush, threading, "excepthook")])

    def running(self) -> dict[int, str]:
        """Return what the threads are called that have accounts and have not ended, by their idents."""
        return {life.ident: life.called for life in self._lives if life.is_watched}

    def notes(self) -> Iterator[str]:
        """Yield what must be known of those that are left out."""
        if self._n_left_out:
            yield f"run.children has the first {MOST:,} threads that the body started; {self._n_left_out:,} more are not in it."
        if n := self._boxes.n_left_out:
            yield f"run.children is without {n:,} of the processes that the body started: too many ran at a time, or descriptors are few."

    def take(self) -> tuple[Child, ...]:
        """Return all that were there, also those that go on, as they are now; from now on, none is looked at."""
        self._over = True
        now = perf_counter()
        with held_back(), self._counting:  # who starts a process at this moment has its box in time, or none
            processes = self._boxes.take(now)
        found = [life.done or life.so_far(now) for life in self._lives]
        if not (found or processes):
            return ()
        names = iter(named(tuple(total for child in (*found, *processes) for total in child.totals), self.function))  # one search for all
        synced = [*holding.named([child.synced for child in found], self.function), *(child.synced for child in processes)]
        return tuple(
            replace(child, totals=tuple(islice(names, len(child.totals))), synced=each)
            for child, each in zip((*found, *processes), synced, strict=True)
        )
