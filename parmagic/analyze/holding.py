"""Notes on what was recorded: who stopped all others, and what was not kept."""

from __future__ import annotations

from parmagic.model.recording import CALLS_KEPT, TraceFile, Wait
from parmagic.model.timeline import Lane, Timeline

WORTH_A_NOTE = 0.01
"""Seconds, and share of the arm's wall time, from which on blocking with the GIL held deserves a note."""


def notes(timeline: Timeline) -> list[str]:
    """Return the notes on an arm's recorded waits, of which there are none where waits were inferred, and on its calls."""
    found = [_held(timeline, lane) for lane in timeline.lanes] if len(timeline.lanes) > 1 and timeline.arm.model.shares_gil else []
    lost = sum(lane.waits.lost for lane in timeline.lanes)
    if lost:
        found.append(
            f"{lost:,} single waits of {timeline.arm.label} did not fit into the record and are not drawn; "
            "their seconds are in all figures."
        )
    return [note for note in [*found, _lost_calls(timeline)] if note]


def _lost_calls(timeline: Timeline) -> str:
    """Say how many function calls were not kept of each process, and from when on all were."""
    short = [trace for trace in timeline.traces if trace.lost]
    if not short:
        return ""
    each = "; ".join(_lost_of(timeline, trace) for trace in short)
    return (
        f"{timeline.arm.label}: the oldest function calls are not in the timeline, as VizTracer keeps the last {CALLS_KEPT:,} of a process "
        f"({each} into the arm). Run fewer items to see all, or --trace auto to see windows."
    )


def _lost_of(timeline: Timeline, trace: TraceFile) -> str:
    ranks = sorted(trace.workers.values())
    who = f"worker {ranks[0]}" if len(ranks) == 1 else f"workers {', '.join(map(str, ranks))}"
    known = trace.lost == trace.lost
    lost = f"{'' if trace.lost_exactly else 'at least '}{trace.lost:,}" if known else "nobody knows how many"
    since = "" if trace.since is None else f", complete from {trace.since - timeline.begin:.3f} s"
    return f"{who}: {lost} lost{since}"


def _held(timeline: Timeline, lane: Lane) -> str:
    """Say how long a worker was blocked while it held the GIL, which stops all other threads, and where most of it was."""
    seconds = sum(total.with_gil_s for total in lane.totals)
    if seconds < max(WORTH_A_NOTE, WORTH_A_NOTE * timeline.wall_s):
        return ""
    longest = max((wait for wait in lane.waits if wait.with_gil), key=lambda wait: wait.end - wait.begin, default=None)
    where = _where(lane, longest) if longest is not None else ""
    return (
        f"{timeline.arm.label}: worker {lane.worker.rank} held the GIL while blocked for {seconds:.2f} s{where}; "
        "all other threads had to wait. What it calls there does not release the GIL."
    )


def _where(lane: Lane, wait: Wait) -> str:
    item = lane.item_at((wait.begin + wait.end) / 2e9)
    line = f", line {wait.line}" if wait.line else ""
    return "" if item is None else f", most of it in item {item}{line}"
