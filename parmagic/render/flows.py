"""Arrows in Chrome's Trace Event format: flow events, from the slice that somebody was in who let go of a thing, to a wait for that.

A flow that begins or ends in no slice is an error to Perfetto, so each is put into one, by a nanosecond where it ended with that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from parmagic.render.arrows import causes
from parmagic.render.figures import clean

if TYPE_CHECKING:
    from parmagic.model.timeline import Lane, Timeline
    from parmagic.render import View

MOST = 5000
"""Arrows of an arm; of more, those of the longest waits."""


class Threads:
    """The threads of an arm's trace: for each lane, that in which its items are (or its life is), and that of its waits."""

    def __init__(self, timeline: Timeline, pid: int, tids: Mapping[int, tuple[int, int]], zero: float) -> None:
        self.pid = pid
        self._tids = tids
        self._zero = zero
        self._timeline = timeline
        self._begun: dict[int, tuple[Any, Any]] = {}

    def ns(self, at: float) -> int:
        """Return the whole nanoseconds from the trace's begin to a time."""
        return round((at - self._zero) * 1e9)

    def knows(self, lane: Lane | None) -> bool:
        """Tell whether a lane is drawn."""
        return id(lane) in self._tids

    def waits(self, lane: Lane) -> int:
        """Return the thread of a lane's waits."""
        return self._tids[id(lane)][1]

    def in_slice(self, lane: Lane, at: int) -> tuple[int, int] | None:
        """Return the thread of a lane's items, and a time in the one that ran then, or ended last; None before the first one."""
        begins, ends = self._begun.setdefault(id(lane), self._slices(lane))
        place = int(np.searchsorted(begins, at, side="right")) - 1
        if place < 0 or ends[place] <= begins[place]:
            return None
        return self._tids[id(lane)][0], min(at, int(ends[place]) - 1)

    def _slices(self, lane: Lane) -> tuple[Any, Any]:
        edges = ([lane.child.begin], [lane.child.end]) if lane.child else lane.items()[1:]
        begins, ends = (np.clip(np.asarray(each, dtype=float), self._timeline.begin, self._timeline.end) for each in edges)
        return np.rint((begins - self._zero) * 1e9), np.rint((ends - self._zero) * 1e9)


def flows(view: View, timeline: Timeline, threads: Threads) -> Iterator[str]:
    """Yield an arm's arrows as JSON, each as two events; one whose wait began before the other one did anything is left out."""
    drawn = (arrow for arrow in view.arrows(timeline) if threads.knows(arrow.source) and threads.knows(arrow.waiter))
    for number, arrow in zip(range(MOST), drawn, strict=False):
        end = threads.ns(min(arrow.end, timeline.end)) - 1
        source = arrow.source and threads.in_slice(arrow.source, min(threads.ns(arrow.woken), end))
        if not source or source[1] < threads.ns(arrow.begin):
            continue
        same = {"cat": "handover", "name": clean(arrow.thing, 80), "id": f"{threads.pid}.{number}", "pid": threads.pid}
        args = {"place": clean(arrow.waited, 80), **causes(arrow)}
        yield ",".join([
            _json({"ph": "s", **same, "tid": source[0], "ts": source[1] / 1e3}),
            _json({"ph": "f", "bp": "e", **same, "tid": threads.waits(arrow.waiter), "ts": end / 1e3, "args": args}),
        ])


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
