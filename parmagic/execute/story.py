"""The whole story on one screen: ship, park, run the arms, run the baseline, tell.

::

    Task ─▶ prepare ─▶ arm, arm, … ─▶ baseline ─▶ Run ─▶ tables, timeline, report
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from types import FunctionType
from typing import Any

from parmagic.analyze import compare
from parmagic.errors import LimitReached, RunTimeout
from parmagic.execute.baseline import Parked, park, taken_from
from parmagic.execute.conductor import conduct
from parmagic.execute.task import CallItem, Quiet, Screen, Task
from parmagic.model import words
from parmagic.model.plan import Arm
from parmagic.model.timeline import Baseline, Timeline
from parmagic.parse import line
from parmagic.record import hooks, tracing
from parmagic.result import Run, remember
from parmagic.system.files import Folder, RunFile
from parmagic.system.interrupts import is_interrupt, lost, noticed, raise_lost, undo
from parmagic.system.limits import explained
from parmagic.workers import Job, Workers, registry
from parmagic.workers.loop import code_of
from parmagic.workers.supply import Supply

ALLOWED = 0.05
"""The share of wall time from which tracing deserves a note."""


@dataclass(slots=True)
class _Story:
    """What is known so far; it began at ``begin`` (seconds on our clock)."""

    begin: float = field(default_factory=time.perf_counter)
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
    nothing left behind. To be called by :func:`noticed`.
    """
    task, notes = _without_deadlock(task)
    story = _Story(notes=[*task.notes, *notes, *_nowhere()])
    folder = Folder(task.folder, task.keep_runs, task.keep_bytes)
    supply = Supply(task.call, task.items_for(max(task.plan.arms, key=lambda arm: arm.count)), task.plan, task.names)
    parked: Parked | None = None
    try:
        with explained():
            tracing.warm(task.plan.trace)
            supply.prepare()
            if hooks.why_inferred():
                supply.wait_for_the_sampler()
            parked = park(task, supply)
            raise_lost()
            _run_arms(task, screen, story, supply, parked, folder)
            if story.error is None:
                raise_lost()
                _run_baselines(task, screen, story, parked, folder)
    except LimitReached as refused:
        if not story.timelines:
            raise  # nothing has run
        story.error = refused if story.error is None else story.error
    except BaseException as stopped:
        if not is_interrupt(stopped):
            raise
        if story.error is None or task.plan.keep_going:
            story.error = stopped
    finally:
        try:
            undo(lambda: _give_back(supply, parked, folder))
        finally:
            undo(lambda: _give_back(supply, parked, folder))
    late = lost()  # in a finalizer, say, behind the last item
    story.error = late if story.error is None else story.error
    story.notes += supply.notes
    _close_the_story(task, story)
    return Run(story.timelines, story.baselines, story.notes, story.error, title=task.title, show_items=task.show_items)


def _give_back(supply: Supply, parked: Parked | None, folder: Folder) -> None:
    if parked is not None:
        parked.close()
    supply.close()
    folder.end()


def _nowhere() -> list[str]:
    """Say where relative paths lead to nothing."""
    try:
        os.getcwd()  # noqa: PTH109  (whether there is one)
    except OSError as error:
        why = f"The working directory is gone ({error.strerror})"
        return [f"{why}: relative paths do not work in the body, nor elsewhere in this process. os.chdir() to one that is there."]
    return []


def _without_deadlock(task: Task) -> tuple[Task, list[str]]:
    """Leave out a serial arm whose ranks, one after another, could wait for each other for ever."""
    arms = tuple(arm for arm in task.plan.arms if not arm.model.one_at_a_time)
    if task.items is not None or not task.blocking or not arms or arms == task.plan.arms:
        return task, []
    names = ", ".join(sorted(task.blocking)[:3])
    note = f"The serial arm was left out: the body uses {names}, so ranks in turn could wait for each other for ever."
    return replace(task, plan=replace(task.plan, arms=arms)), [note]


def _run_arms(task: Task, screen: Screen, story: _Story, supply: Supply, parked: Parked | None, folder: Folder) -> None:
    deadline = time.monotonic() + task.plan.timeout if task.plan.timeout else None
    for number, arm in enumerate(task.plan.arms):
        isolated = parked is not None and parked.workers is not None and arm.model.one_at_a_time and supply.has_threads
        if isolated:
            assert parked is not None
            workers: Workers = parked.workers  # type: ignore[assignment]
        else:
            workers = registry.workers(arm.model, supply)
        job = _job(task, arm, lambda rank, number=number: folder.file(f"{number}-{rank}.json"))  # type: ignore[misc]
        timeline, notes = conduct(workers, job, screen, deadline, packed=supply.packed(arm))
        story.timelines.append(timeline)
        story.notes += notes
        story.times.append(timeline.n_done)
        if timeline.error is not None:
            story.error = timeline.error
            if not task.plan.keep_going or _ends_all(timeline):
                return
    if task.plan.keep_going:
        story.error = None


def _ends_all(timeline: Timeline) -> bool:
    """Tell whether not even --keep-going goes on: after an interrupt, and where it was no item that failed."""
    return timeline.failure is None or issubclass(type(timeline.error), (KeyboardInterrupt, RunTimeout))


