"""Tables: what the ledgers say of arms, workers, items and waits."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import Any

import numpy as np
import pandas as pd

from parmagic.analyze import started
from parmagic.analyze.ledger import ledger
from parmagic.analyze.printed import Printed
from parmagic.model.kinds import KIND, OWN, SAMPLED, STATES, WORKER_STATES
from parmagic.model.things import THING
from parmagic.model.timeline import Baseline, Lane, Timeline
from parmagic.model.waits import Total
from parmagic.model.words import describe_all

STATE_COLUMNS = [f"{state}_s" for state in WORKER_STATES]
_OF_ITEMS = tuple(state.name for state in STATES if state.source != "span" and state.name != "idle")
"""The states that an item can be in: its row adds up to its ``wall_s``."""


def workers_table(timelines: Sequence[Timeline]) -> pd.DataFrame:
    """Return one row per (arm, rank): the states tile ``wall_s``."""
    rows = {}
    for timeline in timelines:
        for lane in timeline.lanes:
            rows[timeline.arm.label, lane.worker.rank] = _worker_row(timeline, lane)
    columns = ["pid", "tid", "n_items", "wall_s", *STATE_COLUMNS, "cpu_s", "ctx_voluntary", "ctx_involuntary", "rss_mb", "measured"]
    index = pd.MultiIndex.from_tuples(list(rows), names=["arm", "rank"]) if rows else _empty_index("rank")
    return pd.DataFrame(list(rows.values()), index=index, columns=columns)


def _worker_row(timeline: Timeline, lane: Lane) -> dict[str, Any]:
    book = ledger(timeline, lane)
    usage = lane.usage
    nan = float("nan")
    row: dict[str, Any] = {
        "pid": lane.worker.pid,
        "tid": lane.worker.tid,
        "n_items": lane.n_done,
        "wall_s": timeline.wall_s,
        "cpu_s": usage.cpu_s if usage else nan,
        "ctx_voluntary": usage.ctx_voluntary if usage else nan,
        "ctx_involuntary": usage.ctx_involuntary if usage else nan,
        "rss_mb": (timeline.peak_mb if isnan(usage.rss_mb) else usage.rss_mb) if usage else nan,
        "measured": lane.tally is not None,
    }
    for state in WORKER_STATES:
        row[f"{state}_s"] = book.between(state, [timeline.begin], [timeline.end])[0]
    return row


def children_table(timelines: Sequence[Timeline]) -> pd.DataFrame:
    """Return one row per thread that a worker's body started: the states tile ``life_s``, as far as it lies within the arm.

    ``begin_s`` is when it was started, from the arm's begin on.
    """
    rows, index = [], []
    for timeline in timelines:
        for lane in timeline.children:
            rows.append(_child_row(timeline, lane))
            index.append((timeline.arm.label, lane.worker.rank))
    columns = ["name", "kind", "pid", "tid", "begin_s", "life_s", *STATE_COLUMNS]
    levels = pd.MultiIndex.from_tuples(index, names=["arm", "rank"]) if index else _empty_index("rank")
    return pd.DataFrame(rows, index=levels, columns=columns)


def _child_row(timeline: Timeline, lane: Lane) -> dict[str, Any]:
    assert lane.child is not None
    begin, end = max(lane.child.begin, timeline.begin), min(lane.child.end, timeline.end)
    book = ledger(timeline, lane)
    return {
        "name": lane.child.name,
        "kind": lane.child.kind,
        "pid": lane.worker.pid,
        "tid": lane.worker.tid,
        "begin_s": begin - timeline.begin,
        "life_s": max(0.0, end - begin),
        **{f"{state}_s": book.between(state, [begin], [end])[0] for state in WORKER_STATES},
    }


def items_table(timelines: Sequence[Timeline]) -> pd.DataFrame:
    """Return one row per (arm, item number); items that never started have NaN and say so.

    The seconds of an item are those of all its tries, also where one ended with its worker; ``start_s`` is its first one's.
    """
    frames = [_items_of(timeline) for timeline in timelines]
    columns = ["rank", "start_s", "wall_s", *(f"{state}_s" for state in _OF_ITEMS), "tries", "error"]
    if not frames:
        return pd.DataFrame(columns=columns, index=_empty_index("item"))
    keys = [timeline.arm.label for timeline in timelines]
    return pd.concat(frames, keys=keys, names=["arm", "item"])[columns]


def _items_of(timeline: Timeline) -> pd.DataFrame:
    n = timeline.n_items
    nan = np.full(n, np.nan)
    figures = {name: nan.copy() for name in ("rank", "start_s", "wall_s", *(f"{state}_s" for state in _OF_ITEMS), "tries")}
    missing = "not started" if timeline.broke is None else f"not started: item {timeline.broke} broke the loop"
    errors, failed = np.full(n, missing, dtype=object), {}
    for lane in timeline.lanes:
        book = ledger(timeline, lane)
        items, begins, ends = map(np.asarray, lane.items())
        figures["rank"][items] = lane.worker.rank
        figures["start_s"][items] = begins - timeline.begin
        figures["wall_s"][items] = ends - begins
        for state in _OF_ITEMS:
            figures[f"{state}_s"][items] = book.between(state, begins, ends)
        figures["tries"][items] = 1
        for item, tries in lane.tries.items():
            figures["tries"][item] = tries
        errors[items] = None
        failed.update(lane.errors)
    for lane in timeline.lanes:
        _add_lost_tries(figures, timeline, lane)
    for item, text in zip(failed, describe_all(list(failed.values())), strict=True):
        errors[item] = text
    if not np.isnan(figures["rank"]).any():
        figures |= {name: figures[name].astype(int) for name in ("rank", "tries")}
    table = pd.DataFrame(figures, index=pd.RangeIndex(n, name="item"))
    table["error"] = pd.Series(errors, dtype=object)  # None stays None: pandas would make it a NaN among texts
    return table


def _add_lost_tries(figures: dict[str, Any], timeline: Timeline, lane: Lane) -> None:
    """Add the seconds of tries that ended with their worker to their items'; of an item that never was tried to its end there are none."""
    for batch in lane.lost_tries:
        item, begin, end = batch.first, batch.begins[0], batch.ends[0]
        if np.isnan(figures["wall_s"][item]):
            continue
        figures["start_s"][item] = min(figures["start_s"][item], begin - timeline.begin)
        figures["wall_s"][item] += end - begin
        for state in _OF_ITEMS:
            figures[f"{state}_s"][item] += ledger(timeline, lane).between(state, [begin], [end])[0]


