"""The whole story on one screen: ship, park, run the arms, run the baseline, tell.

::

    Task ─▶ prepare ─▶ arm, arm, … ─▶ baseline ─▶ Run ─▶ tables, timeline, report
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from parmagic import compare, line, sampler, tracing
from parmagic.baseline import Baseline, Parked, park
from parmagic.errors import ParmagicError, RunTimeout
from parmagic.files import Folder
from parmagic.merge import first_error, merge
from parmagic.model import Arm, Displayed, Plan, Printed, Recording, Span, Timeline
from parmagic.recorder import Worker
from parmagic.workers import Job, Report, Workers
from parmagic.workers.shared import SharedWorkers
from parmagic.workers.supply import Supply
from parmagic.workers.watch import watch

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from parmagic.model import Lane, Slice
    from parmagic.render import View


ALLOWED = 0.05
"""The share of wall time from which tracing deserves a note."""

WORTH_SAMPLING = 0.05
"""Seconds from which on an arm without samples deserves a note."""

NOT_SEEN = {
    True: "What the workers of {arm} waited for is not known: the sampler was not ready, or may not look. Run the cell again.",
    False: "What the workers of {arm} waited for is not known: this system does not show it.",
}


class Screen(Protocol):
    """Where a run shows what happens while it happens."""

    def begin(self, arm: str, n_items: int) -> None:
        """Announce an arm."""
        ...

    def done(self, n_items: int) -> None:
        """Tell how many more items are done."""
        ...

    def printed(self, printed: Printed, model: str) -> None:
        """Show what a worker printed."""
        ...

    def displayed(self, displayed: Displayed, model: str) -> None:
        """Show what a worker displayed."""
        ...

    def end(self) -> None:
        """The arm is over."""
        ...


class Quiet:
    """A screen that shows what the body prints, and nothing else."""

    def begin(self, arm: str, n_items: int) -> None:
        """Show nothing."""

    def done(self, n_items: int) -> None:
        """Show nothing."""

    def printed(self, printed: Printed, model: str) -> None:
        """Print the lines, marked with their worker."""
        from parmagic.output import mark  # noqa: PLC0415

        stream = getattr(sys, printed.stream)
        stream.write(mark(printed, model))
        stream.flush()

    def displayed(self, displayed: Displayed, model: str) -> None:  # noqa: ARG002  (as all screens)
        """Print the plain text."""
        print(displayed.data.get("text/plain", ""))  # noqa: T201  (the user asked to display it)

    def end(self) -> None:
        """Show nothing."""


@dataclass(frozen=True, slots=True)
class Task:
    """What to run: ``call(item, worker)``, over ``items``; without items, once per worker (SPMD).

    ``names`` are those that the body reads. ``blocking`` are names that make
    ranks wait for each other: no serial run then. ``title`` is shown, ``notes``
    are the run's first ones.
    """

    call: Callable[[Any, Worker], Any]
    items: Sequence[Any] | None
    plan: Plan
    title: str = ""
    names: frozenset[str] = frozenset()
    blocking: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    baseline: bool = True
    folder: str | None = None
    keep_runs: int = 20
    show_items: bool = False

    def items_for(self, arm: Arm) -> Sequence[Any]:
        """Return the items of an arm: its ranks, in SPMD."""
        return self.items if self.items is not None else range(self.ranks(arm))

    def ranks(self, arm: Arm) -> int:
        """Return how many ranks an SPMD arm has; the serial one runs those of the first parallel arm."""
        if arm.kind != "serial":
            return arm.count
        return next((other.count for other in self.plan.arms if other.kind != "serial"), 1)


@dataclass(slots=True)
class _Story:
    """What is known so far."""

    timelines: list[Timeline] = field(default_factory=list)
    baselines: dict[str, Baseline] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    error: BaseException | None = None
    times: list[int] = field(default_factory=list)
    serial_times: list[int] = field(default_factory=list)


def execute(task: Task, screen: Screen) -> Run:
    """Run a task's arms one after another, then its baseline, and return the run.

    Nothing that the body raises is raised here: it is the run's ``error``.
    What is wrong with the task itself (:class:`ParmagicError`) is raised, with
    nothing left behind.
    """
    task, notes = _without_deadlock(task)
    story = _Story(notes=[*task.notes, *notes])
    folder = Folder(task.folder, task.keep_runs)
    supply = Supply(task.call, task.items_for(max(task.plan.arms, key=lambda arm: arm.count)), task.plan, task.names)
    parked: Parked | None = None
    try:
        tracing.warm(task.plan.trace)
        watch.wait_until_ready()
        supply.prepare()
        parked = park(task, supply)
        _run_arms(task, screen, story, supply, parked, folder)
        if story.error is None:
            _run_baselines(task, story, parked, folder)
    except KeyboardInterrupt as interrupt:
        story.error = story.error or interrupt
    finally:
        if parked is not None:
            parked.close()
        supply.close()
    story.notes += supply.notes
    _close_the_story(task, story)
    return Run(task, story)


def _without_deadlock(task: Task) -> tuple[Task, list[str]]:
    """Leave out a serial arm whose ranks, one after another, could wait for each other for ever."""
    arms = tuple(arm for arm in task.plan.arms if arm.kind != "serial")
    if task.items is not None or not task.blocking or not arms or arms == task.plan.arms:
        return task, []
    names = ", ".join(sorted(task.blocking)[:3])
    note = f"The serial arm was left out: the body uses {names}, so ranks in turn could wait for each other for ever."
    return replace(task, plan=replace(task.plan, arms=arms)), [note]


def _run_arms(task: Task, screen: Screen, story: _Story, supply: Supply, parked: Parked | None, folder: Folder) -> None:
    deadline = time.monotonic() + task.plan.timeout if task.plan.timeout else None
    for number, arm in enumerate(task.plan.arms):
        isolated = parked is not None and parked.workers is not None and arm.kind == "serial" and supply.has_threads
        if isolated:
            assert parked is not None
            workers: Workers = parked.workers  # type: ignore[assignment]
        else:
            workers = supply.workers(arm)
        job = _job(task, arm, lambda rank, number=number: str(folder.path / f"{number}-{rank}.json"))  # type: ignore[misc]
        timeline, notes = conduct(workers, job, screen, deadline, shipped_s=supply.shipping_seconds(arm))
        story.timelines.append(timeline)
        story.notes += notes
        story.times.append(sum(len(batch.begins) for lane in timeline.lanes for batch in lane.batches))
        if timeline.error is not None:
            story.error = timeline.error
        if story.error is not None and (not task.plan.keep_going or _ends_all(story.error)):
            return
    if task.plan.keep_going:
        story.error = None


def _ends_all(error: BaseException) -> bool:
    """Tell whether not even --keep-going goes on: after an interrupt, and where it was no item that failed."""
    return isinstance(error, (KeyboardInterrupt, RunTimeout)) or "_parmagic" not in vars(error)


def _job(task: Task, arm: Arm, trace_path: Callable[[int], str]) -> Job:
    items = task.items_for(arm)
    spmd = task.items is None and arm.kind != "serial"
    return Job(task.call, items, arm, task.plan, spmd, trace_path, in_turn=task.items is None and not spmd)


def conduct(
    workers: Workers, job: Job, screen: Screen, deadline: float | None = None, shipped_s: float = 0.0
) -> tuple[Timeline, list[str]]:
    """Run one arm and merge what its workers reported; return its timeline and notes.

    ``shipped_s`` is how long the names and items took to pack: every arm of
    processes counts it as if it had run alone, as ``transfer`` at its begin.
    """
    parts: list[Recording] = []
    error: BaseException | None = None
    screen.begin(job.arm.label, len(job.items))
    reports = workers.map(job)
    cpu_before = time.process_time()
    begin = end = perf_counter()
    try:
        for report in reports:
            if isinstance(report, Recording):
                if any(span.kind == "startup" for span in report.spans):
                    watch.add(report.worker)
                parts.append(report)
                if report.batches:
                    end = perf_counter()
                    screen.done(sum(len(batch.begins) for batch in report.batches))
            else:
                _show(screen, report, job.arm.kind)
            if deadline is not None and time.monotonic() > deadline:
                raise RunTimeout(f"--timeout {job.plan.timeout:g}: the arm {job.arm.label} was ended.")
        if not any(part.batches for part in parts):
            end = perf_counter()  # no item, no result: the arm ends with its workers
    except (KeyboardInterrupt, ParmagicError) as stopped:
        error = stopped
        end = perf_counter()
        parts += _close(reports, stopped)
    finally:
        screen.end()
    cpu_s = time.process_time() - cpu_before if isinstance(workers, SharedWorkers) else float("nan")
    samples = watch.take()
    timeline = merge(
        job.arm, begin - shipped_s, end, len(job.items), _with_shipping(parts, begin, shipped_s), samples,
        cpu_s=cpu_s, gil=gil_enabled(), error=error or first_error(parts),
    )  # fmt: skip
    notes = _own_notes(parts)
    if end - begin > WORTH_SAMPLING and not any(one.at for one in samples.values()):
        notes.append(NOT_SEEN[sampler.supported()].format(arm=job.arm.label))
    return timeline, notes


def _close(reports: Any, error: BaseException) -> list[Recording]:
    """End the workers; return what they still had to say."""
    left: list[Report] = []
    try:
        left.append(reports.throw(error))
        for report in reports:
            left.append(report)  # noqa: PERF402  (what came before a raise is kept)
    except (KeyboardInterrupt, ParmagicError):
        pass  # the error that was thrown in, or an impatient second Ctrl-C
    finally:
        reports.close()
    return [report for report in left if isinstance(report, Recording)]


def _show(screen: Screen, report: Report, model: str) -> None:
    if isinstance(report, Printed):
        screen.printed(report, model)
    elif isinstance(report, Displayed):
        screen.displayed(report, model)
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


def _own_notes(parts: Sequence[Recording]) -> list[str]:
    notes = [note for part in parts for note in part.notes]
    notes += [note for part in parts if part.trace for note in part.trace.notes]
    return list(dict.fromkeys(notes))


def gil_enabled() -> bool:
    """Tell whether this interpreter runs with a GIL."""
    asked = getattr(sys, "_is_gil_enabled", None)
    return True if asked is None else bool(asked())


def _run_baselines(task: Task, story: _Story, parked: Parked | None, folder: Folder) -> None:
    own = next((t for t in story.timelines if t.arm.kind == "serial"), None)
    for timeline in story.timelines:
        if own is not None and (task.items is not None or own.n_items == timeline.n_items):
            story.baselines[timeline.arm.label] = Baseline.of(own)
        elif parked is not None and parked.workers is not None:
            story.baselines[timeline.arm.label] = parked.measure(task, timeline, story.timelines, folder)
    if parked is not None:
        story.notes += parked.notes
        story.serial_times = parked.times()


def _close_the_story(task: Task, story: _Story) -> None:
    for timeline in story.timelines:
        label = timeline.arm.label
        baseline = story.baselines.get(label)
        if baseline is None:
            baseline = story.baselines[label] = Baseline.estimated(timeline)
        if baseline.results and timeline.error is None:
            differ = compare.differing(baseline.results, results_of(timeline))
            if differ:
                story.notes.append(compare.sentence(differ, label))
    if story.serial_times:
        counts = [*story.times, *story.serial_times]
        story.notes.append(
            f"The body ran {' + '.join(map(str, counts))} times; the last for the serial baseline "
            "(--once, or %config ParallelMagics.baseline = False, prevents that)."
        )
    kinds = [arm.kind for arm in task.plan.arms if arm.kind == "threads"]
    if len(kinds) > 1:
        story.notes.append(f"The body ran in the notebook's memory {len(kinds)} times, once per threads arm.")
    for baseline in story.baselines.values():
        baseline.results.clear()
    story.notes += [_slowed(t) for t in story.timelines if task.plan.trace == "full" and _slowdown(t) > ALLOWED]
    story.notes = list(dict.fromkeys(story.notes))
    if story.error is not None:
        _annotate(task, story)


def _slowdown(timeline: Timeline) -> float:
    wall = timeline.end - timeline.begin
    return overhead_of(timeline) / wall if wall > 0 else 0.0


def _slowed(timeline: Timeline) -> str:
    return (
        f"--trace full made {timeline.arm.label} about {_slowdown(timeline):.0%} longer: its times and its speedup are not those of "
        "an untraced run."
    )


def _annotate(task: Task, story: _Story) -> None:
    """Say on the exception itself which item, worker and arm it came from."""
    error = story.error
    where = getattr(error, "__dict__", {}).pop("_parmagic", None)
    if error is None or where is None or not story.timelines:
        return
    item, rank = where
    value = f" ({_shortly(task.items[item])})" if task.items is not None else ""
    error.add_note(f"in item {item}{value}, worker {rank}, {story.timelines[-1].arm.label}")


def _shortly(item: Any, limit: int = 80) -> str:
    """Return the item's repr on one line, cut."""
    try:
        text = " ".join(repr(item[:limit] if isinstance(item, (str, bytes, bytearray)) else item).split())
    except Exception:  # noqa: BLE001  (the user's own __repr__ may raise anything)
        text = f"a {type(item).__name__}"
    return text if len(text) <= limit else text[: limit - 1] + "…"


