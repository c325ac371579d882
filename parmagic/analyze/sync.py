"""The table of what workers took: one row per lock, or thing that is made of locks, under the name that the user gave it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan, nan
from typing import Any

import numpy as np
import pandas as pd

from parmagic.analyze.called import accounts, at, called, place_of, who
from parmagic.analyze.printed import Printed
from parmagic.analyze.shared import GETS, PUTS, Use, by_name, empty_s, full_s
from parmagic.analyze.shared import levels as levels_of
from parmagic.model.sources import is_standard
from parmagic.model.taken import NOWHERE, Level, Taken
from parmagic.model.things import THING
from parmagic.model.timeline import Timeline

COLUMNS = (
    "kind", "made_at", "n_workers", "n", "contended", "wait_s", "wait_mean_s", "wait_p99_s", "wait_max_s", "hold_s", "hold_max_s",
    "hold_blocked_s", "busy", "level_max", "level_mean", "capacity", "puts", "gets", "full_s", "empty_s", "bytes", "pickle_s",
)  # fmt: skip

MOST = 10_000
"""Rows of the table; what has no place is in one row."""

_MOST_PLACES = 3

_SENT = PUTS | {"_feed"}
"""The methods in which what goes away is pickled: a queue's thread does that for who puts it there."""

_TAKES = PUTS | GETS | {"", "__enter__", "acquire", "wait", "wait_for", "join", "result", "__getitem__", "__setitem__"}
"""The methods that take, or wait for, a thing: what is done in these is its number."""


