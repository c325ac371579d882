"""The fork servers of this notebook: the one in use, and the one that will take its place.

A server is exec'd once. What the notebook imports later is imported by a successor, a fork
of the server, while that one goes on serving: when the successor is ready, it takes over.
"""

from __future__ import annotations

import atexit
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from parmagic.errors import RunTimeout, WorkerDied
from parmagic.model.private import Private, say
from parmagic.system import runs
from parmagic.system.between import between_cells
from parmagic.system.interrupts import held_back
from parmagic.system.real import RLock
from parmagic.workers.processes import preload
from parmagic.workers.processes.imports import Failed
from parmagic.workers.processes.launched import launch
from parmagic.workers.processes.link import MOST_SPARES, TURN, Hub

__all__ = [
    "MOST_SPARES", "Hub", "at_launch", "borrow", "close", "get", "give_back", "hold", "refresh", "spare", "supported",
]  # fmt: skip

BASE = ("parmagic.workers.processes.child", "viztracer")
"""What every worker needs."""

BEGIN = 10.0
"""Seconds that the first try to start a server may take; the second one takes as long as it takes."""

WORTH_A_NOTE = 2.0
"""Seconds that the start of a server may take without a note."""

WAIT_FOR_IMPORTS = 2.0
"""Seconds that a run waits for imports that make its workers start faster."""


def supported() -> bool:
    """Tell whether this system can fork, which the server lives on."""
    return hasattr(os, "fork")


at_launch: list[Callable[[], object]] = []
"""What is done as soon as a server was launched."""

_server: Hub | None = None
_next: Hub | None = None  # imports what is new, then takes the server's place
_waited = False  # a run has waited for that one as long as a run may
_changing = RLock()
_refused: set[str] = set()
"""Packages that no server of this process imports ahead."""

_untold: list[str] = []  # notes on imports for the next run
_put_off: int | None = None  # how many processes a run wants prepared that has ended beside others
_retired: list[Hub] = []  # servers that runs still use, whose place others have taken


def get() -> Hub:
    """Return this process's server, starting it where there is none; it may only begin."""
    global _server  # noqa: PLW0603  (one server per process is the point)
    with _changing:
        if _server is None or not _server.alive():
            _drop_next()
            with held_back():
                _server = launch()
            for what in at_launch:  # before the server imports what only workers need
                what()
            _server.preload(BASE)
        return _server


@between_cells
def refresh(space: Mapping[str, Any]) -> list[str]:
    """Where there is a server, have what the notebook with these names has imported meanwhile be imported there; wait for nothing.

    Returns what that is; where there is no server, nothing is looked up.
    """
    if _server is None or not _server.alive():
        return []
    modules = preload.wanted(space)
    with suppress(WorkerDied), _changing:  # the next run starts a new one
        _ahead(modules)
        if _next is not None:
            _learn(_heard_out(_next, 0.0)[1])
            _take_over()
    return modules


def hold(*, starts: bool) -> None:
    """Where there is a server, have it prepare and import nothing until :func:`spare`: it would compete with what is measured.

    Where this run ``starts`` processes, the server that starts them knows by that.
    """
    for each in (_next,) if starts else (_server, _next):
        if each is not None and each.alive():
            with suppress(WorkerDied):  # the next run starts a new one
                each.hold()
    if _next is not None:
        _next.pause(on=True)


def _learn(failures: list[Failed]) -> bool:
    """Take note of what a successor could not import; tell whether it is spoilt by that, and was dropped."""
    _untold.extend(_noted(failures))
    spoilt = any(spoils for _, _, spoils in failures)
    if spoilt:
        _drop_next()
    return spoilt


def spare(processes: int | None) -> None:
    """Where there is a server, have it prepare processes for the next run, or as many as before; wait for nothing.

    While another run is at work, which it would disturb, that is put off until that one does this.
    """
    global _put_off  # noqa: PLW0603
    _put_off = _put_off if processes is None else processes
    if runs.some():
        return
    processes, _put_off = _put_off, None
    if _next is not None:
        _next.pause(on=False)
    for each in (_server, _next):
        if each is not None and each.alive():
            with suppress(WorkerDied):
                each.spare(processes)


def borrow(modules: list[str], until: float = math.inf) -> tuple[Hub, list[str]]:
    """Return a server for a run, with these modules imported where that is soon done, and notes; :func:`give_back` it.

    ``until`` is when the run has to end, on the monotonic clock: a RunTimeout is raised then.
    """
    with _changing:
        if _server is not None and preload.changed(_server.imports.loaded):
            _set_aside()
        current, notes = _begun(until)
        if current.threads > 1:
            _drop_next()
            notes.append(_THREADED)
        else:
            notes += _import_ahead(modules, until)
            current = get()
        current.users += 1
    return current, notes


_THREADED = (
    "Something that Python loads when it starts (a sitecustomize, a profiler, a debugger) runs a thread in the process that starts "
    "workers, beside which it is not safe to fork: each worker is a new interpreter, which takes longer to start."
)
_NOBODY = "Worker processes import packages by themselves, as no process could import them ahead: {why}"
_SLOW = (
    "The process that starts workers took {seconds:.1f} s to start. What was waited for: the interpreter itself (a sitecustomize, a slow "
    "disk), and the import of parmagic and VizTracer (python -X importtime tells more)."
)


