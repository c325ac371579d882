"""How a worker ended before its time: in words, and as a recording of the item that it was in."""

from __future__ import annotations

import signal
import time
from array import array
from typing import Protocol

from parmagic.model.cells import place
from parmagic.model.recording import Batch, Recording, WorkerId
from parmagic.record.meter import HALTED, Left, state_of
from parmagic.workers.stack import Frame

GRACE = 1.0
"""Seconds that a worker gets to end once it was told to; and what its body has left behind in a process, before that ends."""

LOST = 76
"""The exit code of a worker whose own descriptors were closed, or are other files' by now (``EX_PROTOCOL``)."""


def over_time(seconds: float | None) -> str:
    """Say that an item's try took longer than it may."""
    return f"took longer than --item-timeout {seconds:g} s"


def where(stack: list[Frame], filename: str, most: int = 5) -> str:
    """Say where a crashed worker was: its innermost frames, up to the cell's."""
    words = []
    for frame in stack[:most]:
        in_cell = frame.file == filename
        words.append(f"line {frame.line} of the body" if in_cell else f"{frame.name} ({place(frame.file, frame.line)})")
        if in_cell:
            break
    return ", called from ".join(words)


def how_it_ended(code: int, when: str, fault: str = "") -> str:
    """Say in words how a process ended, and ``when`` (in item 3), with the likely cause.

    ``fault`` is what was wrong with what it had sent, where we have ended it for that.
    """
    if fault:
        return f"was ended {when}, as what it sent cannot be read: {fault} (does the body write to descriptors that it has not opened?)"
    if code == LOST:
        return f"ended {when}: its way to the notebook was closed (did the body close descriptors that it had not opened?)"
    if code >= 0:
        return f"ended with exit code {code} {when}" + ("" if code else " (did the body call os._exit?)")
    known = {int(each): each.name for each in signal.Signals}
    name = known.get(-code, f"signal {-code}")
    cause = {
        int(signal.SIGKILL): "; most often the system ran out of memory",
        int(signal.SIGSEGV): "; a C extension crashed",
        int(signal.SIGABRT): "; a C library gave up",
        int(signal.SIGBUS): "; a memory-mapped file shrank, or shared memory is full",
    }.get(-code, "")
    return f"was killed by {name} {when}{cause}"


def cut_off(
    me: WorkerId, item: int, left: Left, now: float, error: BaseException | None, note: str = "", tries: int = 1
) -> Recording:
    """Report an item that did not come to its end, at this of its tries; without an error, another worker tries it again."""
    begin, readings, totals = left
    errors = {item: error} if error is not None else {}
    tried = {item: tries} if tries > 1 else {}
    batch = Batch(item, array("d", [begin]), array("d", [max(begin, now)]), [None], errors, tries=tried, again=error is None)
    return Recording(me, batches=(batch,), readings=readings, totals=totals, notes=(note,) if note else (), noted=True)


def is_stopped(pid: int) -> bool:
    """Tell whether somebody has stopped a process (SIGSTOP, a debugger); False where that cannot be seen."""
    return state_of(pid, pid) in HALTED


def who_was_stopped(workers: dict[int, int], server: int) -> list[str]:
    """Name the workers (rank: process), and the server, that somebody has stopped."""
    named = {pid: f"Worker {rank} (process {pid})" for rank, pid in workers.items()}
    named[server] = f"The process that starts workers (process {server})"
    return [
        f"{name} was stopped (SIGSTOP, or by a debugger) and stood still until the end of the run."
        for pid, name in named.items()
        if pid > 0 and is_stopped(pid)
    ]


class _Server(Protocol):
    def is_stopped(self) -> bool: ...
    def resume(self) -> None: ...
    def close(self, *, at_once: bool = False) -> None: ...


WAKE, GIVE_UP = 1.0, 10.0
"""Seconds without an answer after which a server that was stopped is sent on its way, and after which any server is given up."""


class Mercy:
    """How long a server is waited for that is to end workers."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._begin = time.monotonic()
        self._woken = False

    def is_over(self) -> bool:
        """Tell whether to stop waiting: the server was ended then, and its workers with it."""
        waited = time.monotonic() - self._begin
        if waited > WAKE and not self._woken and self._server.is_stopped():
            self._woken = True
            self._server.resume()
        if waited > GIVE_UP:
            self._server.close(at_once=True)
        return waited > GIVE_UP
