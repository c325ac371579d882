"""Whether the notebook can be forked: a fork has one thread, and no GPU."""

from __future__ import annotations

import sys
import threading
from typing import NamedTuple

from parmagic.system import gpus, natives, runs

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
    running = set(sys._current_frames())  # noqa: SLF001  (not the frames: this one would hold itself, and all that its callers hold)
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


class Obstacle(NamedTuple):
    """Why the notebook cannot be forked; ``plain`` is that without names, which may be the user's, ``first`` what would change it."""

    why: str
    plain: str
    first: str = ""


def obstacle() -> Obstacle | None:
    """Return what makes forking this process unsafe; None where nothing does, as far as can be seen."""
    device = gpus.held()
    if device:
        why = f"the notebook holds a GPU ({device}), which no fork of it can use"
        return Obstacle(why, why)
    alive = user_threads()
    if alive:
        why = "threads of yours are alive"
        return Obstacle(f"{why} ({', '.join(alive[:5])})", f"{why} ({len(alive)})", "end them, or ")
    pools = ", ".join(f"{name} ({count})" for name, count in sorted(natives.left_out().items()))
    why = f"threads of a library are alive here, which a fork has not and would wait for in vain ({pools})"
    return Obstacle(why, why) if pools else None


def left_behind() -> int:
    """Return how many things there are in a server that keep it from forking, besides Python's threads."""
    return sum(natives.left_out().values()) + bool(gpus.held())
