"""Threads of libraries that compete with an arm's workers for the cores: whether they do, and how each library is told to have fewer."""

from __future__ import annotations

from collections.abc import Iterable

from parmagic.model.finding import Finding
from parmagic.model.timeline import Timeline
from parmagic.system.cpus import available_cpus

LITTLE, MUCH = 0.05, 0.2
"""CPU seconds, and share of the workers' own, from which on helper threads deserve a note; and how many cores may be wanted too many."""

_MOST_NAMED = 3

_PART = 0.1
"""Share of what all of them used from which on a library is worth a word."""

_LIMITS = "threadpoolctl.threadpool_limits(1)"
_ENVIRONMENT = {"OpenBLAS": "OPENBLAS_NUM_THREADS", "MKL": "MKL_NUM_THREADS", "OpenMP": "OMP_NUM_THREADS", "polars": "POLARS_MAX_THREADS"}
_CALLS = {
    "OpenBLAS": _LIMITS,
    "MKL": _LIMITS,
    "OpenMP": _LIMITS,
    "numexpr": "numexpr.set_num_threads(1)",
    "torch": "torch.set_num_threads(1)",
    "Arrow": "pyarrow.set_cpu_count(1)",
}
_OF_THREAD = frozenset({"OpenMP"})
"""Libraries whose setting is the calling thread's own: made in one thread, it holds in no other."""


def helpers(timeline: Timeline) -> Iterable[Finding]:
    """Warn where threads that libraries began, and the workers, were more than the cores there are for them.

    A thread wants a core while it is on one or stands in a run queue: whoever else is on the machine, that is what the arm had use for.
    """
    own, label = sum(lane.usage.cpu_s for lane in timeline.lanes if lane.usage), timeline.arm.label
    found = [each for each in timeline.helpers if each.library]
    theirs = sum(each.cpu_s for each in found)
    if not theirs > LITTLE + MUCH * own:
        return
    queued = sum(lane.in_line_s for lane in timeline.lanes) + sum(each.queue_s for each in found)
    wanted, cores = (own + theirs + queued) / timeline.wall_s, available_cpus()
    if wanted <= cores + MUCH:
        return
    named = [each.library for each in found if each.cpu_s > _PART * theirs][:_MOST_NAMED]
    share = theirs / (own + theirs)
    advice = " ".join(dict.fromkeys(_advice(each, timeline.arm.model.shares_memory) for each in named))
    text = (
        f"Helper threads of {' and '.join(named)} used {share:.0%} of the CPU time of {label}: together with its workers they wanted "
        f"{wanted:.1f} cores on average, and there are {cores}. {advice}"
    )
    evidence = {"share": share, "cores_wanted": wanted, "cores": cores, **{f"{each.library}_cpu_s": each.cpu_s for each in found}}
    yield Finding("helpers", text, label, "warning", evidence)


def _advice(library: str, shares_memory: bool) -> str:
    """Say how a library is told to compute in the worker's own thread; ``shares_memory``: what is set in one worker is set for all."""
    variable, call = _ENVIRONMENT.get(library), _CALLS.get(library)
    ways = []
    if variable:
        ways.append(f"set {variable} to 1 before the library is imported")
    if call and not shares_memory:
        ways.append(f"call {call} in the body")
    elif call and library not in _OF_THREAD:
        ways.append(f"call {call} before the run (not in the body: it holds for the whole process)")
    if library == "Arrow":
        ways.append("pass use_threads=False")
    said = ", or ".join(ways) or f"where {library} has a setting for its number of threads, set it to 1"
    return f"{said[0].upper()}{said[1:]}."
