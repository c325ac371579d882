"""Worker processes that wait for each other in a circle, for one that was killed, or for who will not come, are told, and end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import threading
import time

import pytest

import parmagic
from parmagic.errors import Deadlock, Stuck, WorkerDied
from parmagic.record import hooks

pytestmark = [
    pytest.mark.skipif(bool(hooks.why_inferred()), reason=f"waits are inferred here: {hooks.why_inferred()}"),
    pytest.mark.usefixtures("no_timer"),
]


@pytest.fixture
def forks():
    """The same, where one way is as good as another: the fastest."""
    return multiprocessing.get_context("fork")


def run(body, count, context, procs=0, **options):
    """Run items on as many processes, or fewer, without a baseline."""
    options = {"once": True, "trace": "off", "chunk": 1, "timeout": 60, "start_method": context.get_start_method(), **options}
    return parmagic.run(body, range(count), f"procs={procs or count}", **options)


def is_free(lock):
    """Tell whether nobody has a lock."""
    return lock.acquire(block=False) and not lock.release()


def crossed(one, other, gate):
    """Return a body of which two take two locks in two orders, once each has one."""

    def body(n):
        first, second = (one, other) if n else (other, one)
        with first:
            gate.wait(30)
            with second:
                pass
        return n

    return body


def dinner(sticks, gate):
    """Return a body in which each takes two, its left one first where there is a gate, or the one with the lower number."""

    def eat(n):
        one, other = n, (n + 1) % 5
        if gate is None:
            one, other = sorted((one, other))
        with sticks[one]:
            if gate is not None:
                gate.wait(30)  # all have one
            with sticks[other]:
                pass
        return n

    return eat


def test_a_dinner(context):
    """The naive order is a circle of five, told by names and lines; nothing is left locked, and the ordered one takes the same."""
    sticks, gate = [context.Lock() for _ in range(5)], context.Barrier(5)
    for _ in range(2):
        with pytest.raises(Deadlock, match="5 workers wait in a circle") as caught:
            run(dinner(sticks, gate), 5, context)
        text = str(caught.value)
        assert all(f"`sticks[{n}]`" in text for n in range(5)), text
        lines = text.splitlines()[1:6]
        assert {line.split()[1] for line in lines} == set("01234"), text
        assert all("(test_deadlocks_processes.py:" in line and ", which worker " in line for line in lines), text
        assert text.endswith("Take them in one order everywhere: first, second = sorted((i, j))."), text
        assert all(map(is_free, sticks))
        assert run(dinner(sticks, None), 5, context).results == [0, 1, 2, 3, 4]


def test_again_and_again(forks):
    """Each of twenty is found, and soon; what is told is how long the last of them had waited."""
    sticks, gate = [forks.Lock() for _ in range(5)], forks.Barrier(5)
    for _ in range(20):
        with pytest.raises(Deadlock, match="5 workers wait in a circle"):
            run(dinner(sticks, gate), 5, forks)
        assert all(map(is_free, sticks))


def test_while_another_one_is_at_work(forks):
    """With --keep-going these items fail, and no try follows; the others are done, also the one that went on meanwhile."""
    one, other, gate, over = forks.Lock(), forks.Lock(), forks.Barrier(2), forks.Event()
    tried, cross = forks.Value("i", 0), crossed(one, other, gate)

    def body(n):
        if n < 2:
            with tried:
                tried.value += 1
            return cross(n)
        if n == 2:
            while not over.is_set():  # until two others have ended, and others yet are done
                sum(range(10_000))
        if n == 5:
            over.set()
        return n

    found = run(body, 6, forks, procs=3, keep_going=True, retry=2)
    assert found.results == [None, None, 2, 3, 4, 5]
    errors = [str(error) for error in found.items["error"][:2]]
    assert all("2 workers wait in a circle" in error for error in errors), errors
    assert tried.value == 2
    assert is_free(one)
    assert is_free(other)


def test_a_lock_that_one_has(forks):
    """Who takes a lock twice waits for itself, whoever else is at work; who may, does not."""
    lock, again = forks.Lock(), forks.RLock()

    def twice(_):
        with lock, lock:
            pass

    def may(_):
        with again, again:
            return 1

    with pytest.raises(Deadlock, match="worker 0 waits for what it has"):
        run(twice, 1, forks)
    assert is_free(lock)
    assert run(may, 2, forks).results == [1, 1]


def test_a_lock_that_another_one_releases(forks):
    """Who takes a lock again may wait for another worker to release it: that is a signal, and none comes too late."""
    lock, taken = forks.Lock(), forks.Event()

    def body(n):
        if n:
            taken.wait(30)
            time.sleep(1.5)
            lock.release()
        else:
            lock.acquire()
            taken.set()
            lock.acquire()
            lock.release()
        return n

    assert run(body, 2, forks).results == [0, 1]


def test_mixed_with_locks_of_a_process(forks):
    """A thread of a body's that has a lock between processes, and wants one of its process, is in a circle as well."""
    shared, other, gate = forks.Lock(), forks.Lock(), forks.Barrier(2)

    def body(n):
        own = threading.Lock()
        if n:
            with shared:
                gate.wait(30)
                with other:
                    return n
        begun = threading.Event()

        def take():
            with other:
                begun.set()
                with own:
                    pass

        with own:
            thread = threading.Thread(target=take)
            thread.start()
            begun.wait(30)
            gate.wait(30)
            with shared:
                pass
        thread.join()
        return n

    with pytest.raises(Deadlock, match="3 threads wait in a circle") as caught:
        run(body, 2, forks)
    assert all(f"`{name}`" in str(caught.value) for name in ("shared", "other", "own"))
    assert is_free(shared)
    assert is_free(other)


