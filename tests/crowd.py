"""Busy processes that are nobody's children, one pinned to each CPU in turn: a crowd beside a run.

``python tests/crowd.py [seconds]`` shows what ``others_cores`` says beside 0, 1, 2 and 3 of them, and what they used by
their own clocks. On a quiet machine both are the same to 0.15 cores.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import parmagic

LOOP = """
import os, sys, time
if os.fork():
    os._exit(0)
os.setsid()
os.sched_setaffinity(0, {int(sys.argv[1])})
os.write(1, b"%d" % os.getpid())
os.close(1)
while time.process_time() < 120:  # should nobody end it
    pass
"""


@contextmanager
def crowd(count: int) -> Iterator[list[int]]:
    """Have so many busy processes run meanwhile, which are no children of this one; yield their process ids."""
    cpus, pids = sorted(os.sched_getaffinity(0)), []
    try:
        for number in range(count):
            said = subprocess.check_output([sys.executable, "-c", LOOP, str(cpus[number % len(cpus)])], stdin=subprocess.DEVNULL)
            pids.append(int(said))
        yield pids
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)


def used(pids: list[int]) -> float:
    """Return the CPU seconds of these processes, by their own clocks."""
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)  # what clock_getcpuclockid(3) makes


def main(seconds: float) -> None:
    """Print a row for each crowd and model."""
    for model in ("procs=2", "threads=2", "serial"):
        for count in range(4):
            with crowd(count) as pids:
                before, begin = used(pids), perf_counter()
                run = parmagic.run(spin, [seconds / 2] * (4 if model != "serial" else 2), model, once=True, trace="off")
                truth = (used(pids) - before) / (perf_counter() - begin)
            row = run.summary.iloc[0]
            print(f"{model:10} beside {count}: {row.others_cores:5.2f} by us, {truth:5.2f} by their clocks; arm of {row.wall_s:.1f} s, {row.cores_used:.2f} cores of ours")


def spin(seconds: float) -> None:
    """Compute for so many seconds."""
    end = perf_counter() + seconds
    while perf_counter() < end:
        pass


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0)