def results_of(timeline: Timeline) -> list[Any]:
    """Return an arm's results in item order; None for items that failed or never started."""
    results: list[Any] = [None] * timeline.n_items
    for lane in timeline.lanes:
        for batch in lane.batches:
            results[batch.first : batch.first + len(batch.values)] = batch.values  # noqa: PD011  (a list, not a frame's)
    return results


def overhead_of(timeline: Timeline) -> float:
    """Return the estimated seconds by which tracing made an arm longer: of processes side by side, the mean."""
    own = [trace.overhead_s for trace in timeline.traces]
    return sum(own) / len(own) if own else 0.0


class Trace:
    """All arms in sequence: ``save`` it, ``open`` it, or let the notebook show it."""

    def __init__(self, view: View) -> None:
        self._view = view

    def save(self, path: str | os.PathLike[str]) -> str:
        """Write the timeline; ``.html`` is a page, ``.json`` and ``.json.gz`` open in Perfetto and vizviewer."""
        from parmagic.render import chrome  # noqa: PLC0415  (only when asked to save)

        chrome.save(self._view, path)
        return str(path)

    def open(self) -> str:
        """Show the trace in Perfetto, served on 127.0.0.1 only; return its address."""
        import webbrowser  # noqa: PLC0415

        from parmagic.render import chrome, serve  # noqa: PLC0415  (only when asked to open)

        url = serve.open_trace(chrome.dumps(self._view), self._view.title or "parmagic")
        webbrowser.open(url)
        return url

    def __repr__(self) -> str:
        """Say what can be done with it."""
        return "<timeline: .save('x.html' | 'x.json' | 'x.json.gz'), .open()>"