@pytest.mark.parametrize("way", ["timeout", "polls"])
def test_waits_that_end(forks, way):
    """Who gives up by itself is in no circle, for however long it tries."""
    one, other, gate = forks.Lock(), forks.Lock(), forks.Barrier(2)

    def body(n):
        first, second = (one, other) if n else (other, one)
        with first:
            gate.wait(30)
            until, got = time.perf_counter() + 1.5, False
            if way == "timeout":
                got = second.acquire(timeout=1.5)
            while not got and time.perf_counter() < until:
                got = second.acquire(block=False)
                time.sleep(0.01)
            if got:
                second.release()
        return n

    assert run(body, 2, forks).results == [0, 1]


def test_who_is_stopped_goes_on(forks):
    """A worker that somebody has stopped while it had a lock is in no circle, nor has it ended; the wait for it is one wait."""
    lock, held = forks.Lock(), forks.Event()

    def body(n):
        if n:
            held.wait(30)
            with lock:
                return n
        with lock:
            held.set()
            with subprocess.Popen(["/bin/sh", "-c", f"sleep 1.5; kill -CONT {os.getpid()}"]):
                os.kill(os.getpid(), signal.SIGSTOP)
        return n

    found = run(body, 2, forks)
    assert found.results == [0, 1]
    (row,) = found.waits[found.waits["object"] == "lock"].to_dict("records")
    assert row["n"] == 1
    assert row["max_s"] == pytest.approx(row["total_s"])
    assert row["max_s"] > 1


def test_who_was_killed_with_a_lock(context):
    """It is released when the run ends, so that the next one takes it; with --keep-going, who waited for it is told."""
    lock, gate = context.Lock(), context.Barrier(2)

    def body(n):
        if n == 0:
            lock.acquire()
            gate.wait(30)
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGKILL)
        elif n == 1:
            gate.wait(30)
            with lock:
                pass
        return n

    with pytest.raises(WorkerDied, match="SIGKILL"):
        run(body, 2, context)
    assert is_free(lock)
    found = run(body, 6, context, procs=2, keep_going=True)
    assert found.results == [None, None, 2, 3, 4, 5]
    assert "Stuck: " in found.items["error"].iloc[1]
    assert is_free(lock)

    def takes(n):
        with lock:
            return n

    assert run(takes, 2, context).results == [0, 1]


def words(body, count, context):
    """Return what a run says whose workers get stuck."""
    with pytest.raises(Stuck) as caught:
        run(body, count, context)
    return str(caught.value)


def test_who_left_with_a_lock(forks):
    """The worker that took it is told, though it has ended; that it did not let go of it is the body's business."""
    lock, taken, gate = forks.Lock(), forks.Event(), forks.Barrier(2)

    def body(n):
        gate.wait(30)  # each worker has one item
        if n:
            taken.wait(30)
            with lock:
                pass
        else:
            lock.acquire()
            taken.set()

    text = words(body, 2, forks)
    assert "`lock`" in text
    assert ", which has ended, had taken" in text
    assert not is_free(lock)


