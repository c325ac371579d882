"""How many CPUs this process may use: affinity and cgroup quota, not the machine's cores."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

from parmagic.system import cgroups


def available_cpus() -> int:
    """Count the CPUs that this process may use, at least 1; a fraction of a CPU counts as one."""
    return max(1, math.ceil(min(affinity(), quota(Path("/")))))


def affinity() -> int:
    """CPUs that the scheduler may give to this process."""
    with suppress(OSError):  # a container may refuse to tell
        if hasattr(os, "process_cpu_count"):  # Python 3.13: also heeds PYTHON_CPU_COUNT
            return os.process_cpu_count() or 1
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def quota(root: Path) -> float:
    """CPUs that the cgroups above this process grant together; infinity without a limit."""
    return min((min(_read_v1(folder), _read_v2(folder)) for folder in cgroups.folders("cpu", root)), default=math.inf)


def _read_v2(folder: Path) -> float:
    """Read ``cpu.max``: ``QUOTA PERIOD`` or ``max PERIOD``."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        granted, period = (folder / "cpu.max").read_text().split()
        return int(granted) / int(period)
    return math.inf


def _read_v1(folder: Path) -> float:
    """Read ``cpu.cfs_quota_us``: a quota of -1 is none."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        granted = int((folder / "cpu.cfs_quota_us").read_text())
        if granted > 0:
            return granted / int((folder / "cpu.cfs_period_us").read_text())
    return math.inf
