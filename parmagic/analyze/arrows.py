"""Single waits, each with who caused and who ended it: on the lanes of these."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from parmagic.analyze.called import accounts, called, place_of
from parmagic.analyze.measured import events
from parmagic.model.arrows import Arrow
from parmagic.model.kinds import KIND, WAIT_KINDS
from parmagic.model.taken import Handover
from parmagic.model.timeline import Lane, Timeline

_FOR_OTHERS = [place for place, kind in enumerate(WAIT_KINDS) if KIND[kind].state == "lock_wait"]


def arrows(timeline: Timeline) -> list[Arrow]:
    """Return the waits of an arm that somebody caused or ended, the longest first."""
    known = accounts(timeline)
    workers = {lane.worker.rank: lane for lane in timeline.lanes}
    found = [each for lane in (*timeline.lanes, *timeline.children) for each in _of(lane, known, workers)]
    return sorted(found, key=lambda arrow: arrow.begin - arrow.end)


def _of(lane: Lane, known: dict[tuple[str, int, int], Lane], workers: dict[int, Lane]) -> Iterator[Arrow]:
    def lane_of(rank: int, serial: int) -> Lane | None:
        return known.get((lane.worker.host, lane.worker.pid, serial)) or workers.get(rank)

    ends = _ends(lane) if lane.synced.handovers else np.empty(0)
    for each in lane.synced.handovers:
        waker = lane_of(each.waker, each.waker_serial) if each.got else None
        same = (each.blocker, each.serial, each.blocked) == (each.waker, each.waker_serial, each.woke)
        blocker = None if waker and same else lane_of(each.blocker, each.serial)  # nobody had it: it was waited for who came
        if blocker is None and waker is None:
            continue
        end = _end(each, ends)
        woken = min(each.woken, end) if waker and isfinite(each.woken) else end
        had, woke = (blocker, place_of(each.blocked) or "" if blocker else ""), (waker, place_of(each.woke) or "" if waker else "")
        yield Arrow(lane, each.begin, end, each.got, called(each), place_of(each.waited) or "", *had, *woke, woken)


def _ends(lane: Lane) -> NDArray[np.float64]:
    """Return when a lane's waits for others ended, in their order."""
    waits = events(lane)
    return np.sort(waits["end"][np.isin(waits["kind"], _FOR_OTHERS)]) * 1e-9


def _end(each: Handover, ends: NDArray[np.float64]) -> float:
    """Return when a wait itself was over: behind that, the thread may have waited for the GIL."""
    place = int(np.searchsorted(ends, each.end, side="right")) - 1
    return float(ends[place]) if place >= 0 and ends[place] > each.begin else each.end
