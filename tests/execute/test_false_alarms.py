"""What looks like a deadlock and is none: locks that others let go of, who is still to come, signals; nobody's wait is ended there."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest
from each import run_each as run

import parmagic
from parmagic.errors import Deadlock
from parmagic.record import hooks

pytestmark = pytest.mark.skipif(bool(hooks.why_inferred()), reason=f"waits are inferred here: {hooks.why_inferred()}")

LONG = 1.5
"""Seconds: for a circle, and for all who wait, it takes less to be found."""


def test_a_lock_for_whose_turn_it_is():
    """Each takes its own lock again and again, and lets go of the other's: who waits for a lock that it took itself is let in by the other."""
    turns, order = [threading.Lock(), threading.Lock()], []
    turns[1].acquire()

    def body(n):
        for _ in range(2):
            turns[n].acquire()
            time.sleep(LONG)
            order.append(n)
            turns[1 - n].release()
        return n

    assert run(body, 2).results == [0, 1]
    assert order == [0, 1, 0, 1]


def test_a_lock_for_the_end_of_a_thread():
    """Who takes a lock twice, the second time until the thread ends that it has begun, is no circle."""
    import _thread

    def body(n):
        done = _thread.allocate_lock()
        done.acquire()

        def work():
            time.sleep(LONG)
            done.release()

        threading.Thread(target=work).start()
        done.acquire()
        return n

    assert run(body, 2).results == [0, 1]


def test_a_lock_that_somebody_else_lets_go_of_and_takes():
    """A thread that is none of the run's has the lock that a worker took: the worker has it no more, and is in no circle."""
    handed, other, taken, is_there = threading.Lock(), threading.Lock(), threading.Event(), threading.Event()

    def outsider():
        taken.wait(30)
        handed.release()
        handed.acquire()
        is_there.set()
        time.sleep(LONG)
        handed.release()

    def body(n):
        if n:
            with other:
                is_there.wait(30)
                with handed:  # the outsider's for now
                    return n
        handed.acquire()
        taken.set()
        is_there.wait(30)
        time.sleep(0.2)
        with other:  # the other worker's for now
            return n

    thread = threading.Thread(target=outsider)
    thread.start()
    try:
        found = run(body, 2)
    finally:
        taken.set()
        thread.join()
    assert found.results == [0, 1]
    assert not handed.locked()


def test_a_worker_of_an_earlier_run():
    """Who was left behind by a run that is over goes on, and may still wake who waits."""
    lock, begun, next_one, ends = threading.Lock(), threading.Event(), threading.Event(), []

    def stubborn(_):
        with lock:
            begun.set()
            while not ends or time.monotonic() < ends[0]:
                try:
                    time.sleep(0.05)
                    if next_one.is_set() and not ends:
                        ends.append(time.monotonic() + LONG)
                except BaseException:  # noqa: BLE001  (that is what is tested)
                    pass

    with pytest.raises(parmagic.RunTimeout):
        parmagic.run(stubborn, range(1), "threads=1", once=True, trace="off", timeout=0.3)

    def body(n):
        next_one.set()
        with lock:
            return n

    try:
        assert begun.is_set()
        assert lock.locked()
        assert run(body, 2).results == [0, 1]
    finally:
        next_one.set()


def test_the_end_of_a_child():
    """A handler of SIGCHLD may wake who waits."""

    def body(n):
        done = threading.Event()
        before = signal.signal(signal.SIGCHLD, lambda *_: done.set())
        try:
            child = subprocess.Popen([sys.executable, "-S", "-c", f"import time; time.sleep({LONG})"])
            done.wait()
            child.wait()
        finally:
            signal.signal(signal.SIGCHLD, before)
        return n

    assert run(body, 1, "procs").results == [0]


def test_a_wait_within_a_wait():
    """Where a handler of a signal waits for a lock as well, and no longer, the wait in which it was called is still found to be a deadlock."""

    def body(_):
        own, others, seen = threading.Lock(), threading.Lock(), []
        others.acquire()
        before = signal.signal(signal.SIGALRM, lambda *_: seen.append(others.acquire(timeout=0.05)))
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            with own, own:
                pass
        finally:
            signal.signal(signal.SIGALRM, before)
            assert seen == [False]

    with pytest.raises(Deadlock, match="waits for what it has"):
        run(body, 1, "procs")
