"""What notes say of queues, locks, semaphores and barriers that cost much: who was slow, what that one did, and what helps."""

from __future__ import annotations

import multiprocessing
import queue
import threading
import time
from dataclasses import replace

import pytest
from stories import run_of

import parmagic
from parmagic.analyze.bottlenecks import RULE, bottlenecks, is_told
from parmagic.model.kinds import WAIT_KINDS
from parmagic.model.plan import Arm
from parmagic.model.private import Private, public
from parmagic.model.taken import Synced, Taken
from parmagic.model.waits import WAIT_LAYOUT, Total, Waits
from parmagic.record import hooks
from parmagic.result import study

measured = pytest.mark.skipif(bool(hooks.why_inferred()), reason=f"waits are inferred here: {hooks.why_inferred()}")
MODELS = ["threads", "procs"]


def notes(body, count, model="threads"):
    """Return what a run of one item for each worker says of its bottlenecks, and the run."""
    way = {"start_method": "forkserver"} if model == "procs" else {}
    found = parmagic.run(body, range(count), f"{model}={count}", once=True, trace="off", chunk=1, timeout=60, **way)
    return [str(each.text) for each in study(found).findings if each.rule == RULE], found


def kinds(model):
    """Return where locks and queues of a model's workers come from."""
    return (threading, queue) if model == "threads" else (multiprocessing.get_context("forkserver"),) * 2


def line(body, number):
    """Return a line of a body, as notes write it."""
    return f"test_bottlenecks.py:{body.__code__.co_firstlineno + number}"


@measured
@pytest.mark.parametrize("model", MODELS)
def test_a_slow_consumer(model):
    """The queue is full; who puts waits, and who gets sleeps meanwhile: a longer one would be full as well. The verdict leaves it at that."""
    jobs = kinds(model)[1].Queue(3)

    def body(n):
        for each in range(40):
            if n:
                jobs.get()
                time.sleep(0.01)
            else:
                jobs.put(each)

    (note,), found = notes(body, 2, model)
    size = " of 3" if model == "threads" else ""
    assert note.startswith(f"{model}=2: `jobs` (Queue{size}): 40 put, 40 got, full for ")
    assert "% of the time. The consumer is the bottleneck: worker " in note
    assert f" in put ({line(body, 6)}) while worker " in note
    assert note.endswith(f" slept at {line(body, 4)}. Another consumer helps; a longer queue does not.")
    row = found.sync.loc[(f"{model}=2", "jobs")]
    assert row["full_s"] > 0.2
    assert row["empty_s"] < row["full_s"]
    assert "never waits" not in found.verdict
    assert "let more do that" not in found.verdict


@measured
@pytest.mark.parametrize("model", MODELS)
def test_slow_producers(model):
    """Who gets waits, as those that put wait for something else."""
    jobs, slow = kinds(model)[1].Queue(), kinds(model)[0].Event()

    def body(n):
        for each in range(20):
            if n:
                slow.wait(0.02)
                jobs.put(each)
            else:
                jobs.get()
                jobs.get()

    (note,), found = notes(body, 3, model)
    assert note.startswith(f"{model}=3: `jobs` (Queue): 40 put, 40 got, empty for ")
    assert f" in get ({line(body, 6)})" in note or f" in get ({line(body, 7)})" in note
    assert "The producers are the bottleneck" in note
    assert f" waited for `slow` at {line(body, 3)}. Another producer would wait there, too, and a longer queue does not help." in note
    assert found.sync.loc[(f"{model}=3", "jobs"), "empty_s"] > 0.2


@measured
def test_bursts():
    """Full while much comes, and empty while nothing does: that a longer queue evens out."""
    jobs = queue.Queue(2)

    def body(n):
        for each in range(45):
            if n:
                jobs.get()
                time.sleep(0.01)
            else:
                jobs.put(each)
                if each % 15 == 14:
                    time.sleep(0.3)

    (note,), _ = notes(body, 2)
    assert note.startswith("threads=2: `jobs` (Queue of 2): 45 put, 45 got, full for ")
    assert note.endswith(": a longer queue helps.")
    assert "of the time, and empty for" in note


@measured
@pytest.mark.parametrize("model", MODELS)
def test_a_lock_held_asleep(model):
    """Who had it, where, and asleep; the verdict does not say the same."""
    gate, lock = kinds(model)[0].Barrier(3), kinds(model)[0].Lock()

    def body(_):
        gate.wait(60)
        for _ in range(8):
            with lock:
                time.sleep(0.03)

    said, found = notes(body, 3, model)
    (note,) = (each for each in said if "`lock`" in each)
    assert note.startswith(f"{model}=3: `lock` was held for ")
    assert f" while asleep ({line(body, 4)}), and worker " in note or f"({line(body, 4)}) for " in note
    assert note.endswith(f" for it ({line(body, 3)}). Sleep outside of it.")
    assert "Hold the lock for less of the body" not in found.verdict


