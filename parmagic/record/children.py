"""What a body starts, threads and processes: each has an account of its own, below that of the worker whose code began it.

While a run is on, ``threading`` starts threads through us, and multiprocessing processes. A thread that a worker of a run starts, or one
of these threads in its turn, is metered from its start to its end as a worker is; all others start as ever. What such a thread shows,
raises and returns is untouched. Not seen are threads that nobody started by ``threading``: of C code, and of ``_thread`` itself. Of
processes, those are seen that are forked, or that multiprocessing starts (:mod:`parmagic.record.boxes`).
"""

from __future__ import annotations

import os
import re
import sys
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from math import nan
from multiprocessing import spawn
from time import perf_counter, thread_time
from types import ModuleType
from typing import Any, Self

from parmagic.errors import Entangled
from parmagic.model.classes import attributes_of
from parmagic.model.code import code_of
from parmagic.model.private import Private
from parmagic.model.recording import Child, Clocks, Readings, WorkerId
from parmagic.model.taken import NONE
from parmagic.model.waits import Total
from parmagic.record import exchanges, holding, meter, standins, usage
from parmagic.record.boxes import MOST_WAITS, Box, Boxes
from parmagic.record.standins import StandIn, Standing
from parmagic.record.totals import named
from parmagic.system.descriptors import to_spare
from parmagic.system.gil import gil_enabled
from parmagic.system.interrupts import bears, has_born, held_back, undo
from parmagic.system.real import Lock, get_ident, is_ours, local

AT_ONCE = 64
"""Threads of one process that are metered at a time; fewer where descriptors are few: each takes one. Of more, the CPU time is known."""

MOST = 10_000
"""Threads, and processes, of one process that a run keeps; of more, a note has how many there were."""

_NAMES = ("_start_new_thread", "_start_joinable_thread")
"""What ``threading`` starts threads with: up to 3.12, and from 3.13 on."""

_GIVEN = re.compile(r"(Thread|Dummy)-\d+( \(\w+\))?|ThreadPoolExecutor-\d+_\d+|QueueFeederThread")
"""Names that the standard library gives threads."""


class Children:
    """The threads below the workers of one run in this process, from ``__enter__`` to ``end``."""

    def __init__(self, function: Any = None) -> None:
        self.function = function  # the body, by whose names things are called
        self._n_left_out = 0
        self._process = os.getpid()
        self._lives: list[_Life] = []
        self._metered = 0
        self._counting = Lock()
        self._over = False
        self._standing = Standing()
        self._boxes = Boxes(MOST)
        self._families: list[_Family] = []

    def __enter__(self) -> Self:
        """Stand where threads, and processes, are started."""
        self._standing.add((*_places(), *exchanges.places()))
        return self

    def know(self, function: Any) -> None:
        """Know the body, now that it has come; stand as well where messages are exchanged, in what it has loaded."""
        self.function = function
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
            self._families.pop().enter = _nothing

    def adopt(self, rank: int, *, measuring: bool, enter: Callable[[], None] | None = None) -> None:
        """Take the threads that the calling thread starts for those of this worker; each calls ``enter`` first.

        ``measuring`` is what :class:`~parmagic.record.hooks.hooked` yielded.
        """
        _here.family = _Family(self, rank, enter or _nothing, measuring=measuring)
        self._families.append(_here.family)

    @property
    def filename(self) -> str:
        """The file that the body's lines are in; empty where it has none."""
        code = code_of(self.function)
        return code.co_filename if code is not None else ""

    @property
    def watches(self) -> bool:
        """Whether threads are looked at, and here: not in a fork."""
        return not self._over and os.getpid() == self._process

    def box_for(self, family: _Family) -> Box | None:
        """Return what a process keeps its account in that is about to be started; None where there is no room, or the run is over."""
        with self._counting:
            return self._boxes.new(family.rank) if self.watches else None

    def in_fork(self, box: Box) -> None:
        """In a process that a body has forked: keep an account in its box."""
        self._over = True
        self._boxes.only(box)
        with suppress(OSError, RuntimeError, MemoryError):  # there is no room for it
            box.begin(self.filename)

    def begins(self, life: _Life) -> bool:
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
        self._standing.add([(_Hook, threading, "excepthook")])

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
        found = [*(life.done or life.so_far(now) for life in self._lives), *processes]
        names = iter(named(tuple(total for child in found for total in child.totals), self.function))  # one search for all of them
        synced = holding.named([child.synced for child in found], self.function)
        return tuple(
            replace(child, totals=tuple(islice(names, len(child.totals))), synced=each) for child, each in zip(found, synced, strict=True)
        )


