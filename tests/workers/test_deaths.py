"""What a crew does about a death, a refusal or a message that cannot be read: every row of the table, without processes."""

from __future__ import annotations

import errno
import signal
from typing import get_args

import pytest

from parmagic.errors import ItemTimeout, LimitReached, NotShippable, WorkerDied
from parmagic.record.board import NOTHING, loading
from parmagic.workers.endings import LOST
from parmagic.workers.processes.deaths import (
    Abort,
    Action,
    BodyUnreadable,
    Died,
    Dismiss,
    Distrusted,
    Event,
    Exhausted,
    Fail,
    HungUp,
    Ignore,
    Kill,
    Note,
    Refused,
    Replace,
    ResultUnreadable,
    State,
    Stop,
    TryAgain,
    decide,
)


def _named(actions):
    """Return actions with their names: as tuples alone, ``Stop()`` and ``Kill()`` are equal."""
    return [(type(action).__name__, *action) for action in actions]


def _state(**known):
    """Return worker 1 of 2 in the middle of its claim, items 3 to 8 of 20: it has reported 3 and 4, and is on 5."""
    usual = {
        "rank": 1, "workers": 2, "n_items": 20, "share": "common", "keep_going": False, "greeted": True, "all_greeted": True, "done": False,
        "ended": True, "fault": "", "mark": 5, "had": (range(3, 9),), "claimed_until": 9, "reported": 5,
    }  # fmt: skip
    return State(**{**usual, **known})


DIED = Died(77, -signal.SIGKILL)
KILLED = "Worker 1 (process 77) was killed by SIGKILL {}; most often the system ran out of memory."
IN_ITEM, BETWEEN, LAST, FIRST = (KILLED.format(when) for when in ("in item 5", "between two items", "after its last item", "before its first item"))
OTHERS = (range(6, 9),)
"""What worker 1 had claimed behind item 5."""

ALL_RUN = {"mark": NOTHING, "reported": 9}
"""It has reported all that it had claimed."""

AGAIN = f"{IN_ITEM.rstrip('.')}; the item was tried again."
LATE = {"overdue": 5, "allowed": 2.5}
"""It was ended, as its item was over its time."""

OVER = "took longer than --item-timeout 2.5 s"
TOO_LONG = f"Worker 1 (process 77) was ended in item 5, which {OVER}; the item was tried again."