def waits_table(timelines: Sequence[Timeline]) -> pd.DataFrame:
    """Return one row per (arm, rank, kind, object, line, place) that was waited for.

    Where waits are inferred, how often and how long one of them lasted, the
    object, the line and the place are not known: NaN and None.
    """
    rows, index = [], []
    for timeline in timelines:
        for lane in timeline.lanes:
            found = _inferred_waits(timeline, lane) if lane.tally is None else _measured_waits(lane)
            rows += found
            index += [(timeline.arm.label, lane.worker.rank)] * len(found)
    columns = ["kind", "object", "line", "place", "n", "total_s", "max_s"]
    levels = pd.MultiIndex.from_tuples(index, names=["arm", "rank"]) if index else _empty_index("rank")
    return pd.DataFrame(rows, index=levels, columns=columns)


def _inferred_waits(timeline: Timeline, lane: Lane) -> list[tuple[Any, ...]]:
    book = ledger(timeline, lane)
    totals = {kind: book.between(state, [timeline.begin], [timeline.end])[0] for kind, state in SAMPLED.items()}
    return [(kind, None, np.nan, None, np.nan, total, np.nan) for kind, total in totals.items() if total > 0]


def _measured_waits(lane: Lane) -> list[tuple[Any, ...]]:
    """Return the totals of a lane, the longest first; of what is called the same at the same place, one."""
    found: dict[tuple[Any, ...], tuple[int, float, float]] = {}
    for total in lane.totals:
        key = total.kind, object_of(total), total.line or None, total.place or None
        n, seconds, longest = found.get(key, (0, 0.0, 0.0))
        found[key] = n + total.n, seconds + total.total_s, max(longest, total.max_s)
    rows = sorted(found.items(), key=lambda row: -row[1][1])
    return [(kind, thing, np.nan if line is None else line, place, *figures) for (kind, thing, line, place), figures in rows]


_DESCRIPTORS = 1 << 32
"""Objects below this are descriptors, above it addresses."""


def object_of(total: Total) -> str | None:
    """Name what was waited for: as the body does, else a lock by its library or its address, I/O by its descriptor."""
    known = KIND[total.kind].object
    if total.name or not total.object or not known:
        return total.name or None
    return f"0x{total.object:x}" if total.object >= _DESCRIPTORS or known == "address" else f"fd {total.object}"


def things_of(timelines: Sequence[Timeline]) -> dict[str, str]:
    """Return what the objects in the table of waits are, where that is known."""
    return {str(object_of(t)): t.thing for timeline in timelines for lane in timeline.lanes for t in lane.totals if t.thing in THING}