class _Family:
    """Whose worker, or whose thread, the calling thread is."""

    __slots__ = ("children", "enter", "measuring", "rank")

    def __init__(self, children: Children, rank: int, enter: Callable[[], None], *, measuring: bool) -> None:
        self.children = children
        self.rank = rank
        self.enter = enter
        self.measuring = measuring


def _nothing() -> None:
    pass


class _Here(local):
    family: _Family | None = None
    box: Box | None = None  # of the process that the calling thread is about to fork


_here = _Here()


def leave() -> None:
    """Take the calling thread for nobody's."""
    _here.family = None


@contextmanager
def nobodys() -> Iterator[None]:
    """In this block, what the calling thread starts is nobody's: it is ours, or none of the body's doing."""
    family, _here.family = _here.family, None
    try:
        yield
    finally:
        _here.family = family


class _Starter(StandIn):
    """What ``threading`` starts threads with; of several, where somebody has wrapped one of ours for good, the outermost one notes them."""

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Start a thread."""
        family, thread = _here.family, getattr(function, "__self__", None)
        if family is None or not family.children.watches or type(function) is _Life or is_ours(thread):
            return self.original(function, *args, **kwargs)
        me = get_ident()
        try:
            bears(me)
            return self.original(_Life(function, family, thread), *args, **kwargs)
        except BaseException:
            has_born(me)
            raise


class _Preparer(StandIn):
    """What multiprocessing makes of all that a process has to know which it starts anew."""

    def __call__(self, name: str) -> dict[str, Any]:
        """Add where such a process keeps its account."""
        known: dict[str, Any] = self.original(name)
        family = _here.family
        looks = family is not None and family.measuring and family.children.watches and "parmagic" not in known
        if family is not None and looks and self.module.get_executable() == _executable():
            box = family.children.box_for(family)
            if box is not None:
                known["parmagic"] = box.token(family.children.filename, name)
        return known


class _Hook(StandIn):
    """What ``threading`` does with an exception that ends a thread."""

    def __call__(self, args: Any) -> Any:
        """Show it, but for what told the thread to end: the worker below which it was says that."""
        return None if issubclass(args.exc_type, Entangled) else self.original(args)


def _executable() -> Any:
    return os.fsencode(sys.executable) if sys.platform != "win32" else sys.executable


def _places() -> Iterator[tuple[type[StandIn], ModuleType, str]]:
    """Yield where to stand in, and as what."""
    for name in _NAMES:
        if hasattr(threading, name):
            yield _Starter, threading, name
    yield _Preparer, spawn, "get_preparation_data"


class _Life:
    """One thread, from its start to its end: it is what the thread calls."""

    def __init__(self, function: Callable[..., Any], family: _Family, thread: Any) -> None:
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
        _here.family = self._family
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

    def _begin(self, children: Children) -> None:
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


def _fork_begins() -> None:
    family = _here.family
    if family is None or not family.measuring or not family.children.watches:
        return
    caller = sys._getframe(1)  # noqa: SLF001  (who forks)
    if caller.f_globals.get("__name__") != "subprocess":  # what it forks, where it is given a preexec_fn, is about to be a program
        _here.box = family.children.box_for(family)


def _fork_ends() -> None:
    _here.box = None


def _fork_in_child() -> None:
    """In a fork: have ``threading`` as it was; where a body has forked it, keep an account."""
    family, box, _here.family, _here.box = _here.family, _here.box, None, None
    if family is not None and box is not None:
        family.children.in_fork(box)
    standins.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_fork_begins, after_in_parent=_fork_ends, after_in_child=_fork_in_child)
