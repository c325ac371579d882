"""Where the time went: timelines become a ledger per lane, and ledgers become tables.

The ledger is the one source of every figure and every picture: for each state
the seconds spent in it since the arm's begin, as a function of time. A row of
a table is the ledger between two times; so is a bin of a drawn lane.

What the ledger is made of, where waits are inferred:

- ``startup`` and ``transfer`` are spans that the worker recorded (all before it
  was ready is start-up); ``idle`` is what is left outside of items.
- Inside of items, the thread's CPU clock and its run queue (Linux) are exact
  between two readings. The rest of that interval was spent blocked.
- What it was blocked on is sampled from outside of the process. The samples
  only *divide* the blocked time; they never change how much of it there is.
  Blocked time in a lane that was never seen blocked is ``unknown``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parmagic.model import STATES, WORKER_STATES, Lane, Timeline

Floats = NDArray[np.float64]

STATE_COLUMNS = [f"{state}_s" for state in WORKER_STATES]
_BLOCKED = {"gil": "gil_wait", "lock": "lock_wait", "sleep": "sleep", "io": "io_wait"}
_SAMPLED = [state for state in STATES if state in _BLOCKED]


class Ledger:
    """Seconds per state since the arm's begin, as a function of time.

    ``at`` (n times, rising) and ``seconds[state]`` (n sums, rising, the first
    0). ``absent`` are the states about which nothing is known: their seconds
    are 0 here and NaN in the tables.
    """

    def __init__(self, at: Floats, seconds: dict[str, Floats], absent: frozenset[str]) -> None:
        self.at = at
        self.seconds = seconds
        self.absent = absent

    def until(self, state: str, times: Any) -> Floats:
        """Return the seconds in ``state`` up to each of ``times``."""
        return np.asarray(np.interp(times, self.at, self.seconds[state]), dtype=float)

    def shares(self, edges: Any) -> dict[str, Floats]:
        """Return the seconds of each state in each of the bins between ``edges``."""
        return {state: np.diff(self.until(state, edges)) for state in WORKER_STATES}

    def between(self, state: str, begins: Any, ends: Any) -> Floats:
        """Return the seconds in ``state`` from each begin to its end; NaN where not known."""
        if state in self.absent:
            return np.full(len(begins), np.nan)
        return self.until(state, ends) - self.until(state, begins)


def ledger(timeline: Timeline, lane: Lane) -> Ledger:
    """Make one lane's ledger: its states tile the time from the arm's begin to its end."""
    cells = _Cells(timeline, lane)
    known = bool(len(cells.sample_at))
    absent = {"native"}
    if not known:
        absent |= set(_BLOCKED.values())
    if not timeline.gil:
        absent.discard("gil_wait")
    if len(cells.queue) and np.isnan(cells.queue).any():
        absent.add("cpu_wait")
    parts = cells.parts()
    zero = np.zeros(1)
    return Ledger(
        cells.edges,
        {state: np.concatenate([zero, np.cumsum(parts[state])]) for state in WORKER_STATES},
        frozenset(absent),
    )


class _Cells:
    """The arm's time, cut wherever anything about a lane changes."""

    def __init__(self, timeline: Timeline, lane: Lane) -> None:
        self.clock_at = np.asarray(lane.clocks.at, dtype=float)
        self.cpu = np.asarray(lane.clocks.cpu, dtype=float)
        self.queue = np.asarray(lane.clocks.queue, dtype=float)
        self.sample_at = np.asarray(lane.samples.at, dtype=float)
        self.sample_state = np.asarray(lane.samples.states, dtype=int)
        self.busy = _stretches(lane)
        spans = [(s.kind, s.begin, s.end) for s in lane.spans]
        halfway = (self.sample_at[1:] + self.sample_at[:-1]) / 2
        cuts = [[timeline.begin, timeline.end], self.busy.ravel(), self.clock_at, halfway]
        cuts += [[begin, end] for _, begin, end in spans]
        self.edges: Floats = np.unique(np.clip(np.concatenate(cuts), timeline.begin, timeline.end))
        self.width = np.diff(self.edges)
        self.middle = self.edges[:-1] + self.width / 2
        self.kind = self._kinds(spans)

    def _kinds(self, spans: Sequence[tuple[str, float, float]]) -> NDArray[np.str_]:
        """Say of each cell what the worker did: items win over transfer, and that over start-up.

        Between its first and its last item a worker is never idle: what is
        left there is the way from one claim to the next, with the waits on it.
        """
        kind = np.full(len(self.middle), "idle", dtype="U8")
        if len(self.busy):
            kind[(self.middle >= self.busy[0, 0]) & (self.middle < self.busy[-1, 1])] = "busy"
        ready = min((end for name, _, end in spans if name == "startup"), default=0.0)
        kind[self.middle < ready] = "startup"
        for wanted in ("startup", "transfer"):
            for name, begin, end in spans:
                if name == wanted:
                    kind[(self.middle >= begin) & (self.middle < end)] = wanted
        if len(self.busy):
            place = np.searchsorted(self.busy[:, 0], self.middle, side="right") - 1
            inside = (place >= 0) & (self.middle < self.busy[np.maximum(place, 0), 1])
            kind[inside] = "busy"
        return kind

    def parts(self) -> dict[str, Floats]:
        """Return the seconds of each state in each cell."""
        parts = {state: np.zeros(len(self.width)) for state in WORKER_STATES}
        for state in ("startup", "transfer", "idle"):
            parts[state] = np.where(self.kind == state, self.width, 0.0)
        self._busy_parts(parts)
        return parts

    def _busy_parts(self, parts: dict[str, Floats]) -> None:
        """Divide the busy cells into on a core, in the run queue, and blocked by kind."""
        busy = self.kind == "busy"
        if not busy.any():
            return
        width = np.where(busy, self.width, 0.0)
        seen = self._seen(busy)
        interval = np.searchsorted(self.clock_at, self.middle, side="right")
        on, queued, off = self._clock_shares(interval, width)
        count = len(on)
        # blocked time goes to the cells that were seen blocked; what does not fit there is spread
        looks_off = np.where(seen >= 0, width, 0.0)
        room = np.bincount(interval, looks_off, count)
        fill = np.divide(np.minimum(off, room), room, out=np.zeros(count), where=room > 0)
        blocked = looks_off * fill[interval]
        rest = np.maximum(off - room, 0.0)
        open_width = width - blocked
        open_room = np.bincount(interval, open_width, count)
        spread = np.divide(rest, open_room, out=np.zeros(count), where=open_room > 0)
        more = open_width * spread[interval]
        self._name_blocked(parts, seen, blocked, more, interval)
        awake = width - blocked - more
        running = np.divide(on, on + queued, out=np.ones(count), where=on + queued > 0)
        parts["running"] = awake * running[interval]
        parts["cpu_wait"] = awake * (1 - running[interval])

    def _seen(self, busy: NDArray[np.bool_]) -> NDArray[np.int_]:
        """Return what each cell was seen blocked on (a place in ``_SAMPLED``), or -1."""
        seen = np.full(len(self.middle), -1)
        if len(self.sample_at):
            halfway = (self.sample_at[1:] + self.sample_at[:-1]) / 2
            nearest = np.searchsorted(halfway, self.middle, side="right")
            translate = np.array([_SAMPLED.index(s) if s in _BLOCKED else -1 for s in STATES])
            seen = translate[self.sample_state[nearest]]
        return np.where(busy, seen, -1)

    def _clock_shares(self, interval: NDArray[np.int_], width: Floats) -> tuple[Floats, Floats, Floats]:
        """Return the seconds on a core, queued and blocked in each interval between two readings.

        Outside of all readings nothing is known but that the worker was busy:
        that counts as blocked, and ends as ``unknown`` unless samples name it.
        """
        count = len(self.clock_at) + 1
        total = np.bincount(interval, width, count)
        on, queued = np.zeros(count), np.zeros(count)
        if len(self.clock_at) > 1:
            on[1:-1] = np.maximum(np.diff(self.cpu), 0.0)
            queued[1:-1] = np.maximum(np.nan_to_num(np.diff(self.queue)), 0.0)
        on = np.minimum(on, total)
        queued = np.minimum(queued, total - on)
        return on, queued, total - on - queued

    def _name_blocked(
        self, parts: dict[str, Floats], seen: NDArray[np.int_], blocked: Floats, more: Floats, interval: NDArray[np.int_]
    ) -> None:
        """Give blocked seconds their names; seconds that no sample saw follow the samples around them."""
        count = len(self.clock_at) + 1
        by_kind = np.array([np.bincount(interval, np.where(seen == k, blocked, 0.0), count) for k in range(len(_SAMPLED))])
        whole = by_kind.sum(axis=1, keepdims=True)
        here = by_kind.sum(axis=0)
        basis = np.where(here > 0, by_kind, whole)
        total = basis.sum(axis=0)
        share = np.divide(basis, total, out=np.zeros_like(basis), where=total > 0)
        for k, state in enumerate(_SAMPLED):
            parts[_BLOCKED[state]] = np.where(seen == k, blocked, 0.0) + more * share[k][interval]
        parts["unknown"] = np.where(total[interval] > 0, 0.0, more)