class Run:
    """What a run was: results, tables, notes, timeline. See the README for every column."""

    def __init__(self, task: Task, story: _Story) -> None:
        self._task = task
        self._story = story
        self.timelines: tuple[Timeline, ...] = tuple(story.timelines)
        self.error: BaseException | None = story.error
        self.notes: list[str] = story.notes

    @cached_property
    def results(self) -> list[Any]:
        """The last arm's results in item order (rank order in SPMD)."""
        return results_of(self.timelines[-1]) if self.timelines else []

    def arm(self, label: str) -> ArmView:
        """Return one arm by its label, say ``threads=4``; KeyError names the arms that there are."""
        for timeline in self.timelines:
            if timeline.arm.label == label:
                return ArmView(timeline)
        raise KeyError(f"no arm {label!r}: this run has {', '.join(t.arm.label for t in self.timelines)}")

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per arm."""
        from parmagic import account  # noqa: PLC0415  (pandas loads when tables are looked at)

        baselines = [self._story.baselines[t.arm.label] for t in self.timelines]
        overheads = [overhead_of(timeline) for timeline in self.timelines]
        return account.summary_table(self.timelines, self.workers, baselines, overheads)

    @cached_property
    def workers(self) -> pd.DataFrame:
        """One row per (arm, rank): the states tile the wall time."""
        from parmagic import account  # noqa: PLC0415

        return account.workers_table(self.timelines)

    @cached_property
    def items(self) -> pd.DataFrame:
        """One row per (arm, item)."""
        from parmagic import account  # noqa: PLC0415

        return account.items_table(self.timelines)

    @cached_property
    def waits(self) -> pd.DataFrame:
        """One row per (arm, rank, kind, object, line)."""
        from parmagic import account  # noqa: PLC0415

        return account.waits_table(self.timelines)

    @cached_property
    def verdict(self) -> str:
        """What to do next, in a sentence with its evidence."""
        from parmagic import account, verdict  # noqa: PLC0415

        error = account.describe(self.error) if self.error is not None else None
        if not self.timelines:
            return f"The run ended before its first arm: {error}"
        return verdict.verdict(self.summary, self.workers, error)

    @property
    def timeline(self) -> Trace:
        """All arms on one clock, with VizTracer's functions."""
        return Trace(self)

    @property
    def title(self) -> str:
        """The magic line."""
        return self._task.title

    @property
    def show_items(self) -> bool:
        """Whether pages may show item values."""
        return self._task.show_items

    def shares(self, timeline: Timeline, lane: Lane, edges: np.ndarray[Any, Any]) -> dict[str, Any]:
        """Return the seconds of each state of a lane in each bin between ``edges``."""
        from parmagic import account  # noqa: PLC0415

        return account.ledger(timeline, lane).shares(edges)

    def functions(self) -> list[tuple[int, list[Slice]]]:
        """Return VizTracer's calls, by the arm's number; read from the trace files."""
        from parmagic import functions  # noqa: PLC0415

        found = []
        for number, timeline in enumerate(self.timelines):
            calls = [call for trace in timeline.traces for call in functions.read(trace)]
            found.append((number, [call for lane in timeline.lanes for call in functions.within_items(calls, lane)]))
        return found

    def __repr__(self) -> str:
        """Show the report as text."""
        from parmagic.render import text  # noqa: PLC0415  (only when shown)

        return text.report(self)


