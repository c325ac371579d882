"""One sentence that says what to do next, with its evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from parmagic.model.finding import is_rough
from parmagic.model.kinds import LOCKS
from parmagic.model.traits import PROCS, Model

GAIN = 1.15
"""A speedup below this is called none: it is within what a busy machine does to two runs."""

WEAK = 0.7
"""An efficiency below this deserves its reason."""

TINY = 2e-6
"""Seconds: items shorter than this mostly measure what handing them out costs (0.3 to 0.5 µs)."""

BRIEF = 2e-3
"""Seconds: a serial run shorter than this is over before a second worker is there."""

MUCH = 0.25
"""A share of the workers' time that is worth a word."""


class Tables(NamedTuple):
    """What a verdict is made from: a run's tables."""

    summary: pd.DataFrame
    workers: pd.DataFrame
    waits: pd.DataFrame
    models: Mapping[Any, Model]
    """Each arm's, by its label."""
    all_failed: bool = False


def verdict(tables: Tables, error: str | None) -> str:
    """Return the sentence for a finished run; ``error`` says what ended it early."""
    if error is not None:
        return f"The run ended early: {error}"
    summary = tables.summary
    arms = summary.loc[[label for label in summary.index if not tables.models[label].one_at_a_time]]
    if arms.empty:
        return f"A serial run of {_seconds(summary['wall_s'].iloc[0])}: the baseline that threads and processes have to beat."
    if tables.all_failed:
        return "Every item failed: run.items['error'] tells how. There is no speedup to tell."
    brief = _too_brief(arms)
    if brief:
        return brief
    known = arms[arms["speedup"].notna()]
    if known.empty:
        return "No serial run to compare with, so there is no speedup to tell."
    best = known["speedup"].idxmax()
    speedup = float(known["speedup"].max())
    reason = _reason(best, tables)
    if speedup >= GAIN:
        weak_ones = known.index[(known["speedup"] < GAIN) & (known.index != best)]
        others = [_failed(label, tables) for label in weak_ones]
        tail = f"; {others[0]}" if others and others[0] else ""
        efficiency = float(known["efficiency"].to_numpy()[known["speedup"].argmax()])
        weak = f", though {reason}" if efficiency < WEAK and reason else ""
        return f"Use {best}: {_times(summary, best)} of the serial speed{weak}{tail}."
    advice = _advice(best, tables)
    because = f", because {reason}" if reason else ""
    return f"No gain: {best} is the best at {_times(summary, best)} of the serial speed{because}.{advice}"


def _too_brief(arms: pd.DataFrame) -> str:
    """Say that there is nothing to be told, where items were too few or too small."""
    items, serial = arms["n_items"].max(), float(arms["serial_s"].min())
    if items == 0:
        return "There were no items: nothing was run."
    if serial < BRIEF:
        return f"Too short to tell: a serial run takes {_seconds(serial)}, which is less than starting workers does."
    if serial / items < TINY:
        return (
            f"The items are too small to tell: {_seconds(serial / items)} each, most of which is the cost of handing one out. "
            "Give each item more work, say a range instead of a number."
        )
    return ""


def _failed(label: str, tables: Tables) -> str:
    reason = _reason(label, tables)
    return f"{label} gains nothing ({_times(tables.summary, label)})" + (f": {reason}" if reason else "")


def _reason(label: Any, tables: Tables) -> str:
    """Return what took most of an arm's time that was not work, where it is much."""
    summary, mine = tables.summary, tables.workers.loc[[label]]
    tilde = "" if bool(mine["measured"].all()) else "~"
    row = summary.loc[label]
    if row["gil_wait_share"] > MUCH:
        return f"its workers spent {tilde}{row['gil_wait_share']:.0%} of their active time waiting for the GIL"
    wall = mine["wall_s"].sum()
    shares = {name: mine[f"{name}_s"].sum() / wall for name in ("startup", "transfer", "lock_wait", "cpu_wait", "idle")}
    name = max(shares, key=lambda key: 0.0 if math.isnan(shares[key]) else shares[key])
    if not shares[name] > MUCH:
        return ""
    words = {
        "startup": "starting workers took {share} of the time",
        "transfer": "moving items and results took {share} of the time",
        "lock_wait": "its workers spent {share} of the time waiting for {locks}",
        "cpu_wait": "its workers spent {share} of the time waiting for a core",
        "idle": "its workers had nothing to do for {share} of the time (too few or too uneven items)",
    }
    mark = tilde if name == "lock_wait" else ""
    locks = _locks(label, tables)[1] if name == "lock_wait" else ""
    return words[name].format(share=f"{mark}{shares[name]:.0%}", locks=locks)


def _locks(label: Any, tables: Tables) -> tuple[str, str]:
    """Say which lock, queue or object that was, where one thing that has a name was most of it: its kind (else empty), and words."""
    waits = tables.waits[tables.waits.index.get_level_values(0) == label]
    waits = waits[waits["kind"].isin(LOCKS)]
    named = waits[waits["object"].map(lambda name: isinstance(name, str) and not name.startswith("0x")).astype(bool)]
    seconds = named.groupby(["kind", "object"])["total_s"].sum()
    if seconds.empty or not seconds.max() > 0.5 * waits["total_s"].sum():
        return "", "locks or queues"
    kind, name = seconds.idxmax()
    lines = named[(named["kind"] == kind) & (named["object"] == name)].groupby("line")["total_s"].sum()
    return kind, f"the {kind} `{name}`" + (f" (line {lines.idxmax():.0f})" if len(lines) else "")


_SHARED = {"queue": "", "interpreter": "", "object": " Give each worker one of its own."}


def _advice(label: Any, tables: Tables) -> str:
    summary = tables.summary
    row = summary.loc[label]
    if row["gil_wait_share"] > MUCH and all(model.shares_gil for model in tables.models.values()):
        return f" Try {PROCS.with_count(row['n_workers'])}."
    mine = tables.workers.loc[[label]]
    overhead = (mine["startup_s"] + mine["transfer_s"]).sum() / mine["wall_s"].sum()
    if not tables.models[label].shares_memory and overhead > MUCH:
        return " Give each item more work, or stay serial."
    if mine["lock_wait_s"].sum() / mine["wall_s"].sum() > MUCH:
        kind, _ = _locks(label, tables)
        return _SHARED.get(kind, " Hold the lock for less of the body.")
    return ""


def _times(summary: pd.DataFrame, label: Any) -> str:
    row = summary.loc[label]
    tilde = "~" if is_rough(row["baseline"], row["trace_overhead"]) else ""
    return f"{tilde}{row['speedup']:.2f}×"


def _seconds(value: float) -> str:
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"