def sync_table(timelines: Sequence[Timeline]) -> pd.DataFrame:
    """Return one row per (arm, thing); what is held has the share of the arm's wall time for which it was, ``busy``.

    A semaphore is held by each that it has let in, where the same thread lets go of it. Its level is how many it has let in, that of
    a barrier how many wait at it, that of a queue how much is in it, read behind each operation: ``capacity`` is what these can be
    at the most, infinite for a queue without a bound. For ``full_s`` at least one worker waited in ``put``, for ``empty_s`` in ``get``.
    Locks of the standard library's own are there where somebody waited for them.
    """
    rows, index = [], []
    for timeline in timelines:
        for name, found in _at_most(by_name(timeline), MOST // len(timelines)).items():
            row = _row(timeline, found)
            if row["wait_s"] or (row["n"] and _is_anybodys(found)):
                rows.append(row)
                index.append((timeline.arm.label, name))
    names = ["arm", "primitive"]
    levels = pd.MultiIndex.from_tuples(index, names=names) if index else pd.MultiIndex.from_arrays([[], []], names=names)
    table = Printed(rows, index=levels, columns=list(COLUMNS))
    table["made_at"] = pd.Series([row["made_at"] for row in rows], index=levels, dtype=object)  # None stays None
    return table


def _is_anybodys(found: Iterable[Use]) -> bool:
    """Tell whether a thing has a name, or was made elsewhere than in the standard library, or is the rest of too many to tell apart.

    Of what is none of these, nobody knows more.
    """
    return any(each.name or not each.object or (each.made != NOWHERE and not is_standard(each.made[0])) for _, each in found)


def _at_most(found: dict[str, list[Use]], most: int) -> dict[str, list[Use]]:
    """Keep what was waited for longest, or else taken most often, and put the rest into one row."""
    if len(found) <= most:
        return found
    rows = sorted(found.items(), key=lambda row: (-sum(each.wait_s for _, each in row[1]), -sum(each.n for _, each in row[1])))
    rest = [pair for _, pairs in rows[most - 1 :] for pair in pairs]
    return {**dict(rows[: most - 1]), f"{len(found) - most + 1:,} others": rest}


def _row(timeline: Timeline, found: list[Use]) -> dict[str, Any]:
    rows = [each for _, each in found]
    contended, wait = sum(each.contended for each in rows), sum(each.wait_s for each in rows)
    hold = sum(each.hold_s for each in rows)
    kind, levels = next((each.thing for each in rows if each.thing), "lock"), levels_of(found)
    use = THING[kind].use
    held, fed, asked = use == "held" or (use == "lent" and bool(levels)), use == "fed", use == "asked"
    takes = [each for each in rows if asked or each.method in _TAKES]
    full = _fullness(levels, lent=use == "lent")
    put, got = (sum(each.bytes for each in rows if each.method in some) for some in (_SENT, GETS))
    return {
        "kind": kind,
        "made_at": _made_at(rows),
        "n_workers": len({lane.worker.rank for lane, _ in found}),
        "n": sum(each.n for each in takes),
        "contended": nan if asked else contended,
        "wait_s": wait,
        "wait_mean_s": wait / contended if contended else nan,
        "wait_p99_s": _percentile(rows, contended),
        "wait_max_s": max(each.wait_max_s for each in rows) if contended else nan,
        "hold_s": hold if held else nan,
        "hold_max_s": max(each.hold_max_s for each in rows) if held else nan,
        "hold_blocked_s": sum(each.blocked_s for each in rows) if held else nan,
        "busy": hold / (timeline.wall_s * (full["capacity"] if use == "lent" else 1)) if held else nan,
        **full,
        "puts": sum(each.n for each in rows if each.method in PUTS) if fed else nan,
        "gets": sum(each.n for each in rows if each.method in GETS) if fed else nan,
        "full_s": full_s(found) if kind == "queue" else nan,
        "empty_s": empty_s(found) if kind == "queue" else nan,
        "bytes": (max(put, got) if kind == "queue" else put + got) if put or got else nan,
        "pickle_s": sum(each.pickle_s for each in rows) if put or got else nan,
    }


def _fullness(levels: Sequence[Level], *, lent: bool) -> dict[str, float]:
    """Return the level of things of one name: what is taken of semaphores, waits at barriers, or is in queues, and could be."""
    if not levels:
        return dict.fromkeys(("level_max", "level_mean", "capacity"), nan)
    of = [float(level.high) if lent and isnan(level.capacity) else level.capacity for level in levels]  # as many as ever were left
    most = [capacity - level.low if lent else level.high for capacity, level in zip(of, levels, strict=True)]
    span = sum(level.span for level in levels)
    area = sum(capacity * level.span - level.area if lent else level.area for capacity, level in zip(of, levels, strict=True))
    return {"level_max": max(most), "level_mean": area / span if span else nan, "capacity": max(of)}


def handoffs_table(timelines: Sequence[Timeline]) -> pd.DataFrame:
    """Return one row per (arm, thing, waiter, blocker, places): who made whom wait, and where both were."""
    rows, index = [], []
    for timeline in timelines:
        for (name, *pair), (n, total, longest) in _pairs(timeline).items():
            rows.append((*pair, n, total, longest))
            index.append((timeline.arm.label, name))
    names = ["arm", "primitive"]
    levels = pd.MultiIndex.from_tuples(index, names=names) if index else pd.MultiIndex.from_arrays([[], []], names=names)
    columns = ["waiter", "wait_place", "blocker", "block_place", "n", "total_s", "max_s"]
    return pd.DataFrame(rows, index=levels, columns=columns).sort_values("total_s", ascending=False, kind="stable")


def _pairs(timeline: Timeline) -> dict[tuple[Any, ...], tuple[int, float, float]]:
    found: dict[tuple[Any, ...], tuple[int, float, float]] = {}
    lanes, known = (*timeline.lanes, *timeline.children), accounts(timeline)
    for lane in lanes:
        for each in lane.synced.handoffs:
            worker = f"worker {each.blocker}" if each.blocker >= 0 else None
            other = known.get((lane.worker.host, lane.worker.pid, each.serial))
            key = called(each), who(lane), place_of(each.waited), who(other) if other else worker, place_of(each.blocked)
            n, total, longest = found.get(key, (0, 0.0, 0.0))
            found[key] = n + each.n, total + each.total_s, max(longest, each.max_s)
    return found


def _made_at(rows: Iterable[Taken]) -> str | None:
    """Return where things of one name were made, as far as that is known: by this run's workers."""
    places = sorted({row.made for row in rows if row.made != NOWHERE})
    return ", ".join(map(at, places[:_MOST_PLACES])) + (", …" if len(places) > _MOST_PLACES else "") or None


def _percentile(rows: Sequence[Taken], contended: int) -> float:
    """Return what 99 of 100 waits were not longer than: the upper end of a power of two, or the longest."""
    if not contended:
        return nan
    counts = np.sum([each.waits for each in rows], axis=0)
    upper = float(2.0 ** int(np.searchsorted(np.cumsum(counts), 0.99 * counts.sum())) * 1e-9)
    return min(upper, max(each.wait_max_s for each in rows))
