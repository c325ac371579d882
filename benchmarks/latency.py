"""What an empty cell costs, what loading the extension adds, and what peers take for no work in processes.

python benchmarks/latency.py

NumPy and pandas are imported, as in most notebooks. All processes but those of joblib's loky,
which are kept from the call before, are new: none has run an item before. Parmagic's fork server
prepares them ahead while nothing happens, so everything is measured twice: after a pause, as
between two cells that somebody writes, and one right after another.
"""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable

import joblib
import numpy  # noqa: F401, ICN001
import pandas  # noqa: F401, ICN001
from common import interleaved, median, where
from IPython.core.interactiveshell import InteractiveShell

ROUNDS = 21
PAUSE = 0.2
LOAD = (
    "from IPython.core.interactiveshell import InteractiveShell; import time; shell = InteractiveShell.instance(); "
    "begin = time.perf_counter(); shell.run_line_magic('load_ext', 'parmagic'); print(time.perf_counter() - begin)"
)


def load_seconds() -> float:
    """Return what ``%load_ext parmagic`` takes in a fresh IPython."""
    return float(subprocess.run([sys.executable, "-c", LOAD], check=True, capture_output=True, text=True).stdout)


def fork_pool() -> None:
    """Start a pool of forks of this process, run nothing in it, and end it."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(abs, range(2))


def loky() -> None:
    """Run nothing in joblib's workers, which it keeps."""
    joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(n) for n in range(2))


def multiprocessing_of_joblib() -> None:
    """Run nothing in new processes of joblib's."""
    joblib.Parallel(n_jobs=2, backend="multiprocessing")(joblib.delayed(abs)(n) for n in range(2))


def main() -> None:
    """Print all."""
    print(where(), f"- medians of {ROUNDS}")
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "parmagic")

    def cell(line: str) -> object:
        return shell.run_cell_magic("parallel", line, "pass\n")

    lines = ("threads=2 -q --once", "threads=2 -q --once --trace off", "procs=2 -q --once", "procs=2 -q --once --trace off")
    for line in lines:
        cell(line)
    loky()
    contests: dict[str, Callable[[], object]] = {f"%%parallel {line}": lambda line=line: cell(line) for line in lines}  # type: ignore[misc]
    contests |= {
        "a new Pool(2) of forks": fork_pool,
        "joblib.Parallel, new processes": multiprocessing_of_joblib,
        "joblib.Parallel, loky, kept processes": loky,
    }
    print(f"{'':45} after {PAUSE} s   at once")
    after, at_once = interleaved(contests, ROUNDS, PAUSE), interleaved(contests, ROUNDS)
    for title in contests:
        print(f"{title:45} {median(after[title]) * 1e3:8.2f} {median(at_once[title]) * 1e3:9.2f} ms")
    loads = [load_seconds() for _ in range(ROUNDS)]
    print(f"{'%load_ext parmagic':45} {median(loads) * 1e3:8.2f} ms")


if __name__ == "__main__":
    main()
