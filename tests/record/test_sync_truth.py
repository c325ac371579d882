"""The tables of locks and queues against what the bodies themselves count, and read from a clock of their own around each call."""

from __future__ import annotations

import multiprocessing
import queue
import threading
from pathlib import Path
from time import perf_counter, sleep

import pytest

import parmagic
from parmagic.record import hooks

pytestmark = pytest.mark.skipif(bool(hooks.why_inferred()), reason=f"waits are inferred here: {hooks.why_inferred()}")

KIB = b"x" * 1024


@pytest.fixture(params=["threads", "procs"])
def model(request):
    """What the workers are."""
    return request.param


@pytest.fixture
def kinds(model):
    """Where their locks come from, and their queues."""
    return (threading, queue) if model == "threads" else (multiprocessing.get_context("forkserver"),) * 2


class Truth:
    """A run of one item for each worker: its tables, and what its bodies returned, each by name."""

    def __init__(self, body, count, model):
        way = {"start_method": "forkserver"} if model == "procs" else {}
        self.run = parmagic.run(body, range(count), f"{model}={count}", once=True, trace="off", chunk=1, timeout=120, **way)
        self.table = self.run.sync.droplevel("arm")
        self.told = self.run.results

    def sum(self, name):
        """Return what all workers counted, or waited by their clocks."""
        return sum(told.get(name, 0) for told in self.told)

    def row(self, name):
        """Return a thing's row."""
        return self.table.loc[name]

    def is_close(self, figure, truth):
        """Hold a time against a clock's: within 5 % or 1 ms, and what the calls waited for the GIL or a core, which is no wait for a thing."""
        gil = self.run.waits.loc[self.run.waits["kind"] == "gil", "total_s"].sum()
        assert figure == pytest.approx(truth, rel=0.05, abs=1e-3 + gil + self.sum("queued"))
        return True