def test_nobody_left_to_wake_them(forks):
    """Of semaphores, events, conditions, barriers and queues it is told why."""
    semaphore, event, condition, barrier, jobs = forks.Semaphore(1), forks.Event(), forks.Condition(), forks.Barrier(4), forks.Queue(2)

    def waits(_):
        with condition:
            condition.wait()

    def puts(_):
        for n in range(5):
            jobs.put(n)

    assert "`semaphore` (test_deadlocks_processes.py:" in words(lambda _: semaphore.acquire(), 2, forks)
    assert "`event`" in (text := words(lambda _: event.wait(), 2, forks))
    assert text.count("nobody is left to set it") == 2
    assert words(waits, 2, forks).count("`condition`") == 2
    assert words(lambda _: barrier.wait(), 2, forks).count("to which 2 of 4 have come") == 2
    text = words(puts, 2, forks)
    assert text.startswith("2 workers wait")
    assert text.count("which is full (2), and nobody is left to get from it") == 2


def test_a_queue_that_nobody_feeds(context):
    """Who gets from it is ended, in its pipe as well as in its lock, and the queue is as it was; a thread that sends for it wakes nobody."""
    jobs = context.JoinableQueue()
    if context.get_start_method() != "fork":  # which is not done beside threads
        jobs.put(1)
        assert jobs.get() == 1  # the notebook has a thread for it from here on
    text = words(lambda _: jobs.get(), 2, context)
    assert text.count("`jobs` (test_deadlocks_processes.py:") == 2
    assert text.count("which is empty, and nobody is left to put anything into it") == 2
    with pytest.raises(Stuck, match="which is empty"):
        parmagic.run(lambda _: jobs.get(True, None), range(2), "threads=2", once=True, trace="off", timeout=60)

    def body(n):
        if n == 0:
            return jobs.get()
        if n == 1:
            time.sleep(1.5)  # longer than all have to wait to be taken for stuck
            jobs.put("late")
        return n

    assert run(body, 2, context).results == ["late", 1]
    jobs.close()
    jobs.join_thread()


def test_a_queue_that_only_some_get_from(forks):
    """What comes is got, by one call however many slices it takes, and who is too many fails; it was waited for as long as it took."""
    jobs = forks.Queue()

    def body(n):
        if n == 0:
            for each in range(4):
                time.sleep(0.25)
                jobs.put(each)
            return None
        return [jobs.get() for _ in range(2)] if n < 3 else jobs.get()

    found = run(body, 4, forks, keep_going=True)
    assert found.items["error"].str.startswith("Stuck: ").tolist().count(True) == 1
    row = found.sync.loc[("procs=4", "jobs")]
    assert (row["puts"], row["gets"]) == (4, 4)
    assert row["contended"] <= 4 + 5 + 1  # four puts that may wait for the pipe, and five calls of get()
    assert 1.0 <= row["wait_s"] <= 3 * found.summary["wall_s"].iloc[0]


def release_late(semaphore):
    """Release it, a while behind the time from which on nobody may be left who does."""
    time.sleep(2.5)
    semaphore.release()


def test_somebody_may_wake_them(forks):
    """One that sleeps may, and a process or a thread of the notebook's."""
    event = forks.Event()

    def body(n):
        if n:
            return event.wait()
        time.sleep(1.5)
        event.set()
        return True

    assert run(body, 3, forks).results == [True] * 3
    servers = multiprocessing.get_context("forkserver")
    semaphore = servers.Semaphore(0)
    for kind in (threading.Thread, servers.Process):
        other = kind(target=release_late, args=(semaphore,))
        other.start()
        try:
            assert run(lambda _: semaphore.acquire(), 1, servers).results == [True]
        finally:
            other.join()


@pytest.mark.parametrize("model", ["threads=2", "serial"])
def test_in_one_process(forks, model):
    """Threads wait for locks between processes as for any others."""
    one, other, gate = forks.Lock(), forks.Lock(), threading.Barrier(2)
    cross = crossed(one, other, gate)

    def twice(_):
        with one, one:
            pass

    if model != "serial":
        with pytest.raises(Deadlock, match="2 workers wait in a circle") as caught:
            parmagic.run(cross, range(2), model, once=True, trace="off", chunk=1, timeout=60)
        assert "`one`" in str(caught.value)
    with pytest.raises(Deadlock, match="waits for what it has"):
        parmagic.run(twice, range(1), model, once=True, trace="off", timeout=60)
    assert is_free(one)
    assert is_free(other)
    semaphore = forks.Semaphore(1)
    with pytest.raises(Stuck, match="which is used up"):
        parmagic.run(lambda _: semaphore.acquire(), range(2), model, once=True, trace="off", chunk=1, timeout=60)
