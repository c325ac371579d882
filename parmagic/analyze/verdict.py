"""What a run comes to: one sentence that says what to do next, with its evidence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pandas as pd

from parmagic.analyze import bottlenecks, ends, laws, loads, locks, started
from parmagic.analyze.started import MUCH
from parmagic.analyze.tables import things_of, useful_seconds
from parmagic.model.durations import seconds
from parmagic.model.finding import Finding
from parmagic.model.timeline import Timeline
from parmagic.model.traits import PROCS

GAIN = 1.15
"""A speedup below this is called none: it is within what a busy machine does to two runs."""

WEAK = 0.7
"""An efficiency below this deserves its reason."""

TINY = 2e-6
"""Seconds: items shorter than this mostly measure what handing them out costs (0.3 to 0.5 µs)."""

BRIEF = 0.01
"""Seconds: a serial run shorter than this is over before a second process is there."""

LONG = 0.5
"""The share of an arm's wall time from which one item is why others had nothing to do."""

ALIKE = 0.7
"""The share of the longest item's time from which on another one is as long: to split one would not help."""

CAPPED = 0.9
"""A lock that allows less than this share of what so many workers could gain is worth a word."""

LARGE = 10.0
"""Megabytes that are worth a word where moving them took much of the time."""


class Tables(NamedTuple):
    """What a verdict is made from: a run's tables, its arms by their labels, what was found, and whose speedups are rough."""

    summary: pd.DataFrame
    workers: pd.DataFrame
    waits: pd.DataFrame
    arms: Mapping[Any, Timeline]
    findings: Sequence[Finding] = ()
    rough: frozenset[str] = frozenset()

    def cpus(self, label: Any) -> float:
        """Return how many CPUs an arm could use at a time; infinity where that is not known."""
        return self.arms[label].cpus or math.inf

    def most(self, label: Any) -> float:
        """Return the speedup that an arm's own account allows, where what was seen is more; else infinity."""
        beyond = self.found("beyond", label)
        most = beyond.evidence["most"] if beyond else laws.bound(self.arms[label])
        return most if beyond or self.summary.loc[label]["speedup"] > laws.SLACK * most else math.inf

    def found(self, rule: str, label: Any) -> Finding | None:
        """Return what was found about an arm by a rule."""
        return next((finding for finding in self.findings if (finding.rule, finding.arm) == (rule, label)), None)


def verdict(tables: Tables, error: str | None) -> Finding:
    """Return what a finished run comes to, in a sentence that says what to do next; ``error`` says what ended it early."""
    if error is not None:
        return Finding("ended_early", f"The run ended early: {error}", severity="error")
    finding = _verdict(tables)
    said = [loads.first(finding.arm, tables.findings), ends.first(finding.arm, tables.findings), finding.text]
    return replace(finding, text=" ".join(filter(None, said)))


def _verdict(tables: Tables) -> Finding:
    summary = tables.summary
    arms = summary.loc[[label for label in summary.index if not tables.arms[label].arm.model.one_at_a_time]]
    if arms.empty:
        wall = float(summary["wall_s"].iloc[0])
        text = f"A serial run of {seconds(wall)}: the baseline that threads and processes have to beat."
        return Finding("serial_only", text, evidence={"wall_s": wall})
    if all(timeline.all_failed for timeline in tables.arms.values()):
        return Finding("all_failed", "Every item failed: run.items['error'] tells how. There is no speedup to report.", severity="error")
    known = arms[arms["speedup"].notna()]
    nothing = _nothing_to_tell(arms, tables)
    if nothing is not None:
        return nothing
    if known.empty:
        return Finding("no_baseline", "No serial run to compare with, so there is no speedup to report.", severity="warning")
    can_be = known["speedup"].clip(upper=pd.Series({label: tables.most(label) for label in known.index}))
    return _gain(can_be, known, tables) if float(can_be.max()) >= GAIN else _no_gain(can_be, tables)


