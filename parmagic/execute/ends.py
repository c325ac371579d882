"""What an arm leaves of the notebook's names that its body changes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from parmagic.execute.task import Task
from parmagic.model.plan import Arm, Changes
from parmagic.model.timeline import Timeline
from parmagic.parse.helpers import changed_by
from parmagic.record.ends import ends_of
from parmagic.workers.loop import code_around, names_around


def names_changed(task: Task) -> Changes:
    """Return what the body visibly changes, where several workers may do so at a time, and a serial run is there to compare with."""
    code, arms = code_around(task.call), task.plan.arms
    alone = (task.plan.once or not task.baseline) and not any(arm.model.one_at_a_time for arm in arms)
    if code is None or alone or not any(_in_memory(arm) and arm.count > 1 for arm in arms):
        return Changes()
    return changed_by(code, task.names, names_around(task.call), task.changes, shared_out=task.items is not None)


def with_ends(timeline: Timeline, before: Iterable[Timeline], task: Task) -> Timeline:
    """Return an arm with what these names end as behind it, where it is the first in the notebook's memory; ``before`` are those that ran.

    A serial arm apart from that has told of its own.
    """
    if not task.plan.changes.names or not _in_memory(timeline.arm) or any(_in_memory(each.arm) for each in before):
        return timeline
    return replace(timeline, ends=ends_of(names_around(task.call), task.plan.changes))


def _in_memory(arm: Arm) -> bool:
    return arm.model.shares_memory and not arm.model.one_at_a_time
