"""VizTracer's records become the calls of each worker, on our clock."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from parmagic.model import Calls, Lane, TraceFile

_OURS = str(Path(__file__).parent) + os.sep
_CLOCK = "time.perf_counter"


def read(trace: TraceFile) -> list[Calls]:
    """Return the calls that a trace holds, one :class:`Calls` per worker.

    Threads that are no workers are left out, so are our own functions: the
    body is the outermost call. Calls that were still open at the end are closed
    there. A file that is missing or torn (a killed worker) has no calls.
    """
    events: dict[int, list[dict[str, Any]]] = {tid: [] for tid in trace.workers}
    for event in _load(trace):
        if (mine := events.get(event.get("tid", -1))) is not None:
            mine.append(event)
    found = []
    for tid, rank in trace.workers.items():
        places: dict[str, int] = {}
        table = np.array(_spans(events[tid], places, trace.anchors[1][0]), dtype=float).reshape(-1, 3)
        ours = np.array([_OURS in name for name in places], dtype=bool)
        table = table[~ours[table[:, 2].astype(int)]] if len(table) else table
        begins, ends = _on_our_clock(trace, table[:, 0]), _on_our_clock(trace, table[:, 1])
        order = np.lexsort((-ends, begins))
        found.append(Calls(rank, begins[order], ends[order], table[order, 2].astype(np.int32), tuple(places)))
    return found


def within_items(calls: Calls, lane: Lane) -> Calls:
    """Return the part of a worker's calls that happened inside of its items, none reaching beyond its item's end.

    What lies between items (pickling, the next claim) is our own work, not the body's.
    """
    begins = np.array([begin for batch in lane.batches for begin in batch.begins])
    ends = np.array([end for batch in lane.batches for end in batch.ends])
    if not len(begins):
        return Calls(calls.rank, calls.begins[:0], calls.ends[:0], calls.places[:0], calls.names)
    place = np.searchsorted(begins, calls.begins, side="right") - 1
    end = ends[place]
    # the last call of an item is often the recorder's own reading of the clock at its end
    clock = calls.names.index(_CLOCK) if _CLOCK in calls.names else -1
    inside = (place >= 0) & (calls.begins < end) & ~((calls.ends > end) & (calls.places == clock))
    return Calls(calls.rank, calls.begins[inside], np.minimum(calls.ends, end)[inside], calls.places[inside], calls.names)


def _load(trace: TraceFile) -> list[dict[str, Any]]:
    try:
        data = trace.data or Path(trace.path).read_bytes()
    except OSError:
        return []
    for loads in _readers():
        with suppress(ValueError, KeyError, TypeError):
            events: list[dict[str, Any]] = loads(data)["traceEvents"]
            return events
    return []


def _readers() -> Iterator[Callable[[bytes], Any]]:
    """Yield what reads JSON: the quickest first, then one that takes the bare control characters that a name may have."""
    with suppress(ImportError):
        yield __import__("orjson").loads
    yield lambda data: json.loads(data, strict=False)


def _on_our_clock(trace: TraceFile, at: Any) -> Any:
    """Map VizTracer's microseconds onto our seconds, linearly through both anchors."""
    (theirs, ours), (theirs_end, ours_end) = trace.anchors
    rate = (ours_end - ours) / (theirs_end - theirs) if theirs_end > theirs else 1e-6
    return ours + (at - theirs) * rate


def _spans(events: Iterable[dict[str, Any]], places: dict[str, int], end: float) -> list[tuple[float, float, int]]:
    """Return (begin, end, the name's place in ``places``) of every call, in VizTracer's microseconds."""
    spans: list[tuple[float, float, int]] = []
    still_open: list[tuple[int, float]] = []
    for event in events:
        phase = event.get("ph")
        if phase not in {"X", "B", "E"}:
            continue
        place = places.setdefault(event.get("name", ""), len(places))
        at = event["ts"]
        if phase == "X":
            spans.append((at, at + event["dur"], place))
        elif phase == "B":
            still_open.append((place, at))
        elif still_open:
            opened, begin = still_open.pop()
            spans.append((begin, at, opened))
    return spans + [(begin, max(begin, end), place) for place, begin in still_open]
