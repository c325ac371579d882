"""Single waits: on whose lanes they are that caused and ended them, and when they were over."""

from __future__ import annotations

from dataclasses import replace
from math import nan

import pytest
from stories import child, handover, run_of, with_handovers

from parmagic.analyze.arrows import arrows
from parmagic.model.kinds import WAIT_KINDS
from parmagic.model.plan import Arm
from parmagic.model.waits import WAIT_LAYOUT, Waits

STORY = [("running", 1.0)]


def arm(*handovers, children=()):
    """Return an arm of three threads; each of ``handovers`` is behind the rank of who waited."""
    made = run_of({Arm.named("threads", 3): [STORY] * 3}, measured=True).timelines[0]
    return with_handovers(replace(made, children=tuple(children)), handovers)


def ranks(arrow):
    """Return the ranks of who had it, who let go, and from whom the arrow comes."""
    return [lane and lane.worker.rank for lane in (arrow.blocker, arrow.waker, arrow.source)]


def test_who_had_it_and_who_let_go():
    """These may be two: another one may have had it in between. The longest comes first."""
    short, long = handover(0.1, 0.2, blocker=0, waker=0), handover(0.3, 0.7, blocker=0, waker=2, woken=0.65)
    first, second = arrows(arm((1, short), (1, long)))
    assert (first.begin, first.end, first.woken) == (1000.3, 1000.7, 1000.65)
    assert (second.begin, second.end, second.woken) == (1000.1, 1000.2, 1000.2)
    assert (first.waiter.worker.rank, ranks(first), ranks(second)) == (1, [0, 2, 2], [0, 0, 0])
    assert (first.thing, first.waited, first.blocked, first.woke) == ("lock", "util.py:3", "util.py:7", "util.py:9")


def test_who_came():
    """Of what nobody had, who came both caused and ended the wait, at one place: it is told once."""
    (found,) = arrows(arm((1, handover(0.1, 0.2, blocker=2, waker=2, blocked=("util.py", 9)))))
    assert ranks(found) == [None, 2, 2]
    assert (found.blocked, found.woke) == ("", "util.py:9")


def test_what_is_not_known():
    """Who let go may not be known: then it comes from who had it. A wait that was given up comes from nobody; of nobody's, nothing is told."""
    unknown, given_up = handover(0.1, 0.2, blocker=2), handover(0.2, 0.5, blocker=2, waker=0, got=False)
    first, second = arrows(arm((1, unknown), (0, given_up), (0, handover(0.6, 0.7))))
    assert (ranks(first), ranks(second)) == ([2, None, None], [2, None, 2])
    assert (first.woke, second.woke, second.woken) == ("", "", 1000.2)


def test_what_bodies_started():
    """A thread of a body's has a lane of its own, known by the number of its account in its process."""
    thread = child(2, 0.1, 0.9)
    thread = replace(thread, synced=replace(thread.synced, serials=(77,)))
    waited = handover(0.3, 0.7, blocker=2, serial=77)
    (found,) = arrows(arm((1, waited), children=[thread]))
    assert found.blocker is not None
    assert found.blocker.child is not None
    elsewhere = replace(thread, worker=replace(thread.worker, pid=1))
    (found,) = arrows(arm((1, waited), children=[elsewhere]))
    assert found.blocker.child is None  # another process has the same numbers


@pytest.mark.parametrize(("kind", "end"), [("lock", 1000.5), ("queue", 1000.5), ("gil", 1000.7)])
def test_when_it_was_over(kind, end):
    """The wait itself is told from what came behind it: the one for the GIL is another's doing."""
    timeline = arm((1, handover(0.3, 0.7, blocker=0, waker=0, woken=0.6)))
    event = WAIT_LAYOUT.pack(1_000_310_000_000, 1_000_500_000_000, 1, WAIT_KINDS.index(kind), -1, 0, 0, 0)
    lanes = [replace(lane, waits=Waits(event)) if lane.worker.rank == 1 else lane for lane in timeline.lanes]
    (found,) = arrows(replace(timeline, lanes=tuple(lanes)))
    assert found.end == pytest.approx(end, abs=1e-9)
    assert found.woken == pytest.approx(min(1000.6, end), abs=1e-9)


def test_on_another_clock():
    """What another machine recorded comes onto our clock with the rest."""
    moved = handover(0.3, 0.7, blocker=0, woken=0.6).shifted(5.0)
    assert (moved.begin, moved.end, moved.woken) == (1005.3, 1005.7, 1005.6)
    assert handover(0.3, 0.7, blocker=0, woken=nan).shifted(5.0).begin == 1005.3
