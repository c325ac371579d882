"""The baseline's arithmetic, and what it is told it saw: hand-written timelines, no worker."""

from __future__ import annotations

import math
from array import array
from itertools import pairwise

import pytest

from parmagic.execute import baseline
from parmagic.execute.baseline import Parked, expected, sample, taken_from
from parmagic.model.plan import Arm
from parmagic.model.recording import Batch, Clocks, Samples, WorkerId
from parmagic.model.timeline import Lane, Timeline


def _timeline(*items, n_items=None, errors=None, error=None, kind="procs", made=()):
    """Return one worker that ran items of (number, begin, end); the value of each is its number."""
    batches = tuple(
        Batch(number, array("d", [begin]), array("d", [end]), [number], {k: e for k, e in (errors or {}).items() if k == number}, None,
              tuple({number} & set(made)))
        for number, begin, end in items
    )
    empty = array("d")
    lane = Lane(WorkerId(0, 1, 1), (), batches, Clocks(empty, empty, empty), Samples(empty, array("b")), None)
    end = max((end for _, _, end in items), default=1.0)
    return Timeline(Arm.named(kind, 1), 0.0, end + 1.0, len(items) if n_items is None else n_items, (lane,), error=error)


def test_a_serial_arm_is_the_baseline():
    """Serial seconds are from the first item's begin to the last one's end, gaps included."""
    serial = _timeline((0, 1.0, 2.0), (1, 3.0, 5.0), kind="serial")
    found = taken_from(serial, serial)
    assert (found.serial_s, found.how, found.results) == (4.0, "measured", {0: 0, 1: 1})


def test_all_items_ran():
    """Where every item ran, the baseline is measured, with its results."""
    parked = Parked(None, None, [])
    found = parked.judge(_timeline((0, 0.0, 1.0), (1, 1.0, 2.0)), _timeline((0, 0.0, 3.0), (1, 3.0, 6.0)), keep_going=False)
    assert (found.serial_s, found.how, found.results, parked.findings) == (6.0, "measured", {0: 0, 1: 1}, [])


@pytest.mark.parametrize(("keep_going", "how", "results"), [(True, "measured", {0: 0}), (False, "sampled", {0: 0})])
def test_an_item_failed(keep_going, how, results):
    """With --keep-going a failed item ran as well; without, the baseline ended there and is scaled."""
    failure = ValueError()
    serial = _timeline((0, 0.0, 3.0), (1, 3.0, 6.0), errors={1: failure}, error=failure)
    parked = Parked(None, None, [])
    found = parked.judge(_timeline((0, 0.0, 1.0), (1, 1.0, 3.0)), serial, keep_going=keep_going)
    assert (found.how, found.results) == (how, results)
    assert found.serial_s == pytest.approx(6.0 if keep_going else 3.0 * 3.0)
    assert bool(parked.findings) == (not keep_going)


def test_a_sample_is_scaled_and_noted():
    """Items that ran took twice as long serially; so would all, and the note says how many did."""
    parked = Parked(None, None, [])
    found = parked.judge(_timeline((0, 0.0, 1.0), (1, 1.0, 4.0)), _timeline((1, 0.0, 6.0), n_items=2), keep_going=False)
    assert (found.serial_s, found.how) == (8.0, "sampled")
    assert "sample of 1 of 2 items" in parked.findings[0].text


def test_items_that_made_something_are_none_like_others():
    """Two workers made a thing of 10 s each, a serial run makes it once: neither is in the ratio, 2 here, nor counted twice."""
    arm = _timeline((0, 0.0, 11.0), (1, 0.0, 11.0), (2, 11.0, 12.0), (3, 11.0, 12.0), made=[0, 1])
    found = baseline.scaled_to(arm, _timeline((0, 0.0, 12.0), (3, 12.0, 14.0), n_items=4, made=[0]))
    assert (found.serial_s, found.how) == (12.0 + 3 * 2.0, "sampled")
    assert baseline.scaled_to(arm, _timeline((0, 0.0, 12.0), n_items=4, made=[0])).how == "estimated"


def test_ranks_that_each_made_something_are_alike():
    """Where every item made its own on both sides, they are compared as they are."""
    arm = _timeline((0, 0.0, 3.0), (1, 0.0, 3.0), (2, 0.0, 3.0), made=[0, 1, 2])
    found = baseline.scaled_to(arm, _timeline((0, 0.0, 2.0), (1, 2.0, 4.0), n_items=3, made=[0, 1]))
    assert (found.serial_s, found.how) == (6.0, "sampled")


def test_nothing_ran():
    """Without a single common item there is an estimate, which is NaN where waits are not known."""
    parked = Parked(None, None, [])
    found = parked.judge(_timeline((0, 0.0, 1.0)), _timeline(n_items=1), keep_going=False)
    assert found.how == "estimated"
    assert found.serial_s is None  # the table makes it NaN, where the waits are not known
    assert parked.findings == []


def test_expected_takes_the_quickest_arm():
    """The guess for an item is from the arm whose items took least in all; arms of other sizes do not count."""
    slow, quick, other = _timeline((0, 0.0, 4.0), (1, 4.0, 5.0)), _timeline((0, 0.0, 1.0), (1, 1.0, 3.0)), _timeline((0, 0.0, 0.1))
    assert expected([slow, quick, other], 2) == [1.0, 2.0]


@pytest.mark.parametrize(("n", "limit"), [(10, 3.0), (1000, 17.0), (7, 6.9), (2, 0.001)])
def test_samples_fit_and_are_spread(n, limit):
    """A sample fits into the limit (at least one item), never repeats, and has no gap twice as wide as another."""
    numbers = [claim.start for claim in sample([1.0] * n, limit)]
    assert 1 <= len(numbers) <= max(1, limit)
    assert numbers == sorted(set(numbers))
    gaps = [b - a for a, b in pairwise(numbers)]
    assert not gaps or max(gaps) <= min(gaps) + 1


def test_items_that_never_ran_do_not_make_a_sample():
    """Unknown items count as nothing when it is asked what fits."""
    assert sample([1.0, math.nan, math.nan], 1.5) is None


def test_patience_is_for_the_longest_item():
    """The longest item of an arm is what a hanging baseline is given three times of; none is 0."""
    assert baseline.longest_item(_timeline((0, 0.0, 1.0), (1, 1.0, 3.5))) == 2.5
    assert baseline.longest_item(_timeline(n_items=3)) == 0.0
