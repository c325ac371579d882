"""Where an exception was raised: known of each failure, also where one exception is raised again and again."""

from __future__ import annotations

import copy
import pickle
from array import array

import pytest

import parmagic
from parmagic.analyze.merge import merge
from parmagic.errors import Ended
from parmagic.model import words
from parmagic.model.plan import Arm
from parmagic.model.recording import Batch, Failure, Recording, WorkerId


def _raised(function, items, models, **options):
    """Run, and return the exception that it raised and its notes then."""
    with pytest.raises(ValueError, match="wrong") as caught:
        parmagic.run(function, items, models, once=True, chunk=1, **options)
    return caught.value, list(caught.value.__notes__)


def _raising(error, *items):
    def body(n):
        if n in items:
            raise error
        return n

    return body


def _first_failed():
    """Return the item and the worker of the newest run's first failure in time, as its table has them."""
    table = parmagic.last().items
    failed = table[table["error"].str.startswith("ValueError", na=False)]
    _, item = (failed["start_s"] + failed["wall_s"]).idxmin()
    return item, int(failed["rank"].loc[:, item].iloc[0])


@pytest.mark.parametrize("again", ["serial", "threads=2", "procs=2"])
@pytest.mark.parametrize("model", ["threads=2", "procs=2"])
def test_one_exception_at_two_items_and_in_a_later_run(model, again):
    """The note names the first item and worker that raised it; that of a later run, which has fewer items, stands alone."""
    error, notes = _raised(_raising(ValueError("wrong"), 3, 7), range(10), model)
    item, rank = _first_failed()
    assert item in {3, 7}
    assert notes == [f"in item {item} ({item}), worker {rank}, {model}"]
    assert parmagic.last()._study.timelines[0].failure == Failure(item, rank, error)

    error, notes = _raised(_raising(error, 1), range(2), again)
    rank = _first_failed()[1]
    assert notes == [f"in item 1 (1), worker {rank}, {again}"]
    assert _raised(_raising(error, 0), range(1), model)[1] == [f"in item 0 (0), worker {_first_failed()[1]}, {model}"]


@pytest.mark.parametrize("model", ["threads=1", "procs=1"])
def test_runs_within_runs_keep_their_notes(model):
    """What a run within an item noted stays before the item's own note; a later run replaces both."""

    def outer(n):
        return parmagic.run(_raising(ValueError("wrong"), 2), range(4), "serial", once=True).results if n else n

    error, notes = _raised(outer, range(2), model)
    assert notes == ["in item 2 (2), worker 0, serial", f"in item 1 (1), worker 0, {model}"]
    assert _raised(_raising(error, 0), range(1), model)[1] == [f"in item 0 (0), worker 0, {model}"]


@pytest.mark.parametrize("model", ["threads=2", "procs=2"])
def test_failures_that_are_not_raised_leave_no_note(model):
    """With --keep-going one exception fails items of two arms, each with its own record, and nothing is noted on it."""
    error = ValueError("wrong")
    run = parmagic.run(_raising(error, 3, 7), range(10), f"serial {model}", once=True, keep_going=True)
    table = run.items["error"]
    assert table[table.notna()].index.tolist() == [("serial", 3), ("serial", 7), (model, 3), (model, 7)]
    assert run.error is None
    assert vars(error) == {}


@pytest.mark.parametrize("model", ["serial", "threads=1", "procs=1"])
def test_nothing_but_the_note_is_set(model):
    """An exception that was raised has the user's own attributes and notes, and our note: a text to all who copy it or pickle it."""
    own = ValueError("wrong")
    own.add_note("my own")
    own.mine = 1
    error, _ = _raised(_raising(own, 0), range(1), model)
    note = f"in item 0 (0), worker 0, {model}"
    assert vars(error) == {"__notes__": ["my own", note], "mine": 1}
    for other in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert other.__notes__ == ["my own", note]
        assert {type(each) for each in other.__notes__} == {str}


def test_advice_is_given_once(ip):
    """Where one NameError is raised by two cells, the advice on it stands in its notes once."""
    ip("fault = None")
    cell = "%%parallel threads=1 -q --once for n in range(2)\nglobal fault\ntry:\n    if fault:\n        raise fault\n    nowhere\nexcept NameError as error:\n    fault = error\n    raise"
    first = [*ip.fails(cell).__notes__]
    assert ip.fails(cell).__notes__ == first


def test_a_note_is_added_once():
    """A note that an exception has is not added again; that it can be read there is told all the same."""
    error = ValueError()
    assert [words.add_note(error, text) for text in ("a", "b", "a")] == [True] * 3
    assert error.__notes__ == ["a", "b"]


def test_the_first_failure_in_time():
    """One exception at items 3 and 7 of two workers: the failure is the one that ended first; an item cut off by the end is none."""
    error = ValueError("wrong")

    def part(rank, item, end, raised):
        batch = Batch(item, array("d", [0.0]), array("d", [end]), [None], {item: raised})
        return Recording(WorkerId(rank, 1, 1), batches=(batch,))

    parts = [part(0, 3, 2.0, error), part(1, 7, 1.0, error), part(2, 5, 0.5, Ended())]
    timeline = merge(Arm.named("threads", 3), 0.0, 3.0, 8, parts, {})
    assert timeline.error is error
    assert timeline.failure == Failure(7, 1, error)
    stopped = merge(Arm.named("threads", 3), 0.0, 3.0, 8, parts, {}, error=KeyboardInterrupt())
    assert stopped.failure is None
