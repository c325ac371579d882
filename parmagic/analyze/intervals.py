"""An arm's time, cut wherever anything about a lane changes, and what the lane did in each cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parmagic.model.kinds import REST, SPANS, WORKER_STATES
from parmagic.model.timeline import Lane, Timeline

Floats = NDArray[np.float64]


class Cells:
    """The time from the arm's begin to its end in cells; ``cuts`` are further places where to cut.

    ``edges`` (n + 1 times), ``width`` and ``middle`` (n), and ``kind`` (n): startup,
    transfer, busy (in items, and on the way from one claim to the next) or idle. A lane
    that takes no items is busy between its readings; outside of them nothing is known of it, and what a body started is not there.
    """

    def __init__(self, timeline: Timeline, lane: Lane, *cuts: Any) -> None:
        self.busy: Floats = np.array(lane.stretches(), dtype=float).reshape(-1, 2)
        spans = [(s.kind, s.begin, s.end) for s in lane.spans]
        life = [[lane.child.begin, lane.child.end]] if lane.child else []
        own = [[timeline.begin, timeline.end], self.busy.ravel(), *([begin, end] for _, begin, end in spans), *life]
        self.edges: Floats = np.unique(np.clip(np.concatenate([*own, *cuts]), timeline.begin, timeline.end))
        self.width = np.diff(self.edges)
        self.middle = self.edges[:-1] + self.width / 2
        self.kind = self._kinds(spans, lane)

    def _kinds(self, spans: Sequence[tuple[str, float, float]], lane: Lane) -> NDArray[np.str_]:
        """Say of each cell what the worker did: items win over transfer, and that over start-up.

        Between its first and its last item a worker is never idle: what is
        left there is the way from one claim to the next, with the waits on it.
        """
        kind = np.full(len(self.middle), "idle" if lane.worker.takes_items else "unknown", dtype=f"U{max(map(len, WORKER_STATES))}")
        if lane.at_work is not None:
            begin, end = lane.at_work
            kind[(self.middle >= begin) & (self.middle < end)] = "busy"
        ready = min((end for name, _, end in spans if name == "startup"), default=0.0)
        kind[self.middle < ready] = "startup"
        for wanted in SPANS:
            for name, begin, end in spans:
                if name == wanted:
                    kind[(self.middle >= begin) & (self.middle < end)] = wanted
        if len(self.busy):
            place = np.searchsorted(self.busy[:, 0], self.middle, side="right") - 1
            inside = (place >= 0) & (self.middle < self.busy[np.maximum(place, 0), 1])
            kind[inside] = "busy"
        if lane.child is not None:
            kind[(self.middle < lane.child.begin) | (self.middle >= lane.child.end)] = "absent"
        return kind

    def parts(self) -> dict[str, Floats]:
        """Return the seconds of each state in each cell, with what is neither of items nor of waits filled in."""
        parts = {state: np.zeros(len(self.width)) for state in WORKER_STATES}
        for state in (*SPANS, *REST):
            parts[state] = np.where(self.kind == state, self.width, 0.0)
        return parts
