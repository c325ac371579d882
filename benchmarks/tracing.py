"""What tracing costs: a call-heavy cell with ``--trace auto`` against ``--trace off``.

    python benchmarks/tracing.py

The bound is 5 % or 50 ms, whichever is more.
"""

from __future__ import annotations

from common import interleaved, median, seconds, where

import parmagic
from parmagic.result import study

ROUNDS = 7


def fibonacci(n: int) -> int:
    """Call itself often."""
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


def size_for(wanted: float) -> int:
    """Return the argument that takes about that many seconds."""
    n = 20
    while seconds(lambda: fibonacci(n)) < wanted:
        n += 1
    return n


def main() -> None:
    """Print a row for each length and model."""
    print(where(), f"- medians of {ROUNDS} interleaved pairs")
    for wanted in (0.2, 3.0):
        n = size_for(wanted / 2)
        for models in ("threads=2", "procs=2"):

            def arm(trace: str, n: int = n, models: str = models) -> float:
                run = parmagic.run(fibonacci, [n, n], models, once=True, trace=trace)
                return float(run.summary["wall_s"].iloc[0])

            walls: dict[str, list[float]] = {"off": [], "auto": []}
            interleaved({kind: lambda kind=kind: walls[kind].append(arm(kind)) for kind in walls}, ROUNDS)
            off, auto = median(walls["off"]), median(walls["auto"])
            run = parmagic.run(fibonacci, [n, n], models, once=True)
            functions = sum(len(calls) for _, arm in study(run).functions() for calls in arm)
            bound = max(0.05 * off, 0.05)
            print(
                f"{models:10} off {off:6.3f} s  auto {auto:6.3f} s  +{(auto - off) * 1e3:6.1f} ms ({auto / off - 1:+.1%}), "
                f"bound {bound * 1e3:.0f} ms; own estimate {run.summary['trace_overhead'].iloc[0]:.1%}; {functions:,} functions"
            )


if __name__ == "__main__":
    main()
