"""The control groups that this process is in: a container's limits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath


def folders(controller: str, root: Path = Path("/")) -> Iterator[Path]:
    """Yield the folders of the groups that this process is in, and of those above: each of them can set a limit.

    ``controller`` is ``cpu``, ``memory`` or ``pids``. In a container the path may be
    the host's; its parents up to the mount point are tried all the same.
    """
    with suppress(OSError):
        for entry in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = entry.split(":", 2)
            if not controllers or controller in controllers.split(","):
                yield from _of_hierarchy(root, controllers, controller, path)


def _of_hierarchy(root: Path, controllers: str, controller: str, path: str) -> Iterator[Path]:
    mount = root / "sys/fs/cgroup" / controllers
    if controllers and not mount.exists():
        mount = root / "sys/fs/cgroup" / controller
    inner = PurePosixPath(*(part for part in PurePosixPath(path).parts if part not in {"/", ".."}))
    yield mount / inner
    yield from (mount / parent for parent in inner.parents)


def number(file: Path, otherwise: float = math.inf) -> float:
    """Return the number in a group's file; ``otherwise`` where there is none ("max"), or no such file."""
    try:
        return float(file.read_text())
    except (OSError, ValueError):
        return otherwise
