"""Where a worker's busy time went, by the account that the hooks kept.

Between two readings of a tally the seconds of every state are exact. Single
waits say where in that interval they lie: a wait's cell is that state, as far as
the tally has seconds for it (a call that copied data was at work for a part of its
time). What is left of the tally's seconds, waits that were too short or too many
to be kept among them, is spread over what is left of the interval.

A worker that waits for the GIL on the way to its first item is not idle. Of its start-up, what it waited for the GIL
or for a core is that: others made it late.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from parmagic.analyze.intervals import Cells, Floats
from parmagic.model.kinds import DELAYS, KIND, MEASURED, WAIT_KINDS
from parmagic.model.recording import Tally
from parmagic.model.timeline import Lane, Timeline
from parmagic.model.waits import WAIT_LAYOUT, WAITED, Wait

EVENT = np.dtype(list(zip(Wait._fields, WAIT_LAYOUT.format[1:], strict=True)))
"""A single wait, as :class:`parmagic.model.waits.Wait` has it."""

_GIL = MEASURED.index("gil_wait")
_PLACES = np.array([MEASURED.index(KIND[kind].state) for kind in WAIT_KINDS])


def events(lane: Lane) -> NDArray[np.void]:
    """Return a lane's single waits in the order of their begins; a wait within a wait is not among them."""
    found = np.frombuffer(lane.waits.events, dtype=EVENT)
    if found["what"].any():  # as yet, all are waits
        found = found[found["what"] == WAITED]
    return found[np.argsort(found["begin"], kind="stable")]


def divide(timeline: Timeline, lane: Lane, tally: Tally) -> tuple[Floats, dict[str, Floats], frozenset[str]]:
    """Return the cells' edges, the seconds of each state in each, and the states about which nothing is known."""
    rows = np.asarray(tally.rows, dtype=float).reshape(-1, 1 + len(MEASURED))
    waits = events(lane)
    begins, ends = waits["begin"] * 1e-9, waits["end"] * 1e-9
    cells = Cells(timeline, lane, rows[:, 0], begins, ends)
    parts = cells.parts()
    busy, starting = cells.kind == "busy", cells.kind == "startup"
    interval = np.searchsorted(rows[:, 0], cells.middle, side="right") - 1
    spent = np.maximum(np.nan_to_num(np.diff(rows[:, 1:], axis=0)), 0.0)
    # between a dead worker's last reading and its successor's first one, nothing was counted
    counted = np.append(spent.sum(axis=1) > 0, False)
    state_of_wait = _waiting(begins, ends, _PLACES[waits["kind"]], cells.middle)
    first = cells.busy[0, 0] if len(cells.busy) else timeline.begin
    waits_for_work = (cells.kind == "idle") & (cells.middle < first)
    wants_the_gil = waits_for_work & (state_of_wait == _GIL)
    known = (busy | starting | waits_for_work) & (interval >= 0) & counted[np.clip(interval, 0, len(rows) - 1)]
    parts["unknown"] += np.where(busy & ~known, cells.width, 0.0)
    parts["gil_wait"] = np.where(wants_the_gil, cells.width, 0.0)
    parts["idle"] = np.where(wants_the_gil, 0.0, parts["idle"])
    no_queue = bool(np.isnan(rows[:, 1:]).any())  # it could not be read (any more)
    if no_queue:
        unnamed = np.where(counted[:-1], np.diff(rows[:, 0]) - spent.sum(axis=1), 0.0)
        spent = np.column_stack([spent, np.maximum(unnamed, 0.0)])
    if known.any():
        division = _Division(spent, interval[known], cells.width[known])
        waiting = state_of_wait[known]
        parts["startup"][known] = 0.0
        for place, state in enumerate([*MEASURED, "unknown"][: spent.shape[1]]):
            seconds = division.seconds_in(place, waiting)
            late = starting[known] & (state in DELAYS)
            parts[state][known] = np.where(busy[known] | late, seconds, parts[state][known])
            parts["startup"][known] += np.where(starting[known] & ~late, seconds, 0.0)
    if no_queue:
        parts["unknown"] += parts["cpu_wait"]  # what was known of it is not all of it
        parts["cpu_wait"] = np.zeros(len(cells.width))
    absent = ({"cpu_wait"} if no_queue else set()) | (set() if timeline.gil else {"native"})
    return cells.edges, parts, frozenset(absent)


def _waiting(begins: Floats, ends: Floats, states: NDArray[np.int_], middle: Floats) -> NDArray[np.int_]:
    """Return the state (its place in ``MEASURED``) of the wait that each cell lies in, or -1."""
    if not len(begins):
        return np.full(len(middle), -1)
    place = np.searchsorted(begins, middle, side="right") - 1
    inside = (place >= 0) & (middle < ends[np.maximum(place, 0)])
    return np.where(inside, states[np.maximum(place, 0)], -1)


class _Division:
    """Divides the intervals between readings among their cells.

    ``seconds`` (intervals x states) is what the tally has for them; cell j, of
    ``width[j]``, lies in interval ``interval[j]``. Where an interval holds more
    than these cells (a transfer, say), its seconds are scaled to them.
    """

    def __init__(self, seconds: Floats, interval: NDArray[np.int_], width: Floats) -> None:
        self._interval = interval
        self._width = width
        self._count = len(seconds)
        room, whole = self._per_interval(width), seconds.sum(axis=1)
        scale = np.divide(room, whole, out=np.zeros(self._count), where=whole > 0)
        self._seconds = seconds * scale[:, None]
        self._shares: tuple[Floats, Floats] | None = None

    def _per_interval(self, values: Floats) -> Floats:
        return np.asarray(np.bincount(self._interval, values, self._count), dtype=float)

    def _filled_and_left(self, waiting: NDArray[np.int_]) -> tuple[Floats, Floats]:
        """Return how full of its own state a wait's cell is, and what share of the open rest each state has."""
        if self._shares is None:
            states = self._seconds.shape[1]
            looks = np.stack([self._per_interval(np.where(waiting == s, self._width, 0.0)) for s in range(states)], axis=1)
            filled = np.divide(np.minimum(self._seconds, looks), looks, out=np.zeros_like(looks), where=looks > 0)
            left = self._seconds - filled * looks
            total = left.sum(axis=1, keepdims=True)
            self._shares = filled, np.divide(left, total, out=np.zeros_like(left), where=total > 0)
        return self._shares

    def seconds_in(self, state: int, waiting: NDArray[np.int_]) -> Floats:
        """Return each cell's seconds in a state; ``waiting`` is the state of the wait that it lies in, or -1."""
        filled, left = self._filled_and_left(waiting)
        own = np.where(waiting >= 0, filled[self._interval, np.maximum(waiting, 0)], 0.0)
        in_the_open = self._width * (1 - own) * left[self._interval, state]
        in_waits: Floats = np.where(waiting == state, self._width * own, 0.0)
        return np.asarray(in_the_open + in_waits, dtype=float)