def _stretches(lane: Lane) -> Floats:
    """Return the (m, 2) begins and ends of the stretches in which items ran, in order."""
    if not lane.batches:
        return np.empty((0, 2))
    return np.array([[batch.begins[0], batch.ends[-1]] for batch in lane.batches])


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
        "n_items": sum(len(batch.begins) for batch in lane.batches),
        "wall_s": timeline.end - timeline.begin,
        "cpu_s": usage.cpu_s if usage else nan,
        "ctx_voluntary": usage.ctx_voluntary if usage else nan,
        "ctx_involuntary": usage.ctx_involuntary if usage else nan,
        "rss_mb": usage.rss_mb if usage else nan,
        "measured": False,
    }
    for state in WORKER_STATES:
        row[f"{state}_s"] = book.between(state, [timeline.begin], [timeline.end])[0]
    return row


def items_table(timelines: Sequence[Timeline]) -> pd.DataFrame:
    """Return one row per (arm, item number); items that never started have NaN and say so."""
    frames = [_items_of(timeline) for timeline in timelines]
    columns = ["rank", "start_s", "wall_s", "running_s", "gil_wait_s", "lock_wait_s", "io_wait_s", "error"]
    if not frames:
        return pd.DataFrame(columns=columns, index=_empty_index("item"))
    keys = [timeline.arm.label for timeline in timelines]
    return pd.concat(frames, keys=keys, names=["arm", "item"])[columns]


