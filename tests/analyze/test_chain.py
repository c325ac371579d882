"""The chain that made the last worker late: who had what it waited for, where, and what that one waited for in its turn."""

from __future__ import annotations

from dataclasses import replace

from stories import run_of

from parmagic.analyze.chain import chain, late
from parmagic.model.plan import Arm
from parmagic.model.taken import Handoff, Synced, Taken

CELL = "/tmp/ipykernel_1/1.py"


def arm(*states, handoffs=(), taken=()):
    """Return an arm of threads with these states each; ``handoffs`` and ``taken`` are by rank."""
    made = run_of({Arm.named("threads", len(states)): [list(each) for each in states]}, measured=True).timelines[0]
    handoffs, taken = dict(handoffs), dict(taken)
    synced = [Synced(tuple(taken.get(rank, ())), tuple(handoffs.get(rank, ()))) for rank in range(len(states))]
    lanes = [replace(lane, synced=synced[lane.worker.rank]) for lane in made.lanes]
    return replace(made, lanes=tuple(lanes))


def waited(blocker, seconds, name="lock", thing="lock", at=7):
    """Return waits of so many seconds in all."""
    return Handoff(1, "", blocker, 0, ("util.py", 3), ("util.py", at), 2, seconds, seconds, name=name, thing=thing)


def held(blocked):
    """Return what one did with the lock that it held for a second."""
    return Taken(1, "", "", 1, 0, 0.0, 0.0, 1.0, 1.0, blocked, thing="lock")


SHORT, LONG = [("running", 1.0)], [("running", 0.4), ("lock_wait", 1.2), ("running", 0.4)]


def test_who_had_it():
    """The share is of the late worker's time; who held it asleep is told so."""
    late_one = arm(SHORT, LONG, handoffs={1: [waited(0, 1.2)]}, taken={0: [held(0.9)]})
    (finding,) = late(late_one)
    assert str(finding.text) == (
        "threads=2: worker 1 ended last: 60% of its time it waited for `lock` (util.py:3), which worker 0 held at util.py:7 while it was "
        "asleep, in I/O, or waiting."
    )
    assert finding.evidence == {"rank": 1, "share": 0.6, "links": 1}
    (finding,) = late(arm(SHORT, LONG, handoffs={1: [waited(0, 1.2)]}, taken={0: [held(0.1)]}))
    assert str(finding.text).endswith("which worker 0 held at util.py:7.")
    assert "`lock`" not in finding.text.public
    assert "a lock (util.py:3)" in finding.text.public


def test_further_links():
    """Who had it may itself have waited for another; nobody is told twice, and what is not much ends it."""
    first, second = [("lock_wait", 0.8), ("running", 0.4)], [("running", 1.0)]
    handoffs = {2: [waited(0, 1.2)], 0: [waited(1, 0.8, "other", "queue", 9), waited(2, 0.1)], 1: [waited(2, 0.1)]}
    (finding,) = late(arm(first, second, LONG, handoffs=handoffs))
    assert str(finding.text).endswith(
        "which worker 0 held at util.py:7; worker 0 itself waited 67% of its time for `other` (util.py:3), until worker 1 came at util.py:9."
    )
    handoffs[0] = [waited(1, 0.8)]
    (finding,) = late(arm(first, second, LONG, handoffs=handoffs))
    assert str(finding.text).endswith("which worker 0 held at util.py:7; worker 0 itself waited 67% of its time for it, behind worker 1.")
    handoffs[1] = [waited(2, 0.9)]
    circle = arm(first, second, LONG, handoffs=handoffs)
    assert [link.waiter for link in chain(circle, {lane.worker.rank: lane for lane in circle.lanes}, 2)] == [2, 0, 1]


def test_what_is_none():
    """Where nobody is late, or waited for nobody, or for itself, or it is not known for whom."""
    assert not [*late(arm(LONG, LONG, handoffs={1: [waited(0, 1.2)]}))]
    assert not [*late(arm(SHORT, LONG))]
    assert not [*late(arm(SHORT, LONG, handoffs={1: [waited(1, 1.2)]}))]
    assert not [*late(arm(SHORT, LONG, handoffs={1: [waited(-1, 1.2)]}))]
    assert not [*late(arm(SHORT, LONG, handoffs={1: [waited(0, 0.3)]}))]
    assert not [*late(arm(LONG, handoffs={0: [waited(1, 1.2)]}))]


def test_waits_at_one_place_add_up():
    """Several rows of one thing, blocker and place are one link."""
    (finding,) = late(arm(SHORT, LONG, handoffs={1: [waited(0, 0.5), waited(0, 0.5), waited(0, 0.6, at=9)]}))
    assert finding.evidence["share"] == 0.5
