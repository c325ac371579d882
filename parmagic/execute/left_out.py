"""Arms that a line asks for, and that cannot run: the others do, and a note says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from parmagic.errors import NotShippable
from parmagic.execute.task import Task
from parmagic.model.finding import LEFT_OUT, Finding
from parmagic.model.plan import Arm
from parmagic.model.private import Private, say


def without_deadlock(task: Task) -> tuple[Task, list[Finding]]:
    """Leave out a serial arm whose ranks, one after another, could wait for each other forever; not where there is no other."""
    if task.items is not None or not task.blocking:
        return task, []
    names = ", ".join(sorted(task.blocking)[:3])
    text = f"The serial arm was left out: the body uses {names}, so ranks in turn could wait for each other forever."
    return _without([arm for arm in task.plan.arms if arm.model.one_at_a_time], task, text)


def without_processes(task: Task, error: NotShippable) -> tuple[Task, list[Finding]]:
    """Leave out the arms whose workers cannot have what the body needs; not where there are no others."""
    arms = [arm for arm in task.plan.arms if not arm.model.shares_memory]
    why = Private(str(error), f"The body cannot be shipped to a process ({type(error).__name__}).")
    were = f"{', '.join(arm.label for arm in arms)} {'was' if len(arms) == 1 else 'were'}"
    return _without(arms, task, say("{were} left out. {why}", were=were, why=why))


def _without(arms: Sequence[Arm], task: Task, text: str) -> tuple[Task, list[Finding]]:
    """Return the task without these arms, with a finding for each, all of one text; as it is where none would be left."""
    kept = tuple(arm for arm in task.plan.arms if arm not in arms)
    if not kept:
        return task, []
    return replace(task, plan=replace(task.plan, arms=kept)), [Finding(LEFT_OUT, text, arm.label, "warning") for arm in arms]
