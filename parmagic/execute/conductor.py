"""Listens to workers, under a policy; and one arm, from its workers to its timeline."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, Protocol

from parmagic.analyze import rules
from parmagic.analyze.bottlenecks import bottlenecks
from parmagic.analyze.chain import late
from parmagic.analyze.clocks import on_ours
from parmagic.analyze.helpers import helpers
from parmagic.analyze.merge import merge
from parmagic.analyze.started import left_running
from parmagic.errors import RunTimeout
from parmagic.execute.task import Screen
from parmagic.model.finding import Finding, told
from parmagic.model.load import Load
from parmagic.model.progress import Displayed, InLine, Logged, Printed, Pulse, Standing
from parmagic.model.recording import Recording, Samples, Span
from parmagic.model.timeline import Packed, Timeline
from parmagic.record import machine, sampler
from parmagic.record.usage import peak_rss_mb
from parmagic.system.gil import gil_enabled, gil_notes
from parmagic.system.interrupts import is_interrupt, raise_lost
from parmagic.workers import Job, Report, Workers
from parmagic.workers.processes.watch import watch


class Policy(Protocol):
    """How a job is listened to: where is shown what its workers do, and when they have had their time."""

    screen: Screen

    def goes_on(self, report: Report) -> bool:
        """Take a report in, and tell whether the job goes on behind it; what is raised here ends it as well, as its error."""
        ...


@dataclass(slots=True)
class Heard:
    """What a job's workers reported from ``begin`` to ``end`` (seconds on our clock), and what ended it, where something did.

    ``cpu_begin`` and ``cpu_end`` are this process's CPU seconds then; ``lost`` is how many bytes each rank printed that are not shown;
    ``load`` is what else went on.
    """

    begin: float = 0.0
    cpu_begin: float = 0.0
    end: float = 0.0
    cpu_end: float = 0.0
    parts: list[Recording] = field(default_factory=list)
    lost: Counter[int] = field(default_factory=Counter)
    error: BaseException | None = None
    load: Load | None = None

    def begins(self) -> machine.Look:
        """Note that it begins now; return how the machine looks."""
        seen = machine.look()
        self.begin, self.cpu_begin = perf_counter(), time.process_time()
        return seen

    def ends(self) -> None:
        """Note that it ends now."""
        self.end, self.cpu_end = perf_counter(), time.process_time()


def listen(workers: Workers, job: Job, policy: Policy) -> Heard:
    """Run a job, and gather what its workers report until they are done, the policy ends them, or something else does.

    It begins when it has what it needs, for which it may wait for another run. Its ``end`` is when the last of its items were
    reported; where none were, when its workers were done. An error ends it when it is raised, and Ctrl-C with the last item that was
    done: what it takes to end the workers does not count.
    """
    policy.screen.begin(job.arm.label, len(job.items))
    reports = workers.map(job)
    heard = Heard()
    seen = heard.begins()
    try:
        for report in reports:
            if isinstance(report, Recording):
                heard.parts.append(report)  # at once: a Ctrl-C at the begin of a call would lose it
                heard.parts[-1] = on_ours(report)
                if report.batches:
                    heard.ends()
                    policy.screen.done(report.n_done)
            elif isinstance(report, InLine):
                seen = heard.begins()
            else:
                _show(policy.screen, report, job.arm.model.name, heard.lost)
            raise_lost()
            if not policy.goes_on(report):
                reports.close()  # type: ignore[attr-defined]
                break
        if not any(part.batches for part in heard.parts):
            heard.ends()
    except BaseException as stopped:  # noqa: BLE001  (whatever it is, it ends the job, and is raised when that has been told)
        heard.error = stopped
        heard.ends()
        heard.parts += _close(reports, stopped)
        if is_interrupt(stopped):  # not what it took to end the workers
            ends = (part.last_end for part in heard.parts if part.last_end is not None)
            heard.end = min(heard.end, max(ends, default=heard.end))
    finally:
        policy.screen.end()
    heard.load = machine.since(seen)
    return heard


class _UntilDeadline:
    """Listens to an arm until its workers are done, and watches them where their waits are inferred; RunTimeout behind the deadline."""

    def __init__(self, job: Job, screen: Screen, deadline: float | None) -> None:
        self.screen = screen
        self._job = job
        self._deadline = deadline
        self._watched = watch.arm()

    def goes_on(self, report: Report) -> bool:
        """Look at the clock, and who has come to life."""
        if isinstance(report, Recording) and report.worker.runtime and any(span.kind == "startup" for span in report.spans):
            watch.add(self._watched, report.worker)
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise RunTimeout(f"--timeout {self._job.plan.timeout:g}: the arm {self._job.arm.label} was ended.")
        return True

    def samples(self) -> dict[int, Samples]:
        """Stop watching; return what was seen, by rank."""
        return watch.take(self._watched)


def conduct(
    workers: Workers, job: Job, screen: Screen, deadline: float | None = None, packed: Packed | None = None
) -> tuple[Timeline, list[Finding]]:
    """Run one arm and merge what its workers reported; return its timeline, and what was found about it.

    ``packed`` is what the names and items took to pack: every arm of processes
    counts it as if it had run alone, as ``transfer`` at its begin.
    """
    policy = _UntilDeadline(job, screen, deadline)
    heard = listen(workers, job, policy)
    samples = policy.samples()
    shipped_s = packed.seconds if packed else 0.0
    gil = all(part.worker.gil for part in heard.parts)
    timeline = merge(
        job.arm, heard.begin - shipped_s, heard.end, len(job.items), _with_shipping(heard.parts, heard.begin, shipped_s), samples,
        cpu_s=heard.cpu_end - heard.cpu_begin if workers.in_this_process else float("nan"), gil=gil, error=heard.error, packed=packed,
        load=heard.load if job.arm.model.same_host else None, peak_mb=peak_rss_mb() if workers.in_this_process else float("nan"),
    )  # fmt: skip
    label = job.arm.label
    findings = [*_told(heard.parts, label), *rules.of_arm(timeline), *rules.cut_prints(label, heard.lost)]
    findings += [*helpers(timeline), *left_running(timeline), *late(timeline), *bottlenecks(timeline)]
    if workers.in_this_process:
        findings += told(gil_notes(before=gil, after=gil_enabled()), "gil_came_on", label, "warning")
    findings += rules.not_seen(timeline, samples.values(), heard.end - heard.begin, can_look=sampler.supported())
    return timeline, findings


def _close(reports: Any, error: BaseException) -> list[Recording]:
    """End the workers; return what they still had to say."""
    left: list[Recording] = []
    try:
        report = reports.throw(error)
        while True:
            if isinstance(report, Recording):
                left.append(report)  # at once: what came before a raise is kept
                left[-1] = on_ours(report)
            report = next(reports)
    except BaseException:  # noqa: BLE001, S110  (its end, the error that was thrown in, or an impatient second Ctrl-C)
        pass
    finally:
        reports.close()
    return left


def _show(screen: Screen, report: Report, model: str, lost: Counter[int]) -> None:
    if isinstance(report, Printed):
        lost[report.rank] += report.lost
        if report.text:
            screen.printed(report, model)
    elif isinstance(report, Displayed):
        screen.displayed(report, model)
    elif isinstance(report, Logged):
        screen.logged(report)
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


def _told(parts: Sequence[Recording], arm: str) -> list[Finding]:
    """Return what workers said of themselves, and then of the tracing of functions."""
    notes = [note for part in parts for note in part.notes]
    notes += [note for part in parts if part.trace for note in part.trace.notes]
    return told(notes, "worker", arm)
