"""What measuring waits costs: recorded against unrecorded wall time, in interleaved pairs.

    python benchmarks/waits.py [PAIRS]

A pair is one round of threads with the hooks on and a meter in each, and one without.
The ratio's interval holds the median of all pairs with 95 % confidence (bootstrap).
"""

from __future__ import annotations

import os
import random
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext

from common import arguments, seconds, where

from parmagic.record import hooks, meter

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # two threads with two of BLAS's each measure the scheduler's moods
try:
    import numpy as np
except ImportError:
    np = None  # type: ignore[assignment]


def compute() -> None:
    """Run pure Python."""
    for _ in range(1500):
        sum(range(10_000))


def numpy_work() -> None:
    """Multiply matrices: NumPy and its BLAS."""
    a = np.ones((400, 400))
    for _ in range(100):
        a = a @ a / 400


def yields() -> None:
    """Give the GIL away 100,000 times."""
    for _ in range(100_000):
        time.sleep(0)


def tiny_reads() -> None:
    """Read one byte 200,000 times: a release and a take of the GIL every 0.4 µs."""
    with open("/dev/zero", "rb", buffering=0) as zero:  # noqa: PTH123  (unbuffered)
        number = zero.fileno()
        for _ in range(200_000):
            os.read(number, 1)


def threads(work: Callable[[], None], count: int, *, recorded: bool) -> None:
    """Run ``work`` in that many threads at once."""

    def run(rank: int) -> None:
        gauge = meter.meter(rank, own_process=False, measuring=True) if recorded else None
        work()
        if gauge is not None:
            gauge.take()
            gauge.close()

    with hooks.hooked() if recorded else nullcontext():
        crew = [threading.Thread(target=run, args=(rank,)) for rank in range(count)]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()


def interval(ratios: list[float], rounds: int = 2000) -> tuple[float, float]:
    """Return the bootstrap's 95 % interval of the median."""
    drawn = random.Random(1)
    medians = sorted(statistics.median(drawn.choices(ratios, k=len(ratios))) for _ in range(rounds))
    return medians[int(0.025 * rounds)], medians[int(0.975 * rounds)]


def main() -> None:
    """Print a line for each kind of work."""
    pairs = int(arguments()[0]) if arguments() else 21
    why = hooks.why_inferred()
    if why:
        raise SystemExit(f"nothing to compare: {why}")
    print(where(), f"- {pairs} interleaved pairs")
    contests: list[tuple[str, Callable[[], None], int]] = [
        ("pure Python, 2 threads", compute, 2),
        ("pure Python, 4 threads", compute, 4),
        ("time.sleep(0) × 100,000, 4 threads", yields, 4),
        ("os.read of one byte × 200,000, 1 thread", tiny_reads, 1),
    ]
    if np is not None:
        contests.insert(2, ("NumPy 400 × 400 @, 2 threads", numpy_work, 2))
    for title, work, count in contests:
        threads(work, count, recorded=True)
        pair = []
        for place in range(pairs):
            first = place % 2 == 0
            one = seconds(lambda: threads(work, count, recorded=first))
            other = seconds(lambda: threads(work, count, recorded=not first))
            pair.append((one, other) if first else (other, one))
        ratios = [recorded / plain for recorded, plain in pair]
        low, high = interval(ratios)
        plain = statistics.median(each[1] for each in pair)
        print(f"{title:42} {statistics.median(ratios):6.3f}  ({low:.3f} to {high:.3f})  of {plain * 1e3:7.1f} ms")


if __name__ == "__main__":
    main()
