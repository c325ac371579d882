"""Why an arm is less than ideal: its parallel efficiency as a product of factors, each for one thing that took of its workers' time.

An arm of n workers has n times its wall time to spend, and a serial run would need less of it. What lies between is taken
away piece by piece, in a fixed order; a factor is the time left behind a piece over the time left before it. The idea is that
of the efficiencies of the POP centre of excellence (pop-coe.eu, "Standard Metrics"), with the states of our own account.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, nan
from typing import Any

import numpy as np
import pandas as pd

from parmagic.analyze import started
from parmagic.analyze.ledger import ledger
from parmagic.model.kinds import DELAYS
from parmagic.model.timeline import Baseline, Timeline

PIECES = {
    "load_balance": "idle",
    "gil_wait": "gil_wait",
    "lock_wait": "lock_wait",
    "transfer": "transfer",
    "startup": "startup",
    "no_core": "cpu_wait",
}
"""The factors that are states of workers, in the order in which they are taken away."""

FACTORS = (*PIECES, "cpu_slowdown", "serial_run")
"""The columns that multiply to the efficiency, but for ``rest``."""

MATTERS = 0.98
"""A factor above this takes too little to be named."""


def factors_table(
    timelines: Sequence[Timeline], workers: pd.DataFrame, summary: pd.DataFrame, baselines: Mapping[str, Baseline]
) -> pd.DataFrame:
    """Return one row per arm: ``efficiency`` = the product of the factors and of ``rest``; ``biggest`` names what takes most.

    ``load_balance``: workers that had nothing to do. ``gil_wait``, ``lock_wait`` (but for threads and processes that the
    body starts, and threads of libraries, which do its work), ``transfer``, ``startup``. ``no_core``: could run, and had no core.
    ``cpu_slowdown``: the CPU seconds of the same items, side by side and in the serial run: caches, memory, hyper-threads; above 1 where
    they took less. ``serial_run``, from 1 on: what the serial run lost as well, to waits for a core and on its way from item to item.
    ``rest`` is what none of these explains: waits for I/O that took longer or less, what is unknown.
    NaN is what is not known; it takes nothing then, and ``rest`` has it.
    """
    rows = []
    for timeline in timelines:
        label = timeline.arm.label
        mine = workers[workers.index.get_level_values("arm") == label]
        rows.append(_row(timeline, mine, float(summary["efficiency"][label]), baselines[label]))
    columns = ["efficiency", *FACTORS, "rest", "biggest"]
    return pd.DataFrame(rows, index=pd.Index([t.arm.label for t in timelines], name="arm"), columns=columns)


def _row(timeline: Timeline, mine: pd.DataFrame, efficiency: float, baseline: Baseline) -> dict[str, Any]:
    left, row = timeline.arm.count * timeline.wall_s, dict[str, Any](efficiency=efficiency)
    for factor, state in PIECES.items():
        taken = float(mine[f"{state}_s"].sum(min_count=1)) - (_of_ones_own(timeline) if state == "lock_wait" else 0.0)
        row[factor], left = _factor(left, taken)
    on_core = float(mine[["running_s", "native_s"]].sum().sum())
    row["cpu_slowdown"], _ = _factor(left, on_core * (1 - 1 / _slower(timeline, baseline.run)))
    row["serial_run"] = _lost(baseline.run)
    known = [row[factor] for factor in FACTORS if isfinite(row[factor])]
    product = float(np.prod(known))
    row["rest"] = efficiency / product if product > 0 else nan
    biggest = min((factor for factor in FACTORS if isfinite(row[factor])), key=row.__getitem__, default=None)
    row["biggest"] = biggest if biggest is not None and row[biggest] < MATTERS else None
    return row


def _factor(left: float, taken: float) -> tuple[float, float]:
    """Return the time left over the time that was there, and what is left; NaN, and all, where it is not known what was taken."""
    if not (isfinite(taken) and left > 0):
        return nan, left
    rest = min(left, max(0.0, left - taken)) if taken > 0 else left - taken
    return rest / left, rest


def _of_ones_own(timeline: Timeline) -> float:
    """Return the seconds in which workers waited for what does their work: a serial run waits for that as well."""
    helped = sum(total.total_s for lane in timeline.lanes for total in lane.totals if total.kind == "helpers")
    return started.waited_s(timeline)[0] + helped


def _slower(timeline: Timeline, serial: Timeline | None) -> float:
    """Return how many times the CPU seconds of the serial run the same items took; NaN where there was none, or none that computed."""
    if serial is None or serial.n_items != timeline.n_items:
        return nan
    here, there = _cpu_by_item(timeline), _cpu_by_item(serial)
    both = np.isfinite(here) & np.isfinite(there)
    alone = float(there[both].sum())
    return float(here[both].sum()) / alone if alone > 0 and here[both].sum() > 0 else nan


def _lost(serial: Timeline | None) -> float:
    """Return a serial run's seconds over those that its items needed; NaN where it is not known."""
    if serial is None:
        return nan
    needed = 0.0
    for lane in serial.lanes:
        book = ledger(serial, lane)
        _, begins, ends = map(np.asarray, lane.items())
        delayed = sum(np.nan_to_num(book.between(state, begins, ends)) for state in DELAYS)
        needed += float(np.sum(ends - begins - delayed))
    return max(1.0, serial.items_s / needed) if needed > 0 else nan


def _cpu_by_item(timeline: Timeline) -> np.ndarray[Any, Any]:
    """Return the seconds on a core of each item that ended well, at its only try; else NaN."""
    found = np.full(timeline.n_items, nan)
    for lane in timeline.lanes:
        book = ledger(timeline, lane)
        items, begins, ends = map(np.asarray, lane.items())
        native = np.nan_to_num(book.between("native", begins, ends))
        found[items] = book.between("running", begins, ends) + native
        for item in (*lane.errors, *lane.tries):
            found[item] = nan
    return found
