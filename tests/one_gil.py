"""The law of one GIL: of N threads that compute in Python, at every instant at most one does not wait for it.

So ``sum(wall_s - gil_wait_s)`` of their items is at most the time from the first begin to the
last end, whatever else keeps the machine busy. Run as a program, it tries that beside
other processes, prints a row for each case, and exits with 1 where the law was broken:

    python tests/one_gil.py --runs 100

That a hypervisor takes a core meanwhile, which a guest's CPU clocks count as the thread's that was there, changes nothing about it.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import parmagic
from parmagic.system.cpus import available_cpus

USUAL, EVER = 1.02, 1.05  # of the window: in 99 of 100 runs, and in all of them
NATIVE = 0.005  # of the items' wall time: they call no native code


class Sight(NamedTuple):
    """What one run shows: both are shares."""

    law: float  # seconds that its items did not wait for the GIL, per second from the first begin to the last end
    native: float  # of the items' wall time


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep the machine busy with ``count`` other processes."""
    others = [subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE) for _ in range(count)]
    try:
        for other in others:
            assert other.stdout is not None
            other.stdout.readline()
        yield
    finally:
        for other in others:
            other.kill()
            other.communicate()


def spin(seconds: float) -> None:
    """Compute in Python, and call nothing that gives the GIL away."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        sum(range(500))


def look(threads: int, seconds: float) -> Sight:
    """Run that many threads, one item each, and look at their items."""
    run = parmagic.run(lambda _: spin(seconds), range(threads), f"threads={threads}", chunk=1, once=True, trace="off")
    items = run.items
    assert run.workers["measured"].all()
    window = (items["start_s"] + items["wall_s"]).max() - items["start_s"].min()
    return Sight((items["wall_s"] - items["gil_wait_s"]).sum() / window, items["native_s"].sum() / items["wall_s"].sum())


def looks(runs: int, threads: int, seconds: float) -> list[Sight]:
    """Look at so many runs."""
    return [look(threads, seconds) for _ in range(runs)]


def broken(sights: Sequence[Sight]) -> bool:
    """Tell whether runs break the law."""
    laws = sorted((sight.law for sight in sights), reverse=True)
    return laws[0] > EVER or laws[len(laws) // 100] > USUAL or max(sight.native for sight in sights) >= NATIVE


def main() -> int:
    """Try the law, and say where it was broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100, help="of each case")
    parser.add_argument("--seconds", type=float, default=0.4, help="that each thread computes for")
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--beside", type=int, nargs="+", default=[0, 1, 3, 8], help="other busy processes")
    asked = parser.parse_args()
    failed = False
    print(f"{asked.runs} runs of {asked.seconds} s on {available_cpus()} cores: seconds without a wait for the GIL per second")
    print(f"{'others':>6} {'threads':>7} {'median':>7} {'1 in 100':>8} {'highest':>7} {'native':>7}")
    for others in asked.beside:
        with busy(others):
            for threads in asked.threads:
                sights = looks(asked.runs, threads, asked.seconds)
                laws = sorted((sight.law for sight in sights), reverse=True)
                native = max(sight.native for sight in sights)
                bad = broken(sights)
                failed |= bad
                print(
                    f"{others:>6} {threads:>7} {laws[len(laws) // 2]:>7.3f} {laws[len(laws) // 100]:>8.3f} {laws[0]:>7.3f} {native:>7.2%}"
                    f"{'  broken' if bad else ''}",
                    flush=True,
                )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