def give_back(borrowed: Hub) -> None:
    """Say that a run is over that has borrowed this server."""
    with _changing:
        borrowed.users -= 1
        _end_the_retired()


def _set_aside(*, at_once: bool = False) -> None:
    """Have no server any more; the one that there was ends with the last run that uses it."""
    global _server
    _drop_next()
    old, _server = _server, None
    if old is not None and old.users:
        _retired.append(old)
    elif old is not None:
        old.close(at_once=at_once)


def _end_the_retired() -> None:
    for old in [old for old in _retired if not old.users]:
        _retired.remove(old)
        old.close()


def _begun(until: float) -> tuple[Hub, list[str]]:
    """Return a server that can start workers, with notes: a second one where the first does not come to that."""
    current, begin, again = get(), time.monotonic(), False
    while not _is_up(current):
        waited = time.monotonic() - begin
        _look_at_the_clock(until, "starts workers")
        if waited > BEGIN and not again:
            again = True
            _set_aside(at_once=True)
            current = get()
    waited = time.monotonic() - begin
    if any(spoils for _, _, spoils in current.imports.failures()):
        current.threads = max(current.threads, 2)
    return current, [_SLOW.format(seconds=waited)] if waited > WORTH_A_NOTE else []


def _is_up(hub: Hub) -> bool:
    """Tell whether a server has begun and imported what every worker needs; wait a little for that."""
    if hub.ready and not hub.imports.now:
        return True
    with hub.lease.held():
        return hub.wait_until(lambda: hub.ready and not hub.imports.now, TURN)


def _look_at_the_clock(until: float, what: str) -> None:
    if time.monotonic() > until:
        raise RunTimeout(f"--timeout: it was reached while the process that {what} was waited for.")


def _import_ahead(modules: list[str], until: float) -> list[str]:
    """Have a successor import these modules, and take over where that is soon done; return notes on what is not."""
    global _waited  # noqa: PLW0603
    enough = time.monotonic() + WAIT_FOR_IMPORTS
    while True:
        _ahead(modules)
        if _next is None:
            return _told()
        _next.pause(on=False)
        done, failures = _heard_out(_next, 0.0 if _waited else min(enough, until) - time.monotonic())
        if _learn(failures):
            if failures[-1][0]:
                continue
            return _told()
        if done:
            _take_over()
            return _told()
        _look_at_the_clock(until, "imports ahead")
        if not _waited:
            package = _next.imports.now.partition(".")[0]
            _untold.append(f"Worker processes import {package} by themselves for now: importing it ahead has not ended within "
                         f"{WAIT_FOR_IMPORTS:g} s, and goes on in the background.")  # fmt: skip
        _waited = True
        _next.pause(on=True)
        return _told()


def _told() -> list[str]:
    """Return the notes that no run has told yet."""
    notes = _untold[:]
    _untold.clear()
    return notes


def _heard_out(successor: Hub, seconds: float) -> tuple[bool, list[Failed]]:
    """Wait so long for a successor's imports; tell whether they are done, and what failed: (module, why, whether that spoils it)."""
    with successor.lease.held():
        try:
            return successor.settle(max(0.0, seconds)), successor.imports.failures()
        except WorkerDied as gone:
            if not successor.ready:
                return False, [("", str(gone), True)]
            return False, [*successor.imports.failures(), (successor.imports.now, "ended the process that imported it", True)]


def _noted(failures: list[Failed]) -> list[str]:
    """Refuse what could not be imported ahead, and say so."""
    notes = []
    for name, why, spoils in failures:
        package = name.partition(".")[0]
        if not name:
            notes.append(say(_NOBODY, why=Private(why, "it has ended.")))
        elif spoils or name == package:
            _refused.add(package)
            notes.append(say(f"Worker processes import {package} by themselves, as importing it ahead {{why}}.", why=why))
    return notes


def _ahead(modules: list[str]) -> None:
    """Tell the successor to import what is new of these modules; have one where there is none."""
    global _next, _waited  # noqa: PLW0603
    if _next is not None and not _next.alive():
        _next = None
    ahead = _next or _server
    if ahead is None or ahead.threads > 1:
        return
    new = [name for name in modules if name.partition(".")[0] not in _refused and not ahead.imports.knows(name)]
    if new:
        if _next is None:
            _next = ahead.grow()
        _waited = False
        _next.preload(new)


def _take_over() -> None:
    """Let the successor be the server, where it is ready; the other one ends with the last run that uses it."""
    global _server, _next
    if _next is None or not _next.ready or _next.imports.now or _next.imports.failed:
        return
    with _next.lease.held():
        leads = _next.lead()
    if not leads:
        _drop_next()
        return
    if _server is not None:
        _retired.append(_server)
    _server, _next = _next, None
    _end_the_retired()


def _drop_next() -> None:
    global _next  # noqa: PLW0603
    if _next is not None:
        _next.close(at_once=True)
        _next = None


@atexit.register
def close(*, at_once: bool = False) -> None:
    """End this process's servers, where it has some."""
    global _server  # noqa: PLW0603
    _drop_next()
    for old in [*_retired, *([_server] if _server is not None else [])]:
        old.close(at_once=at_once)
    _retired.clear()
    _server = None