DEATHS = {
    "in an item": ({}, (Stop(), Fail(5, IN_ITEM))),
    "in an item, and others are to go on": ({"keep_going": True}, (Replace(OTHERS), Fail(5, IN_ITEM))),
    "while it loaded its claim": ({"keep_going": True, "mark": loading(5)}, (Replace(OTHERS), Fail(5, IN_ITEM))),
    "before an earlier part of its claim was reported": (
        {"keep_going": True, "reported": 3}, (Replace((range(3, 5), *OTHERS)), Fail(5, IN_ITEM)),
    ),
    "in what another one had left": (
        {"keep_going": True, "had": (range(2, 3), range(5, 7), range(15, 16)), "claimed_until": 16},
        (Replace((range(6, 7), range(15, 16))), Fail(5, IN_ITEM)),
    ),
    "in the last item of all": ({"keep_going": True, "n_items": 6, "had": (range(3, 6),), "claimed_until": 6}, (Replace(()), Fail(5, IN_ITEM))),
    "between two items": ({**ALL_RUN}, (Abort(WorkerDied, BETWEEN),)),
    "between two items, and others are to go on": ({**ALL_RUN, "keep_going": True}, (Replace(()), Note(BETWEEN))),
    "behind a claim that it had not begun": ({"mark": NOTHING, "keep_going": True}, (Replace((range(5, 9),)), Note(BETWEEN))),
    "behind its claim of the last items, which it had not begun": (
        {"mark": NOTHING, "n_items": 9, "keep_going": True}, (Replace((range(5, 9),)), Note(BETWEEN)),
    ),
    "behind its claim of the last items, and nobody is to go on": ({"mark": NOTHING, "n_items": 9}, (Abort(WorkerDied, BETWEEN),)),
    "behind the last item": ({**ALL_RUN, "n_items": 9}, (Note(LAST),)),
    "behind the last item, and others are to go on": ({**ALL_RUN, "n_items": 9, "keep_going": True}, (Note(LAST),)),
    "before its first item": ({"greeted": False, "mark": NOTHING, "had": ()}, (Abort(WorkerDied, FIRST),)),
    "before its first item, and others are to go on": ({"greeted": False, "keep_going": True}, (Abort(WorkerDied, FIRST),)),
    "behind its last word": ({"done": True}, ()),
    "in a claim that was fixed": ({"share": "fixed"}, (Stop(), Fail(5, IN_ITEM))),
    "in a claim that was fixed, and others are to go on": ({"share": "fixed", "keep_going": True}, (Stop(), Fail(5, IN_ITEM))),
    "between two items of a fixed claim": ({"share": "fixed", "mark": NOTHING, "keep_going": True}, (Abort(WorkerDied, BETWEEN),)),
    "behind its fixed claims": ({"share": "fixed", **ALL_RUN}, (Note(LAST),)),
    "in an item of its own": ({"share": "own", "reported": -1}, (Stop(), Fail(1, IN_ITEM.replace("item 5", "item 1")))),
    "in an item of its own, and others are to go on": (
        {"share": "own", "reported": -1, "keep_going": True}, (Fail(1, IN_ITEM.replace("item 5", "item 1")),),
    ),
    "while others wait for one that has not come": (
        {"share": "own", "reported": -1, "all_greeted": False}, (Stop(), Dismiss(), Fail(1, IN_ITEM.replace("item 5", "item 1"))),
    ),
    "while others wait for one that has not come, and are to go on": (
        {"share": "own", "reported": -1, "all_greeted": False, "keep_going": True}, (Dismiss(), Fail(1, IN_ITEM.replace("item 5", "item 1"))),
    ),
    "in an item that may be tried again": ({"retry": 1}, (Replace((range(5, 6), *OTHERS), {5: 1}), TryAgain(5, AGAIN))),
    "in an item that was tried again": ({"retry": 1, "tries": 2}, (Stop(), Fail(5, IN_ITEM))),
    "at its second try of three, in a fixed claim, and others are to go on": (
        {"retry": 2, "tries": 2, "share": "fixed", "keep_going": True}, (Replace((range(5, 6), *OTHERS), {5: 2}), TryAgain(5, AGAIN)),
    ),
    "in an item of its own that may be tried again": (
        {"retry": 1, "share": "own", "reported": -1}, (Replace((range(1, 2),), {1: 1}), TryAgain(1, AGAIN.replace("item 5", "item 1"))),
    ),
    "as its item was over its time": (LATE, (Stop(), Fail(5, OVER, ItemTimeout))),
    "as its item was over its time, and others are to go on": ({**LATE, "keep_going": True}, (Replace(OTHERS), Fail(5, OVER, ItemTimeout))),
    "as its item was over its time, and may be tried again": (
        {**LATE, "retry": 1}, (Replace((range(5, 6), *OTHERS), {5: 1}), TryAgain(5, TOO_LONG)),
    ),
    "as the item before was over its time, which ended in the last moment": ({**LATE, "overdue": 4}, (Replace((range(5, 6), *OTHERS)),)),
    "as its last item was over its time, which ended in the last moment": ({**LATE, **ALL_RUN, "overdue": 8, "n_items": 9}, ()),
    "as its last item but those that nobody has was over its time": ({**LATE, **ALL_RUN, "overdue": 8}, (Replace(()),)),
    "behind its own item": ({"share": "own", "reported": 2}, (Note(LAST),)),
}  # fmt: skip


