"""Where all workers wait and nobody is left to wake them, the run says for what and why, and ends; where somebody may, it goes on."""

from __future__ import annotations

import inspect
import io
import queue
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from each import run_each as run
from tqdm import tqdm

import parmagic
from parmagic.errors import Deadlock, Stuck
from parmagic.record import hooks

pytestmark = [
    pytest.mark.skipif(bool(hooks.why_inferred()), reason=f"waits are inferred here: {hooks.why_inferred()}"),
    pytest.mark.usefixtures("no_timer"),
]


def words(body, count):
    """Return what a run of a body says that gets stuck; nothing of it is left."""
    with pytest.raises(Stuck) as caught:
        run(body, count)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("parmagic threads", "Thread-", "helper"))]
    return str(caught.value)


def test_a_call_that_nobody_heard():
    """A notify() before anybody waits is lost; who called it, where and when, is told."""
    cond, called = threading.Condition(), threading.Event()

    def body(n):
        if n:
            called.wait(30)
            with cond:
                cond.wait()
        else:
            with cond:
                cond.notify()
            called.set()

    text = words(body, 2)
    assert "called notify() (test_stuck.py:" in text
    assert "s earlier, when nobody waited: it was lost" in text
    assert text.endswith("Wait for a state, not for a signal: while not ready: cond.wait()")


def test_a_call_of_one_that_has_ended():
    """Who called is told by name, also where its own work was done long before."""
    cond, gate, called, caller = threading.Condition(), threading.Barrier(2), threading.Event(), []

    def body(n):
        gate.wait(30)  # each worker has one of them
        if n:
            called.wait(30)
            while caller[0].is_alive():
                time.sleep(0.005)
            with cond:
                cond.wait()
        else:
            caller.append(threading.current_thread())
            with cond:
                cond.notify()
            called.set()

    line = next(number for number, text in enumerate(inspect.getsource(body).splitlines(), body.__code__.co_firstlineno) if ".notify" in text)
    assert f"called notify() (test_stuck.py:{line})" in words(body, 2)


def test_a_progress_bar_wakes_nobody():
    """Its thread is that of a package whose threads set nothing of a body's: ours has one as well, from a terminal."""
    event = threading.Event()
    with tqdm(range(1), file=io.StringIO()):
        assert any(type(thread).__name__ == "TMonitor" for thread in threading.enumerate())
        assert "`event`" in words(lambda _: event.wait(), 2)


def test_a_barrier_that_is_too_wide():
    """How many have come, and how many it wants."""
    barrier = threading.Barrier(4)
    text = words(lambda _: barrier.wait(), 3)
    assert text.startswith("3 workers wait, and none is left to wake them (found after ")
    assert text.count("`barrier`") == 3
    assert "to which 3 of 4 have come, and nobody is left to come" in text


def test_a_semaphore_that_is_used_up():
    """It is never released; so does one that may be released no more often."""
    for semaphore in (threading.Semaphore(1), threading.BoundedSemaphore(1)):
        assert "which is used up, and nobody is left to release it" in words(lambda _: semaphore.acquire(), 2)  # noqa: B023  (it ends in here)


def test_who_left_with_a_lock():
    """The worker that took it, and where, also where it has ended by now."""
    lock, taken, gate = threading.Lock(), threading.Event(), threading.Barrier(2)

    def body(n):
        gate.wait(30)  # each worker has one item
        if n:
            taken.wait(30)
            with lock:
                pass
        else:
            lock.acquire()
            taken.set()

    text = words(body, 2)
    assert "`lock`" in text
    assert "which has ended, took at test_stuck.py:" in text
    assert "and has not let go of" in text
    assert lock.locked()  # who took it is not there to let go of it


def test_a_lock_of_the_notebooks():
    """Nobody of the run has it, and the notebook is in the run."""
    lock = threading.Lock()
    with lock:
        assert "`lock`" in words(lambda _: lock.acquire(), 1)


@pytest.mark.parametrize(
    ("what", "reason", "advice"),
    [
        (lambda q: q.get(), "which is empty, and nobody is left to put anything into it", "Put an end into the queue"),
        (lambda q: [q.put(n) for n in range(9)], "which is full (2), and nobody is left to get from it", "a queue that is long enough"),
        (lambda q: (q.put(1), q.join()), "of which 1 are not told to be done (task_done)", "Call task_done() once"),
    ],
)
@pytest.mark.parametrize("kind", [queue.Queue, queue.LifoQueue, queue.PriorityQueue])
def test_a_queue(kind, what, reason, advice):
    """What it waits for is told by the method: something to get, room to put, and the end of all that was put."""
    jobs = kind(2)

    def body(_):
        what(jobs)

    text = words(body, 1)
    assert "`jobs` (test_stuck.py:" in text or "`body.jobs`" in text, text
    assert reason in text
    assert advice in text


def test_a_queue_in_c():
    """So it is with one that has no Python code: its wait ends as well, in a worker and in a thread of a body's, and it can be used again."""
    jobs = queue.SimpleQueue()
    text = words(lambda _: jobs.get(), 2)
    assert text.count("which is empty, and nobody is left to put anything into it") == 2
    assert "`jobs`" in text

    def body(_):
        helper = threading.Thread(target=jobs.get, name="helper of one")
        helper.start()
        helper.join()

    text = words(body, 1)
    assert "worker 0 › helper of one waits for `jobs`" in text
    assert "worker 0 waits for the end of the thread helper of one" in text
    jobs.put(7)
    assert run(lambda _: jobs.get(), 1).results == [7]


