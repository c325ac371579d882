"""What threads are blocked on, seen from outside.

A process of ours reads ``/proc/PID/task/TID/syscall`` of every worker: the
system call that a thread is blocked in, and its first arguments. No lock of
the watched process is touched, so the picture is not bent by the GIL (a
sampler *inside* sees every thread waiting for the GIL that it itself holds).

A ``futex`` wait inside of the interpreter's own runtime structure
(``_PyRuntime``, where the GIL of the main interpreter lives on every CPython
from 3.11 on) is a wait for the GIL; any other futex is a lock. Linux on
x86-64 and aarch64; elsewhere nothing is sampled and waits stay unknown.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from array import array
from pathlib import Path

from parmagic.model.kinds import SEEN
from parmagic.model.recording import Samples, WorkerId
from parmagic.system.descriptors import OwnConnection
from parmagic.system.real import close_descriptor

RUNNING, GIL, LOCK, SLEEP, IO = map(SEEN.index, ("running", "gil", "lock", "sleep", "io"))

_NUMBERS = {"x86_64": ({202}, {35, 230}), "aarch64": ({98}, {101, 115})}
"""Per machine: the numbers of futex, and of nanosleep and clock_nanosleep."""

_RUNTIME_SIZE = 1 << 20
"""No CPython's ``_PyRuntime`` is larger; nothing else that is waited for lies behind it."""

FASTEST = 1e-3
SLOWEST = 10e-3
PER_RUN = 500
"""A run is sampled every millisecond at first, then ever more slowly: about this often per e-fold."""


def supported() -> bool:
    """Tell whether this system shows what a thread is blocked in."""
    return sys.platform.startswith("linux") and platform.machine() in _NUMBERS and Path("/proc/self/syscall").exists()


def main(_: None, descriptors: list[int], __: None) -> None:
    """Be the sampler's process; its first descriptor is the pipe to the notebook."""
    serve(OwnConnection(descriptors[0]))


def serve(connection: OwnConnection) -> None:
    """Say that we are here, then watch as told: ``(arm, worker)`` to add, ``(arm, None)`` to hand over and forget.

    Arms that run at the same time, of runs in threads of one process, have a session each.
    """
    connection.send("ready")
    sessions: dict[int, _Session] = {}
    while True:
        periods = [session.period() for session in sessions.values() if session.watched]
        try:
            if connection.poll(min(periods, default=None)):
                arm, worker = connection.recv()
                if worker is None:
                    connection.send((arm, sessions.pop(arm, _Session()).take()))
                else:
                    sessions.setdefault(arm, _Session()).watch(worker)
        except (EOFError, OSError):
            return
        for session in sessions.values():
            session.look()


class _Watched:
    """One thread under watch."""

    def __init__(self, target: WorkerId) -> None:
        self.target = target
        self.at = array("d")
        self.states = array("b")
        self.descriptor = os.open(f"/proc/{target.pid}/task/{target.tid}/syscall", os.O_RDONLY | os.O_CLOEXEC)


class _Session:
    """The watch over one arm."""

    def __init__(self) -> None:
        self.watched: list[_Watched] = []
        self._ended: list[_Watched] = []
        self._begin = time.perf_counter()
        self._futex, self._sleep = _NUMBERS[platform.machine()]

    def period(self) -> float:
        return min(SLOWEST, max(FASTEST, (time.perf_counter() - self._begin) / PER_RUN))

    def watch(self, target: WorkerId) -> None:
        try:
            self.watched.append(_Watched(target))
        except OSError:
            return  # it has ended already, or the system does not let us look: no samples, nothing known

    def look(self) -> None:
        for one in list(self.watched):
            try:
                words = os.pread(one.descriptor, 160, 0).split()
            except OSError:
                words = []
            if not words:
                close_descriptor(one.descriptor)
                self.watched.remove(one)
                self._ended.append(one)
                continue
            one.at.append(time.perf_counter())
            one.states.append(self._state(words, one.target.runtime))

    def _state(self, words: list[bytes], runtime: int) -> int:
        if words[0] == b"running":
            return RUNNING
        number = int(words[0])
        if number in self._futex:
            return GIL if 0 <= int(words[1], 16) - runtime < _RUNTIME_SIZE else LOCK
        return SLEEP if number in self._sleep else IO

    def take(self) -> dict[int, Samples]:
        for one in self.watched:
            close_descriptor(one.descriptor)
        return {one.target.rank: Samples(one.at, one.states) for one in [*self._ended, *self.watched]}
