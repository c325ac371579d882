"""The figures that the README's examples promise, on this machine.

    python benchmarks/promises.py

Parsing the standard library, hashing large buffers, sleeping.
"""

from __future__ import annotations

import hashlib
import sysconfig
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from common import seconds, where

import parmagic


def compiled(path: Path) -> int:
    """Compile a file, under the GIL; where several threads call ast.parse, some CPythons fail at times."""
    return len(compile(path.read_bytes(), str(path), "exec").co_code)


def readable(path: Path) -> bool:
    """Tell whether it compiles."""
    try:
        compile(path.read_bytes(), str(path), "exec")
    except (SyntaxError, ValueError, RecursionError):
        return False
    return True


def sha256(buffer: bytes) -> str:
    """Hash a buffer: releases the GIL."""
    return hashlib.sha256(buffer).hexdigest()


def nap(_: int) -> None:
    """Sleep: releases the GIL."""
    time.sleep(0.05)


def main() -> None:
    """Print a table for each."""
    print(where())
    library = Path(sysconfig.get_paths()["stdlib"])
    paths = [p for p in sorted(library.rglob("*.py")) if "site-packages" not in p.parts and readable(p)]
    buffers = [bytes([i]) * (8 << 20) for i in range(40)]
    for title, function, items, models, workers in (
        (f"compile of {len(paths)} files", compiled, paths, "threads=2 procs=2", 2),
        ("sha256 of 8 MiB, 40 times the same", sha256, buffers[:1] * 40, "threads=2", 2),
        ("sha256 of 8 MiB, 40 buffers", sha256, buffers, "threads=2", 2),
        ("sleep(0.05) × 40", nap, range(40), "threads=4", 4),
    ):
        run = parmagic.run(function, items, models)
        print(f"\n{title}\n{run.verdict}")
        print(run.summary[["wall_s", "serial_s", "speedup", "baseline", "gil_wait_share", "trace_overhead"]].to_string())
        print(f"without parmagic: {plainly(function, items, workers)}")


def plainly(function: Callable[[Any], object], items: Sequence[Any], workers: int) -> str:
    """Time a plain loop against a ThreadPoolExecutor, in this process: what a speedup of threads can be held against."""
    serial = seconds(lambda: [function(item) for item in items])
    with ThreadPoolExecutor(workers) as pool:
        threads = seconds(lambda: list(pool.map(function, items)))
    return f"loop {serial:.3f} s, ThreadPoolExecutor({workers}) {threads:.3f} s, speedup {serial / threads:.2f}"


if __name__ == "__main__":
    main()
