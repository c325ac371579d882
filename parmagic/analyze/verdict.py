"""What a run comes to: one sentence that says what to do next, with its evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from parmagic.model.durations import seconds
from parmagic.model.finding import Finding, is_rough
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
    broke: frozenset[Any] = frozenset()
    """The labels of arms whose loops broke."""


def verdict(tables: Tables, error: str | None) -> Finding:
    """Return what a finished run comes to, in a sentence that says what to do next; ``error`` says what ended it early."""
    if error is not None:
        return Finding("ended_early", f"The run ended early: {error}", severity="error")
    summary = tables.summary
    arms = summary.loc[[label for label in summary.index if not tables.models[label].one_at_a_time]]
    if arms.empty:
        wall = float(summary["wall_s"].iloc[0])
        text = f"A serial run of {seconds(wall)}: the baseline that threads and processes have to beat."
        return Finding("serial_only", text, evidence={"wall_s": wall})
    if tables.all_failed:
        return Finding("all_failed", "Every item failed: run.items['error'] tells how. There is no speedup to report.", severity="error")
    known = arms[arms["speedup"].notna()]
    nothing = _nothing_to_tell(arms)
    if nothing is not None:
        return nothing
    if known.empty:
        return Finding("no_baseline", "No serial run to compare with, so there is no speedup to report.", severity="warning")
    return _gain(known, tables) if float(known["speedup"].max()) >= GAIN else _no_gain(known, tables)


def _nothing_to_tell(arms: pd.DataFrame) -> Finding | None:
    """Say that there is nothing to be told, where items were too few or too small."""
    items, serial = arms["n_items"].max(), float(arms["serial_s"].min())
    if items == 0:
        return Finding("no_items", "There were no items: nothing was run.", severity="warning")
    figures = {"serial_s": serial, "items": items}
    if serial < BRIEF:
        text = f"Too short to tell: a serial run takes {seconds(serial)}, which is less than starting workers does."
        return Finding("too_short", text, severity="warning", evidence=figures)
    if serial / items < TINY:
        text = (
            f"The items are too small to tell: {seconds(serial / items)} each, most of which is the cost of handing one out. "
            "Give each item more work, say a range instead of a number."
        )
        return Finding("too_small", text, severity="warning", evidence=figures)
    return None


def _gain(known: pd.DataFrame, tables: Tables) -> Finding:
    """Name the best arm, with what keeps it from more, and another that gains nothing."""
    best, place = known["speedup"].idxmax(), known["speedup"].argmax()
    speedup, efficiency = (float(known[name].to_numpy()[place]) for name in ("speedup", "efficiency"))
    reason = _reason(best, tables) if efficiency < WEAK else None
    weak = f", though {reason.text}" if reason else ""
    others = known.index[(known["speedup"] < GAIN) & (known.index != best)]
    tail = f"; {_no_use(others[0], tables)}" if len(others) else ""
    text = f"Use {best}: {_times(tables, best)} of the serial speed{weak}{tail}."
    return Finding("gain", text, str(best), evidence={"speedup": speedup, "efficiency": efficiency})


def _no_use(label: Any, tables: Tables) -> str:
    reason = _reason(label, tables)
    return f"{label} gains nothing ({_times(tables, label)})" + (f": {reason.text}" if reason else "")


def _no_gain(known: pd.DataFrame, tables: Tables) -> Finding:
    """Say why the best arm gains nothing, and what to do about it."""
    best = known["speedup"].idxmax()
    reason = _reason(best, tables)
    because = f", because {reason.text}" if reason else ""
    text = f"No gain: {best} is the best at {_times(tables, best)} of the serial speed{because}.{_advice(best, tables)}"
    return Finding("no_gain", text, str(best), "warning", {"speedup": float(known["speedup"].max())})


_LOST_TO = {
    "startup": "starting workers took {share} of the time",
    "transfer": "moving items and results took {share} of the time",
    "lock_wait": "its workers spent {share} of the time waiting for {locks}",
    "cpu_wait": "its workers spent {share} of the time waiting for a core",
    "idle": "its workers had nothing to do for {share} of the time (too few or too uneven items)",
}


def reasons(label: Any, tables: Tables) -> list[Finding]:
    """Return what took much of an arm's time that was not work: the GIL first, then what took most. Their texts are clauses."""
    mine = tables.workers.loc[[label]]
    tilde = "" if bool(mine["measured"].all()) else "~"
    found, gil = [], tables.summary.loc[label]["gil_wait_share"]
    if gil > MUCH:
        text = f"its workers spent {tilde}{gil:.0%} of their active time waiting for the GIL"
        found.append(Finding("gil_wait", text, label, "warning", {"share": gil}))
    shares = {state: mine[f"{state}_s"].sum() / mine["wall_s"].sum() for state in _LOST_TO}
    for state in sorted((state for state, share in shares.items() if share > MUCH), key=lambda state: -shares[state]):
        locks = _locks(label, tables)[1] if state == "lock_wait" else ""
        share = f"{tilde if state == 'lock_wait' else ''}{shares[state]:.0%}"
        found.append(Finding(state, _LOST_TO[state].format(share=share, locks=locks), label, "warning", {"share": shares[state]}))
    return found


def _reason(label: Any, tables: Tables) -> Finding | None:
    return next(iter(reasons(label, tables)), None)


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
    """Say what to do about what took much of an arm's time."""
    rules = {reason.rule for reason in reasons(label, tables)}
    if "gil_wait" in rules and all(model.shares_gil for model in tables.models.values()):
        return f" Try {PROCS.with_count(tables.summary.loc[label]['n_workers'])}."
    mine = tables.workers.loc[[label]]
    overhead = (mine["startup_s"] + mine["transfer_s"]).sum() / mine["wall_s"].sum()
    if not tables.models[label].shares_memory and overhead > MUCH:
        return " Give each item more work, or stay serial."
    if "lock_wait" in rules:
        kind, _ = _locks(label, tables)
        return _SHARED.get(kind, " Hold the lock for less of the body.")
    return ""


def _times(tables: Tables, label: Any) -> str:
    row = tables.summary.loc[label]
    tilde = "~" if is_rough(row["baseline"], row["trace_overhead"], broke=label in tables.broke) else ""
    return f"{tilde}{row['speedup']:.2f}×"
