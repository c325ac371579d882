"""The whole story on one screen: ship, park, run the arms, run the baseline, tell.

::

    Task ─▶ prepare ─▶ arm, arm, … ─▶ baseline ─▶ Run ─▶ tables, timeline, report
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from types import FunctionType
from typing import Any

from parmagic.analyze import compare, ends, laws, loads, orders, rules
from parmagic.analyze.study import Study
from parmagic.errors import LimitReached, NotShippable, RunTimeout
from parmagic.execute.baseline import Parked, another_end, estimated, park, taken_from
from parmagic.execute.conductor import conduct
from parmagic.execute.ends import names_changed, with_ends
from parmagic.execute.left_out import without_deadlock, without_processes
from parmagic.execute.task import CallItem, Quiet, Screen, Task
from parmagic.model import cells, classes, words
from parmagic.model.finding import Finding, told
from parmagic.model.plan import Arm
from parmagic.model.timeline import Baseline, Timeline
from parmagic.parse import line
from parmagic.parse.helpers import changed_by_helpers
from parmagic.parse.unsent import unsent_help
from parmagic.record import hooks, tracing
from parmagic.result import Run, let_go, remember
from parmagic.system import debugger, runs
from parmagic.system.files import Folder
from parmagic.system.interrupts import is_interrupt, lost, noticed, raise_lost, undo
from parmagic.system.limits import explained
from parmagic.system.runs import AtWork
from parmagic.system.unwatched import unwatched
from parmagic.workers import Job, Workers, patched, registry
from parmagic.workers.loop import body_of, globals_read, names_around
from parmagic.workers.supply import Supply
from parmagic.workers.trying import tried


@dataclass(slots=True)
class _Story:
    """A task while it runs: what it is given, and what is known so far; it began at ``begin`` (seconds on our clock)."""

    task: Task
    screen: Screen
    supply: Supply
    folder: Folder
    parked: Parked | None = None
    begin: float = field(default_factory=time.perf_counter)
    timelines: list[Timeline] = field(default_factory=list)
    baselines: dict[str, Baseline] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    error: BaseException | None = None
    times: list[int] = field(default_factory=list)
    serial_times: list[int] = field(default_factory=list)
    at_work: AtWork = field(default_factory=AtWork)

    @classmethod
    def of(cls, task: Task, screen: Screen) -> _Story:
        """Begin one: nothing has been started yet."""
        plan = replace(task.plan, fresh_seed=secrets.randbits(32), changes=names_changed(task))
        task, left_out = without_deadlock(replace(task, plan=plan, call=tried(task.call, plan)))
        folder = Folder(task.folder, task.keep_runs, task.keep_bytes)
        return cls(task, screen, _supply(task), folder, findings=[*told(task.notes, "cell"), *left_out, *_nowhere(), *_inferred()])

    def prepare(self) -> None:
        """Start what the arms need, and park the baseline's worker while memory is as it was."""
        self.at_work.begin()
        tracing.warm(self.task.plan.trace)
        self._supply()
        if hooks.why_inferred() or self._infers_beside():
            self.supply.wait_for_the_sampler()
        self.parked = park(self.task, self.supply)

    def _supply(self) -> None:
        """Pack or fork; where the body cannot be packed, begin again with the arms that do not need that."""
        try:
            self.supply.prepare()
        except NotShippable as error:
            task, left_out = without_processes(self.task, error)
            if not left_out or task.plan.start_method == "fork":  # nothing is packed for a fork: it is the option that cannot be
                raise
        else:
            return
        self.supply.close()
        self.task, self.supply = task, _supply(task)
        self.findings += left_out
        self.supply.prepare()

    def _infers_beside(self) -> bool:
        """Tell whether waits in this process have to be inferred, as another run is at work here, which measures its own."""
        return not runs.alone() and not all(arm.model.own_process for arm in self.task.plan.arms)

    def run_arms(self) -> None:
        """Run one arm after another; an error ends them all, with --keep-going only one that came from no item."""
        plan = self.task.plan
        deadline = time.monotonic() + plan.timeout if plan.timeout else None
        for number, arm in enumerate(plan.arms):
            timeline, findings = conduct(self._workers(arm), self._job(number, arm), self.screen, deadline, self.supply.packed(arm))
            self.timelines.append(timeline)
            self.findings += findings
            self.times.append(timeline.n_done)
            self.timelines[-1] = with_ends(timeline, self.timelines[:-1], self.task)  # an interrupt in it costs no arm
            if timeline.error is not None:
                self.error = timeline.error
                if not plan.keep_going or _ends_all(timeline):
                    return
        if plan.keep_going:
            self.error = None

    def _workers(self, arm: Arm) -> Workers:
        """Return an arm's workers: one that runs alone is apart from threads, which change the memory that it would see."""
        alone = self.parked.workers if self.parked is not None else None
        if alone is not None and arm.model.one_at_a_time and self.supply.shares_memory:
            return alone
        return registry.workers(arm.model, self.supply)

    def _job(self, number: int, arm: Arm) -> Job:
        task = self.task
        return Job(
            task.call, task.items_for(arm), arm, task.plan, task.sharing(arm), lambda rank: self.folder.file(f"{number}-{rank}.json")
        )  # fmt: skip

    def run_baselines(self) -> None:
        """Find what each arm's serial run took, or would have taken; where that cannot run, a finding says why."""
        try:
            with explained():
                self._measure_baselines()
        except LimitReached as refused:
            self.findings.append(estimated(f"the serial baseline could not run. {refused}"))
        if self.parked is not None:
            self.findings += self.parked.findings
            self.serial_times = self.parked.times()

    def _measure_baselines(self) -> None:
        task, parked = self.task, self.parked
        own = next((t for t in self.timelines if t.arm.model.one_at_a_time), None)
        for timeline in self.timelines:
            if own is not None and (task.items is not None or own.n_items == timeline.n_items):
                self.baselines[timeline.arm.label] = taken_from(own, timeline)
                if self.baselines[timeline.arm.label].how == "estimated":
                    self.findings.append(another_end("arm", own))
            elif parked is not None and parked.workers is not None:
                self.baselines[timeline.arm.label] = parked.measure(task, timeline, self.timelines, self.folder, self.screen)

    def fail(self, error: BaseException | None, *, instead: bool = False) -> None:
        """Make an error the run's, where it has none yet; ``instead`` of it also where it has."""
        if self.error is None or instead:
            self.error = error

    def give_back(self) -> None:
        """End what was started for this task alone."""
        self.at_work.end()
        if self.parked is not None:
            self.parked.close()
        self.supply.close()
        self.folder.end()


