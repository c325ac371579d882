"""Workers that wait for each other in a circle are named, and end: every lock is free again, and the next run takes the same ones."""

from __future__ import annotations

import threading
import time

import pytest
from each import run_each as run

import parmagic
from parmagic.errors import Deadlock
from parmagic.record import hooks

pytestmark = pytest.mark.skipif(bool(hooks.why_inferred()), reason=f"waits are inferred here: {hooks.why_inferred()}")

forks = [threading.Lock() for _ in range(5)]


def dinner(first_left):
    """Return a body in which each takes two forks, its left one first, or the one with the lower number."""
    gate = threading.Barrier(5)

    def eat(n):
        one, other = n, (n + 1) % 5
        if not first_left:
            one, other = sorted((one, other))
        with forks[one]:
            if first_left:
                gate.wait(30)  # all have one
            with forks[other]:
                pass
        return n

    return eat


def test_a_dinner():
    """The naive order is a circle of five, told by names and lines; nothing is left locked, nobody stays, and the ordered one takes the same forks."""
    for _ in range(3):
        begin = time.perf_counter()
        with pytest.raises(Deadlock, match="5 workers wait in a circle") as caught:
            run(dinner(first_left=True), 5)
        assert time.perf_counter() - begin < 30
        text = str(caught.value)
        assert all(f"`forks[{n}]`" in text for n in range(5)), text
        assert text.endswith("Take them in one order everywhere: first, second = sorted((i, j))."), text
        assert not any(fork.locked() for fork in forks)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("parmagic threads")]
        assert run(dinner(first_left=False), 5).results == [0, 1, 2, 3, 4]


def test_a_lock_that_one_has():
    """Who takes a lock twice waits for itself; who may, does not."""
    lock, again = threading.Lock(), threading.RLock()

    def twice(_):
        with lock, lock:
            pass

    def may(_):
        with again, again:
            return 1

    with pytest.raises(Deadlock, match="worker 0 waits for what it has"):
        run(twice, 1)
    assert not lock.locked()
    assert run(may, 2).results == [1, 1]


def test_locks_that_are_taken_without_with(request):
    """Others may let go of these; where all wait, nobody does: a circle of two, and of one."""
    locks, gate = [threading.Lock(), threading.Lock()], threading.Barrier(2)

    def crossed_by_hand(n):
        locks[n].acquire()
        try:
            gate.wait(30)
            locks[1 - n].acquire()
            locks[1 - n].release()
        finally:
            locks[n].release()

    def twice_by_hand(_):
        locks[0].acquire()
        try:
            locks[0].acquire()
        finally:
            locks[0].release()

    with pytest.raises(Deadlock, match="2 workers wait in a circle"):
        run(crossed_by_hand, 2)
    request.getfixturevalue("no_timer")  # pytest's could wake somebody
    with pytest.raises(Deadlock, match="waits for what it has"):
        run(twice_by_hand, 1)
    assert not any(lock.locked() for lock in locks)


def test_others_go_on():
    """With --keep-going these items fail, and no try follows; the others are done."""
    first, second, gate, tries = threading.Lock(), threading.Lock(), threading.Barrier(2), []

    def body(n):
        if n > 1:
            return n
        tries.append(n)
        one, other = (first, second) if n else (second, first)
        with one:
            gate.wait(30)
            with other:
                pass
        return n

    found = parmagic.run(body, range(6), "threads=2", once=True, trace="off", chunk=1, keep_going=True, retry=2, timeout=60)
    assert found.results == [None, None, 2, 3, 4, 5]
    assert found.items["error"].notna().tolist() == [True, True, False, False, False, False]
    assert sorted(tries) == [0, 1]
    assert not first.locked()
    assert not second.locked()


def test_waits_that_end():
    """A long wait for somebody who is asleep is none, whatever else is held; it is one wait, as long as it was."""
    lock, other, held = threading.Lock(), threading.Lock(), threading.Event()

    def body(n):
        if n:
            held.wait(30)
            with other, lock:
                return n
        with lock:
            held.set()
            time.sleep(1)
        return n

    found = run(body, 2)
    assert found.results == [0, 1]
    (row,) = found.waits[found.waits["object"] == "lock"].to_dict("records")
    assert row["n"] == 1
    assert row["max_s"] == pytest.approx(row["total_s"])
    assert row["max_s"] > 0.9


def twice(_):
    """Take a lock that one has."""
    own = threading.Lock()
    with own, own:
        pass


def crossed(_):
    """Start two threads that take two locks in two orders."""
    one, other, gate = threading.Lock(), threading.Lock(), threading.Barrier(2)

    def take(first, second):
        with first:
            gate.wait(30)
            with second:
                pass

    both = [threading.Thread(target=take, args=(one, other), name="T0"), threading.Thread(target=take, args=(other, one), name="T1")]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()


@pytest.mark.parametrize("model", ["procs=2", "serial", "threads=2"])
def test_what_threads_of_a_body_do_to_each_other(model):
    """It is found in whatever process they are, and ends there; the process goes on with other items."""

    def body(n):
        (twice, crossed, str)[min(n, 2)](n)
        return n

    found = parmagic.run(body, range(4), model, once=True, trace="off", chunk=1, keep_going=True, timeout=60)
    assert found.results == [None, None, 2, 3]
    with pytest.raises(Deadlock, match="waits for what it has") as caught:
        parmagic.run(twice, range(1), model, once=True, trace="off", timeout=60)
    assert "holds `own` (" in str(caught.value)
    with pytest.raises(Deadlock, match="2 threads wait in a circle") as caught:
        parmagic.run(crossed, range(1), model, once=True, trace="off", timeout=60)
    assert "› T0 holds `first` (" in str(caught.value) or "› T0 holds `second` (" in str(caught.value), str(caught.value)


def test_a_baseline_in_which_one_waits_for_itself():
    """Its serial seconds are not known: the speedup is estimated."""

    def body(n):
        if n == 1:
            own = threading.Lock()
            with own, own:
                pass
        time.sleep(0.01)
        return n

    found = parmagic.run(body, range(4), "threads=2", trace="off", chunk=1, keep_going=True, timeout=60)
    assert found.summary["baseline"].tolist() != ["measured"]
    assert found.results == [0, None, 2, 3]
