"""Where a worker's busy time went, by its clocks and by samples from outside.

- The thread's CPU clock and its run queue (Linux) are exact between two readings.
  The rest of that interval was spent blocked.
- What it was blocked on is sampled from outside of the process. The samples
  only *divide* the blocked time; they never change how much of it there is.
  Blocked time in a lane that was never seen blocked is ``unknown``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from parmagic.analyze.intervals import Cells, Floats
from parmagic.model.kinds import INFERRED, SAMPLED, SEEN
from parmagic.model.timeline import Lane, Timeline

_KINDS = tuple(SAMPLED)


def divide(timeline: Timeline, lane: Lane) -> tuple[Floats, dict[str, Floats], frozenset[str]]:
    """Return the cells' edges, the seconds of each state in each, and the states about which nothing is known."""
    division = _Division(timeline, lane)
    absent = set(INFERRED)
    if len(division.sample_at):
        absent -= set(SAMPLED.values())
    if not timeline.gil:
        absent.discard("gil_wait")
    if len(division.queue) and np.isnan(division.queue).any():
        absent.add("cpu_wait")
    return division.cells.edges, division.parts(), frozenset(absent)


class _Division:
    def __init__(self, timeline: Timeline, lane: Lane) -> None:
        self.clock_at = np.asarray(lane.clocks.at, dtype=float)
        self.cpu = np.asarray(lane.clocks.cpu, dtype=float)
        queue = np.asarray(lane.clocks.queue, dtype=float)
        self.queue = np.full(len(queue), np.nan) if np.isnan(queue).any() else queue  # a part of it is not what was waited
        self.sample_at = np.asarray(lane.samples.at, dtype=float)
        self.sample_state = np.asarray(lane.samples.states, dtype=int)
        self.halfway = (self.sample_at[1:] + self.sample_at[:-1]) / 2
        self.cells = Cells(timeline, lane, self.clock_at, self.halfway)

    def parts(self) -> dict[str, Floats]:
        """Return the seconds of each state in each cell."""
        parts = self.cells.parts()
        self._busy_parts(parts)
        return parts

    def _busy_parts(self, parts: dict[str, Floats]) -> None:
        """Divide the busy cells into on a core, in the run queue, and blocked by kind."""
        cells = self.cells
        busy = cells.kind == "busy"
        if not busy.any():
            return
        width = np.where(busy, cells.width, 0.0)
        seen = self._seen(busy)
        interval = np.searchsorted(self.clock_at, cells.middle, side="right")
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
        """Return what each cell was seen blocked on (a place in ``_KINDS``), or -1."""
        seen = np.full(len(self.cells.middle), -1)
        if len(self.sample_at):
            nearest = np.searchsorted(self.halfway, self.cells.middle, side="right")
            translate = np.array([_KINDS.index(seen) if seen in SAMPLED else -1 for seen in SEEN])
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
        by_kind = np.array([np.bincount(interval, np.where(seen == k, blocked, 0.0), count) for k in range(len(_KINDS))])
        whole = by_kind.sum(axis=1, keepdims=True)
        here = by_kind.sum(axis=0)
        basis = np.where(here > 0, by_kind, whole)
        total = basis.sum(axis=0)
        share = np.divide(basis, total, out=np.zeros_like(basis), where=total > 0)
        for k, kind in enumerate(_KINDS):
            parts[SAMPLED[kind]] = np.where(seen == k, blocked, 0.0) + more * share[k][interval]
        parts["unknown"] += np.where(total[interval] > 0, 0.0, more)
