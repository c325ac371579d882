"""The figures that the README's examples promise, on this machine.

    python benchmarks/promises.py

Parsing the standard library, hashing large buffers, sleeping.
"""

from __future__ import annotations

import ast
import hashlib
import sysconfig
import time
from pathlib import Path

from common import where

import parmagic


def parse(path: Path) -> int:
    """Parse a file: pure Python objects, under the GIL."""
    return len(ast.dump(ast.parse(path.read_bytes())))


def readable(path: Path) -> bool:
    """Tell whether it parses."""
    try:
        ast.parse(path.read_bytes())
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
    for title, function, items, models in (
        (f"ast.parse of {len(paths)} files", parse, paths, "threads=2 procs=2"),
        ("sha256 of 8 MiB", sha256, buffers, "threads=2"),
        ("sleep(0.05) × 40", nap, range(40), "threads=4"),
    ):
        run = parmagic.run(function, items, models)
        print(f"\n{title}\n{run.verdict}")
        print(run.summary[["wall_s", "serial_s", "speedup", "baseline", "gil_wait_share", "trace_overhead"]].to_string())


if __name__ == "__main__":
    main()
