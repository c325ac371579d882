"""A server that is forked off the notebook: the body and the items are in its memory already."""

from __future__ import annotations

import gc
import os
import signal
import sys
import warnings
from typing import Any

from parmagic.record import lives
from parmagic.system import debugger
from parmagic.system.descriptors import socketpair
from parmagic.system.interrupts import held_back
from parmagic.system.real import close_descriptor, fork_process, renew, set_handler, set_wakeup_fd
from parmagic.workers.loop import names_around
from parmagic.workers.processes.handle import Handle, descriptor_of
from parmagic.workers.processes.link import Hub
from parmagic.workers.settings.taken import taken


def fork(call: Any, items: Any) -> Hub:
    """Fork a server off this process: it carries our memory as it is now, the body and the items with it.

    Only where :func:`~parmagic.workers.processes.forkable.obstacle` has found none.
    """
    # what a worker needs is imported here: the child would do it each time anew
    from parmagic.workers.processes import child, home, server  # noqa: F401, PLC0415  (cloudpickle loads when something crosses a border)

    home.track_classes(names_around(call))
    settings = taken().settings
    ours, theirs = socketpair()
    me = descriptor_of(os.getpid())
    with warnings.catch_warnings(), held_back(), lives.nobodys():
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
    gc.freeze()  # what workers find that is not, is their bodies'
