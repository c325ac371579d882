"""What the benchmarks share: pairs that interleave, medians, and where they ran."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Callable
from time import perf_counter, sleep


def where() -> str:
    """Say on what this ran."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {cores} cores"


def seconds(work: Callable[[], object]) -> float:
    """Return how long ``work`` takes, once."""
    begin = perf_counter()
    work()
    return perf_counter() - begin


def interleaved(contestants: dict[str, Callable[[], object]], rounds: int, pause: float = 0.0) -> dict[str, list[float]]:
    """Time all contestants in turn, round after round, so that noise hits all alike; ``pause`` seconds before each."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, work in contestants.items():
            sleep(pause)
            times[name].append(seconds(work))
    return times


def median(values: list[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def arguments() -> list[str]:
    """Return the command line without the program."""
    return sys.argv[1:]
