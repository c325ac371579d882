"""The most that an arm could have gained: what its speedup is held against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from parmagic.analyze.tables import useful_seconds

if TYPE_CHECKING:
    import pandas as pd

    from parmagic.model.timeline import Timeline


def ideal_speedup(n_workers: int, cpus: int, work_s: float, on_core_s: float) -> float:
    """Return the speedup that no arm of ``n_workers`` on ``cpus`` CPUs can exceed.

    Its work takes ``work_s`` seconds one item after another, and ``on_core_s`` of them on a core. The workers share out the
    first, and the CPUs the second, so no run takes less than the longer of ``work_s / n_workers`` and ``on_core_s / cpus``:
    work that only computes is bounded by the CPUs, work that only waits by the workers, and a mixture by whichever is scarcer.

    Without ``cpus`` (0: not known, or on several machines), or where the seconds are not known, the bound is the number of workers.
    """
    if not (cpus > 0 and math.isfinite(work_s) and on_core_s > 0):
        return float(n_workers)
    return work_s / max(work_s / n_workers, min(on_core_s, work_s) / cpus)


def ideals(timelines: Sequence[Timeline], workers: pd.DataFrame, summary: pd.DataFrame) -> dict[str, float]:
    """Return each arm's ideal speedup, by its label.

    Its work is what the serial run took, but no more than its own workers spent on it (on a core, asleep, in I/O, waiting for
    locks): a serial run that waited for a core, behind other programs, had no more work to do.
    """
    found = {}
    for timeline in timelines:
        label = timeline.arm.label
        row: Any = summary.loc[label]
        mine = workers[workers.index.get_level_values("arm") == label]
        spent_s = useful_seconds(mine) + float(mine["lock_wait_s"].sum())
        work_s = min(float(row["serial_s"]), spent_s) if math.isfinite(row["serial_s"]) else spent_s
        on_core_s = float(mine["running_s"].sum() + mine["native_s"].sum())
        found[label] = ideal_speedup(timeline.arm.count, timeline.cpus, work_s, on_core_s)
    return found
