"""What workers take: exact counts, and times against what the bodies are known to do."""

from __future__ import annotations

import _thread
import gc
import importlib.util
import os
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from each import run_each

from parmagic.record import hooks

pytestmark = pytest.mark.skipif(bool(hooks.why_inferred()), reason=f"waits are inferred here: {hooks.why_inferred()}")


def sync(body, workers, items=None, model="threads"):
    """Return the table of a run of one item for each worker, by name."""
    found = run_each(body, workers, model, items=items or workers)
    return found.sync.droplevel("arm"), found


lock, rlock, cond, semaphore, barrier = threading.Lock(), threading.RLock(), threading.Condition(), threading.Semaphore(2), threading.Barrier(4)
jobs, event, turn = queue.Queue(3), threading.Event(), [0]


def test_a_lock():
    """Each holds it five times for 2 ms, asleep: that is how often it was taken, for how long it was held, and how much of that was blocked."""

    def body(_):
        for _ in range(5):
            with lock:
                time.sleep(0.002)

    table, found = sync(body, 4)
    row = table.loc["lock"]
    assert (row["kind"], row["n_workers"], row["n"]) == ("lock", 4, 20)
    assert 0 < row["contended"] <= 20
    assert 0.038 <= row["hold_s"] <= found.summary["wall_s"].iloc[0]
    assert 0.038 <= row["hold_blocked_s"] <= row["hold_s"] + 1e-6
    assert row["busy"] == pytest.approx(row["hold_s"] / found.summary["wall_s"].iloc[0])
    waits = found.waits[found.waits["object"] == "lock"]
    assert row["wait_s"] == pytest.approx(waits["total_s"].sum(), rel=0.05, abs=1e-3)
    assert row["wait_max_s"] == pytest.approx(waits["max_s"].max(), rel=0.05, abs=1e-3)
    assert row["wait_mean_s"] <= row["wait_p99_s"] * 2


def test_a_lock_taken_three_deep():
    """Each level counts; it is held from the first to the last."""

    def body(_):
        with rlock, rlock, rlock:
            time.sleep(0.01)

    table, _ = sync(body, 4)
    assert table.loc["rlock", "n"] == 12
    assert 0.04 <= table.loc["rlock", "hold_s"] < 0.4


class Mine(_thread.RLock):
    """A class of the user's that is a lock."""


def test_locks_of_a_module_that_was_imported_anew():
    """They are of other types, which have the same methods: each goes by its own kind."""
    anew = importlib.util.module_from_spec(_thread.__spec__)
    _thread.__spec__.loader.exec_module(anew)
    plain, again = anew.allocate_lock(), anew.RLock()
    assert type(plain) is not type(threading.Lock())

    def body(_):
        for _ in range(50):
            with again, again, plain:
                time.sleep(1e-4)

    table, _ = sync(body, 2)
    gc.collect()
    assert (table.loc["plain", "n"], table.loc["again", "n"]) == (100, 200)
    assert plain.acquire(blocking=False)
    assert again.acquire(blocking=False)


def test_a_lock_of_a_class_of_ones_own():
    """What is derived from RLock is one, also for us."""
    own = Mine()

    def body(_):
        for _ in range(5):
            with own, own, own:
                pass

    table, _ = sync(body, 2)
    assert table.loc["own", "n"] == 2 * 5 * 3


def test_a_fork_of_c_code():
    """A thread of C code forks while a run is on, without the GIL: what is put back in the child then needs none."""
    import ctypes

    libc = ctypes.CDLL(None)
    if not hasattr(libc, "pthread_create"):
        pytest.skip("this C library has its threads elsewhere")

    def body(_):
        thread, child = ctypes.c_ulong(), ctypes.c_void_p()
        assert libc.pthread_create(ctypes.byref(thread), None, libc.fork, None) == 0
        assert libc.pthread_join(thread, ctypes.byref(child)) == 0
        return os.waitstatus_to_exitcode(os.waitpid(child.value, 0)[1])  # the child's only thread returns

    _, found = sync(body, 1, items=3)
    assert found.results == [0, 0, 0]


def test_a_condition():
    """A thousand rounds of two that wait for each other: each enters once a round, and waits in all of them but the first or two."""

    def body(n):
        for _ in range(1000):
            with cond:
                while turn[0] != n:
                    cond.wait(30)
                turn[0] = 1 - n
                cond.notify()

    table, _ = sync(body, 2)
    row = table.loc["cond"]
    assert (row["kind"], row["n"]) == ("condition", 2000)
    assert 500 < row["contended"] <= 4000
    assert row["hold_blocked_s"] < 0.5 * row["wait_s"] or row["wait_s"] < 0.2


