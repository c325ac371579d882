"""Whether there is room for so many worker processes: descriptors, processes, memory.

What would stop a run halfway is told before anything of it has run.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from parmagic.errors import ParmagicError
from parmagic.system.cgroups import folders, number
from parmagic.system.interrupts import held_back, undo
from parmagic.system.real import Lock

MANY = 32
"""Workers from which on it is looked whether there is room for them."""

FILES = 5
"""Descriptors that the notebook has open for every worker: a socket, two pipes, a black box, its last stack."""

SPARE_FILES = 64
"""Descriptors that it may need for everything else meanwhile."""

MEGABYTES = 8
"""Memory that a worker takes at least (an idle one 5 MB)."""


@contextmanager
def made(count: int, arm: str) -> Iterator[None]:
    """Let this process have as many open files as it may, where so many workers need more than it has; as before at the end.

    ``arm`` is the label of the arm that needs them.

    Raises ParmagicError where there is no room for them, with the limit that is in the way.
    """
    if count < MANY:
        yield
        return
    _look_for_processes(count, arm)
    _look_for_memory(count, arm)
    me = object()
    try:
        _files.make_room(me, count, arm)
        yield
    finally:
        try:
            undo(lambda: _files.give_back(me))
        finally:
            undo(lambda: _files.give_back(me))


class _Files:
    """How many open files this process may have: more while runs need them, in one thread or several, as before behind the last."""

    def __init__(self) -> None:
        self._changing = Lock()
        self._counts: dict[object, int] = {}  # workers, of each run that has asked
        self._before: tuple[int, int] | None = None

    def make_room(self, run: object, count: int, arm: str) -> None:
        """Raise the soft limit as far as one more run needs it."""
        with held_back(), self._changing:
            before = _raised_for(count, sum(self._counts.values()), arm)
            self._before = self._before or before
            self._counts[run] = count

    def give_back(self, run: object) -> None:
        """Have the limit that there was, where no other run is left."""
        with held_back(), self._changing:
            self._counts.pop(run, None)
            before = self._before
            if before is not None and not self._counts:
                import resource  # noqa: PLC0415  (POSIX only)

                with suppress(OSError, ValueError):
                    resource.setrlimit(resource.RLIMIT_NOFILE, before)
                self._before = None


_files = _Files()


def _raised_for(count: int, others: int, arm: str) -> tuple[int, int] | None:
    """Raise the soft limit as far as so many workers need it, and those of other runs; return what it was, where it was changed."""
    try:
        import resource  # noqa: PLC0415  (POSIX only)
    except ImportError:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _open_files() + FILES * count + SPARE_FILES
    if soft == resource.RLIM_INFINITY or needed + FILES * others <= soft:
        return None
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise ParmagicError(
            f"{arm} needs {needed:,} open files in this process, and {hard:,} are allowed (ulimit -Hn). "
            f"Take at most {max(1, (hard - needed) // FILES + count)} workers, or have the limit raised."
        )
    with_others = needed + FILES * others
    resource.setrlimit(resource.RLIMIT_NOFILE, (with_others if hard == resource.RLIM_INFINITY else min(with_others, hard), hard))
    return soft, hard


def _open_files() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  (only how many)
    except OSError:
        return SPARE_FILES


def _look_for_processes(count: int, arm: str) -> None:
    left, limit = min(((most - now, why) for most, now, why in _process_limits()), default=(math.inf, ""))
    if count > left:
        raise ParmagicError(f"{arm} needs {count} more processes, and there is room for {max(0, int(left))} ({limit}).")


def _process_limits() -> Iterator[tuple[float, float, str]]:
    """Yield (most, how many there are, what says so) of each limit on processes."""
    for folder in folders("pids"):
        most, now = number(folder / "pids.max"), number(folder / "pids.current")
        yield most, now, "pids.max of the control group, a container's limit"
    with suppress(ImportError):
        import resource  # noqa: PLC0415  (POSIX only)

        most = resource.getrlimit(resource.RLIMIT_NPROC)[0]
        if most != resource.RLIM_INFINITY and os.geteuid() != 0:
            yield most, _own_threads(), "ulimit -u, of all processes and threads of this user"


def _own_threads() -> int:
    import psutil  # noqa: PLC0415  (loads when a run needs it)

    found = 0
    for process in psutil.process_iter(["uids", "num_threads"]):
        uids = process.info["uids"]
        if uids is not None and uids.real == os.getuid():
            found += process.info["num_threads"] or 1
    return found


def _look_for_memory(count: int, arm: str) -> None:
    import psutil  # noqa: PLC0415  (loads when a run needs it)

    left = float(psutil.virtual_memory().available)
    for folder in folders("memory"):
        for most, now in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            left = min(left, number(folder / most) - number(folder / now, 0.0))
    if count * MEGABYTES * 1e6 > left:
        raise ParmagicError(
            f"{arm} needs about {count * MEGABYTES / 1e3:.1f} GB of memory for its processes alone, and {left / 1e9:.1f} GB are "
            "free."
        )
