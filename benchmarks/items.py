"""What one trivial item costs: ``x`` over ``range(100_000)``, two workers, against the usual pools.

    python benchmarks/items.py

Needs joblib and mpire beside parmagic. The last column is the ratio to the
cheaper of parmagic's two models; ``plain loop`` is what nothing can beat.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing.pool import ThreadPool

import joblib
import mpire
from common import interleaved, median, where

import parmagic

N = 100_000
ROUNDS = 5


def identity(x: int) -> int:
    """Return the item."""
    return x


def loop() -> list[int]:
    """Be the plain loop."""
    return [identity(x) for x in range(N)]


def ours(models: str, chunk: int | None = None) -> None:
    """Run it here."""
    parmagic.run(identity, range(N), models, once=True, trace="off", chunk=chunk)


def executor(kind: type, n: int = N) -> None:
    """Run it in an executor, as most people do: without a chunk size."""
    with kind(2) as pool:
        list(pool.map(identity, range(n)))


def pool(kind: object, method: str) -> None:
    """Run it in a multiprocessing pool."""
    with kind(2) as workers:  # type: ignore[operator]
        list(getattr(workers, method)(identity, range(N)))


def joblib_run(backend: str) -> None:
    """Run it in joblib."""
    joblib.Parallel(2, backend=backend)(joblib.delayed(identity)(x) for x in range(N))


def mpire_run() -> None:
    """Run it in mpire."""
    with mpire.WorkerPool(2) as workers:
        workers.map(identity, range(N))


CONTESTANTS = {
    "plain loop": loop,
    "parmagic threads=2": partial(ours, "threads=2"),
    "parmagic procs=2": partial(ours, "procs=2"),
    "ThreadPool.map (chunks)": partial(pool, ThreadPool, "map"),
    "Pool.map (chunks)": partial(pool, multiprocessing.Pool, "map"),
    "Pool.imap": partial(pool, multiprocessing.Pool, "imap"),
    "ThreadPoolExecutor.map": partial(executor, ThreadPoolExecutor),
    "ProcessPoolExecutor.map": partial(executor, ProcessPoolExecutor),
    "joblib loky": partial(joblib_run, "loky"),
    "joblib threading": partial(joblib_run, "threading"),
    "mpire": mpire_run,
}


def main() -> None:
    """Print the table."""
    print(where(), f"- {N:,} items, medians of {ROUNDS}, start-up included")
    times = interleaved(CONTESTANTS, ROUNDS)
    base = min(median(times[name]) for name in times if name.startswith("parmagic"))
    for name, values in sorted(times.items(), key=lambda pair: median(pair[1])):
        each = median(values) / N * 1e6
        print(f"{name:26} {each:9.2f} µs per item {median(values) / base:8.1f}×")


if __name__ == "__main__":
    main()