def _nothing_to_tell(arms: pd.DataFrame, tables: Tables) -> Finding | None:
    """Say that there is nothing to be told, where items were too few or too small."""
    items, serial = arms["n_items"].max(), float(arms["serial_s"].min())
    if items == 0:
        return Finding("no_items", "There were no items: nothing was run.", severity="warning")
    figures = {"serial_s": serial, "items": items}
    if serial < BRIEF and (finding := started.not_waited_for(tables.arms.values(), serial)) is not None:
        return finding
    if serial < BRIEF:
        text = f"Too short to tell: a serial run takes {seconds(serial)}, and starting workers takes as long. Give it more work."
        return Finding("too_short", text, severity="warning", evidence=figures)
    if serial / items < TINY:
        text = (
            f"The items are too small to tell: {seconds(serial / items)} each, most of which is the cost of handing one out. "
            "Give each item more work, say a range instead of a number."
        )
        return Finding("too_small", text, severity="warning", evidence=figures)
    return None


def _gain(can_be: pd.Series[float], known: pd.DataFrame, tables: Tables) -> Finding:
    """Name the best arm, what keeps it from more, and another that gains nothing; ``can_be`` are their speedups, as far as these can be."""
    best, place = can_be.idxmax(), can_be.argmax()
    speedup, efficiency = (float(known[name].to_numpy()[place]) for name in ("speedup", "efficiency"))
    reason = _reason(best, tables) if efficiency < WEAK else None
    weak = f", though {reason.text}" if reason else ""
    others = can_be.index[(can_be < GAIN) & (can_be.index != best)]
    tail = f"; {_no_use(others[0], tables)}" if len(others) else ""
    text = f"Use {best}: {_times(tables, best)} of the serial speed{weak}{tail}."
    if reason and reason.rule in {"idle", "transfer", "slower"}:
        text += _advice(reason, best, tables)
    return Finding("gain", text, str(best), evidence={"speedup": speedup, "efficiency": efficiency})


def _no_use(label: Any, tables: Tables) -> str:
    reason = _reason(label, tables)
    return f"{label} gains nothing ({_times(tables, label, '; {}')})" + (f": {reason.text}" if reason else "")


def _no_gain(can_be: pd.Series[float], tables: Tables) -> Finding:
    """Say why the best arm gains nothing, and what to do about it."""
    best = can_be.idxmax()
    reason = _reason(best, tables)
    because = f", because {reason.text}" if reason else ""
    text = f"No gain: {best} is the best at {_times(tables, best)} of the serial speed{because}.{_advice(reason, best, tables)}"
    return Finding("no_gain", text, str(best), "warning", {"speedup": float(can_be.max())})


_LOST_TO = {
    "startup": "starting workers took {share} of the time{of}",
    "transfer": "moving items and results took {share} of the time{of}",
    "started": "{who} spent {share} of the time waiting for {started}",
    "lock_wait": "{who} spent {share} of the time waiting for {locks}",
    "cpu_wait": "{who} spent {share} of the time waiting for a core{wanted}",
    "idle": "{who} had nothing to do for {share} of the time ({uneven})",
    "slower": "its items took {times} as long side by side as in the serial run{io}",
}


def reasons(label: Any, tables: Tables) -> list[Finding]:
    """Return what took much of an arm's time that was not work: the GIL first, then what took most. Their texts are clauses.

    Where there are fewer items than workers, those without one are why only where nothing else is.
    """
    mine, summary = tables.workers.loc[[label]], tables.summary.loc[label]
    if summary["n_items"] < summary["n_workers"]:
        with_items = mine[mine["n_items"] > 0]
        who = f"its {len(with_items)} workers with items" if len(with_items) > 1 else "its only worker with items"
        found = _reasons(label, tables, with_items, who, f" of {who}")
        if found:
            return found
    return _reasons(label, tables, mine, "its workers", "")


