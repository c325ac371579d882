"""What saving a timeline costs: against VizTracer's own parse and JSON of as many records of the same functions, side by side.

    python benchmarks/traces.py [CALLS]

Each is done in a process of its own, in turn, ROUNDS times; printed are the medians of CPU seconds and
of the peak memory above what the process had before. The bounds: 1.5 times VizTracer's time, 300 MB.
Where orjson is installed, VizTracer writes with that, in half of the time; we do not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from time import process_time

from common import arguments, median, where

ROUNDS = 3
CALLS = 990_000
BOUND, MEMORY = 1.5, 300
HERE = Path(__file__)


def work(times: int) -> None:
    """Call functions, a hundred different ones, and some within others."""
    for _ in range(times // 200):
        for call in FUNCTIONS:
            call()


def _function(number: int) -> Callable[[], None]:
    space: dict[str, Callable[[], None]] = {}
    exec(f"def inner_{number}(): pass\ndef outer_{number}(): inner_{number}()", space)
    return space[f"outer_{number}"]


FUNCTIONS = [_function(number) for number in range(100)]


def memory(which: str) -> float:
    """Return VmRSS or VmHWM (the peak) of this process in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith(which))


def measured(what: Callable[[], object]) -> tuple[float, float]:
    """Return CPU seconds and the peak of memory above what was there before (MB)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, begin = memory("VmRSS"), process_time()
    what()
    return process_time() - begin, memory("VmHWM") - before


def viztracer(calls: int, _: str) -> tuple[float, float]:
    """Record, then parse and write as VizTracer does."""
    from viztracer import VizTracer  # noqa: PLC0415

    tracer = VizTracer(tracer_entries=1_000_000, verbose=0, register_global=False)
    tracer.start()
    work(calls)
    tracer.stop()

    def save() -> None:
        tracer.parse()
        tracer.save("viztracer.json")

    return measured(save)


def ours(calls: int, name: str) -> tuple[float, float]:
    """Record as a run does, then save its timeline."""
    import parmagic  # noqa: PLC0415

    run = parmagic.run(work, [calls], "threads=1", once=True, trace="full")
    _ = run.summary, run.verdict  # pandas is loaded where a report was shown
    return measured(lambda: run.timeline.save(name))


def main() -> None:
    """Print a row for each way to save."""
    calls = int(next(iter(arguments()), CALLS))
    json_by = "orjson" if find_spec("orjson") else "json"
    print(where(), f"- medians of {ROUNDS}, {calls:,} calls, VizTracer with {json_by}")
    os.chdir(tempfile.mkdtemp())
    names = ("viztracer.json", "ours.json", "ours.json.gz", "ours.html")
    found: dict[str, list[list[float]]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        for name in names:
            done = subprocess.run([sys.executable, HERE, "--one", str(calls), name], capture_output=True, text=True, check=True)
            found[name].append(json.loads(done.stdout))
    base = median([cpu for cpu, _ in found["viztracer.json"]])
    for name in names:
        cpu, peak = (median(list(column)) for column in zip(*found[name], strict=True))
        size = Path(name).stat().st_size / 1e6
        fits = "" if name == "viztracer.json" else "  ok" if cpu <= BOUND * base and peak <= MEMORY else "  TOO MUCH"
        print(f"{name:15} {cpu:6.2f} s  {cpu / base:5.2f} × VizTracer's  +{peak:5.0f} MB  ({size:.0f} MB written){fits}")


if __name__ == "__main__":
    if arguments()[:1] == ["--one"]:
        _, calls_wanted, target = arguments()
        print(json.dumps((viztracer if target.startswith("viztracer") else ours)(int(calls_wanted), target)))
    else:
        main()