def _items_of(timeline: Timeline) -> pd.DataFrame:
    n = timeline.n_items
    nan = np.full(n, np.nan)
    figures = {name: nan.copy() for name in ("rank", "start_s", "wall_s", "running_s", "gil_wait_s", "lock_wait_s", "io_wait_s")}
    errors = np.full(n, "not started", dtype=object)
    for lane in timeline.lanes:
        book = ledger(timeline, lane)
        for batch in lane.batches:
            begins, ends = np.asarray(batch.begins), np.asarray(batch.ends)
            place = slice(batch.first, batch.first + len(begins))
            figures["rank"][place] = lane.worker.rank
            figures["start_s"][place] = begins - timeline.begin
            figures["wall_s"][place] = ends - begins
            for state in ("running", "gil_wait", "lock_wait", "io_wait"):
                figures[f"{state}_s"][place] = book.between(state, begins, ends)
            errors[place] = None
            for item, error in batch.errors.items():
                errors[item] = describe(error)
    if not np.isnan(figures["rank"]).any():
        figures["rank"] = figures["rank"].astype(int)
    return pd.DataFrame({**figures, "error": errors}, index=pd.RangeIndex(n, name="item"))


def waits_table(timelines: Sequence[Timeline]) -> pd.DataFrame:
    """Return one row per (arm, rank, kind) that was seen.

    Where waits are inferred, how often and how long one of them lasted, the
    object and the line are not known: NaN and None.
    """
    rows, index = [], []
    for timeline in timelines:
        for lane in timeline.lanes:
            book = ledger(timeline, lane)
            for kind, state in _BLOCKED.items():
                total = book.between(state, [timeline.begin], [timeline.end])[0]
                if total > 0:
                    index.append((timeline.arm.label, lane.worker.rank))
                    rows.append((kind, None, np.nan, np.nan, total, np.nan))
    columns = ["kind", "object", "line", "n", "total_s", "max_s"]
    levels = pd.MultiIndex.from_tuples(index, names=["arm", "rank"]) if index else _empty_index("rank")
    return pd.DataFrame(rows, index=levels, columns=columns)


