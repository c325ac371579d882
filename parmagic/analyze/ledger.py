"""The ledger of a lane: for each state, the seconds spent in it as a function of time.

It is the one source of every figure and every picture. A row of a table is the
ledger between two times; so is a bin of a drawn lane.

``startup`` and ``transfer`` are spans that the worker recorded (all before it was
ready is start-up); ``idle`` is what is left outside of items, of a worker that takes
some. Inside of items (of any other worker: between its first reading and its last),
the hooks' account divides the time (:mod:`parmagic.analyze.measured`), or the clocks and
samples of a worker without hooks (:mod:`parmagic.analyze.inferred`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from parmagic.analyze import inferred, measured
from parmagic.analyze.intervals import Floats
from parmagic.model.kinds import WORKER_STATES
from parmagic.model.timeline import Lane, Timeline


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
    if lane.tally is not None:
        edges, parts, absent = measured.divide(timeline, lane, lane.tally)
    else:
        edges, parts, absent = inferred.divide(timeline, lane)
    zero = np.zeros(1)
    return Ledger(edges, {state: np.concatenate([zero, np.cumsum(parts[state])]) for state in WORKER_STATES}, absent)
