"""Rules: what of an arm, and of a run, is worth a note."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from parmagic.model.classes import type_name
from parmagic.model.finding import Finding, bends
from parmagic.model.recording import CALLS_KEPT, Samples, TraceFile
from parmagic.model.timeline import Lane, Timeline
from parmagic.model.waits import Wait

WORTH_A_NOTE = 0.01
"""Seconds, and share of the arm's wall time, from which on blocking with the GIL held deserves a note."""

WORTH_SAMPLING = 0.05
"""Seconds from which on an arm without samples deserves a note."""

_MOST_NAMED = 5


def of_arm(timeline: Timeline) -> list[Finding]:
    """Return what an arm's timeline alone tells."""
    return [finding for rule in OF_ARM for finding in rule(timeline)]


def held_gil(timeline: Timeline) -> Iterable[Finding]:
    """Yield how long each worker was blocked while it held the GIL, which stops all other threads, and where most of it was."""
    if len(timeline.lanes) <= 1 or not timeline.arm.model.shares_gil:
        return
    for lane in timeline.lanes:
        seconds = sum(total.with_gil_s for total in lane.totals)
        if seconds < max(WORTH_A_NOTE, WORTH_A_NOTE * timeline.wall_s):
            continue
        longest = max((wait for wait in lane.waits if wait.with_gil), key=lambda wait: wait.end - wait.begin, default=None)
        where = _where(lane, longest) if longest is not None else ""
        rank, label = lane.worker.rank, timeline.arm.label
        text = (
            f"{label}: worker {rank} held the GIL while blocked for {seconds:.2f} s{where}; "
            "all other threads had to wait. What it calls there does not release the GIL."
        )
        yield Finding("held_gil", text, label, "warning", {"rank": rank, "blocked_s": seconds})


def _where(lane: Lane, wait: Wait) -> str:
    item = lane.item_at((wait.begin + wait.end) / 2e9)
    line = f", line {wait.line}" if wait.line else ""
    return "" if item is None else f", most of it in item {item}{line}"


def lost_waits(timeline: Timeline) -> Iterable[Finding]:
    """Yield how many single waits were not kept."""
    lost, label = sum(lane.waits.lost for lane in timeline.lanes), timeline.arm.label
    if lost:
        text = f"{lost:,} single waits of {label} did not fit into the record and are not drawn; their seconds are in all figures."
        yield Finding("lost_waits", text, label, "info", {"waits": lost})


def cut_calls(timeline: Timeline) -> Iterable[Finding]:
    """Say that functions are missing, where items ran in a stretch in which none were recorded."""
    if any(timeline.gaps(lane) for lane in timeline.lanes):
        text = (
            "The timeline shows functions in windows only, and marks where it has none, to keep tracing within 5 % or 50 ms; items and "
            f"waits are complete (--trace full keeps the last {CALLS_KEPT:,} calls of a process)."
        )
        yield Finding("cut_calls", text, timeline.arm.label)


def lost_calls(timeline: Timeline) -> Iterable[Finding]:
    """Yield how many function calls were not kept of each process, and from when on all were."""
    short, label = [trace for trace in timeline.traces if trace.lost], timeline.arm.label
    if short:
        each = "; ".join(_lost_of(timeline, trace) for trace in short)
        text = (
            f"{label}: the oldest function calls are not in the timeline, as VizTracer keeps the last {CALLS_KEPT:,} of a process "
            f"({each} into the arm). Run fewer items to see all, or --trace auto to see windows."
        )
        yield Finding("lost_calls", text, label, "warning", {"calls": sum(trace.lost for trace in short)})


def _lost_of(timeline: Timeline, trace: TraceFile) -> str:
    ranks = sorted(trace.workers.values())
    who = f"worker {ranks[0]}" if len(ranks) == 1 else f"workers {', '.join(map(str, ranks))}"
    known = trace.lost == trace.lost
    lost = f"{'' if trace.lost_exactly else 'at least '}{trace.lost:,}" if known else "nobody knows how many"
    since = "" if trace.since is None else f", complete from {trace.since - timeline.begin:.3f} s"
    return f"{who}: {lost} lost{since}"


def broke(timeline: Timeline) -> Iterable[Finding]:
    """Say where the body broke the loop."""
    item, label = timeline.broke, timeline.arm.label
    if item is not None:
        left = timeline.n_items - timeline.n_done
        text = f"{label}: item {item} broke the loop; {left:,} of {timeline.n_items:,} items were not started."
        yield Finding("broke", text, label, "info", {"item": item, "not_started": left, "of": timeline.n_items})


