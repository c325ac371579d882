"""The threads in a worker's process that are none of Python's: what they used of the cores while an arm ran, by their library.

Which threads are Python's, and what each of them used, is known for next to nothing. Only where that is not all that the process
used are its other threads looked at. Linux only: elsewhere nothing is known of them.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress

from parmagic.model.helpers import Helpers
from parmagic.model.recording import Usage
from parmagic.model.waits import Total
from parmagic.system import natives
from parmagic.system.real import Lock, close_descriptor, open_descriptor, read_descriptor

WORTH_A_LOOK = 0.01
"""CPU seconds beside those of Python's threads from which on it is asked whose they are."""

_LEAST = 0.001
"""CPU seconds of a thread from which on it is one."""

_NOTICED = 0.01
"""Seconds of waits for threads of libraries from which on it is asked which these are."""

_MOST = 32
"""Threads whose run queue is read ahead of an arm, which takes 3 µs each; what those beyond that queued for is not known."""

_AT_ONCE = 16
"""Threads that are asked for their library while workers go on."""

_NOTHING = 0.0, 0.0

_ON_LINUX = sys.platform.startswith("linux")


class HelperThreads:
    """Watches the threads of this process from now on; ``from_birth``: from its own begin, as it is one worker's."""

    def __init__(self, *, from_birth: bool) -> None:
        self._looking = Lock()
        self._process = 0.0 if from_birth else time.process_time()
        self._used = 0.0  # CPU seconds of the whole process since, at the last look
        self._before: dict[int, tuple[float, float]] = {}  # by thread: CPU seconds, and those in a run queue
        self._python: dict[int, float] = {}  # CPU seconds since, by thread
        self._others: dict[int, tuple[float, float]] = {}
        self._libraries: dict[int, str] = {}
        if _ON_LINUX and not from_birth:
            python = _of_python()
            there = _all_threads()
            read = set([each for each in there if each not in python][:_MOST])
            self._before = {thread: (_cpu(thread), _queued(thread) if thread in read else math.inf) for thread in there}

    def look(self, waits: Iterable[Total] = ()) -> None:
        """Note what the threads used so far: what a pool begins for one thread ends with it. Also where that is little, but waited for."""
        closely = waited(waits)
        if _ON_LINUX and (closely or time.process_time() - self._process >= WORTH_A_LOOK):
            with self._looking:
                self._used = time.process_time() - self._process  # read first: no library's threads used what the look takes
                self._look(closely=closely)

    def end(self) -> None:
        """Note what the calling thread used, which is Python's and ends: also what it took to look, and to leave what it kept."""
        me = threading.get_native_id()
        self._python[me] = self._since(me)

    def _look(self, *, closely: bool) -> None:
        python = _of_python()
        self._python |= {thread: max(self._since(thread), self._python.get(thread, 0.0)) for thread in python}  # it may just have ended
        if self._beside() < WORTH_A_LOOK and not closely:
            return
        for thread in _all_threads() - self._python.keys():  # also of those that have just ended
            used, noted = self._since(thread), self._others.get(thread)
            if used >= (noted[0] if noted else 0.0 if closely else _LEAST):
                self._others[thread] = used, max(0.0, _queued(thread) - self._before.get(thread, _NOTHING)[1])
        # reading files gives the GIL away to workers that go on: who was here before the arm will be here behind it
        self._know([thread for thread in self._unknown() if thread not in self._before][:_AT_ONCE])

    def _unknown(self) -> list[int]:
        return [thread for thread in self._others if not self._libraries.get(thread)]

    def _know(self, threads: list[int]) -> None:
        if threads:
            self._libraries |= natives.begun_by(threads)

    def found(self) -> tuple[Helpers, ...]:
        """Look once more; return what the threads of each library used, and what those did that have ended unseen."""
        self.look()
        self._know(self._unknown())
        found: dict[str, Helpers] = {}
        for thread, (cpu, queued) in self._others.items():
            library = self._libraries.get(thread, "")
            before = found.get(library, Helpers(library, 0.0))
            found[library] = Helpers(library, before.cpu_s + cpu, before.queue_s + queued)
        unseen = self._beside() - sum(each.cpu_s for each in found.values())
        found.pop(natives.PYTHON, None)
        if unseen >= WORTH_A_LOOK:
            before = found.get("", Helpers("", 0.0))
            found[""] = Helpers("", before.cpu_s + unseen, before.queue_s)
        return tuple(found.values())

    def _beside(self) -> float:
        """Return what the process had used at the last look beside what is known of Python's threads."""
        return self._used - sum(self._python.values())

    def _since(self, thread: int) -> float:
        return max(0.0, _cpu(thread) - self._before.get(thread, _NOTHING)[0])


def of_process(usage: Usage, waits: Iterable[Total]) -> tuple[Helpers, ...]:
    """Return what the threads of each library used in this process, which is one worker's; asked once, at its end."""
    if usage.process_cpu_s - usage.cpu_s < WORTH_A_LOOK and not waited(waits):
        return ()
    threads = HelperThreads(from_birth=True)
    threads.look(waits)
    return threads.found()


def waited(waits: Iterable[Total]) -> bool:
    """Tell whether a worker waited for threads of a library for longer than nobody would notice."""
    return any(each.kind == "helpers" and each.total_s > _NOTICED for each in waits)


def _of_python() -> set[int]:
    return {native for thread in threading.enumerate() if (native := getattr(thread, "native_id", None))}  # those of greenlets have none


def _all_threads() -> set[int]:
    try:
        return {int(name) for name in os.listdir("/proc/self/task")}  # noqa: PTH208  (at each run)
    except OSError:
        return set()


def _cpu(thread: int) -> float:
    """Return the CPU seconds of a thread of this process, by the number that Linux has for its clock; 0 where it has ended."""
    try:
        return time.clock_gettime((~thread << 3) | 6)
    except OSError:
        return 0.0


def _queued(thread: int) -> float:
    """Return the seconds that a thread of this process stood in a run queue; 0 where the system does not tell."""
    with suppress(OSError, ValueError, IndexError):
        descriptor = open_descriptor(f"/proc/self/task/{thread}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return int(read_descriptor(descriptor, 96).split()[1]) * 1e-9
        finally:
            close_descriptor(descriptor)
    return 0.0
