"""What an empty cell costs, and what loading the extension adds.

python benchmarks/latency.py
"""

from __future__ import annotations

import subprocess
import sys

from common import interleaved, median, where
from IPython.core.interactiveshell import InteractiveShell

ROUNDS = 21
LOAD = (
    "from IPython.core.interactiveshell import InteractiveShell; import time; shell = InteractiveShell.instance(); "
    "begin = time.perf_counter(); shell.run_line_magic('load_ext', 'parmagic'); print(time.perf_counter() - begin)"
)


def load_seconds() -> float:
    """Return what ``%load_ext parmagic`` takes in a fresh IPython."""
    return float(subprocess.run([sys.executable, "-c", LOAD], check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Print both."""
    print(where(), f"- medians of {ROUNDS}")
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "parmagic")

    def cell(line: str) -> object:
        return shell.run_cell_magic("parallel", line, "pass\n")

    lines = ("threads=2 -q --once", "threads=2 -q --once --trace off", "procs=2 -q --once", "procs=2 -q --once --trace off")
    for line in lines:
        cell(line)
    for line, times in interleaved({line: lambda line=line: cell(line) for line in lines}, ROUNDS).items():
        print(f"%%parallel {line:34} {median(times) * 1e3:7.2f} ms")
    loads = [load_seconds() for _ in range(ROUNDS)]
    print(f"{'%load_ext parmagic':45} {median(loads) * 1e3:7.2f} ms")


if __name__ == "__main__":
    main()