@measured
def test_a_lock_held_in_io_and_by_threads_of_bodies():
    """What was done with it is named; a thread below a worker goes by its name."""
    lock, other, gate = threading.Lock(), threading.Event(), threading.Barrier(2)

    def task():
        gate.wait(60)  # one that is born late finds the lock free
        for _ in range(10):
            with lock:
                other.wait(0.02)

    def body(_):
        threads = [threading.Thread(target=task, name=f"hand {n}") for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    (note,), _ = notes(body, 1)
    assert "worker 0 › hand " in note
    assert "while it waited for `task.other`" in note
    assert note.endswith("Wait for that outside of it.")


@measured
@pytest.mark.parametrize("model", MODELS)
def test_a_semaphore_that_limits(model):
    """All of it is in use while others wait."""
    gate, semaphore = kinds(model)[0].Barrier(6), kinds(model)[0].Semaphore(2)

    def body(_):
        gate.wait(60)
        for _ in range(10):
            with semaphore:
                time.sleep(0.02)

    (note,) = (each for each in notes(body, 6, model)[0] if "`semaphore`" in each)
    size = " of 2" if model == "threads" else ""
    assert note.startswith(f"{model}=6: `semaphore` (Semaphore{size}): all of it was in use, and somebody waited, for ")
    assert note.endswith(f" ({line(body, 3)}). A higher one would help, if what it guards allows.")


@measured
def test_a_semaphore_that_is_a_signal():
    """One waits until the other lets go of what it never took: a higher one would be wrong."""
    ready = threading.Semaphore(0)

    def body(n):
        if n:
            ready.acquire()
        else:
            time.sleep(0.1)
            ready.release()

    assert notes(body, 2)[0] == []


@measured
@pytest.mark.parametrize("model", MODELS)
def test_a_late_worker_at_a_barrier(model):
    """Who comes last is named, and what it did meanwhile."""
    gate, barrier = kinds(model)[0].Barrier(4), kinds(model)[0].Barrier(4)

    def body(n):
        gate.wait(60)
        for _ in range(3):
            if n == 3:
                time.sleep(0.2)
            barrier.wait(60)

    said, found = notes(body, 4, model)
    (note,) = (each for each in said if "`barrier`" in each)
    size = " of 4" if model == "threads" else ""
    assert note.startswith(f"{model}=4: `barrier` (Barrier{size}): worker ")
    assert f" ({line(body, 5)}) in 3 waits while worker " in note
    assert note.endswith(f" slept at {line(body, 4)}. Share the work out evenly, or wait there less often.")
    assert "All wait at a barrier" not in found.verdict


@measured
@pytest.mark.parametrize("model", MODELS)
def test_what_costs_little(model):
    """Each waits at times, for little of its time: nothing is said."""
    lock, jobs = kinds(model)[0].Lock(), kinds(model)[1].Queue(1)

    def body(n):
        for each in range(3):
            with lock:
                time.sleep(0.001)
            time.sleep(0.1)
            if n:
                jobs.get()
            else:
                jobs.put(each)
        time.sleep(0.4)

    assert notes(body, 2, model)[0] == []


SECOND = 1_000_000_000


def lane_of(lane, *used, waits=(), totals=()):
    """Return a worker's lane with what it used, its waits as (begin, end, object, kind, line) in seconds behind the arm's begin."""
    packed = b"".join(
        WAIT_LAYOUT.pack(round((1000 + begin) * SECOND), round((1000 + end) * SECOND), thing, WAIT_KINDS.index(kind), -1, at, 0, 0)
        for begin, end, thing, kind, at in waits
    )
    return replace(lane, synced=Synced(used), waits=Waits(packed), totals=totals)


def used(method, n, wait=0.0, hold=0.0, thing="queue", of="Queue", blocked=0.0):
    """Return what one did with a thing in a method."""
    return Taken(7, of, method, n, int(wait > 0), wait, wait, hold, hold, blocked, name="q", thing=thing)


def arm(one, other, model="threads"):
    """Return an arm of two that did so for two seconds."""
    return run_of({Arm.named(model, 2): [one, other]}, measured=True).timelines[0]


WAITS = Total("queue", 7, 4, 9, 1.5, 1.0, name="q", place="In[3]:4", thing="queue")


@pytest.mark.parametrize(("model", "helps"), [("threads", "no core is left for it, or no GIL."), ("procs", "Another consumer helps; a longer queue does not.")])
def test_a_consumer_that_computes(model, helps):
    """Under one GIL, another one would not help; in processes it does."""
    made = arm([("running", 0.5), ("lock_wait", 1.5)], [("running", 2.0)], model)
    one, other = made.lanes
    waiting = lane_of(one, used("put", 9, 1.5), waits=[(0.5, 2.0, 7, "queue", 4)], totals=(WAITS,))
    (note,) = bottlenecks(replace(made, lanes=(waiting, lane_of(other, used("get", 9)))))
    assert str(note.text).startswith(
        f"{model}=2: `q` (Queue): 9 put, 9 got, full for 75% of the time. "
        "The consumer is the bottleneck: worker 0 waited 1.5 s in put (line 4) while worker 1 was at work. "
    )
    assert str(note.text).endswith(helps)
    assert note.evidence == {"share": 0.75, "wait_s": 1.5}
    assert is_told("q", f"{model}=2", [note])
    assert not is_told("q", "serial", [note])
    assert not is_told("q2", f"{model}=2", [note])


def test_a_semaphore_before_a_gil():
    """Where those inside use up the GIL, more inside would gain nothing."""
    made = arm([("running", 1.0), ("lock_wait", 1.0)], [("running", 1.0), ("lock_wait", 1.0)])
    lanes = tuple(lane_of(each, used("acquire", 9, 1.0, 1.0, "semaphore", "Semaphore"), waits=[(1.0, 2.0, 7, "lock", 4)]) for each in made.lanes)
    assert [*bottlenecks(replace(made, lanes=lanes))] == []
    slept = arm([("sleep", 1.0), ("lock_wait", 1.0)], [("sleep", 1.0), ("lock_wait", 1.0)])
    lanes = tuple(replace(each, synced=lane.synced, waits=lane.waits) for each, lane in zip(slept.lanes, lanes, strict=True))
    assert len([*bottlenecks(replace(slept, lanes=lanes))]) == 1


def test_what_is_not_certain():
    """Who slept elsewhere as long as it held a lock while blocked may have done anything then."""
    made = arm([("running", 0.5), ("lock_wait", 1.5)], [("io_wait", 1.0), ("sleep", 1.0)])
    one, other = made.lanes
    totals = Total("sleep", 0, 8, 1, 1.0, 1.0, place="In[3]:8"), Total("file", 3, 9, 1, 1.0, 1.0, place="In[3]:9")
    held = used("", 1, 0.0, 1.0, "lock", "lock", blocked=1.0)
    waiting = lane_of(one, used("", 1, 1.5, 0.1, "lock", "lock"), waits=[(0.5, 2.0, 7, "lock", 4)], totals=(replace(WAITS, kind="lock"),))
    (note,) = bottlenecks(replace(made, lanes=(waiting, lane_of(other, held, totals=totals))))
    assert str(note.text) == (
        "threads=2: `q` was held for 55% of the time: worker 1 had it for 1 s while asleep, in I/O, or waiting, "
        "and worker 0 waited 1.5 s for it (line 4). Do that outside of it."
    )
    held = replace(held, blocked_s=0.3)
    assert [*bottlenecks(replace(made, lanes=(waiting, lane_of(other, held, totals=totals))))] == []


def test_names_stay_private():
    """In a file, a thing whose name may be a person's has none."""
    made = arm([("running", 0.5), ("lock_wait", 1.5)], [("running", 2.0)])
    one, other = made.lanes
    puts, gets = (replace(each, name=Private("locks['Ann']", "a lock")) for each in (used("put", 9, 1.5), used("get", 9)))
    lanes = lane_of(one, puts, waits=[(0.5, 2.0, 7, "queue", 4)]), lane_of(other, gets)
    (note,) = bottlenecks(replace(made, lanes=lanes))
    assert "Ann" in note.text
    assert "Ann" not in public(note.text)


def test_what_has_no_name():
    """What a library made is its own."""
    made = arm([("running", 0.5), ("lock_wait", 1.5)], [("running", 2.0)])
    one, other = made.lanes
    lanes = lane_of(one, replace(used("put", 9, 1.5), name=""), waits=[(0.5, 2.0, 7, "queue", 4)]), lane_of(other, replace(used("get", 9), name=""))
    assert [*bottlenecks(replace(made, lanes=lanes))] == []