def transfers_table(timelines: Sequence[Timeline]) -> pd.DataFrame:
    """Return one row per (arm, rank) of processes: what was packed once for the arm, and what crossed this worker's border.

    ``packed_mb`` and ``pack_s`` are the arm's, in each of its rows: names and items, pickled by the notebook; NaN where
    it was forked. ``unpacked_mb`` and ``unpack_s`` are what the worker unpickled of these (large buffers are mapped, and
    count), ``returned_mb`` and ``return_s`` its results, pickled and sent. In MB (10**6 bytes) and seconds.
    """
    rows = {}
    for timeline in timelines:
        packed = timeline.packed
        for lane in timeline.lanes:
            if lane.moved is None:
                continue
            moved = lane.moved
            rows[timeline.arm.label, lane.worker.rank] = {
                "packed_mb": packed.size / 1e6 if packed else np.nan,
                "pack_s": packed.seconds if packed else np.nan,
                "unpacked_mb": moved.unpacked / 1e6,
                "unpack_s": moved.unpack_s,
                "returned_mb": moved.returned / 1e6,
                "return_s": moved.return_s,
            }
    columns = ["packed_mb", "pack_s", "unpacked_mb", "unpack_s", "returned_mb", "return_s"]
    index = pd.MultiIndex.from_tuples(list(rows), names=["arm", "rank"]) if rows else _empty_index("rank")
    return pd.DataFrame(list(rows.values()), index=index, columns=columns)


_MUCH_HELPED = 0.1
"""A share of the useful time from which on it matters what workers waited for threads of libraries."""


def useful_seconds(timeline: Timeline, workers: pd.DataFrame) -> float:
    """Return the seconds in items that no other worker caused, of an arm's rows of the workers table.

    That is on a core, asleep or in I/O, and waiting for what the bodies start themselves: what a serial run would have to do as
    well. NaN where the waits are not known, or where threads of libraries did much of the work: one worker's wait for them is not known.
    """
    if (workers["unknown_s"] > 0.02 * workers[["running_s", "unknown_s"]].sum(axis=1)).any():
        return float("nan")
    useful = float(workers[[f"{state}_s" for state in OWN]].sum().sum()) + started.waited_s(timeline)[0]
    helped = sum(total.total_s for lane in timeline.lanes for total in lane.totals if total.kind == "helpers")
    return float("nan") if helped > _MUCH_HELPED * (useful + helped) else useful


def summary_table(timelines: Sequence[Timeline], workers: pd.DataFrame, baselines: Sequence[Baseline]) -> pd.DataFrame:
    """Return one row per arm; ``baselines`` are theirs, in the same order."""
    rows = []
    for timeline, baseline in zip(timelines, baselines, strict=True):
        mine = workers[workers.index.get_level_values("arm") == timeline.arm.label]  # none, where no worker came to life
        rows.append(_summary_row(timeline, mine, baseline))
    columns = [
        "model", "n_workers", "n_items", "wall_s", "serial_s", "speedup", "efficiency", "baseline", "cpu_s", "cores_used",
        "gil_wait_s", "gil_wait_share", "lock_wait_s", "io_wait_s", "startup_s", "transfer_s", "trace_overhead", "gil",
        "others_cores", "throttled_s",
    ]  # fmt: skip
    return Printed(rows, index=pd.Index([t.arm.label for t in timelines], name="arm"), columns=columns)


def _summary_row(timeline: Timeline, mine: pd.DataFrame, baseline: Baseline) -> dict[str, Any]:
    wall = timeline.wall_s
    sums = {name: mine[name].sum(min_count=1) for name in STATE_COLUMNS}
    active = mine["wall_s"].sum() - sums["startup_s"] - sums["idle_s"]
    serial_s = useful_seconds(timeline, mine) if baseline.serial_s is None else baseline.serial_s
    speedup = serial_s / wall if timeline.n_done else float("nan")
    return {
        "model": timeline.arm.model.name,
        "n_workers": timeline.arm.count,
        "n_items": timeline.n_items,
        "wall_s": wall,
        "serial_s": serial_s,
        "speedup": speedup,
        "efficiency": speedup / timeline.arm.count,
        "baseline": baseline.how,
        "cpu_s": timeline.cpu_s,
        "cores_used": timeline.cpu_s / wall,
        "gil_wait_share": sums["gil_wait_s"] / active if active > 0 else float("nan"),
        "trace_overhead": timeline.overhead,
        "gil": timeline.gil,
        "others_cores": timeline.load.others_cores if timeline.load else float("nan"),
        "throttled_s": timeline.load.throttled_s if timeline.load else float("nan"),
        **{name: sums[name] for name in ("gil_wait_s", "lock_wait_s", "io_wait_s", "startup_s", "transfer_s")},
    }


def _empty_index(second: str) -> pd.MultiIndex:
    return pd.MultiIndex.from_arrays([[], []], names=["arm", second])
