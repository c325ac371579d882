"""Workers in new interpreters (``spawn``), where a fork of the server will not do."""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
from multiprocessing import resource_tracker

from parmagic.system.real import close_descriptor, posix_spawn
from parmagic.workers.processes import entry as entries
from parmagic.workers.processes import fresh
from parmagic.workers.processes.handle import PR_SET_PDEATHSIG, prctl


def spawn(entry: str, arguments: bytes, descriptors: list[int], files: tuple[int, int] | None) -> int:
    """Start a new interpreter below this process, with that limit on open files; return its id."""
    variables = dict(os.environ)
    tracker = resource_tracker._resource_tracker._fd  # type: ignore[attr-defined]  # noqa: SLF001
    orders = fresh.written(sys.path, (entry, arguments, descriptors, os.getpid(), variables, files, tracker))
    for descriptor in (orders, *descriptors, *([] if tracker is None else [tracker])):
        os.set_inheritable(descriptor, True)
    try:
        command = fresh.command("spawned:main", orders)
        return posix_spawn(command[0], command, fresh.through_exec(variables), setsigmask=[])
    finally:
        close_descriptor(orders)


def main(orders: io.BufferedReader) -> None:
    """Be the new interpreter, and do a new process's work; never returns."""
    code = 1
    try:
        entry, arguments, descriptors, server, variables, files, tracker = fresh.read(orders)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == server:
            fresh.take_over(variables)
            resource_tracker._resource_tracker._fd = tracker  # type: ignore[attr-defined]  # noqa: SLF001
            for descriptor in (*descriptors, *([] if tracker is None else [tracker])):
                os.set_inheritable(descriptor, False)
            entries.be(entry, arguments, descriptors, None, files)
            code = 0
    except BaseException:  # noqa: BLE001  (the last line of a process)
        traceback.print_exc()
    finally:
        os._exit(code)