def execute(task: Task, screen: Screen) -> Run:
    """Run a task's arms one after another, then its baseline, and return the run.

    Nothing that the body raises is raised here: it is the run's ``error``.
    What is wrong with the task itself (:class:`ParmagicError`) is raised, with
    nothing left behind. To be called by :func:`noticed`.
    """
    story = _Story.of(task, screen)
    try:
        with explained():
            story.prepare()
            raise_lost()
            story.run_arms()
            if story.error is None:
                raise_lost()
                story.run_baselines()
    except LimitReached as refused:
        if not story.timelines:
            raise  # nothing has run
        story.fail(refused)
    except BaseException as stopped:
        if not is_interrupt(stopped):
            raise
        story.fail(stopped, instead=task.plan.keep_going)
    finally:
        try:
            undo(story.give_back)
        finally:
            undo(story.give_back)
    story.fail(lost())  # in a finalizer, say, behind the last item
    _tell(story)
    outcome = story.timelines, story.baselines, story.findings, story.error
    return Run(Study(*outcome, title=task.title, name=task.plan.name or "", show_items=task.show_items, cells=cells.numbered()))


def _supply(task: Task) -> Supply:
    return Supply(task.call, task.items_for(max(task.plan.arms, key=lambda arm: arm.count)), task.plan, task.names)


def _nowhere() -> list[Finding]:
    """Say where relative paths lead to nothing."""
    try:
        os.getcwd()  # noqa: PTH109  (whether there is one)
    except OSError as error:
        why = f"The working directory is gone ({error.strerror})"
        text = f"{why}: relative paths do not work in the body, nor elsewhere in this process. os.chdir() to one that is there."
        return [Finding("nowhere", text, severity="warning")]
    return []


def _inferred() -> list[Finding]:
    """Say why waits cannot be measured here, where that was not asked for."""
    why = hooks.why_inferred()
    if not why or why == hooks.OFF:
        return []
    return [Finding("inferred", f"Waits are inferred, and marked with ~: {why}.", severity="warning")]


def _ends_all(timeline: Timeline) -> bool:
    """Tell whether not even --keep-going goes on: after an interrupt, and where it was no item that failed."""
    return timeline.failure is None or issubclass(type(timeline.error), (KeyboardInterrupt, RunTimeout))


def _tell(story: _Story) -> None:
    """Add what is found when all of the story is known; say on the error where it came from."""
    found, plan = story.findings, story.task.plan
    found += told(story.supply.notes, "shipping")
    debugged = debugger.is_attached()
    if story.at_work.others or story.at_work.within or debugged:
        found[:] = [each for each in found if each.rule != "helpers"]  # their CPU time may be another run's, or the debugger's
    if story.at_work.others:
        found.append(rules.beside(story.at_work.others))
    if debugged:
        found.append(rules.debugged(any(arm.model.own_process for arm in plan.arms)))
    found += _differences(story)
    found += _times_run(story)
    found += orders.could_deadlock(story.timelines)
    for timeline in story.timelines:
        baseline = story.baselines[timeline.arm.label]
        found += rules.slowed(timeline, in_windows=plan.trace == "auto")
        found += [*loads.of_arm(timeline), *loads.unlike(timeline, baseline)]
        found += [*laws.beyond(timeline, baseline), *laws.too_many_cores(timeline)]
    if story.error is not None:
        found += [*_annotate(story), *_not_run(story)]
    if plan.keep_going:
        found += [failed for timeline in story.timelines for failed in rules.failed(timeline)]


