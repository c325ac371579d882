"""What ``--trace auto`` keeps: all functions of cells that wait, or call little; windows of those that call much, with a note and marks."""

from __future__ import annotations

import hashlib
import threading
from functools import partial
from pathlib import Path

import pytest

import parmagic
from parmagic.result import study

DATA = bytes(2_000_000)


def called(n):
    """Be what the body calls."""
    return n


def waits(n):
    """Wait, for most of the time."""
    threading.Event().wait(0.02)
    return called(n)


def hashes(n):
    """Compute, for a long time in few calls."""
    for _ in range(10):
        hashlib.sha256(DATA).digest()
    return called(n)


def calls_much(_):
    """Compute, in many calls."""
    return sum(called(n) for n in range(100_000))


def recorded(run):
    """Return how often ``called`` was recorded."""
    return sum(name.startswith("called (") for _, arms in study(run).functions() for calls in arms for _, _, name in calls)


def noted(run):
    """Tell whether a note says that functions are missing."""
    return any("functions in windows only" in note for note in run.notes)


@pytest.mark.parametrize("models", ["threads=4", "procs=2"])
@pytest.mark.parametrize("body", [waits, hashes])
def test_few_calls_are_all_kept(body, models):
    """However long they take: of each item the function is there, nothing is cut, and no note says so."""
    run = parmagic.run(body, range(40), models, once=True)
    (arm,) = study(run).timelines
    assert recorded(run) == 40
    assert not any(trace.gaps for trace in arm.traces)
    assert not noted(run)


def test_many_calls_are_cut_with_a_note():
    """The stretches without functions are known, lie within the arm's items, and are noted; the functions of the rest are there."""
    run = parmagic.run(calls_much, range(40), "threads=2", once=True)
    (arm,) = study(run).timelines
    gaps = [gap for lane in arm.lanes for gap in arm.gaps(lane)]
    assert gaps
    assert all(arm.begin <= begin < end <= arm.end for begin, end in gaps)
    assert noted(run)
    assert 0 < recorded(run) < 40 * 100_000


class Slow:
    """Takes many calls to be read in a worker."""

    def __reduce__(self):
        """Be made anew, in many calls."""
        return _slow, (200_000,)


def _slow(calls):
    sum(called_before(n) for n in range(calls))
    return Slow()


def called_before(n):
    """Be what reading calls."""
    return n


def waits_beside(_, n):
    """Wait, with something that was read."""
    return waits(n)


def test_what_is_done_before_the_items_is_not_recorded():
    """However long a worker reads what the body needs: the budget is that of its items, whose functions are all there."""
    run = parmagic.run(partial(waits_beside, Slow()), range(8), "procs=2", once=True)
    (arm,) = study(run).timelines
    assert recorded(run) == 8
    assert not any(trace.gaps for trace in arm.traces)
    assert not any(name.startswith("called_before") for _, arms in study(run).functions() for calls in arms for _, _, name in calls)


@pytest.mark.parametrize("models", ["threads=2", "procs=2"])
def test_what_is_done_behind_the_items_is_not_recorded(models):
    """A worker looks for the names of what it waited for, in thousands of calls of our own: where all threads are recorded, these are not."""
    run = parmagic.run(waits, range(8), models, once=True, trace="full")
    (arm,) = study(run).timelines
    assert recorded(run) == 8
    written = [trace.data or Path(trace.path).read_bytes() for trace in arm.traces]
    assert written
    assert all(b"called (" in each and b"/record/objects.py" not in each for each in written)
