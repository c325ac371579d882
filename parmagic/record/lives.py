"""The life of a thread that a body starts: metered from its start to its end, for the worker below which it is."""

from __future__ import annotations

import os
import re
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from math import nan
from time import perf_counter, thread_time
from typing import Any, Protocol

from parmagic.model.classes import attributes_of
from parmagic.model.code import code_of
from parmagic.model.private import Private
from parmagic.model.recording import Child, Clocks, Readings, WorkerId
from parmagic.model.taken import NONE
from parmagic.model.waits import Total
from parmagic.record import meter, usage
from parmagic.record.boxes import MOST_WAITS, Box
from parmagic.system.gil import gil_enabled
from parmagic.system.interrupts import has_born
from parmagic.system.real import get_ident, local

_GIVEN = re.compile(r"(Thread|Dummy)-\d+( \(\w+\))?|ThreadPoolExecutor-\d+_\d+|QueueFeederThread")
"""Names that the standard library gives threads."""


class Keeper(Protocol):
    """Who keeps what one run's workers start in this process; ``function`` is the body."""

    function: Any

    @property
    def filename(self) -> str:
        """The file that the body's lines are in; empty where it has none."""
        ...

    @property
    def watches(self) -> bool:
        """Whether threads are looked at, and here: not in a fork."""
        ...

    def box_for(self, family: Family) -> Box | None:
        """Return what a process keeps its account in that is about to be started; None: it has none."""
        ...

    def in_fork(self, box: Box) -> None:
        """In a process that a body has forked: keep an account in its box."""
        ...

    def begins(self, life: Life) -> bool:
        """Note that a thread begins; tell whether it is to have a meter."""
        ...

    def ends(self) -> None:
        """Note that a thread has ended which had a meter."""
        ...


class Family:
    """Whose worker, or whose thread, the calling thread is."""

    __slots__ = ("children", "enter", "measuring", "rank")

    def __init__(self, children: Keeper, rank: int, enter: Callable[[], None], *, measuring: bool) -> None:
        self.children = children
        self.rank = rank
        self.enter = enter
        self.measuring = measuring


def nothing() -> None:
    """Enter nothing: where no prints are marked, or the run is over."""


class _Here(local):
    family: Family | None = None
    box: Box | None = None  # of the process that the calling thread is about to fork


here = _Here()


def leave() -> None:
    """Take the calling thread for nobody's."""
    here.family = None


@contextmanager
def nobodys() -> Iterator[None]:
    """In this block, what the calling thread starts is nobody's: it is ours, or none of the body's doing."""
    family, here.family = here.family, None
    try:
        yield
    finally:
        here.family = family


class Life:
    """One thread, from its start to its end: it is what the thread calls."""

    def __init__(self, function: Callable[..., Any], family: Family, thread: Any) -> None:
        self.done: Child | None = None
        self._function: Any = function
        self._family = family
        self._thread = thread
        self._born = perf_counter()
        self._starter = get_ident()
        self._gauge: meter.Meter | None = None
        self._worker = WorkerId(family.rank, 0, 0)
        self.ident = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Do what the thread is to do, and note what its time went to."""
        has_born(self._starter)
        children = self._family.children
        if not children.watches or get_ident() == self._starter:  # a greenlet, which has no time of its own
            return self._function(*args, **kwargs)
        here.family = self._family
        self.ident = get_ident()
        self._family.enter()
        self._worker = WorkerId(self._family.rank, os.getpid(), threading.get_native_id(), gil=gil_enabled(), takes_items=False)
        metered = children.begins(self)
        try:
            if metered:
                self._begin(children)
            return self._function(*args, **kwargs)
        finally:
            if os.getpid() == self._worker.pid:  # else this is a fork that has come here, which has an account of its own
                self._end()
                if metered:
                    children.ends()

    def _begin(self, children: Keeper) -> None:
        with suppress(OSError, RuntimeError, MemoryError):  # there is no room for it, or the run is over by now
            self._gauge = gauge = meter.meter(self._family.rank, own_process=False, measuring=self._family.measuring, born=self._born)
            gauge.watch(code_of(children.function))  # the function itself it is not to keep
            gauge.read()

    def _end(self) -> None:
        gauge = self._gauge
        readings, totals, synced = self._by_cpu_time(perf_counter(), thread_time()), tuple[Total, ...](), NONE
        with suppress(MemoryError):
            try:
                synced = gauge.synced() if gauge is not None else synced
                readings = gauge.take() if gauge is not None else readings
            finally:
                totals = gauge.close(nameless=True) if gauge is not None else totals
        self.done = replace(self._child(readings, totals), synced=synced)
        self._function = self._thread = None  # what the thread had is the body's to keep, and large perhaps

    @property
    def is_watched(self) -> bool:
        """Whether it has an account, and has not ended."""
        return self._gauge is not None and self.done is None

    @property
    def called(self) -> str:
        """What it is called."""
        return str(self._name())

    def so_far(self, now: float) -> Child:
        """Return, from another thread, what this one did until now."""
        gauge, cpu, name = self._gauge, usage.cpu_seconds(self._worker.pid, self._worker.tid), self._name()
        left = gauge.peek(now, cpu) if gauge is not None else None
        if self.done is not None:
            return self.done  # it has just ended
        _, readings, totals = left or (0.0, None, ())
        return replace(self._child(readings or self._by_cpu_time(max(now, self._born), cpu), totals), name=name, goes_on=True)

    def _by_cpu_time(self, now: float, cpu_s: float) -> Readings:
        """Return all that is known of a thread without a meter."""
        return Readings(clocks=Clocks(array("d", [self._born, now]), array("d", [0.0, cpu_s]), array("d", [nan, nan])))

    def _child(self, readings: Readings, totals: tuple[Total, ...]) -> Child:
        times = array("d", [self._born, *readings.clocks.at]) if readings.clocks else readings.tally.times if readings.tally else array("d")
        readings = replace(readings, waits=readings.waits and readings.waits.first(MOST_WAITS))
        return Child(self._worker, self._name(), "thread", times[0], times[-1], readings=readings, totals=totals)

    def _name(self) -> str:
        """Return what it is called, which asks no code of the user's; a name that the body gave it may say anything, and is the user's."""
        own, number = attributes_of(self._thread), f"thread {self._worker.tid}"
        name = own and own.get("_name")
        if type(name) is not str:
            return number
        return name if _GIVEN.fullmatch(name) else Private(name, number)