def test_threads_of_bodies_wait():
    """The thread is named, and comes first: who waits for its end waits for what it waits for. Its item fails; the thread prints nothing."""
    event = threading.Event()

    def body(_):
        helper = threading.Thread(target=event.wait, name="Thread-1 (look)")
        helper.start()
        helper.join()

    lines = words(body, 2).splitlines()
    assert lines[0].startswith("4 threads wait")
    assert all("› Thread-1 (look) waits for `event`" in line and line.endswith("and nobody is left to set it") for line in lines[1:3])
    assert all("waits for the end of the thread Thread-1 (look)" in line for line in lines[3:5])


def test_pools_of_bodies_wait(capfd):
    """What the pool was given waits, and the body for that; a pool's idle thread wakes nobody."""
    event = threading.Event()

    def body(_):
        with ThreadPoolExecutor(2) as pool:
            pool.submit(int).result()
            pool.submit(time.sleep, 0.01)
            return pool.submit(event.wait).result()

    text = words(body, 1)
    assert "waits for the result of a future" in text
    assert "waits for `event`" in text
    assert "Traceback" not in capfd.readouterr().err


def test_items_fail_and_others_go_on():
    """With --keep-going those that were stuck fail with that, untried again, and others are done."""
    event, tries = threading.Event(), []

    def body(n):
        if n < 2:
            tries.append(n)
            event.wait()
        return n

    found = parmagic.run(body, range(5), "threads=2", once=True, trace="off", chunk=1, keep_going=True, retry=2, timeout=60)
    assert found.results == [None, None, 2, 3, 4]
    assert [str(error).startswith("Stuck: ") for error in found.items["error"]] == [True, True, False, False, False]
    assert sorted(tries) == [0, 1]


def test_it_is_a_deadlock():
    """Who looks for deadlocks finds it; the run knows it."""
    assert issubclass(Stuck, Deadlock)
    event = threading.Event()
    with pytest.raises(Deadlock):
        run(lambda _: event.wait(), 2)


def test_who_waits_for_a_while_is_not_stuck():
    """A wait with a timeout ends by itself, of whatever kind."""
    event, lock, jobs, cond = threading.Event(), threading.Lock(), queue.Queue(), threading.Condition()

    def body(n):
        if n == 0:
            return event.wait(1.5)
        if n == 1:
            with pytest.raises(queue.Empty):
                jobs.get(timeout=1.5)
            return True
        if n == 2:
            with cond:
                return cond.wait(1.5)
        return lock.acquire(timeout=1.5)

    with lock:
        assert run(body, 4).results == [False, True, False, False]


def test_who_is_at_work_may_wake_others():
    """One that sleeps, computes, or waits for a while will come back."""
    event = threading.Event()

    def body(n):
        if n:
            event.wait()
        else:
            time.sleep(1.5)
            event.set()
        return n

    assert run(body, 3).results == [0, 1, 2]


def test_somebody_else_may_wake_them():
    """A thread of the notebook's that is none of the run's, and a timer of a body's."""
    jobs, go = queue.Queue(), threading.Event()

    def feed():
        go.wait(30)
        time.sleep(1.5)
        jobs.put(7)

    feeder = threading.Thread(target=feed)
    feeder.start()

    def body(_):
        go.set()
        return jobs.get()

    try:
        assert run(body, 1).results == [7]
    finally:
        go.set()
        feeder.join()

    def later(_):
        event = threading.Event()
        threading.Timer(1.5, event.set).start()
        return event.wait()

    assert run(later, 1).results == [True]


def test_a_signal_may_wake_them():
    """A handler of the user's may set what they wait for."""
    event = threading.Event()
    before = signal.signal(signal.SIGALRM, lambda *_: event.set())
    try:
        signal.setitimer(signal.ITIMER_REAL, 1.5)
        assert run(lambda _: event.wait(), 2).results == [True, True]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_queue_of_a_process():
    """Each process has its own; what another worker puts there does not come, and the words say so."""

    def body(n):
        jobs = queue.Queue()
        return jobs.get()

    with pytest.raises(Stuck) as caught:
        parmagic.run(body, range(2), "procs=2", once=True, trace="off", chunk=1, timeout=60)
    text = str(caught.value)
    assert "`jobs`" in text
    assert "Each process has its own of these" in text


def told_standing(monkeypatch, enough):
    """Have a run say soon what its workers are doing; return what it said, and an event that is set when that is ``enough``."""
    told, go = [], threading.Event()

    def standing(_screen, standing, _model):
        told.append(standing.doing)
        if enough(told):
            go.set()

    monkeypatch.setattr("parmagic.workers.PATIENCE", 0.3)
    monkeypatch.setattr("parmagic.execute.task.Quiet.standing", standing)
    return told, go


def test_what_nobody_of_the_run_can_wake_is_told(monkeypatch):
    """Where a thread of the notebook's might, the claim is no more than that no worker can; the run goes on."""
    told, go = told_standing(monkeypatch, lambda told: any("no worker" in each for each in told))
    jobs = queue.Queue()

    def feed():
        if go.wait(60):
            jobs.put(7)
            jobs.put(8)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        assert sorted(run(lambda _: jobs.get(), 2).results) == [7, 8]
    finally:
        go.set()
        feeder.join()
    claims = {each for each in told if "no worker" in each}
    assert claims
    assert claims <= {"waits for a queue, and no worker can wake it", "waits, and no worker can wake it"}


def test_what_a_worker_can_wake_is_not_told_so(monkeypatch):
    """One waits for as long as it takes, and the other one for a while: that one comes back, and may do it."""
    told, go = told_standing(monkeypatch, lambda told: len(told) > 3)
    event = threading.Event()

    def body(n):
        if n:
            return event.wait()
        go.wait(60)
        event.set()
        return True

    assert run(body, 2).results == [True, True]
    assert "waits for a lock" in told
    assert not [each for each in told if "no worker" in each]