def queued():
    """Return for how many seconds the calling thread has waited for a core, as Linux counts it."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) * 1e-9


def timed(told, name, call, *args):
    """Call, and note from when until when; add for how long that took, and for how long of that there was no core."""
    before, told["from"] = queued(), perf_counter()
    result = call(*args)
    told["at"] = perf_counter()
    told[name] = told.get(name, 0.0) + told["at"] - told["from"]
    told["queued"] = told.get("queued", 0.0) + queued() - before
    return result


def between(told, name, call, *args):
    """Do the same, and add the time since the last call to what it was held."""
    at = told["at"]
    result = timed(told, name, call, *args)
    told["held"] = told.get("held", 0.0) + told["from"] - at
    told["longest"] = max(told.get("longest", 0.0), told["from"] - at)
    return result


def test_a_lock(model, kinds):
    """Four of whom each holds it ten times, for so long by its own clock."""
    lock, gate = kinds[0].Lock(), kinds[0].Barrier(4)

    def body(_):
        told = {}
        gate.wait(60)
        for _ in range(10):
            timed(told, "waited", lock.acquire)
            sleep(0.003)
            between(told, "released", lock.release)
        return told

    truth = Truth(body, 4, model)
    row = truth.row("lock")
    assert (row["n"], row["n_workers"]) == (40, 4)
    assert truth.is_close(row["wait_s"], truth.sum("waited"))
    assert truth.is_close(row["hold_s"], truth.sum("held"))
    assert truth.is_close(row["hold_max_s"], max(told["longest"] for told in truth.told))
    assert 40 * 0.003 <= row["hold_blocked_s"] + 1e-3 <= row["hold_s"] + 2e-3


def test_a_lock_taken_three_deep(model, kinds):
    """It is taken thrice each time, and held from the first to the last."""
    rlock = kinds[0].RLock()

    def body(_):
        told = {}
        for _ in range(5):
            timed(told, "waited", rlock.acquire)
            with rlock, rlock:
                sleep(0.003)
            between(told, "released", rlock.release)
        return told

    truth = Truth(body, 3, model)
    assert truth.row("rlock")["n"] == 3 * 5 * 3
    assert truth.is_close(truth.row("rlock")["wait_s"], truth.sum("waited"))
    assert truth.is_close(truth.row("rlock")["hold_s"], truth.sum("held"))


def test_a_producer_and_a_consumer(model, kinds):
    """Full for as long as the one waits that puts, and empty for as long as the one that gets does, to who each is slower in turn."""
    jobs = kinds[1].Queue(3)

    def body(n):
        told = {}
        for each in range(60):
            slow = each < 30
            if n:
                timed(told, "got", jobs.get)
                sleep(0.005 if slow else 0)
            else:
                timed(told, "put", jobs.put, each)
                sleep(0 if slow else 0.005)
        return told

    truth = Truth(body, 2, model)
    row = truth.row("jobs")
    assert (row["puts"], row["gets"], row["n"]) == (60, 60, 120)
    assert truth.is_close(row["wait_s"], truth.sum("put") + truth.sum("got"))
    assert truth.is_close(row["full_s"], truth.sum("put"))
    assert truth.is_close(row["empty_s"], truth.sum("got"))


def test_a_semaphore(model, kinds):
    """Six of whom two are let in, five times each."""
    semaphore, gate = kinds[0].Semaphore(2), kinds[0].Barrier(6)

    def body(_):
        told = {}
        gate.wait(60)
        for _ in range(5):
            timed(told, "waited", semaphore.acquire)
            sleep(0.005)
            between(told, "released", semaphore.release)
        return told

    truth = Truth(body, 6, model)
    row = truth.row("semaphore")
    assert (row["n"], row["n_workers"]) == (30, 6)
    assert truth.is_close(row["wait_s"], truth.sum("waited"))
    if model == "threads":
        assert (row["capacity"], row["level_max"]) == (2, 2)
        assert truth.is_close(row["hold_s"], truth.sum("held"))


def test_a_ping_pong(model, kinds):
    """A thousand rounds of two: each enters once a round; waits are those to enter, and those for the other one."""
    cond = kinds[0].Condition()
    turn = [0] if model == "threads" else kinds[0].Array("i", 1, lock=False)

    def body(n):
        told = {}
        for _ in range(1000):
            timed(told, "in calls", cond.acquire)
            while turn[0] != n:
                between(told, "in calls", cond.wait, 60)
            turn[0] = 1 - n
            between(told, "notified", cond.notify)
            between(told, "in calls", cond.release)
        return told

    truth = Truth(body, 2, model)
    row = truth.row("cond")
    assert (row["kind"], row["n"], row["n_workers"]) == ("condition", 2000, 2)
    calls, notified = truth.sum("in calls"), truth.sum("notified")
    assert 0 < row["wait_s"] <= calls + notified
    assert row["hold_s"] >= truth.sum("held")
    # it is let go of, and taken again, in the calls; that of processes waits in notify() until who is woken is, and has it meanwhile
    assert row["wait_s"] + row["hold_s"] <= calls + truth.sum("held") + 2 * notified


def test_a_late_worker_at_a_barrier(model, kinds):
    """The other three wait for it, so long by their clocks."""
    barrier, gate = kinds[0].Barrier(4), kinds[0].Barrier(4)

    def body(n):
        told = {}
        gate.wait(60)
        if n == 3:
            sleep(0.2)
        timed(told, "waited", barrier.wait, 60)
        return told

    truth = Truth(body, 4, model)
    row = truth.row("barrier")
    assert (row["n"], row["n_workers"]) == (4, 4)
    assert truth.is_close(row["wait_s"], truth.sum("waited"))
    assert truth.is_close(row["wait_max_s"], max(told["waited"] for told in truth.told))


@pytest.mark.parametrize("size", [0, 100])
def test_ten_thousand_messages_through_a_queue(model, kinds, size):
    """All are counted, and no wait is longer than the calls; as bytes they are what they are pickled."""
    jobs = kinds[1].Queue(size)

    def body(n):
        told = {}
        for _ in range(10_000):
            if n:
                timed(told, "in calls", jobs.get)
            else:
                timed(told, "in calls", jobs.put, KIB)
        return told

    truth = Truth(body, 2, model)
    row = truth.row("jobs")
    assert (row["puts"], row["gets"], row["n"]) == (10_000, 10_000, 20_000)
    assert row["wait_s"] <= truth.sum("in calls")
    assert model == "threads" or row["bytes"] > 10_000 * len(KIB)


def test_ten_thousand_messages_through_a_pipe(model):
    """Each end has as many; what they are pickled is counted at both."""
    near, far = multiprocessing.get_context("forkserver").Pipe()

    def body(n):
        told = {}
        for _ in range(10_000):
            if n:
                timed(told, "in calls", far.recv)
            else:
                timed(told, "in calls", near.send, KIB)
        return told

    truth = Truth(body, 2, model)
    assert (truth.row("near")["puts"], truth.row("near")["gets"]) == (10_000, 0)
    assert (truth.row("far")["puts"], truth.row("far")["gets"]) == (0, 10_000)
    assert truth.row("near")["bytes"] == truth.row("far")["bytes"] > 10_000 * len(KIB)
    assert truth.table["wait_s"].sum() + truth.table["pickle_s"].sum() <= truth.sum("in calls")


def test_a_thousand_calls_to_a_manager(model):
    """Each goes there and back: that is what the clock says, too."""
    with multiprocessing.get_context("forkserver").Manager() as manager:
        shared = manager.dict()

        def body(n):
            told = {}
            for each in range(500):
                timed(told, "in calls", shared.__setitem__, n, each)
            return told

        truth = Truth(body, 2, model)
    row = truth.row("shared.__setitem__")
    assert (row["kind"], row["n"]) == ("proxy", 1000)
    assert truth.is_close(row["wait_s"], truth.sum("in calls"))
