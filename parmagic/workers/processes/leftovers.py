"""What a killed worker leaves of multiprocessing's semaphores: files in ``/dev/shm``, which nobody else would remove.

A semaphore has a name while it is made (fork), or until its owner ends (spawn,
forkserver). The names of each worker's begin with something that nobody else's do
(:func:`prefix`), and so do those of what it starts: by that they are known, and by
nothing else.

The C library makes such a file under a random name first, for some microseconds. What
a worker leaves that is killed before it links that to its own name stays where it is: 32
bytes, of which nobody could say for sure that they are not another program's.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

_FOLDER = Path("/dev/shm")  # noqa: S108  (where the C library keeps semaphores)
_HALF_MADE = re.compile(r"sem\.[A-Za-z0-9]{6}")


def prefix() -> str:
    """Return what the names of a worker's semaphores have to begin with, as multiprocessing wants it: another one each time.

    Not the worker's process id: others may have that as soon as it has ended, and at the same time in other containers.
    """
    return f"/mp-{secrets.token_hex(8)}"


def remove(prefixes: Collection[str]) -> None:
    """Remove the semaphores of these workers, which have ended with all that they had started."""
    beginnings = tuple(f"sem.{prefix[1:]}-" for prefix in prefixes)
    if not beginnings:
        return
    with suppress(OSError):  # there is no such folder
        files = [path for path in _FOLDER.iterdir() if path.name.startswith("sem.")]
        named = [path for path in files if path.name.startswith(beginnings)]
        if named:
            _unlink([*_also_called(named, files), *named])


def _also_called(named: list[Path], files: list[Path]) -> list[Path]:
    """Return the random names that some of these semaphores still have beside their own."""
    inodes = {path.lstat().st_ino for path in named}
    return [path for path in files if _HALF_MADE.fullmatch(path.name) and path.lstat().st_ino in inodes]


def _unlink(paths: list[Path]) -> None:
    for path in paths:
        with suppress(OSError):  # somebody was faster
            path.unlink()
