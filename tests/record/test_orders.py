"""Locks that workers take in different orders: a note says so, though nothing happened; and none where nothing could."""

from __future__ import annotations

import functools
import multiprocessing
import threading
import time

import pytest

import parmagic
from parmagic.record import hooks

pytestmark = pytest.mark.skipif(bool(hooks.why_inferred()), reason=f"waits are inferred here: {hooks.why_inferred()}")


def notes(body, workers, items=None, model="threads"):
    """Return what a run notes on the order of locks, of one item for each worker: none begins before the one before has ended."""
    over = [threading.Event() for _ in range((items or workers) + 1)]
    over[0].set()
    all_here = threading.Barrier(workers)

    def in_turn(n):
        if items is None:
            all_here.wait(30)
            n = parmagic.current_worker().rank
        assert over[n].wait(30)
        try:
            body(n)
        finally:
            over[n + 1].set()

    found = parmagic.run(in_turn, range(items or workers), f"{model}={workers}", once=True, trace="off", chunk=1, timeout=60)
    return [str(each.text) for each in found._study.findings if each.rule == "lock_order"]


a, b, c, gate = (threading.Lock() for _ in range(4))
forks = [threading.Lock() for _ in range(5)]
inner = threading.RLock()
cond = threading.Condition()


def test_two_orders():
    """One worker takes A, then B, the other one B, then A: they could have met."""

    def body(n):
        if n:
            with b:
                name = "a"
                with a:  # back
                    return name
        else:
            with a:
                name = "b"
                with b:  # forth
                    return name

    (note,) = notes(body, 2)
    first = body.__code__.co_firstlineno
    places = {name: f"test_orders.py:{first + line}" for name, line in {"b1": 2, "a1": 4, "a": 7, "b": 9}.items()}
    assert note.startswith("Could deadlock, did not this time: worker 0 took `a` (")
    for said in (f"worker 0 took `a` ({places['a']}), then `b` ({places['b']})", f"worker 1 took `b` ({places['b1']}), then `a` ({places['a1']})"):
        assert said in note.replace("tests/record/", "").replace("record/", ""), note
    assert note.endswith(". Use one order.")


def test_a_dinner_that_went_well():
    """The naive dinner of five, one after another: the circle of five is told; where all take the lower one first, there is none."""

    def naive(n):
        with forks[n], forks[(n + 1) % 5]:
            pass

    def ordered(n):
        first, second = sorted((n, (n + 1) % 5))
        with forks[first], forks[second]:
            pass

    (note,) = notes(naive, 5)
    assert all(f"worker {n} took `forks[{n}]`" in note and f"then `forks[{(n + 1) % 5}]`" in note for n in range(5)), note
    assert note.count("took") == 5
    assert notes(ordered, 5) == []


def test_silent_behind_a_gate():
    """Who has to have a third lock for both never meets the other one; where one of them does it without, they may."""

    def gated(n):
        first, second = (a, b) if n else (b, a)
        with gate, first, second:
            pass

    def half(n):
        first, second = (a, b) if n else (b, a)
        if n:
            with gate, first, second:
                pass
        else:
            with first, second:
                pass

    assert notes(gated, 2) == []
    assert len(notes(half, 2)) == 1


def test_silent_in_one_thread():
    """One worker does both, one after the other."""

    def body(n):
        first, second = (a, b) if n else (b, a)
        with first, second:
            pass

    assert notes(body, 1, items=2) == []


def test_silent_where_it_would_not_wait_for_ever():
    """Who tries, or waits for a while only, does not end up in a deadlock."""

    def body(n):
        first, second = (a, b) if n else (b, a)
        with first:
            if second.acquire(timeout=5) if n else second.acquire(blocking=False):
                second.release()

    assert notes(body, 2) == []


def test_an_rlock_taken_again():
    """It is no step to take a lock that one has."""

    def body(_):
        with inner, a, inner:
            pass

    assert notes(body, 2) == []


def started(*functions, at_once):
    """Run these in threads; one after another, or so that all are there before the first one begins."""
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
        if not at_once:
            thread.join()
    for thread in threads:
        thread.join()


