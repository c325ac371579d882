"""What a killed worker leaves of multiprocessing's semaphores: files in ``/dev/shm``, which nobody else would remove.

A semaphore has a name while it is made (fork), or until its owner ends (spawn,
forkserver). A worker's names have its process id in them (:func:`prefix`), and so
have those of what it starts: what they leave can be told from what others have.

The C library makes such a file under a random name first, for some microseconds. A
file of such a name that no process holds belongs to somebody who was killed then.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

_FOLDER = Path("/dev/shm")  # noqa: S108  (where the C library keeps semaphores)
_HALF_MADE = re.compile(r"sem\.[A-Za-z0-9]{6}")
_SURE = 0.02
"""Seconds after which a file that is half made, and not held, is not going to be made any more."""


def prefix(pid: int) -> str:
    """Return what the names of a worker's semaphores begin with, as multiprocessing wants it."""
    return f"/mp-{pid}"


def remove(pids: Collection[int]) -> None:
    """Remove the semaphores of these processes, which have ended with all that they had started."""
    for path in _files():
        if any(path.name.startswith(f"sem.{prefix(pid)[1:]}-") for pid in pids):
            path.unlink(missing_ok=True)


def remove_half_made(since: float) -> None:
    """Remove what was being made, since this time of the system's clock, when its maker was killed."""
    found = _unheld(since)
    if found:
        time.sleep(_SURE)
        for path in found & _unheld(since):
            path.unlink(missing_ok=True)


def _files() -> Iterator[Path]:
    with suppress(OSError):
        yield from (path for path in _FOLDER.iterdir() if path.name.startswith("sem."))


def _unheld(since: float) -> set[Path]:
    """Return what looks half made, is ours and as new as that, and is held by no process that we can see."""
    found = set()
    for path in _files():
        with suppress(OSError):
            about = path.stat()
            if _HALF_MADE.fullmatch(path.name) and about.st_uid == os.getuid() and about.st_ctime >= since:
                found.add(path)
    return {path for path in found if not any(_holds(process, path) for process in Path("/proc").glob("[0-9]*"))}


def _holds(process: Path, path: Path) -> bool:
    """Tell whether a process has this file open, or mapped."""
    with suppress(OSError):
        if str(path) in (process / "maps").read_text():
            return True
        for descriptor in (process / "fd").iterdir():
            with suppress(OSError):  # it may be closed by now
                if path.samefile(descriptor):
                    return True
    return False
