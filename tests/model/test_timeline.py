"""What a timeline says of its items: hand-written arms, exact numbers."""

from __future__ import annotations

import math
from array import array
from dataclasses import replace

import pytest

from parmagic.model.plan import Arm
from parmagic.model.recording import Batch, Clocks, Failure, Recording, Samples, TraceFile, WorkerId
from parmagic.model.timeline import Lane, Timeline

ODD = ValueError("odd")
NOTHING = array("d")


def lane(rank, *batches):
    """Return a worker that ran those batches."""
    return Lane(WorkerId(rank, 1, 1), (), batches, Clocks(NOTHING, NOTHING, NOTHING), Samples(NOTHING, array("b")), None)


def batch(first, *times, errors=None):
    """Return items of (begin, end); the result of each is its number in words, of one that failed None."""
    values = [None if item in (errors or {}) else f"item {item}" for item in range(first, first + len(times))]
    return Batch(first, array("d", [begin for begin, _ in times]), array("d", [end for _, end in times]), values, errors or {})


FIRST = lane(0, batch(0, (1.0, 2.0), (2.0, 2.5), errors={1: ODD}), batch(4, (3.0, 5.0)))
SECOND = lane(1, batch(2, (1.5, 4.5)))
ARM = Timeline(Arm.named("threads", 2), 0.0, 8.0, 6, (FIRST, SECOND, lane(2)))
"""Six items, of which the last never started, and the second failed; the third worker got none."""


def test_how_many_were_done():
    """Items that ended count, also the one that failed; those that never started do not."""
    assert (ARM.n_done, [each.n_done for each in ARM.lanes]) == (4, [3, 1, 0])


def test_results_are_in_the_order_of_items():
    """The place of an item that failed or never started is None; by item there are those alone that ended well."""
    assert ARM.results == ["item 0", None, "item 2", None, "item 4", None]
    assert ARM.results_by_item == {0: "item 0", 2: "item 2", 4: "item 4"}


def test_errors_are_in_the_order_of_items():
    """Whichever worker failed first, the errors come by item; a worker's failures know when they were."""
    late = KeyError(5)
    arm = replace(ARM, lanes=(lane(0, batch(5, (0.0, 1.0), errors={5: late})), FIRST))
    assert list(arm.errors.items()) == [(1, ODD), (5, late)]
    assert list(FIRST.failures()) == [(2.5, Failure(1, 0, ODD))]


@pytest.mark.parametrize(("n_items", "failed", "all_failed"), [(2, 2, True), (2, 1, False), (3, 2, False), (0, 0, False)])
def test_all_failed(n_items, failed, all_failed):
    """All items failed where there were some, and as many errors; one that never started has not failed."""
    arm = replace(ARM, n_items=n_items, lanes=(lane(0, batch(0, *[(0.0, 1.0)] * failed, errors=dict.fromkeys(range(failed), ODD))),))
    assert arm.all_failed is all_failed


def test_seconds_by_item():
    """Each item's wall seconds, that of the one that failed too; NaN for those that never ended."""
    assert ARM.seconds_by_item == pytest.approx([1.0, 0.5, 3.0, math.nan, 2.0, math.nan], nan_ok=True)


def test_the_seconds_of_all_items():
    """They are from the first one's begin to the last one's end, gaps included: not the arm's wall seconds, and 0 without items."""
    assert (ARM.items_s, ARM.wall_s) == (4.0, 8.0)
    assert replace(ARM, lanes=(lane(0),)).items_s == 0.0


def test_items_of_a_worker():
    """Numbers, begins and ends are in the order in which they ran, with a stretch for each batch."""
    assert [each.tolist() for each in FIRST.items()] == [[0, 1, 4], [1.0, 2.0, 3.0], [2.0, 2.5, 5.0]]
    assert FIRST.stretches() == [(1.0, 2.5), (3.0, 5.0)]


@pytest.mark.parametrize(("time", "item"), [(1.0, 0), (2.2, 1), (2.7, None), (3.0, 4), (5.1, None)])
def test_the_item_at_a_time(time, item):
    """A time within an item finds it; between items there is none."""
    assert FIRST.item_at(time) == item


def test_the_share_of_tracing():
    """Tracing's seconds of the arm's wall time; nothing of an arm that took none."""
    trace = TraceFile("", 1, ((0.0, 0.0), (1.0, 1.0)), {}, overhead_s=0.4)
    assert replace(ARM, traces=(trace,)).overhead == 0.05
    assert replace(ARM, traces=(trace,), end=0.0).overhead == 0.0


def test_what_a_report_tells_of():
    """A part of a recording knows how many items it tells of, and when the last of them ended."""
    part = Recording(WorkerId(0, 1, 1), batches=FIRST.batches)
    assert (part.n_done, part.last_end) == (3, 5.0)
    assert (Recording(WorkerId(0, 1, 1)).n_done, Recording(WorkerId(0, 1, 1)).last_end) == (0, None)
