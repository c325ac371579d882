"""What cannot be: figures beyond what the workers' own account, or the number of CPUs, allows."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite

from parmagic.model.finding import Finding
from parmagic.model.kinds import DELAYS, MEASURED
from parmagic.model.timeline import Baseline, Timeline

SLACK = 1.1
"""How far above a bound a speedup may be: two runs on a quiet machine differ by less."""

JITTER = 0.2
"""Seconds by which a serial run may be longer beside that: a busy machine does that to any."""

_TOLD = 0.1
"""A difference of cores that clocks which tick can tell."""

_CLOCK_SLACK = 1.05
_TICKS = 0.05
"""Seconds of CPU time that may be counted beside an arm's own: what came before its begin and behind its end."""


def bound(timeline: Timeline) -> float:
    """Return the most that an arm's workers can gain on a serial run of the same work.

    Of n workers on c CPUs that did U seconds of work, C of them on a core and R holding the one GIL that they share, the wall
    time is at least the largest of U / n, C / c and R: the gain is at most U / max(U / n, C / c, R), which is 1 where all is
    Python code (Amdahl's law with the GIL as what is serial). Waits are work here, but for those for the GIL and for a core.
    Where waits are not measured, all that is known is n; where no GIL is shared, R is 0.
    """
    n = timeline.arm.count
    tallies = [lane.tally for lane in timeline.lanes if lane.tally is not None]
    if len(tallies) < len(timeline.lanes):
        return float(n)
    spent = {state: sum(tally.seconds_in(state) for tally in tallies) for state in MEASURED}
    work, running = sum(seconds for state, seconds in spent.items() if state not in DELAYS), spent["running"]
    most = ideal_speedup(n, timeline.cpus, work, running + spent["native"])
    shared = timeline.gil and timeline.arm.model.shares_gil and running > 0
    return max(1.0, min(most, work / running)) if shared else most


def ideal_speedup(n_workers: int, cpus: int, work_s: float, on_core_s: float) -> float:
    """Return the speedup that no arm of ``n_workers`` on ``cpus`` CPUs can exceed.

    Its work takes ``work_s`` seconds one item after another, and ``on_core_s`` of them on a core. The workers share out the
    first, and the CPUs the second, so no run takes less than the longer of ``work_s / n_workers`` and ``on_core_s / cpus``:
    work that only computes is bounded by the CPUs, work that only waits by the workers, and a mixture by whichever is scarcer.

    Without ``cpus`` (0: not known, or on several machines), or where the seconds are not known, the bound is the number of workers.
    """
    if not (cpus > 0 and isfinite(work_s) and on_core_s > 0):
        return float(n_workers)
    return work_s / max(work_s / n_workers, min(on_core_s, work_s) / cpus)


def beyond(timeline: Timeline, baseline: Baseline) -> Iterable[Finding]:
    """Yield that an arm's speedup is more than its workers can have gained, with what may be the reason."""
    if baseline.serial_s is None or not timeline.n_done or timeline.arm.model.one_at_a_time:
        return
    speedup, most = baseline.serial_s / timeline.wall_s, bound(timeline)
    if not baseline.serial_s > SLACK * most * timeline.wall_s + JITTER:
        return
    arm, label = timeline.arm, timeline.arm.label
    whose = f"{arm.count} {arm.model.called if arm.count > 1 else 'worker'}"
    if most < arm.count:
        whose = "Python code under one GIL" if timeline.gil and arm.model.shares_gil else f"what computes on {timeline.cpus} CPUs"
    text = (
        f"{label} seems to be {speedup:.2f}× as fast as the serial run, and {whose} can be {most:.2f}× at most: "
        f"{_why(timeline, baseline)}. Run the cell again before you rely on it."
    )
    yield Finding("beyond", text, label, "warning", {"speedup": speedup, "most": most})


def _why(timeline: Timeline, baseline: Baseline) -> str:
    mine, serial = timeline.load, baseline.load
    if mine is not None and serial is not None and serial.lost_cores > mine.lost_cores + _TOLD:
        return f"others hindered the serial run (they took {serial.lost_cores:.1f} cores then, and {mine.lost_cores:.1f} during the arm)"
    if timeline.arm.model.shares_memory:
        return "the serial run was hindered, or did work that the arm found done (caches, imports, files read before)"
    return "the serial run was hindered, or each worker's data fits the caches of its own core better, or an earlier run has left work done"


def too_many_cores(timeline: Timeline) -> Iterable[Finding]:
    """Yield that an arm's CPU time is more than its CPUs have."""
    load = timeline.load
    if load is None or not isfinite(timeline.cpu_s) or not timeline.cpu_s > _CLOCK_SLACK * load.cpus * timeline.wall_s + _TICKS:
        return
    label, used = timeline.arm.label, timeline.cpu_s / timeline.wall_s
    text = (
        f"cores_used of {label} is {used:.2f}, and this process may use {load.cpus} CPU{'s' if load.cpus > 1 else ''}: "
        "CPU time from before the arm, or from beside it, is in it."
    )
    yield Finding("too_many_cores", text, label, "warning", {"cores_used": used, "cpus": load.cpus})
