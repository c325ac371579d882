"""What a large array costs that all workers read: time until the first item, time in all, and memory of their own.

    python benchmarks/shipping.py [MB]

Four workers each sum up a part of one NumPy array, which parmagic ships as a name that the
body reads and joblib (loky) as an argument, which it maps from a file. Workers of loky's are
kept from call to call; parmagic's are new. Memory is what the workers have for themselves
(USS), together, above a run in which they read nothing.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable

import joblib
import numpy as np
import psutil
from common import arguments, where

import parmagic

WORKERS = 4
ROUNDS = 5

Seen = tuple[float, float, float]
"""When the item began (CLOCK_MONOTONIC), the sum, the worker's own memory in MB."""


def look(array: np.ndarray | None, item: int) -> Seen:
    """Sum up every fourth number, from ``item`` on; see how much memory this process has for itself."""
    begin = time.perf_counter()
    total = float(array[item::WORKERS].sum()) if array is not None else 0.0
    time.sleep(0.05)  # so that each worker gets one
    return begin, total, psutil.Process().memory_full_info().uss / 1e6


def with_parmagic(array: np.ndarray | None) -> list[Seen]:
    """Ship the array as a name."""
    run = parmagic.run(functools.partial(look, array), range(WORKERS), f"procs={WORKERS}", once=True, trace="off", chunk=1)
    return list(run.results)


def with_joblib(array: np.ndarray | None) -> list[Seen]:
    """Ship the array as an argument."""
    return list(joblib.Parallel(n_jobs=WORKERS)(joblib.delayed(look)(array, item) for item in range(WORKERS)))


def measure(run: Callable[[np.ndarray | None], list[Seen]], array: np.ndarray) -> str:
    """Return the medians of some rounds as a line's end."""
    rows = []
    for _ in range(ROUNDS):
        empty = sum(memory for _, _, memory in run(None))
        begin = time.perf_counter()
        seen = run(array)
        end = time.perf_counter()
        assert sum(total for _, total, _ in seen) == len(array)
        rows.append((min(first for first, _, _ in seen) - begin, end - begin, sum(memory for _, _, memory in seen) - empty))
    first, whole, memory = (statistics.median(column) for column in zip(*rows, strict=True))
    return f"first item after {first:5.3f} s, done after {whole:5.3f} s, workers' own memory {memory:+8.1f} MB"


def main() -> None:
    """Print a line for each."""
    megabytes = int(arguments()[0]) if arguments() else 400
    array = np.ones(megabytes * 125_000)
    print(where(), f"- an array of {megabytes} MB, {WORKERS} workers, medians of {ROUNDS}")
    for title, run in (("parmagic procs=4", with_parmagic), ("joblib, loky", with_joblib)):
        print(f"{title:18} {measure(run, array)}", flush=True)


if __name__ == "__main__":
    main()
