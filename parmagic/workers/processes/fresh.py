"""New interpreters: how they are told what to do, with nothing of it on a command line that others can read.

What they need to know lies in a file without a name, whose descriptor they inherit: the
search path as a line of JSON, for what follows can be read only where parmagic can be
imported; then a pickle.
"""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from json.encoder import JSONEncoder
from typing import Any

from parmagic.system.files import anonymous_file, write_all
from parmagic.workers.processes.covered import ASKED_BY

_JSON, _as_pickle = JSONEncoder(), pickle.dumps

_LONGEST = 100_000
"""Bytes of a variable from which on it does not go through exec, where the kernel takes 128 KiB; it is set later."""

_ALL = 1_000_000
"""Bytes of all variables together, likewise: a quarter of the stack's limit, which is 8 MB as a rule."""


def command(entry: str, orders: int, *, detached: bool = False, title: str = "") -> list[str]:
    """Return the command line of a new interpreter that calls ``entry`` with its orders: ``module:function`` of this folder's.

    ``orders`` is the descriptor of :func:`written`. ``detached``: in a process that is no child of its parent's,
    whose ``wait()`` therefore does not wait for it; not beside a thread that somebody starts in every interpreter.
    ``title`` is for those who read it. It never looks for modules where it is (``-P``): Python 3.13.0 fails at imports
    where it does, and that folder is gone.
    """
    detach = "len(sys._current_frames()) == 1 and os.fork() and os._exit(0); " if detached else ""
    module, function = entry.split(":")
    code = (
        f"import json, os, sys; {detach}orders = open({orders}, 'rb'); "
        f"sys.path[:] = json.loads(orders.readline()); from parmagic.workers.processes.{module} import {function}; {function}(orders)"
    )
    return [interpreter(), "-P", *subprocess._args_from_interpreter_flags(), "-c", code, *([title] if title else [])]  # type: ignore[attr-defined]  # noqa: SLF001


def interpreter() -> str:
    """Return the path of the interpreter that runs here.

    That is ``sys.executable``, unless a profiler has put a script of its own there, which profiles what is started by it (Scalene does).
    """
    known = [sys.executable, os.path.join(sys.prefix, "bin", "python3"), getattr(sys, "_base_executable", "")]  # noqa: PTH118  (strings, for exec)
    return next((path for path in known if path and _runs_here(path)), sys.executable)


def _runs_here(path: str) -> bool:
    with suppress(OSError):
        return os.path.samefile(path, "/proc/self/exe")  # noqa: PTH121  (on other systems there is none)
    return False


def written(path: list[str], orders: Any) -> int:
    """Write down where to import from, and the orders; return the descriptor of that."""
    file = anonymous_file()
    # not by functions that a cell may have put something else in the place of, which the other side does not read
    write_all(file, memoryview(_JSON.encode(path).encode() + b"\n" + _as_pickle(orders)), 0)
    return file


def read(orders: io.BufferedReader) -> Any:
    """Read the orders, behind the search path, and close their file."""
    with orders:
        return pickle.load(orders)


def through_exec(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a new interpreter is to start with.

    The largest may be too many for exec; those that start coverage are the workers' business.
    """
    kept, size = {}, 0
    wanted = [(name, value) for name, value in variables.items() if name not in ASKED_BY]
    for name, value in sorted(wanted, key=lambda pair: len(pair[1])):
        size += len(os.fsencode(name)) + len(os.fsencode(value)) + 2
        if size > _ALL or len(value) > _LONGEST:
            break
        kept[name] = value
    return kept


def take_over(variables: Mapping[str, str]) -> None:
    """Have these variables, and no others."""
    before = dict(os.environ)
    for name in before.keys() - variables.keys():
        del os.environ[name]
    os.environ.update({name: value for name, value in variables.items() if before.get(name) != value})