def _differences(story: _Story) -> list[Finding]:
    """Give every arm a baseline, and say where their results differ; these are not kept."""
    found = []
    for timeline in story.timelines:
        baseline = story.baselines.setdefault(timeline.arm.label, Baseline.estimated())
        if baseline.results and timeline.error is None:
            both = baseline.results
            if timeline.broke is not None:
                both = {item: both[item] for item in timeline.items_run if item in both}
            differ = compare.differing(both, timeline.results)
            if differ:
                found.append(rules.differ(differ, timeline, _causes(story)))
        found += ends.lost(timeline, baseline)
    for baseline in story.baselines.values():
        baseline.results.clear()
        baseline.ends.clear()
    return found


def _causes(story: _Story) -> list[str]:
    """Return what workers and the serial run may have had differently: what helpers change, what processes have none of."""
    space = names_around(story.task.call)
    helped = changed_by_helpers(body_of(story.task.call), story.task.names, space)
    modules = patched.changed(patched.around(story.supply.modules))
    changed = [f"{name} (changed by {label})" for name, label in sorted(helped.items())]
    return [*(f"{name} (the notebook has changed it in its module, which processes import as it is)" for name in modules), *changed]


def _times_run(story: _Story) -> list[Finding]:
    """Say how often the body ran, where that is more than once for each arm's items, or in the notebook's own memory."""
    found = []
    if story.serial_times:
        counts = [*story.times, *story.serial_times]
        text = (
            f"The body ran {' + '.join(map(str, counts))} times; the last for the serial baseline "
            "(--once, or %config ParallelMagics.baseline = False, prevents that)."
        )
        found.append(Finding("times_run", text, evidence={"items_run": sum(counts)}))
    begun = [timeline.arm.model for timeline in story.timelines]
    inside = [model.name for model in begun if model.shares_memory and not model.one_at_a_time]
    if len(inside) > 1:
        models = " or ".join(dict.fromkeys(inside))
        text = f"The body ran in the notebook's memory {len(inside)} times, once per {models} arm."
        found.append(Finding("times_in_memory", text, evidence={"arms": len(inside)}))
    return found


def _not_run(story: _Story) -> list[Finding]:
    """Say which arms an error kept from running."""
    labels = [arm.label for arm in story.task.plan.arms[len(story.timelines) :]]
    return [Finding("not_run", f"{', '.join(labels)} did not run.", severity="error", evidence={"arms": len(labels)})] if labels else []


def _annotate(story: _Story) -> list[Finding]:
    """Say on the exception itself which item, worker and arm it came from, or here where it takes no notes."""
    last = story.timelines[-1] if story.timelines else None
    if last is None or (failure := last.failure) is None or failure.error is not story.error:
        return []
    items = story.task.items
    value = f" ({words.shown(items[failure.item])})" if items is not None else ""
    where = f"worker {failure.worker}, {last.arm.label}"
    if words.add_origin(failure.error, f"in item {failure.item}{value}, {where}", story.begin):
        return []
    text = f"The error was raised in item {failure.item}, {where}."
    return [Finding("raised", text, last.arm.label, "error", {"item": failure.item, "rank": failure.worker})]


def run(function: Callable[[Any], Any], items: Iterable[Any], models: str = "", **options: Any) -> Run:
    """Run ``function(item)`` for every item under the given models, as the magics do.

    ``models`` is, say, ``"threads=4 procs=4"``; ``options`` are the magics':
    ``once``, ``trace``, ``timeout``, ``item_timeout``, ``retry``, ``keep_going``, ``chunk``, ``start_method``, ``seed``.
    Returns a :class:`Run`; raises what ``function`` raised, with a note on the
    item, unless ``keep_going``.
    """
    plan = line.parse_models(models, **options)
    name = getattr(function, "__name__", "function") if isinstance(function, (FunctionType, type)) else classes.type_name(function)
    task = Task(CallItem(function), list(items), plan, names=globals_read(function), title=f"parmagic.run({name}, …, {models!r})")
    done = let_go(remember(noticed(unwatched, execute, task, Quiet())))
    if done.error is not None:
        advice = unsent_help(done.error, task.names, names_around(task.call))
        if advice:
            words.add_note(done.error, advice)
        del function, items, task  # the error will keep this frame, and the run the error
        raise done.error
    return done
