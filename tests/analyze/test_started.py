"""What a body starts itself counts: in the verdict, where workers wait for it, and in a note, where nobody does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from stories import child, run_of

from parmagic.analyze import started
from parmagic.analyze.merge import merge
from parmagic.errors import ItemTimeout
from parmagic.model.kinds import WAIT_KINDS
from parmagic.model.plan import Arm
from parmagic.model.recording import Child, Recording, WorkerId
from parmagic.model.timeline import Baseline
from parmagic.model.waits import WAIT_LAYOUT, Total, Waits

ARM = Arm.named("threads", 2)


def study(*children, waits=("lock", "thread"), serial_s=1.6, model=ARM):
    """Return a run of 1.6 s whose two workers each waited 1.2 s for one thing, beside what they had started."""
    made = run_of({model: [[("running", 0.2), ("lock_wait", 1.2), ("running", 0.2)]] * 2}, measured=True, serial_s=serial_s)
    kind, thing = waits
    total = Total(kind, 1 << 40, 3, 1, 1.2, 1.2, name="t1", thing=thing)
    arm = made.timelines[0]
    made.timelines = (replace(arm, lanes=tuple(replace(lane, totals=(total,)) for lane in arm.lanes), children=children),)
    return made


def test_what_it_did_is_the_reason():
    """Who waits for threads of its own is told what these did, and what to do."""
    text = study(child(0, 0.2, 1.4), child(1, 0.2, 1.4)).verdict
    assert text == (
        "No gain: threads=2 is the best at 1.00× of the serial speed, because its workers spent 75% of the time waiting for 2 threads that "
        "its body starts (sleep 100%). The body is parallel itself, so the serial run is, too: have it do one part of the work, and the line "
        "start workers."
    )


def test_threads_that_share_one_gil():
    """Where they wait for the GIL, more of them do not help."""
    text = study(child(0, 0.2, 1.4, state="gil_wait"), child(0, 0.2, 1.4, state="running")).verdict
    assert "2 threads that its body starts (GIL wait 50%)" in text or "(running 50%)" in text
    assert text.endswith("These share one GIL: let the body start processes, or do one part of the work itself, and have the line start workers.")


def test_threads_within_a_pool():
    """Who only hands on the work of others is not counted, unless there is nobody else."""
    hands = [child(0, 0.2, 1.4, f"Thread-{n} (_handle_tasks)", "idle") for n in range(3)]
    timeline = study(child(0, 0.2, 1.4, "Process-1", kind="process"), child(0, 0.2, 1.4, "Process-2", kind="process"), *hands).timelines[0]
    assert started.words(timeline) == "2 processes that its body starts (sleep 100%)"
    assert started.words(study(*hands).timelines[0]) == "3 threads that its body starts"
    both = study(child(0, 0.2, 1.4), child(0, 0.2, 1.4, "Process-1", kind="process")).timelines[0]
    assert started.words(both) == "1 thread and 1 process that its body starts (sleep 100%)"


@pytest.mark.parametrize(
    ("waits", "kind", "expected"),
    [(("lock", "thread"), "thread", (2.4, 0)), (("lock", "future"), "process", (2.4, 0)), (("lock", "lock"), "thread", (0, 0)),
     (("child", ""), "process", (0, 2.4)), (("child", ""), "thread", (0, 0))],
)  # fmt: skip
def test_which_waits_are_for_it(waits, kind, expected):
    """Waits for threads to end and for results are, and those for processes where there are some; any other lock is a lock."""
    assert started.waited_s(study(child(0, 0.2, 1.4, kind=kind), waits=waits).timelines[0]) == pytest.approx(expected)
    assert started.waited_s(study(waits=waits).timelines[0]) == (0, 0)


def test_little_is_known():
    """Of a process that was replaced by a program when it had just begun, its beginning is no reason."""
    short, long = (study(child(0, 0.2, end, "process 7", "sleep", "process"), waits=("child", "")) for end in (0.3, 1.5))
    assert started.words(short.timelines[0]) == "1 process that its body starts"
    assert started.words(long.timelines[0]) == "1 process that its body starts (sleep 100%)"


def test_an_estimate_has_it():
    """A serial run would wait for its own threads as well."""
    without, with_one = study(), study(child(0, 0.2, 1.4))
    for each in (without, with_one):
        each.baselines = {ARM.label: Baseline.estimated()}
    assert without.summary["serial_s"].iloc[0] == pytest.approx(0.8)
    assert with_one.summary["serial_s"].iloc[0] == pytest.approx(0.8 + 2.4)


def waiting_for_work(lane):
    """Return a lane whose last wait, for work, goes on at its end."""
    end = round(lane.child.end * 1e9)
    event = WAIT_LAYOUT.pack(end - 1_000_000, end, 0, WAIT_KINDS.index("work"), -1, 0, 0, 0)
    return replace(lane, waits=Waits(event))


def test_what_is_left_running():
    """It is named, unless it waits for work: at most three by name."""
    left = [child(0, 0.2, 1.6, f"Thread-{n} (load)", goes_on=True) for n in range(5)]
    (finding,) = started.left_running(study(*left).timelines[0])
    assert finding.text == (
        "threads=2: Thread-0 (load), Thread-1 (load), Thread-2 (load) and 2 more still ran when the last item had ended. "
        "Join them in the body, so that their work is measured."
    )
    (finding,) = started.left_running(study(left[0], *map(waiting_for_work, left[1:])).timelines[0])
    assert finding.text.startswith("threads=2: Thread-0 (load) still ran when the last item had ended. Join it in the body")
    assert not [*started.left_running(study(*map(waiting_for_work, left)).timelines[0])]
    assert not [*started.left_running(study(child(0, 0.2, 1.0)).timelines[0])]


@pytest.mark.parametrize("changes", [{"error": KeyboardInterrupt()}, {"item_errors": {0: ItemTimeout("took longer")}}])
def test_what_a_body_was_kept_from_waiting_for(changes):
    """A run, or an item, that was ended before its time may have been about to wait for it: no advice."""
    timeline = run_of({ARM: [[("running", 1.6)]] * 2}, **changes).timelines[0]
    assert not [*started.left_running(replace(timeline, children=(child(0, 0.2, 1.6, goes_on=True),)))]


def test_what_begins_behind_the_end_is_not_there():
    """A body that an interrupt did not end goes on and starts more, which is no part of the arm any more."""
    who = WorkerId(0, 1, 2, takes_items=False)
    parts = [Recording(WorkerId(0, 1, 1), children=tuple(Child(who, f"at {at}", "thread", at, at + 1.0) for at in (9.5, 10.5)))]
    assert [lane.child.name for lane in merge(ARM, 0.0, 10.0, 0, parts, {}).children] == ["at 9.5"]


def test_a_short_body_that_leaves_it_all():
    """There is nothing to be told of a body that only starts threads."""
    text = study(child(0, 0.2, 1.6, goes_on=True), serial_s=0.001).verdict
    assert text == (
        "Nothing to tell: the body took 1 ms, and what it started (Thread-1 (load)) went on behind it. "
        "Join it in the body, so that its work is measured."
    )
    assert study(child(0, 0.2, 1.0), serial_s=0.001).verdict.startswith("Too short to tell")
