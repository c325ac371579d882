"""Where locks were made: known of what a run's workers make, and what has no name is called by it."""

from __future__ import annotations

import multiprocessing
import queue
import threading

import pytest

import parmagic
from parmagic.record import hooks

pytestmark = pytest.mark.skipif(bool(hooks.why_inferred()), reason=f"waits are inferred here: {hooks.why_inferred()}")

before = threading.Lock()


def table(body, workers, model="threads"):
    """Return the table of a run of one item for each worker."""
    return parmagic.run(body, range(workers), f"{model}={workers}", once=True, trace="off", chunk=1, timeout=60).sync.droplevel("arm")


def at(body, line):
    """Return a line of a body, as a place ends."""
    return f"test_made.py:{body.__code__.co_firstlineno + line}"


def only(table, end):
    """Return the one row whose name ends so."""
    (name,) = (name for name in table.index if name.endswith(end))
    return name, table.loc[name]


@pytest.mark.parametrize("model", ["threads", "procs"])
def test_made_by_workers(model):
    """A lock, an RLock, a condition, a semaphore, a queue: all are called by the line where they were made."""

    def body(_):
        lock = threading.Lock()
        rlock = threading.RLock()
        cond = threading.Condition()
        semaphore = threading.Semaphore(2)
        jobs = queue.Queue()
        for _ in range(3):
            with lock, rlock, cond, semaphore:
                jobs.put(1)

    found = table(body, 2, model)
    for line, kind in enumerate(("lock", "lock", "condition", "semaphore", "queue"), 1):
        name, row = only(found, at(body, line))
        assert name == f"{kind} made at {row['made_at']}"
        assert row["kind"] == kind
        assert row["n"] == 6
        assert row["n_workers"] in {1, 2}  # one may have done both


def test_many_made_at_one_place():
    """Thousands that are made at one line share one row, and none is left out."""

    def body(_):
        for _ in range(3000):
            one = threading.Lock()
            with one:
                pass
        with before:
            pass

    found = table(body, 2)
    _, row = only(found, at(body, 2))
    assert row["n"] == 6000
    kept = table(lambda _: [each.acquire() for each in [threading.Lock() for _ in range(3000)]], 1)
    assert kept["n"].sum() == 3000
    assert len(kept) == 1


def test_many_that_were_made_before():
    """Of more than a worker's table has room for, the rest is in one row, and each is counted."""
    locks = [threading.Lock() for _ in range(3000)]
    for _ in range(20):  # they lie elsewhere in the table each time
        locks.append(threading.Lock())
        found = table(lambda _: [each.acquire() for each in locks], 1)
        assert found["n"].sum() == len(locks)
        assert found.loc["others", "n"] > 2000
        for each in locks:
            each.release()


def test_made_before():
    """What was made before the run has its name, and nobody knows where it was made."""

    def body(_):
        with before:
            pass

    found = table(body, 2)
    assert found.loc["before", "made_at"] is None
    assert found.loc["before", "n"] == 2


def test_made_before_and_at_an_address_of_one_that_was_made_then():
    """What takes the place of another one in memory is not taken for that."""

    def body(_):
        for _ in range(100):
            one = threading.Lock()
            with one:
                pass
            del one
            other = threading.Lock()
            with other:
                pass
            del other

    found = table(body, 1)
    assert [only(found, at(body, line))[1]["n"] for line in (2, 6)] == [100, 100]


def test_named_though_made_within():
    """A name is better than a place, and has it beside it."""
    locks = {}

    def body(n):
        locks[n] = threading.Lock()
        with locks[n]:
            pass

    found = table(body, 2)
    assert found.loc["locks[0]", "made_at"].endswith(at(body, 1))


def test_at_most_so_many_rows(monkeypatch):
    """The rest is in one row that says so."""
    from parmagic.analyze import sync

    monkeypatch.setattr(sync, "MOST", 3)
    locks = [threading.Lock() for _ in range(10)]

    def body(_):
        for each in locks:
            with each:
                pass

    found = table(body, 1)
    assert len(found) == 3
    assert found.loc["8 others", "n"] == 8


def test_nothing_is_left_replaced():
    """Behind a run, also one that failed, what makes locks is the interpreter's own."""
    import _thread
    import ctypes

    def addresses():
        makers = [ctypes.c_void_p.from_address(id(each) + 16).value for each in (_thread.allocate_lock, _thread.allocate)]
        news = [ctypes.c_void_p.from_address(id(each) + 312).value for each in (_thread.LockType, _thread.RLock)]  # tp_new
        return [ctypes.c_void_p.from_address(each + 8).value for each in makers] + news

    was, seen = addresses(), []

    def body(n):
        seen.append(addresses())
        raise ValueError(n)

    with pytest.raises(ValueError, match="0"):
        table(body, 1)
    assert addresses() == was
    assert seen[0][0] != was[0]
    assert seen[0][3] != was[3]
    kinds = []
    table(lambda _: kinds.append(type("Mine", (_thread.RLock,), {})), 1)
    with kinds[0]() as taken:  # it has our maker for good
        assert taken


@pytest.mark.parametrize("model", ["threads", "procs"])
def test_queues_of_processes(model):
    """One that a worker makes is called by that line; of one that was there before, what its first put() makes for its thread tells nothing."""
    servers = multiprocessing.get_context("forkserver")
    before = servers.Queue()

    def body(_):
        jobs = servers.Queue()
        for each in (jobs, before):
            each.put(1)
            each.get()

    found = table(body, 1, model)
    _, row = only(found, at(body, 1))
    assert (row["kind"], row["puts"], row["gets"]) == ("queue", 1, 1)
    assert found.loc["before", "made_at"] is None
    before.close()
    before.join_thread()
