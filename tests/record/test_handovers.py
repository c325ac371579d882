"""Single waits for others as workers have them: who had the thing, who let go of it, when and where."""

from __future__ import annotations

import multiprocessing
import queue
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

import parmagic
from parmagic.record import hooks
from parmagic.result import study

pytestmark = pytest.mark.skipif(bool(hooks.why_inferred()), reason=f"waits are inferred here: {hooks.why_inferred()}")

MOST = 1024


def waits(body, workers=2, model="threads"):
    """Return the single waits of a run in which each worker has one item, the longest first, the run, and the items by rank."""
    gate = threading.Barrier(workers)

    def task(n):
        if model == "threads":
            gate.wait(30)  # else a worker may have two of them
        body(n)
        return parmagic.current_worker().rank

    found = parmagic.run(task, range(workers), f"{model}={workers}", once=True, trace="off", chunk=1, timeout=60)
    known = study(found)
    items = {rank: item for item, rank in enumerate(found.results)}
    told = [replace(each, thing=each.thing.removeprefix("body.")) for each in known.arrows(known.timelines[0])]
    return [each for each in told if each.thing != "gate"], found, items


def line_of(text):
    """Return the place of the line of this file that has a text."""
    lines = Path(__file__).read_text().splitlines()
    number = next(number for number, line in enumerate(lines, 1) if text in line and "line_of" not in line)
    return f"test_handovers.py:{number}"


def who(arrow, items):
    """Return the items of who waited, who had it, who let go."""
    return [lane and items[lane.worker.rank] for lane in (arrow.waiter, arrow.blocker, arrow.waker)]


def test_who_had_it_is_not_who_let_go():
    """Two wait for a lock that one has: the second of them is let go by the first, and had begun to wait for the one."""
    lock, has, come = threading.Lock(), threading.Event(), [threading.Event() for _ in range(3)]

    def body(n):
        come[n].set()
        if n == 0:
            lock.acquire()
            has.set()
            assert come[1].wait(30)
            assert come[2].wait(30)
            time.sleep(0.3)
            lock.release()  # the one
        else:
            assert has.wait(30)
            with lock:  # the others
                time.sleep(0.05)

    found, run, items = waits(body, 3)
    first, second = sorted((arrow for arrow in found if arrow.thing == "lock"), key=lambda arrow: arrow.end)
    assert who(first, items)[1:] == [0, 0]
    assert who(second, items)[1:] == [0, items[first.waiter.worker.rank]]
    assert (first.waited, first.woke) == (line_of("# the others"), line_of("# the one"))
    assert (second.waited, second.woke) == (line_of("# the others"), line_of("# the others"))
    assert all(arrow.begin < arrow.woken <= arrow.end for arrow in (first, second))
    assert second.end - first.end > 0.04  # the first was asleep in between
    total = run.handoffs.loc[[("threads=3", "body.lock")]]["total_s"].sum()
    assert total == pytest.approx(sum(arrow.end - arrow.begin for arrow in (first, second)), abs=0.02)


def test_who_came():
    """An event, a queue: nobody has these; who sets the one, or puts into the other, ends the wait."""
    event, jobs = threading.Event(), queue.Queue()

    def body(n):
        if n:
            time.sleep(0.3)
            event.set()  # it is set
            time.sleep(0.3)
            jobs.put(1)  # it is put
        else:
            event.wait(30)
            jobs.get(timeout=30)

    found, _, items = waits(body)
    told = {arrow.thing: arrow for arrow in reversed(found)}
    assert {name: (who(told[name], items), told[name].woke) for name in ("event", "jobs")} == {
        "event": ([0, None, 1], line_of("# it is set")),
        "jobs": ([0, None, 1], line_of("# it is put")),
    }


def test_what_was_given_up():
    """Who waits in vain was blocked by somebody, and is let go by nobody."""
    lock, has, done = threading.Lock(), threading.Event(), threading.Event()

    def body(n):
        if n:
            has.wait(30)
            lock.acquire(timeout=0.05)
            done.set()
        else:
            with lock:
                has.set()
                done.wait(30)

    found, _, items = waits(body)
    (arrow,) = [each for each in found if each.thing == "lock"]
    assert (who(arrow, items), arrow.got, arrow.source) == ([1, 0, None], False, None)


def test_the_end_of_a_thread():
    """Who joins a thread is let go by its end."""

    def body(_):
        thread = threading.Thread(target=time.sleep, args=(0.05,), name="helper")
        thread.start()
        thread.join()

    found, _, _ = waits(body, 1)
    arrow = next(each for each in found if each.end - each.begin > 0.03)
    assert arrow.source is not None
    assert arrow.source.child is not None
    assert arrow.source.child.name == "helper"


def test_between_processes():
    """Of a lock of multiprocessing's, the rank is known of who had it, and of who let go."""
    context = multiprocessing.get_context("fork")
    lock, has = context.Lock(), context.Event()

    def body(n):
        if n:
            has.wait(30)
            with lock:
                pass
        else:
            with lock:
                has.set()
                time.sleep(0.1)

    found, _, items = waits(body, model="procs")
    arrow = next(each for each in found if each.thing == "lock")
    assert who(arrow, items) == [1, 0, 0]
    assert 0.05 < arrow.end - arrow.begin < 5


def test_the_longest_are_kept():
    """There may be any number of waits: some are kept, and how many more there were."""
    ping, pong = queue.SimpleQueue(), queue.SimpleQueue()

    def body(n):
        for place in range(3000):
            if n:
                ping.put(place)
                pong.get()
            else:
                ping.get()
                if place == 1500:
                    time.sleep(0.3)
                pong.put(place)

    found, run, _ = waits(body)
    mine = [lane.synced for lane in study(run).timelines[0].lanes]
    assert [len(synced.handovers) for synced in mine] == [min(MOST, len(synced.handovers) + synced.n_shorter) for synced in mine]
    assert max(len(synced.handovers) for synced in mine) == MOST
    assert sum(len(synced.handovers) + synced.n_shorter for synced in mine) == run.handoffs["n"].sum()
    assert found[0].end - found[0].begin > 0.25


def test_nobody_waits():
    """Who never waits for others has nothing to tell."""
    lock = threading.Lock()

    def body(_):
        for _ in range(100):
            with lock:
                pass

    found, run, _ = waits(body, 1)
    assert found == []
    assert run.sync.loc[("threads=1", "body.lock"), "n"] == 100