def _reasons(label: Any, tables: Tables, mine: pd.DataFrame, who: str, of: str) -> list[Finding]:
    """Return what took much of the time of these of an arm's workers, who are called so."""
    tilde = "" if bool(mine["measured"].all()) else "~"
    found, gil = [], tables.summary.loc[label]["gil_wait_share"]
    if gil > MUCH:
        text = f"its workers spent {tilde}{gil:.0%} of their active time waiting for the GIL"
        found.append(Finding("gil_wait", text, label, "warning", {"share": gil}))
    shares = {state: mine[f"{state}_s"].sum() / mine["wall_s"].sum() for state in _LOST_TO if f"{state}_s" in mine}
    as_locks, as_io = (seconds / mine["wall_s"].sum() for seconds in started.waited_s(tables.arms[label]))
    shares["started"] = as_locks + as_io
    shares["lock_wait"] -= as_locks
    shares["slower"] = (_useful(label, tables) - tables.summary.loc[label]["serial_s"]) / mine["wall_s"].sum()
    for state in sorted((state for state, share in shares.items() if share > MUCH), key=lambda state: -shares[state]):
        share = f"{tilde if state == 'lock_wait' else ''}{shares[state]:.0%}"
        words = {name: words_of(label, tables) for name, words_of in _WORDS.items() if f"{{{name}}}" in _LOST_TO[state]}
        text = _LOST_TO[state].format(share=share, who=who, of=of, **words)
        found.append(Finding(state, text, label, "warning", {"share": shares[state]}))
    return found


def _useful(label: Any, tables: Tables) -> float:
    """Return the seconds of an arm's items that no other worker caused; what this is more than a serial run takes is lost as well."""
    return useful_seconds(tables.arms[label], tables.workers.loc[[label]])


def _times_longer(label: Any, tables: Tables) -> str:
    return f"{_useful(label, tables) / tables.summary.loc[label]['serial_s']:.1f}×"


def _in_io(label: Any, tables: Tables) -> str:
    return ", most of it in I/O" if tables.workers.loc[[label]]["io_wait_s"].sum() > 0.5 * _useful(label, tables) else ""


def _wanted(label: Any, tables: Tables) -> str:
    """Say who else of the arm wants one: the threads of libraries, or more workers than there are CPUs."""
    helpers = tables.found("helpers", label)
    if helpers is not None:
        names = [name.removesuffix("_cpu_s") for name in helpers.evidence if name.endswith("_cpu_s")]
        return f" (threads of {' and '.join(names)} want one, too)"
    cpus, count = tables.cpus(label), tables.arms[label].arm.count
    return f" ({cpus:.0f} CPU{'s' if cpus > 1 else ''} here, {count} workers)" if cpus < count else ""


def _uneven(label: Any, tables: Tables) -> str:
    """Name the item that took most of an arm's time, where one did."""
    found, timeline = longest(tables.arms[label]), tables.arms[label]
    if found is not None:
        return f"item {found[0]} took {found[1]:.0%} of the wall time"
    if timeline.n_items < timeline.arm.count:
        return f"{timeline.n_items} item{'s' if timeline.n_items > 1 else ''} for {timeline.arm.count} workers"
    return "too few or too uneven items"


def longest(timeline: Timeline) -> tuple[int, float] | None:
    """Return the item that took more than half of an arm's wall time, as no other did, and its share of it; None where there is none."""
    by_item = sorted((took, item) for item, took in enumerate(timeline.seconds_by_item) if took == took)
    if len(by_item) < 2 or by_item[-2][0] > ALIKE * by_item[-1][0]:  # noqa: PLR2004  (of one, there is none beside)
        return None
    took, item = by_item[-1]
    return (item, took / timeline.wall_s) if took > LONG * timeline.wall_s else None


def _reason(label: Any, tables: Tables) -> Finding | None:
    return next(iter(reasons(label, tables)), None)


def _locks(label: Any, tables: Tables) -> locks.Locks:
    mine = tables.waits[tables.waits.index.get_level_values(0) == label]
    return locks.most_waited_for(mine, things_of([tables.arms[label]]))


def _waited_for(label: Any, tables: Tables) -> str:
    """Name what was waited for, the speedup that it allows where it is a lock, and who never waits, where no note says that."""
    found = _locks(label, tables)
    cap = _cap(label, tables, found.lock) if found.lock else ""
    return found.words + cap + ("" if _is_noted(label, tables) else locks.pace(tables.workers.loc[[label]]))


def _is_noted(label: Any, tables: Tables) -> bool:
    """Tell whether a note says who was slow with what was waited for, and what helps."""
    return bottlenecks.is_told(_locks(label, tables).name, label, tables.findings)


