"""What threads and processes have used so far: CPU time, context switches, memory, as far as the system tells."""

from __future__ import annotations

import math
import sys
import time
from time import thread_time

from parmagic.model.recording import Usage
from parmagic.system.descriptors import opened


class Used:
    """What the calling thread, or its whole process, used since this was made."""

    def __init__(self, *, own_process: bool) -> None:
        self._own_process = own_process
        self._switches = _switches()
        self._process_cpu = time.process_time()
        self._cpu = thread_time()

    def so_far(self) -> Usage:
        """Return what has been used since."""
        voluntary, involuntary = _switches()
        return Usage(
            cpu_s=thread_time() - self._cpu,
            process_cpu_s=time.process_time() - self._process_cpu if self._own_process else math.nan,
            ctx_voluntary=voluntary - self._switches[0],
            ctx_involuntary=involuntary - self._switches[1],
            rss_mb=peak_rss_mb() if self._own_process else math.nan,  # of a shared one, once: each file that is read gives the GIL away
        )


def _switches() -> tuple[float, float]:
    """Return the calling thread's context switches so far: voluntary, involuntary."""
    try:
        import resource  # noqa: PLC0415  (POSIX only)

        usage = resource.getrusage(resource.RUSAGE_THREAD)
    except (ImportError, AttributeError, OSError):
        return math.nan, math.nan
    return usage.ru_nvcsw, usage.ru_nivcsw


def peak_rss_mb() -> float:
    """Return the peak resident memory of this process, in MB (10**6 bytes); NaN where the system does not tell."""
    try:
        if not sys.platform.startswith("linux"):
            return _peak_by_psutil()
        # not getrusage: a forked child inherits its parent's peak there
        with open("/proc/self/status", "rb", opener=opened) as status:
            peak = next((line for line in status if line.startswith(b"VmHWM")), None)
    except OSError:
        return math.nan
    return int(peak.split()[1]) * 1024 / 1e6 if peak else math.nan


def _peak_by_psutil() -> float:
    import psutil  # noqa: PLC0415  (only where Linux does not tell)

    memory = psutil.Process().memory_info()
    return float(getattr(memory, "peak_wset", memory.rss)) / 1e6


def cpu_seconds(pid: int, tid: int | None = None) -> float:
    """Return the CPU time of a thread, by default a process's main one; 0 where the system does not tell."""
    try:
        with open(f"/proc/{pid}/task/{tid or pid}/schedstat", "rb", opener=opened) as figures:
            return int(figures.read().split()[0]) * 1e-9
    except OSError:
        return 0.0