def _job(task: Task, arm: Arm, trace_file: Callable[[int], RunFile]) -> Job:
    return Job(task.call, task.items_for(arm), arm, task.plan, task.sharing(arm), trace_file)


def _run_baselines(task: Task, screen: Screen, story: _Story, parked: Parked | None, folder: Folder) -> None:
    try:
        with explained():
            _measure_baselines(task, screen, story, parked, folder)
    except LimitReached as refused:
        story.notes.append(f"The speedup is estimated: the serial baseline could not run. {refused}")
    if parked is not None:
        story.notes += parked.notes
        story.serial_times = parked.times()


def _measure_baselines(task: Task, screen: Screen, story: _Story, parked: Parked | None, folder: Folder) -> None:
    own = next((t for t in story.timelines if t.arm.model.one_at_a_time), None)
    for timeline in story.timelines:
        if own is not None and (task.items is not None or own.n_items == timeline.n_items):
            story.baselines[timeline.arm.label] = taken_from(own)
        elif parked is not None and parked.workers is not None:
            story.baselines[timeline.arm.label] = parked.measure(task, timeline, story.timelines, folder, screen)


def _close_the_story(task: Task, story: _Story) -> None:
    for timeline in story.timelines:
        label = timeline.arm.label
        baseline = story.baselines.get(label)
        if baseline is None:
            baseline = story.baselines[label] = Baseline.estimated()
        if baseline.results and timeline.error is None:
            differ = compare.differing(baseline.results, timeline.results)
            if differ:
                story.notes.append(compare.sentence(differ, label))
    if story.serial_times:
        counts = [*story.times, *story.serial_times]
        story.notes.append(
            f"The body ran {' + '.join(map(str, counts))} times; the last for the serial baseline "
            "(--once, or %config ParallelMagics.baseline = False, prevents that)."
        )
    inside = [arm.kind for arm in task.plan.arms if arm.model.shares_memory and not arm.model.one_at_a_time]
    if len(inside) > 1:
        models = " or ".join(dict.fromkeys(inside))
        story.notes.append(f"The body ran in the notebook's memory {len(inside)} times, once per {models} arm.")
    for baseline in story.baselines.values():
        baseline.results.clear()
    story.notes += [_slowed(t, task.plan.trace) for t in story.timelines if t.overhead > ALLOWED]
    story.notes = list(dict.fromkeys(story.notes))
    if story.error is not None:
        _annotate(task, story)
        story.notes += _left_out(task, story)
    story.notes += [note for note in map(_failures, story.timelines) if note and task.plan.keep_going]


def _left_out(task: Task, story: _Story) -> list[str]:
    """Say which arms an error kept from running."""
    labels = [arm.label for arm in task.plan.arms[len(story.timelines) :]]
    return [f"{', '.join(labels)} did not run."] if labels else []


def _failures(timeline: Timeline) -> str:
    """Say which items of an arm failed, and how the first of them did."""
    failed = timeline.errors
    if not failed:
        return ""
    items = ", ".join(map(str, list(failed)[:5])) + (", …" if len(failed) > 5 else "")  # noqa: PLR2004  (as many as one reads)
    first = words.type_name(next(iter(failed.values())))
    return (
        f"{len(failed)} of {timeline.n_items} items of {timeline.arm.label} failed (item {items}; {first}); "
        "run.items['error'] tells how."
    )


def _slowed(timeline: Timeline, trace: str) -> str:
    short = " (short runs pay up to 50 ms for it)" if trace == "auto" else ""
    return (
        f"Tracing functions made {timeline.arm.label} about {timeline.overhead:.0%} longer{short}: its times and its speedup are "
        "not those of an untraced run (--trace off)."
    )


def _annotate(task: Task, story: _Story) -> None:
    """Say on the exception itself which item, worker and arm it came from."""
    last = story.timelines[-1] if story.timelines else None
    if last is None or (failure := last.failure) is None or failure.error is not story.error:
        return
    value = f" ({words.shown(task.items[failure.item])})" if task.items is not None else ""
    where = f"worker {failure.worker}, {last.arm.label}"
    if not words.add_origin(failure.error, f"in item {failure.item}{value}, {where}", story.begin):
        story.notes.append(f"The error was raised in item {failure.item}, {where}.")


def run(function: Callable[[Any], Any], items: Iterable[Any], models: str = "", **options: Any) -> Run:
    """Run ``function(item)`` for every item under the given models, as the magics do.

    ``models`` is, say, ``"threads=4 procs=4"``; ``options`` are the magics':
    ``once``, ``trace``, ``timeout``, ``keep_going``, ``chunk``, ``start_method``.
    Returns a :class:`Run`; raises what ``function`` raised, with a note on the
    item, unless ``keep_going``.
    """
    plan = line.parse_models(models, **options)
    name = getattr(function, "__name__", "function") if isinstance(function, (FunctionType, type)) else words.type_name(function)
    names = frozenset(code.co_names if (code := code_of(function)) is not None else ())
    task = Task(CallItem(function), list(items), plan, names=names, title=f"parmagic.run({name}, …, {models!r})")
    done = remember(noticed(execute, task, Quiet()))
    if done.error is not None:
        raise done.error
    return done
