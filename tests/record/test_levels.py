"""How full semaphores, barriers and queues are: against what the bodies are known to do."""

from __future__ import annotations

import math
import queue
import threading
import time

import pytest
from each import run_each

from parmagic.record import hooks

pytestmark = pytest.mark.skipif(bool(hooks.why_inferred()), reason=f"waits are inferred here: {hooks.why_inferred()}")


def sync(body, workers):
    """Return the table of a run of one item for each worker, by name."""
    found = run_each(body, workers)
    return found.sync.droplevel("arm"), found


semaphore, bounded, barrier = threading.Semaphore(2), threading.BoundedSemaphore(3), threading.Barrier(4)
jobs, last, endless = queue.Queue(3), queue.LifoQueue(5), queue.PriorityQueue()


def test_a_semaphore():
    """Two of six at a time, each for 10 ms, three times: held for 180 ms in all, and blocked in all of it."""

    def body(_):
        for _ in range(3):
            with semaphore:
                time.sleep(0.01)

    table, _ = sync(body, 6)
    row = table.loc["semaphore"]
    assert (row["n"], row["capacity"], row["level_max"]) == (18, 2, 2)
    assert 0.18 <= row["hold_s"] < 1
    assert 0.17 <= row["hold_blocked_s"] <= row["hold_s"] + 1e-6
    assert 0.01 <= row["hold_max_s"] < 0.5
    assert 0 < row["level_mean"] <= 2
    assert 0 < row["busy"] <= 1


def test_a_semaphore_that_says_its_bound():
    """One is let in of three; who tries and is not let in holds nothing, and a release by another thread ends no hold."""

    def body(n):
        assert bounded.acquire(blocking=False)
        time.sleep(0.01)
        bounded.release()

    table, _ = sync(body, 1)
    row = table.loc["bounded"]
    assert (row["n"], row["capacity"], row["level_max"]) == (1, 3, 1)
    assert row["hold_s"] == pytest.approx(0.01, abs=0.05)
    assert row["hold_s"] >= 0.01
    taken = threading.Semaphore(1)

    def other(n):
        if n:
            while not taken.acquire(timeout=0.001):
                pass
        else:
            time.sleep(0.02)
            taken.release(2)

    taken.acquire()
    table, _ = sync(other, 2)
    row = table.loc["taken"]
    assert row["level_max"] >= 0
    assert row["hold_s"] == 0


def test_a_barrier():
    """Of four, three wait: the last one does not."""

    def body(n):
        if n == 3:
            time.sleep(0.1)
        barrier.wait(30)

    table, _ = sync(body, 4)
    row = table.loc["barrier"]
    assert (row["capacity"], row["level_max"]) == (4, 3)
    assert 1.5 < row["level_mean"] <= 3  # nearly all of the time, three waited
    assert math.isnan(row["hold_s"])


def test_a_queue_that_is_full():
    """The consumer is slower: the queue is full for nearly all of the time that the producer waits."""

    def body(n):
        for each in range(20):
            if n:
                jobs.get(timeout=30)
                time.sleep(0.01)
            else:
                jobs.put(each, timeout=30)

    table, found = sync(body, 2)
    row = table.loc["jobs"]
    assert (row["puts"], row["gets"], row["capacity"], row["level_max"]) == (20, 20, 3, 3)
    assert 1 < row["level_mean"] <= 3
    waits = found.waits[found.waits["object"] == "jobs"]["total_s"].sum()
    assert row["full_s"] + row["empty_s"] == pytest.approx(waits, rel=0.2, abs=0.03)
    assert row["full_s"] > 0.1
    assert row["empty_s"] < row["full_s"]


def test_two_who_wait_at_once():
    """Three wait for something in a queue at the same time: that is the time of one of them."""

    def body(n):
        if n:
            last.get(timeout=30)
        else:
            time.sleep(0.1)
            for each in range(3):
                last.put(each)

    table, _ = sync(body, 4)
    row = table.loc["last"]
    assert (row["puts"], row["gets"], row["capacity"]) == (3, 3, 5)
    assert 0.05 < row["empty_s"] < row["wait_s"]
    assert row["full_s"] == 0
    assert row["wait_s"] > 0.15


def test_a_queue_without_a_bound():
    """There is always room."""

    def body(_):
        for each in range(100):
            endless.put(each)
        for _ in range(100):
            endless.get()

    table, _ = sync(body, 1)
    row = table.loc["endless"]
    assert (row["puts"], row["gets"], row["capacity"], row["level_max"]) == (100, 100, math.inf, 100)
    assert (row["full_s"], row["empty_s"]) == (0, 0)


def test_locks_have_no_level():
    """What lets in one at a time has none."""
    lock = threading.Lock()

    def body(_):
        with lock:
            pass

    table, _ = sync(body, 1)
    assert table.loc["body.lock" if "body.lock" in table.index else "lock", ["level_max", "level_mean", "capacity", "full_s", "empty_s"]].isna().all()
