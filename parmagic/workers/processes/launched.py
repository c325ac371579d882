"""A server that is exec'd: a new, clean process."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from contextlib import ExitStack
from pathlib import Path

import parmagic
from parmagic.system.debugger import undebugged
from parmagic.system.descriptors import socketpair
from parmagic.system.files import anonymous_file
from parmagic.system.real import close_descriptor, subprocesses
from parmagic.workers.processes import fresh
from parmagic.workers.processes.handle import SERVER, descriptor_of, is_below
from parmagic.workers.processes.link import Hub


def launch() -> Hub:
    """Exec a new, clean server. It is no child of ours, so no ``wait()`` of the user's waits for it, or takes its end from us.

    But in its first moments it is; and within a worker, where what has no parent is taken for left behind.
    """
    variables = dict(os.environ)
    with ExitStack() as opened:
        ours, theirs = socketpair()
        opened.enter_context(theirs)
        failed = opened.enter_context(ExitStack())  # what is closed only where this fails
        failed.callback(ours.close)
        errors = anonymous_file()
        failed.callback(close_descriptor, errors)
        me = descriptor_of(os.getpid())
        if me >= 0:
            opened.callback(close_descriptor, me)
        orders = fresh.written(_search_path(), (theirs.fileno(), me, variables))
        opened.callback(close_descriptor, orders)
        opened.enter_context(undebugged())
        subprocess = subprocesses()
        process = subprocess.Popen(
            fresh.command("server:main", orders, detached=not is_below(SERVER), title=f"for={os.getpid()}"),
            pass_fds=[each for each in (theirs.fileno(), orders, me) if each >= 0],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=fresh.through_exec(variables),
            start_new_session=True,
        )
        failed.pop_all()
    return Hub(ours, process=process, errors=errors)


def _search_path() -> list[str]:
    """Return where the server may import from: the standard library, installed packages, parmagic.

    Not the user's folder: a ``random.py`` there is the workers' business, not the server's.
    """
    installed = [*site.getsitepackages(), site.getusersitepackages(), *sysconfig.get_paths().values()]
    roots = tuple(os.path.realpath(p) + os.sep for p in installed)
    ours = str(Path(parmagic.__file__).parents[1])
    absolute = [p for p in sys.path if os.path.isabs(p)]  # noqa: PTH117  (others may lead to nothing, where the working directory is gone)
    kept = [p for p in absolute if (os.path.realpath(p) + os.sep).startswith(roots)]
    zipped = [p for p in sys.path if p.endswith(".zip")]
    packages = [p for p in kept if {"site-packages", "dist-packages"} & set(Path(p).parts)]
    # before the packages: another parmagic may be installed there than the one that runs here
    return [*zipped, *(p for p in kept if p not in packages), ours, *packages]