def test_a_semaphore():
    """Six of whom two are let in: each takes it three times."""

    def body(_):
        for _ in range(3):
            with semaphore:
                time.sleep(0.01)

    table, found = sync(body, 6)
    row = table.loc["semaphore"]
    assert (row["kind"], row["n"]) == ("semaphore", 18)
    assert row["wait_s"] == pytest.approx(found.waits.loc[found.waits["object"] == "semaphore", "total_s"].sum(), rel=0.05, abs=2e-3)


def test_a_barrier():
    """Three wait for the one that comes late."""

    def body(n):
        if n == 3:
            time.sleep(0.2)
        barrier.wait(30)

    table, _ = sync(body, 4)
    row = table.loc["barrier"]
    assert (row["kind"], row["n"], row["n_workers"]) == ("barrier", 4, 4)
    assert row["contended"] >= 3
    assert 0.5 < row["wait_s"] < 3


def test_a_queue():
    """What was put, and what was got; the time that somebody waited in it."""

    def body(n):
        for each in range(50):
            if n:
                jobs.get(timeout=30)
                time.sleep(0.002)
            else:
                jobs.put(each, timeout=30)

    table, found = sync(body, 2)
    row = table.loc["jobs"]
    assert (row["kind"], row["n"], row["puts"], row["gets"]) == ("queue", 100, 50, 50)
    assert row["wait_s"] == pytest.approx(found.waits.loc[found.waits["object"] == "jobs", "total_s"].sum(), rel=0.05, abs=2e-3)


def test_an_event():
    """Two wait for one that is set."""

    def body(n):
        if n:
            event.wait(30)
        else:
            time.sleep(0.1)
            event.set()

    table, _ = sync(body, 3)
    assert (table.loc["event", "kind"], table.loc["event", "n"]) == ("event", 2)
    assert 0.1 < table.loc["event", "wait_s"] < 1


def test_threads_of_bodies():
    """What a thread takes that a body started is in the same row."""
    inner = threading.Lock()

    def task():
        for _ in range(10):
            with inner:
                pass

    def body(_):
        threads = [threading.Thread(target=task) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    table, _ = sync(body, 1)
    assert table.loc["task.inner", "n"] == 30


def test_in_processes():
    """Each process has a lock of its own; what its threads do with it is told as anywhere."""

    def body(_):
        guard = threading.Lock()

        def task():
            for _ in range(10):
                with guard:
                    pass

        threads = [threading.Thread(target=task) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with guard:
            pass

    table, _ = sync(body, 2, model="procs")
    assert table.loc[[name for name in table.index if table.loc[name, "kind"] == "lock"], "n"].sum() == 42


def test_ours_are_nobodys():
    """Locks that are ours are in no row, nor is what is not taken."""
    table, _ = sync(lambda n: print(end=""), 2, items=10)
    assert [*table.index] == [], table
    table, _ = sync(lambda n: time.sleep(0.001), 2, items=10)
    assert table.empty
    assert {"kind", "n", "contended", "wait_s", "hold_s", "busy", "puts", "gets"} <= {*table.columns}


METHODS = [(kind, name) for kind in (_thread.LockType, _thread.RLock) for name in ("acquire", "__enter__", "release", "__exit__") if hasattr(kind, name)]


def test_nothing_is_left_replaced():
    """Behind a run, also one that failed, the methods are the interpreter's own; so they are in a fork of a body's."""
    import ctypes

    def addresses():
        return [ctypes.c_void_p.from_address(ctypes.c_void_p.from_address(id(vars(kind)[name]) + 40).value + 8).value for kind, name in METHODS]

    before, seen = addresses(), []

    def body(n):
        seen.append(addresses())
        if n:
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  (it has no text)
        sync(body, 1, items=2)
    assert addresses() == before
    assert seen[0] != before


def test_what_the_library_has_for_itself():
    """A pool's locks are in no row, but where they are waited for; the result of a future that the body waits for is."""

    def body(_):
        with ThreadPoolExecutor(2) as pool:
            pool.submit(time.sleep, 0.05).result()
        thread = threading.Thread(target=time.sleep, args=(0.01,))
        thread.start()
        thread.join()

    for model in ("threads", "procs"):
        table, _ = sync(body, 1, model=model)
        kinds = table.loc[table["wait_s"] == 0, "kind"]
        assert {*kinds} <= {"thread"}, table
        assert "future" in {*table["kind"]}
        (joined,) = table.index[table["made_at"].str.startswith("test_sync.py").fillna(value=False)]
        assert table.loc[joined, "n"] == 1  # its end was waited for once
