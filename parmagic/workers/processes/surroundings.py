"""What a worker process finds around it: streams, variables, the search path, random numbers of its own."""

from __future__ import annotations

import os
import random
import sys
from multiprocessing import current_process, resource_tracker
from typing import Any

from parmagic.system.real import close_descriptor
from parmagic.workers.processes import fresh


def reseed() -> None:
    """Let every worker draw random numbers of its own: forks of one server would all draw the same."""
    random.seed()
    for name in ("numpy.random", "torch"):
        seed = getattr(sys.modules.get(name), "seed", None)
        if seed is not None:
            seed()  # torch's: of all devices, those of GPUs when one is first used
    tensorflow = getattr(sys.modules.get("tensorflow"), "random", None)
    if tensorflow is not None:
        tensorflow.set_seed(random.getrandbits(62))


def fill_main(space: dict[str, Any], named: dict[str, Any]) -> None:
    """Let ``__main__`` hold what was shipped of the notebook's: plain pickle, and pools that a body starts, look it up there.

    ``space`` is where the body looks, ``named`` what was sent by name: what it reads from a string comes by no other way.
    """
    if space.get("__name__") == "__main__":
        space.update(named)
        vars(sys.modules["__main__"]).update({name: value for name, value in space.items() if not name.startswith("__")})


def redirect(out: int, err: int) -> None:
    """Let everything that is printed here, also by C and by children, go to the notebook."""
    null = os.open(os.devnull, os.O_RDONLY)
    for descriptor, place in ((null, 0), (out, 1), (err, 2)):
        os.dup2(descriptor, place)
        close_descriptor(descriptor)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]


def take_over(environment: dict[str, Any], tracker: int) -> None:
    """Make this process like the notebook's: variables, search path, key, resource tracker."""
    fresh.take_over(environment["variables"])
    sys.path[:] = environment["path"]
    current_process().authkey = environment["key"]
    if environment["tracked"]:
        resource_tracker._resource_tracker._fd = tracker  # type: ignore[attr-defined]  # noqa: SLF001


def figures_left_open() -> list[str]:
    """Return a note where matplotlib figures were left open: they stay in the process."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None or not pyplot.get_fignums():
        return []
    return ["Figures were left open in a process and are not shown: return the figure, or save it in the body."]