class ArmView:
    """One arm of a run."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.label = timeline.arm.label

    @cached_property
    def results(self) -> list[Any]:
        """This arm's results in item order."""
        return results_of(self.timeline)


_last: Run | None = None


def last() -> Run | None:
    """Return the newest run of this process, also one that failed; None where there was none."""
    return _last


def remember(run: Run) -> Run:
    """Make ``run`` the one that :func:`last` returns."""
    global _last  # noqa: PLW0603  (that is what it is)
    _last = run
    return run


class CallItem:
    """A function of one item, called as a body is."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, item: Any, _: Worker) -> Any:
        """Call it with the item."""
        return self.function(item)


def run(function: Callable[[Any], Any], items: Iterable[Any], models: str = "", **options: Any) -> Run:
    """Run ``function(item)`` for every item under the given models, as the magics do.

    ``models`` is, say, ``"threads=4 procs=4"``; ``options`` are the magics':
    ``once``, ``trace``, ``timeout``, ``keep_going``, ``chunk``, ``start_method``.
    Returns a :class:`Run`; raises what ``function`` raised, with a note on the
    item, unless ``keep_going``.
    """
    plan = line.parse_models(models, **options)
    name = getattr(function, "__name__", "function")
    names = frozenset(getattr(getattr(function, "__code__", None), "co_names", ()))
    task = Task(CallItem(function), list(items), plan, names=names, title=f"parmagic.run({name}, …, {models!r})")
    done = remember(execute(task, Quiet()))
    if done.error is not None:
        raise done.error
    return done
