"""A server that is forked off the notebook: the body and the items are in its memory already."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from typing import Any

from parmagic.system import debugger, runs
from parmagic.system.descriptors import socketpair
from parmagic.system.interrupts import held_back
from parmagic.system.real import close_descriptor, fork_process, renew, set_handler, set_wakeup_fd
from parmagic.workers.loop import names_around
from parmagic.workers.processes.handle import Handle, descriptor_of
from parmagic.workers.processes.link import Hub
from parmagic.workers.settings.taken import taken

_FRONT_ENDS = frozenset(
    {
        "IPython", "_pydevd_bundle", "asyncio", "concurrent", "debugpy", "ipykernel", "ipyparallel", "jupyter_client", "parmagic",
        "prompt_toolkit", "pydevd", "tornado", "tqdm", "traitlets", "viztracer", "zmq",
    }
)  # fmt: skip
"""The packages whose own threads sit still while a cell runs."""


def user_threads() -> list[str]:
    """Return the names of the user's threads that are alive: with these, forking this process is not safe.

    The user's code is also what another run's workers run, and the thread of a front end that has begun it.
    """
    names = [] if runs.alone() else ["those of another run"]
    running = sys._current_frames()  # noqa: SLF001
    for thread in threading.enumerate():
        if thread is threading.main_thread() or thread is threading.current_thread():
            continue
        if isinstance(thread, threading._DummyThread) and thread.ident not in running:  # noqa: SLF001
            continue  # one that threading had not made: up to Python 3.12 it takes it for alive for ever
        target = getattr(thread, "_target", None)
        home = type(thread).__module__.partition(".")[0]
        if home == "threading":
            home = (getattr(target, "__module__", None) or "").partition(".")[0]
        if home not in _FRONT_ENDS:
            names.append(thread.name)
    return names


def fork(call: Any, items: Any) -> Hub:
    """Fork a server off this process: it carries our memory as it is now, the body and the items with it.

    Only while no other thread of the user's is alive, see :func:`user_threads`.
    """
    # what a worker needs is imported here: the child would do it each time anew
    from parmagic.workers.processes import child, home, server  # noqa: F401, PLC0415  (cloudpickle loads when something crosses a border)

    home.track_classes(names_around(call))
    settings = taken().settings
    ours, theirs = socketpair()
    me = descriptor_of(os.getpid())
    with warnings.catch_warnings(), held_back():
        warnings.simplefilter("ignore", DeprecationWarning)  # idle threads of the front end are known to be safe
        try:
            pid = fork_process()
        except OSError:
            for each in (ours, theirs):
                each.close()
            if me >= 0:
                close_descriptor(me)
            raise
        if not pid:  # it never leaves this block: a Ctrl-C that was held back is the notebook's
            try:
                debugger.leave()
                ours.close()
                renew()
                _settle()
                server.serve(theirs, me, (call, items, settings))
            finally:
                os._exit(1)
    theirs.close()
    if me >= 0:
        close_descriptor(me)
    return Hub(ours, server=Handle(pid, descriptor_of(pid)))


def _settle() -> None:
    """In the forked child: let go of the notebook's terminal, streams and signals."""
    os.setsid()
    set_wakeup_fd(-1)
    set_handler(signal.SIGINT, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    from parmagic.record import profiler  # noqa: PLC0415  (only where there is something to stop)

    profiler.forked()