def retried(timeline: Timeline) -> Iterable[Finding]:
    """Say which items needed more than one try."""
    tries, label = timeline.tries, timeline.arm.label
    if tries:
        named = ", ".join(f"item {item} ({count} tries)" for item, count in [*tries.items()][:_MOST_NAMED])
        many = f"{len(tries):,} items needed more than one try: " if len(tries) > 1 else "more than one try was needed: "
        text = f"{label}: {many}{named}{', …' if len(tries) > _MOST_NAMED else ''}."
        yield Finding("retried", text, label, "info", {"items": len(tries), "tries": sum(tries.values())})


OF_ARM = (broke, retried, held_gil, lost_waits, cut_calls, lost_calls)
"""The rules that look at an arm's timeline alone, in the order of their notes."""


def cut_prints(arm: str, lost: Mapping[int, int]) -> Iterable[Finding]:
    """Yield how much of a flood of prints is not shown; ``lost`` are bytes by rank."""
    for rank, count in sorted(lost.items()):
        if count:
            text = f"Worker {rank} of {arm} printed {count / 1e6:.1f} MB more than is shown under the cell."
            yield Finding("cut_prints", text, arm, "info", {"rank": rank, "bytes": count})


def not_seen(timeline: Timeline, samples: Iterable[Samples], seconds: float, can_look: bool) -> Iterable[Finding]:
    """Say where waits would be inferred, but no sample was taken in ``seconds``; with ``can_look``, one could have been."""
    inferred = any(lane.tally is None for lane in timeline.lanes)
    if not inferred or seconds <= WORTH_SAMPLING or any(each.at for each in samples):
        return
    label = timeline.arm.label
    why = "the sampler was not ready, or may not look. Run the cell again." if can_look else "this system does not show it."
    yield Finding("not_seen", f"What the workers of {label} waited for is not known: {why}", label, "warning", {"seconds": seconds})


def differ(items: Sequence[int], timeline: Timeline, causes: Sequence[str] = ()) -> Finding:
    """Say that a serial run and an arm disagree on these items; ``causes`` are what could explain it."""
    named, label = _named(items), timeline.arm.label
    which = f"item {named}" if len(items) == 1 else f"{len(items)} items ({named})"
    text = (
        f"The serial run and {label} disagree on {which}: either the body is not deterministic "
        "(random numbers, time, order, what earlier items left behind), or it has a race."
    )
    if causes:
        text += f" What could explain it: {'; '.join(causes[:_MOST_NAMED])}{'; …' if len(causes) > _MOST_NAMED else ''}."
    return Finding("differ", text, label, "warning", {"items": len(items), "of": timeline.n_items})


def beside(others: int) -> Finding:
    """Say that so many other runs were at work in the same process."""
    who = "Another run was" if others == 1 else f"{others:,} other runs were"
    text = (
        f"{who} at work in this process meanwhile: they shared its cores and its GIL, so that times and speedups are not those of a "
        "run alone, and CPU time and peak memory of threads are those of all of them."
    )
    return Finding("beside", text, severity="warning", evidence={"runs": others})


def debugged(processes: bool) -> Finding:
    """Say what a debugger that is attached does to the figures; ``processes``: some of the run's workers are beyond it."""
    text = (
        "A debugger is attached: it slows Python code, functions are not traced beside it, and the time for which it holds a worker "
        f"counts as a wait for a lock.{' It does not stop in processes: use threads or serial for that.' if processes else ''}"
    )
    return Finding("debugged", text, severity="warning")


def slowed(timeline: Timeline, in_windows: bool) -> Iterable[Finding]:
    """Say where tracing bends an arm's figures; ``in_windows``: it traced some of the time only, which short runs pay for all the same."""
    if not bends(timeline.overhead):
        return
    label, short = timeline.arm.label, " (short runs pay up to 50 ms for it)" if in_windows else ""
    text = (
        f"Tracing functions made {label} about {timeline.overhead:.0%} longer{short}: its times and its speedup are "
        "not those of an untraced run (--trace off)."
    )
    yield Finding("slowed", text, label, "warning", {"share": timeline.overhead, "traced_s": timeline.overhead_s})


def failed(timeline: Timeline) -> Iterable[Finding]:
    """Say which items of an arm failed, and how the first of them did."""
    errors, label = timeline.errors, timeline.arm.label
    if not errors:
        return
    first = type_name(next(iter(errors.values())))
    text = (
        f"{len(errors)} of {timeline.n_items} items of {label} failed (item {_named([*errors])}; {first}); "
        "run.items['error'] tells how."
    )
    yield Finding("failed", text, label, "error", {"items": len(errors), "of": timeline.n_items})


def _named(items: Sequence[int]) -> str:
    return ", ".join(map(str, items[:_MOST_NAMED])) + (", …" if len(items) > _MOST_NAMED else "")
