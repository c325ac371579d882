"""One arm, from its workers to its timeline."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

from parmagic.analyze import holding
from parmagic.analyze.clocks import on_ours
from parmagic.analyze.merge import merge
from parmagic.errors import RunTimeout
from parmagic.execute.task import Screen
from parmagic.model.progress import Displayed, Printed, Pulse, Standing
from parmagic.model.recording import Recording, Span
from parmagic.model.timeline import Packed, Timeline
from parmagic.record import sampler
from parmagic.system.cpus import available_cpus
from parmagic.system.gil import gil_enabled, gil_notes
from parmagic.system.interrupts import is_interrupt, raise_lost
from parmagic.workers import Job, Report, Workers
from parmagic.workers.processes.watch import watch
from parmagic.workers.threads import SharedWorkers

WORTH_SAMPLING = 0.05
"""Seconds from which on an arm without samples deserves a note."""

LITTLE, MUCH = 0.05, 0.2
"""CPU seconds, and share of the workers' own, from which on helper threads deserve a note."""

NOT_SEEN = {
    True: "What the workers of {arm} waited for is not known: the sampler was not ready, or may not look. Run the cell again.",
    False: "What the workers of {arm} waited for is not known: this system does not show it.",
}


def conduct(
    workers: Workers, job: Job, screen: Screen, deadline: float | None = None, packed: Packed | None = None
) -> tuple[Timeline, list[str]]:
    """Run one arm and merge what its workers reported; return its timeline and notes.

    ``packed`` is what the names and items took to pack: every arm of processes
    counts it as if it had run alone, as ``transfer`` at its begin.
    """
    parts: list[Recording] = []
    lost: Counter[int] = Counter()
    error: BaseException | None = None
    screen.begin(job.arm.label, len(job.items))
    reports, watched = workers.map(job), watch.arm()
    cpu_before = cpu_after = time.process_time()
    begin = end = perf_counter()
    try:
        for report in reports:
            if isinstance(report, Recording):
                if report.worker.runtime and any(span.kind == "startup" for span in report.spans):
                    watch.add(watched, report.worker)
                parts.append(on_ours(report))
                if report.batches:
                    end, cpu_after = perf_counter(), time.process_time()
                    screen.done(sum(len(batch.begins) for batch in report.batches))
            else:
                _show(screen, report, job.arm.kind, lost)
            raise_lost()
            _look_at_the_clock(job, deadline)
        if not any(part.batches for part in parts):
            end, cpu_after = perf_counter(), time.process_time()  # no item, no result: the arm ends with its workers
    except BaseException as stopped:  # noqa: BLE001  (whatever it is, it ends the arm, and is raised when that has been told)
        error = stopped
        end, cpu_after = perf_counter(), time.process_time()
        parts += _close(reports, stopped)
        if is_interrupt(stopped):  # not what it took to end the workers
            end = min(end, max((batch.ends[-1] for part in parts for batch in part.batches if batch.ends), default=end))
    finally:
        screen.end()
    cpu_s = cpu_after - cpu_before if isinstance(workers, SharedWorkers) else float("nan")
    samples = watch.take(watched)
    shipped_s = packed.seconds if packed else 0.0
    gil = all(part.worker.gil for part in parts)
    timeline = merge(
        job.arm, begin - shipped_s, end, len(job.items), _with_shipping(parts, begin, shipped_s), samples,
        cpu_s=cpu_s, gil=gil, error=error, packed=packed,
    )  # fmt: skip
    notes = [*_own_notes(parts), *holding.notes(timeline), *_cut(job.arm.label, lost), *_helpers(timeline)]
    if isinstance(workers, SharedWorkers):
        notes += gil_notes(before=gil, after=gil_enabled())
    inferred = any(lane.tally is None for lane in timeline.lanes)
    if inferred and end - begin > WORTH_SAMPLING and not any(one.at for one in samples.values()):
        notes.append(NOT_SEEN[sampler.supported()].format(arm=job.arm.label))
    return timeline, notes


def _look_at_the_clock(job: Job, deadline: float | None) -> None:
    if deadline is not None and time.monotonic() > deadline:
        raise RunTimeout(f"--timeout {job.plan.timeout:g}: the arm {job.arm.label} was ended.")


def _close(reports: Any, error: BaseException) -> list[Recording]:
    """End the workers; return what they still had to say."""
    left: list[Report] = []
    try:
        left.append(reports.throw(error))
        for report in reports:
            left.append(report)  # noqa: PERF402  (what came before a raise is kept)
    except BaseException:  # noqa: BLE001, S110  (the error that was thrown in, or an impatient second Ctrl-C)
        pass
    finally:
        reports.close()
    return [on_ours(report) for report in left if isinstance(report, Recording)]


def _show(screen: Screen, report: Report, model: str, lost: Counter[int]) -> None:
    if isinstance(report, Printed):
        lost[report.rank] += report.lost
        if report.text:
            screen.printed(report, model)
    elif isinstance(report, Displayed):
        screen.displayed(report, model)
    elif isinstance(report, Standing):
        screen.standing(report, model)
    elif isinstance(report, Pulse):
        screen.pulse(report)
    else:
        screen.done(0)


def _with_shipping(parts: list[Recording], begin: float, seconds: float) -> list[Recording]:
    if not seconds:
        return parts
    span = Span("transfer", begin - seconds, begin)
    seen: set[int] = set()
    dressed = []
    for part in parts:
        first = part.worker.rank not in seen
        seen.add(part.worker.rank)
        dressed.append(replace(part, spans=(span, *part.spans)) if first else part)
    return dressed


def _cut(arm: str, lost: Counter[int]) -> list[str]:
    """Say how much of a flood of prints is not shown."""
    return [
        f"Worker {rank} of {arm} printed {count / 1e6:.1f} MB more than is shown under the cell."
        for rank, count in sorted(lost.items())
        if count
    ]


def _helpers(timeline: Timeline) -> list[str]:
    """Warn where helper threads of libraries compete with the workers for the cores."""
    own = sum(lane.usage.cpu_s for lane in timeline.lanes if lane.usage)
    if not timeline.cpu_s > (1 + MUCH) * own + LITTLE or own <= 0:
        return []
    wanted, cores = timeline.arm.count * timeline.cpu_s / own, available_cpus()
    if wanted <= cores + MUCH:
        return []
    note = (
        f"Helper threads (BLAS, OpenMP) used {1 - own / timeline.cpu_s:.0%} of the CPU time of {timeline.arm.label}: its workers and "
        f"their helpers could use {wanted:.1f} cores, and there are {cores}. Set OPENBLAS_NUM_THREADS, MKL_NUM_THREADS or "
        "OMP_NUM_THREADS to 1 before the library is imported, or use threadpoolctl.threadpool_limits(1) in the body."
    )
    return [note]


def _own_notes(parts: Sequence[Recording]) -> list[str]:
    notes = [note for part in parts for note in part.notes]
    notes += [note for part in parts if part.trace for note in part.trace.notes]
    return list(dict.fromkeys(notes))