def _cap(label: Any, tables: Tables, lock: str) -> str:
    """Say what a lock allows: the serial run cannot be divided further than into the time for which the lock was held."""
    most = tables.summary.loc[label]["serial_s"] / locks.held_s(tables.arms[label], lock)
    tilde = "~" if label in tables.rough else ""
    return f", which caps this at {tilde}{most:.2f}×" if most < CAPPED * tables.arms[label].arm.count else ""


def _started(label: Any, tables: Tables) -> str:
    return started.words(tables.arms[label])


_WORDS = {"started": _started, "locks": _waited_for, "wanted": _wanted, "uneven": _uneven, "times": _times_longer, "io": _in_io}


def _advice(reason: Finding | None, label: Any, tables: Tables) -> str:
    """Say what to do about what took most of an arm's time; where nothing took much, starting and moving together may have."""
    rule = reason.rule if reason else "overhead"
    advice = _ADVICE[rule](label, tables) if rule in _ADVICE else ""
    return f" {advice}" if advice else ""


def _without_the_gil(label: Any, tables: Tables) -> str:
    if not all(timeline.arm.model.shares_gil for timeline in tables.arms.values()):
        return ""  # the other arms have shown it
    count = min(tables.summary.loc[label]["n_workers"], tables.cpus(label))
    return f"Try {PROCS.with_count(int(count))}." if count > 1 else "There is one CPU here, so processes cannot gain either."


def _less_moved(label: Any, tables: Tables) -> str:
    moved = _moved(tables.arms[label])
    if moved > LARGE:
        return f"{moved:,.0f} MB were moved: send paths or ranges, not contents, and return what is small."
    return _more_work(label, tables)


def _more_work(label: Any, tables: Tables) -> str:
    mine = tables.workers.loc[[label]]
    overhead = (mine["startup_s"] + mine["transfer_s"]).sum() / mine["wall_s"].sum()
    many = not tables.arms[label].arm.model.shares_memory and overhead > MUCH
    return "Give each item more work, or stay serial." if many else ""


def _less_uneven(label: Any, tables: Tables) -> str:
    return "Start that item first, or split it." if longest(tables.arms[label]) is not None else _more_work(label, tables)


def _fewer_at_once(label: Any, tables: Tables) -> str:
    return "What they wait for is slower for so many at once: try fewer workers." if _in_io(label, tables) else ""


def _less_locked(label: Any, tables: Tables) -> str:
    return "The notes tell why, and what helps." if _is_noted(label, tables) else _locks(label, tables).advice


def _fewer_threads(label: Any, tables: Tables) -> str:
    return "The notes tell how that library has fewer." if tables.found("helpers", label) else ""


_ADVICE: Mapping[str, Callable[[Any, Tables], str]] = {
    "gil_wait": _without_the_gil,
    "startup": _more_work,
    "transfer": _less_moved,
    "overhead": _more_work,
    "idle": _less_uneven,
    "started": lambda label, tables: started.advice(tables.arms[label]),
    "lock_wait": _less_locked,
    "cpu_wait": _fewer_threads,
    "slower": _fewer_at_once,
}
"""What helps against what takes most of the time; against too many workers for the CPUs, nothing does but more of these."""


def _moved(timeline: Timeline) -> float:
    """Return the megabytes that were pickled for an arm's processes, and by them."""
    sizes = [lane.moved.unpacked + lane.moved.returned for lane in timeline.lanes if lane.moved]
    return (sum(sizes) + (timeline.packed.size if timeline.packed else 0)) / 1e6


def _times(tables: Tables, label: Any, aside: str = " ({})") -> str:
    """Write an arm's speedup, and how much of it can be, ``aside``."""
    most, tilde = tables.most(label), "~" if label in tables.rough else ""
    see = ", see the notes" if tables.found("beyond", label) else ""
    beyond = aside.format(f"it can be {most:.2f}× at most{see}") if math.isfinite(most) else ""
    return f"{tilde}{tables.summary.loc[label]['speedup']:.2f}×{beyond}"