def test_starts_and_joins():
    """Threads of a body are told where they could meet, and not where one is started behind the end of the other."""
    here, turn = threading.Barrier(2), threading.Event()

    def forth(meet):
        if meet:
            here.wait(30)
        with a, b:
            pass
        turn.set()

    def back(meet):
        if meet:
            here.wait(30)
            assert turn.wait(30)
        with b, a:
            pass

    def body(at_once):
        started(lambda: forth(at_once), lambda: back(at_once), at_once=at_once)

    def own(_):
        forth(False)
        started(lambda: back(False), at_once=False)
        forth(False)

    run = [parmagic.run(each, [argument], "threads=1", once=True, trace="off", timeout=60) for each, argument in ((body, False), (own, 0), (body, True))]
    found = [[each.text for each in one._study.findings if each.rule == "lock_order"] for one in run]
    assert found[:2] == [[], []]
    (note,) = found[2]
    assert "worker 0 › Thread-" in note


def test_locks_that_come_and_go():
    """Locks of an item's own may come to each other's addresses, and are not taken for each other; nor does their number end it."""

    def body(n):
        for _ in range(3000):
            first, second = threading.Lock(), threading.Lock()
            if n:
                first, second = second, first
            with first, second:
                pass
        first, second = (a, b) if n else (b, a)
        with first, second:
            pass

    (note,) = notes(body, 2)
    assert note.count("took") == 2
    assert "`a`" in note


def test_a_condition_waited_for():
    """Who waits for a condition while it has a lock takes the condition behind that."""
    def body(n):
        if n:
            with cond, a:
                pass
        else:
            with cond, a:
                cond.wait(0.01)

    (note,) = notes(body, 2)
    assert "worker 0 took `a`" in note
    assert "worker 1 took `cond`" in note


def test_in_processes():
    """Threads within a process are told as anywhere; locks of other processes are others."""

    def body(n):
        one, other = threading.Lock(), threading.Lock()
        first, second = (one, other) if n else (other, one)
        with first, second:
            time.sleep(0)

    found = parmagic.run(body, range(2), "procs=2", once=True, trace="off", chunk=1, timeout=60)
    assert [each for each in found._study.findings if each.rule == "lock_order"] == []


@pytest.mark.parametrize("way", ["fork", "forkserver", "spawn"])
def test_between_processes(way):
    """Locks that processes share are the same in all of them: one takes them forth, another one back; silent behind a gate."""
    context = multiprocessing.get_context(way)
    left, right, before, turn, here = context.Lock(), context.RLock(), context.Lock(), context.Event(), context.Barrier(2)

    def body(n, *, gated=False):
        here.wait(30)  # each worker has one item
        first, second = (left, right) if n else (right, left)
        if n:
            turn.wait(30)
        with before if gated else multiprocessing.Lock(), first, second:
            pass
        turn.set()

    def run(function):
        turn.clear()
        found = parmagic.run(function, range(2), "procs=2", once=True, trace="off", chunk=1, timeout=60, start_method=way)
        return [str(each.text) for each in found._study.findings if each.rule == "lock_order"]

    (note,) = run(body)
    assert note.startswith("Could deadlock, did not this time: worker 0 took `"), note
    assert "; worker 1 took `" in note
    assert note.count("`left`") == note.count("`right`") == 2
    assert run(functools.partial(body, gated=True)) == []


def test_a_circle_is_found_among_many():
    """A thousand locks in one order, and one step back: the shortest circle is told, at once."""
    locks = [threading.Lock() for _ in range(200)]

    def body(n):
        if n == 4:
            with locks[7], locks[3]:
                pass
            return
        for place in range(199):
            with locks[place], locks[place + 1]:
                pass

    begin = time.perf_counter()
    (note,) = notes(body, 5)
    assert time.perf_counter() - begin < 20
    assert note.count("took") == 5
    assert "locks[7]` (" in note


def test_in_a_cell(ip):
    """Places are lines of the cell."""
    ip("import threading; A, B, here = threading.Lock(), threading.Lock(), threading.Barrier(2); turn = threading.Event()")
    cell = """%%parallel threads=2 --once --trace off for n in range(2)
here.wait(20)
if n:
    turn.wait(20)
    with B:
        with A:
            pass
else:
    with A:
        with B:
            pass
    turn.set()"""
    (note,) = (note for note in ip(cell).notes if "took" in note)
    assert "took `A` (line 9), then `B` (line 10)" in note
    assert "took `B` (line 5), then `A` (line 6)" in note