@pytest.mark.parametrize(("known", "actions"), DEATHS.values(), ids=DEATHS)
def test_a_death(known, actions):
    """Where a worker is killed decides what fails, who takes its place with what, and whether the others go on."""
    assert _named(decide(_state(**known), DIED)) == _named(actions)


WAYS = {
    "an exit": (3, "", "ended with exit code 3 in item 5."),
    "an exit that looks well": (0, "", "ended with exit code 0 in item 5 (did the body call os._exit?)."),
    "its way home was closed": (LOST, "", "ended in item 5: its way to the notebook was closed (did the body close descriptors that it had not opened?)."),
    "a crash": (-signal.SIGSEGV, "", "was killed by SIGSEGV in item 5; a C extension crashed."),
    "we have ended it": (
        -signal.SIGKILL, "no sense",
        "was ended in item 5, as what it sent cannot be read: no sense (does the body write to descriptors that it has not opened?).",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("code", "fault", "words"), WAYS.values(), ids=WAYS)
def test_how_it_died_is_told(code, fault, words):
    """However it ended, the same is done about it; the words differ."""
    assert _named(decide(_state(fault=fault), Died(77, code))) == _named((Stop(), Fail(5, f"Worker 1 (process 77) {words}")))


ALIVE = {"ended": False}
INSTEAD = "Return what is in it (a list, an array, a number), or use threads."
EVENTS = {
    "no process for it": (
        ALIVE, Refused(errno.EMFILE, "Too many open files"),
        (Abort(
            WorkerDied,
            "Worker 1 of 2 could not be started: Too many open files: it may have no more open files (ulimit -n). Take fewer workers, or close files.",
        ),),
    ),
    "no process for it, and nobody knows why": (
        ALIVE, Refused(errno.EPERM, "Not permitted"), (Abort(WorkerDied, "Worker 1 of 2 could not be started: Not permitted."),),
    ),
    "its way to us is closed": (ALIVE, HungUp(), (Ignore(),)),
    "what it sent cannot be right": (ALIVE, Distrusted("no sense"), (Ignore("no sense"), Kill())),
    "the same, of one that has ended": ({}, Distrusted("no sense"), (Ignore("no sense"),)),
    "a limit": (ALIVE, Exhausted("There is no room."), (Abort(LimitReached, "There is no room."),)),
    "a body that cannot be read": (
        ALIVE, BodyUnreadable("No module named 'mine'."),
        (Abort(
            NotShippable,
            "A worker process cannot read the body: No module named 'mine'. Is a module missing, or does it live only in the notebook?",
        ),),
    ),
    "a result that cannot be read": (
        ALIVE, ResultUnreadable("ValueError: no"), (Abort(NotShippable, f"A result of worker 1 cannot be read here (ValueError: no). {INSTEAD}"),),
    ),
}  # fmt: skip


@pytest.mark.parametrize("keep_going", [False, True])
@pytest.mark.parametrize(("known", "event", "actions"), EVENTS.values(), ids=EVENTS)
def test_other_events(known, event, actions, keep_going):
    """What comes before a death, or instead of one; ``--keep-going`` is about deaths alone."""
    assert _named(decide(_state(**known, keep_going=keep_going), event)) == _named(actions)


def test_the_cause_goes_with_it():
    """Where an error was caught here, the one that ends the arm is raised from it."""
    cause = OSError(errno.EMFILE, "no more")
    for event in (Exhausted("full", cause), ResultUnreadable("no", cause)):
        (action,) = decide(_state(), event)
        assert isinstance(action, Abort)
        assert action.cause is cause


def test_every_event_and_every_action_is_in_the_table():
    """Each kind of either stands in a row above."""
    assert {type(event) for event in (DIED, *(event for _, event, _ in EVENTS.values()))} == set(get_args(Event))
    done = [actions for _, actions in DEATHS.values()] + [actions for _, _, actions in EVENTS.values()]
    assert {type(action) for actions in done for action in actions} == set(get_args(Action))
