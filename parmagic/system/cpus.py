"""How many CPUs this process may use: affinity and cgroup quota, not the machine's cores."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

__all__ = ["available_cpus", "cgroup_folders"]


def available_cpus() -> int:
    """Count the CPUs that this process may use, at least 1; a fraction of a CPU counts as one."""
    return max(1, math.ceil(min(_affinity(), _quota(Path("/")))))


def _affinity() -> int:
    """CPUs that the scheduler may give to this process."""
    with suppress(OSError):  # a container may refuse to tell
        if hasattr(os, "process_cpu_count"):  # Python 3.13: also heeds PYTHON_CPU_COUNT
            return os.process_cpu_count() or 1
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quota(root: Path) -> float:
    """CPUs that the cgroups above this process grant together; infinity without a limit."""
    return min((min(_read_v1(folder), _read_v2(folder)) for folder in cgroup_folders(root, "cpu")), default=math.inf)


def cgroup_folders(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the cgroups that this process is in, and of those above: each of them can set a limit.

    ``controller`` is ``cpu``, ``memory`` or ``pids``. In a container the path may be
    the host's; its parents up to the mount point are tried all the same.
    """
    with suppress(OSError):
        for entry in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = entry.split(":", 2)
            if not controllers or controller in controllers.split(","):
                yield from _folders(root, controllers, controller, path)


def _folders(root: Path, controllers: str, controller: str, path: str) -> Iterator[Path]:
    mount = root / "sys/fs/cgroup" / controllers
    if controllers and not mount.exists():
        mount = root / "sys/fs/cgroup" / controller
    inner = PurePosixPath(*(part for part in PurePosixPath(path).parts if part not in {"/", ".."}))
    yield mount / inner
    yield from (mount / parent for parent in inner.parents)


def _read_v2(folder: Path) -> float:
    """Read ``cpu.max``: ``QUOTA PERIOD`` or ``max PERIOD``."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) / int(period)
    return math.inf


def _read_v1(folder: Path) -> float:
    """Read ``cpu.cfs_quota_us``: a quota of -1 is none."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        if quota > 0:
            return quota / int((folder / "cpu.cfs_period_us").read_text())
    return math.inf
