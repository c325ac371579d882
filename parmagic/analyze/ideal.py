"""The most that an arm could have gained: what its speedup is held against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from parmagic.analyze.laws import ideal_speedup
from parmagic.analyze.tables import useful_seconds

if TYPE_CHECKING:
    import pandas as pd

    from parmagic.model.timeline import Timeline


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
        spent_s = useful_seconds(timeline, mine) + float(mine["lock_wait_s"].sum())
        work_s = min(float(row["serial_s"]), spent_s) if math.isfinite(row["serial_s"]) else spent_s
        on_core_s = float(mine["running_s"].sum() + mine["native_s"].sum())
        found[label] = ideal_speedup(timeline.arm.count, timeline.cpus, work_s, on_core_s)
    return found
