"""VizTracer's files become calls of each worker, on our clock."""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from parmagic.model import Lane, Slice, TraceFile

_OURS = str(Path(__file__).parent) + os.sep


def read(trace: TraceFile) -> list[Slice]:
    """Return the calls that a trace holds, by rank and begin.

    Threads that are no workers are left out, so are our own functions: the
    body is the outermost call. Calls that were still open at the end are closed
    there. A file that is missing or torn (a killed worker) has no calls.
    """
    events = _load(trace)
    to_seconds = _clock(trace)
    calls: list[Slice] = []
    for tid, rank in trace.workers.items():
        calls += _calls((e for e in events if e.get("tid") == tid), rank, to_seconds, trace.anchors[1][1])
    return calls


def within_items(calls: Iterable[Slice], lane: Lane) -> list[Slice]:
    """Return a worker's calls that happened inside of its items, none reaching beyond its item's end.

    What lies between items (pickling, the next claim) is our own work, not the body's.
    """
    begins = [begin for batch in lane.batches for begin in batch.begins]
    ends = [end for batch in lane.batches for end in batch.ends]
    inside = []
    for call in calls:
        place = bisect_right(begins, call.begin) - 1
        if call.rank != lane.worker.rank or place < 0 or call.begin >= ends[place]:
            continue
        late = call.end > ends[place]
        if late and call.name == "time.perf_counter":
            continue  # the recorder's own reading of the clock at the item's end
        inside.append(replace(call, end=ends[place]) if late else call)
    return inside


def _load(trace: TraceFile) -> list[dict[str, Any]]:
    try:
        data = trace.data or Path(trace.path).read_bytes()
    except OSError:
        return []
    try:
        loads: Callable[[bytes], Any] = __import__("orjson").loads
    except ImportError:
        loads = json.loads
    try:
        events: list[dict[str, Any]] = loads(data)["traceEvents"]
    except (ValueError, KeyError, TypeError):
        return []
    return events


def _clock(trace: TraceFile) -> Callable[[float], float]:
    """Map VizTracer's microseconds onto our seconds, linearly through both anchors."""
    (theirs, ours), (theirs_end, ours_end) = trace.anchors
    rate = (ours_end - ours) / (theirs_end - theirs) if theirs_end > theirs else 1e-6
    return lambda at: ours + (at - theirs) * rate


def _calls(events: Iterable[dict[str, Any]], rank: int, to_seconds: Callable[[float], float], end: float) -> list[Slice]:
    calls: list[Slice] = []
    still_open: list[tuple[str, float]] = []
    for event in events:
        name, phase = event.get("name", ""), event.get("ph")
        if _OURS in name:
            continue
        if phase == "X":
            begin = to_seconds(event["ts"])
            calls.append(Slice(rank, name, begin, to_seconds(event["ts"] + event["dur"])))
        elif phase == "B":
            still_open.append((name, to_seconds(event["ts"])))
        elif phase == "E" and still_open:
            opened, begin = still_open.pop()
            calls.append(Slice(rank, opened, begin, to_seconds(event["ts"])))
    calls += [Slice(rank, name, begin, max(begin, end)) for name, begin in still_open]
    calls.sort(key=lambda call: (call.begin, -call.end))
    return calls