def busy_seconds(timeline: Timeline) -> Floats:
    """Return each item's wall seconds, by item number; NaN for one that did not end well."""
    busy = np.full(timeline.n_items, np.nan)
    for lane in timeline.lanes:
        for batch in lane.batches:
            busy[batch.first : batch.first + len(batch.begins)] = np.asarray(batch.ends) - np.asarray(batch.begins)
            for item in batch.errors:
                busy[item] = np.nan
    return busy


def useful_seconds(timeline: Timeline) -> float:
    """Return the seconds in items that no other worker caused.

    That is on a core, asleep or in I/O: what a serial run would have to do as
    well. NaN where the waits are not known.
    """
    books = [ledger(timeline, lane) for lane in timeline.lanes]
    total = 0.0
    for book in books:
        if book.seconds["unknown"][-1] > 0.02 * sum(book.seconds[s][-1] for s in ("running", "unknown")):
            return float("nan")
        total += sum(float(book.seconds[s][-1]) for s in ("running", "native", "sleep", "io_wait"))
    return total


def summary_table(
    timelines: Sequence[Timeline], workers: pd.DataFrame, baselines: Sequence[Any], overheads: Sequence[float]
) -> pd.DataFrame:
    """Return one row per arm; ``baselines`` have ``serial_s`` and ``how`` for each."""
    rows = []
    for timeline, baseline, overhead in zip(timelines, baselines, overheads, strict=True):
        mine = workers[workers.index.get_level_values("arm") == timeline.arm.label]  # none, where no worker came to life
        rows.append(_summary_row(timeline, mine, baseline, overhead))
    columns = [
        "model", "n_workers", "n_items", "wall_s", "serial_s", "speedup", "efficiency", "baseline", "cpu_s", "cores_used",
        "gil_wait_s", "gil_wait_share", "lock_wait_s", "io_wait_s", "startup_s", "transfer_s", "trace_overhead", "gil",
    ]  # fmt: skip
    return pd.DataFrame(rows, index=pd.Index([t.arm.label for t in timelines], name="arm"), columns=columns)


def _summary_row(timeline: Timeline, mine: pd.DataFrame, baseline: Any, overhead: float) -> dict[str, Any]:
    wall = timeline.end - timeline.begin
    sums = {name: mine[name].sum(min_count=1) for name in STATE_COLUMNS}
    active = mine["wall_s"].sum() - sums["startup_s"] - sums["idle_s"]
    speedup = baseline.serial_s / wall
    return {
        "model": timeline.arm.kind,
        "n_workers": timeline.arm.count,
        "n_items": timeline.n_items,
        "wall_s": wall,
        "serial_s": baseline.serial_s,
        "speedup": speedup,
        "efficiency": speedup / timeline.arm.count,
        "baseline": baseline.how,
        "cpu_s": timeline.cpu_s,
        "cores_used": timeline.cpu_s / wall,
        "gil_wait_share": sums["gil_wait_s"] / active if active > 0 else float("nan"),
        "trace_overhead": overhead / wall,
        "gil": timeline.gil,
        **{name: sums[name] for name in ("gil_wait_s", "lock_wait_s", "io_wait_s", "startup_s", "transfer_s")},
    }


def describe(error: BaseException, limit: int = 80) -> str:
    """Return ``Type: message`` on one line, cut to ``limit`` characters."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _empty_index(second: str) -> pd.MultiIndex:
    return pd.MultiIndex.from_arrays([[], []], names=["arm", second])
