"""What workers in processes take from each other, and send: one row for all of them, exact counts, and times against what is measured."""

from __future__ import annotations

import _multiprocessing
import ctypes
import multiprocessing
import os
import pickle
import queue
import time
import traceback
from multiprocessing import connection, managers
from multiprocessing.reduction import ForkingPickler

import pytest

import parmagic
from parmagic.record import hooks

pytestmark = pytest.mark.skipif(bool(hooks.why_inferred()), reason=f"waits are inferred here: {hooks.why_inferred()}")

WAYS = ["fork", "forkserver", "spawn"]
KIB = b"x" * 1024


@pytest.fixture
def servers():
    """As processes are made that are not told otherwise."""
    return multiprocessing.get_context("forkserver")


def sync(body, workers, context, model="procs"):
    """Return the table of a run of one item for each worker, by name, and the run."""
    way = {"start_method": context.get_start_method()} if model == "procs" else {}
    found = parmagic.run(body, range(workers), f"{model}={workers}", once=True, trace="off", chunk=1, timeout=120, **way)
    return found.sync.droplevel("arm"), found


def waited(found, name):
    """Return for how long the run waited for a thing, as the other table has it."""
    return found.waits.loc[found.waits["object"] == name, "total_s"].sum()


def test_a_lock(context):
    """All have one row, whichever way a lock is taken; who made whom wait is known."""
    lock, gate = context.Lock(), context.Barrier(4)

    def body(_):
        gate.wait(60)
        for _ in range(5):
            with lock:
                time.sleep(0.002)
            lock.acquire()
            time.sleep(0.002)
            lock.release()

    table, found = sync(body, 4, context)
    row, wall = table.loc["lock"], found.summary["wall_s"].iloc[0]
    assert (row["kind"], row["n_workers"], row["n"]) == ("lock", 4, 40)
    assert 0 < row["contended"] <= 40
    assert row["wait_s"] == pytest.approx(waited(found, "lock"), rel=1e-6)
    assert 0.08 <= row["hold_blocked_s"] <= row["hold_s"] + 1e-6
    assert row["hold_s"] <= wall
    assert row["busy"] == pytest.approx(row["hold_s"] / wall)
    handoffs = found.handoffs.loc[[(found.handoffs.index[0][0], "lock")]]
    assert handoffs["total_s"].sum() == pytest.approx(row["wait_s"], rel=1e-6)
    known = handoffs.dropna(subset=["blocker"])
    assert len(known)
    assert (known["blocker"] != known["waiter"]).all()
    assert {*known["block_place"]} <= {*known["wait_place"]}  # where it was taken


def test_a_lock_taken_three_deep(context):
    """Each level counts; it is held from the first to the last."""
    rlock = context.RLock()

    def body(_):
        with rlock, rlock, rlock:
            time.sleep(0.01)
        rlock.acquire()
        rlock.acquire()
        rlock.release()
        time.sleep(0.01)
        rlock.release()

    table, found = sync(body, 2, context)
    assert (table.loc["rlock", "kind"], table.loc["rlock", "n"]) == ("lock", 10)
    assert 0.04 <= table.loc["rlock", "hold_blocked_s"] <= table.loc["rlock", "hold_s"] <= found.summary["wall_s"].iloc[0]


def test_a_lock_that_another_one_releases(servers):
    """It is taken as often as it is; what else is held is told all the same."""
    signal, other, ready = servers.Lock(), servers.Lock(), servers.Semaphore(0)

    def body(n):
        for _ in range(100):
            if n:
                ready.acquire()
                signal.release()
            else:
                signal.acquire()
                ready.release()
        if not n:
            with other:
                time.sleep(0.01)

    table, found = sync(body, 2, servers)
    assert (table.loc["signal", "n"], table.loc["ready", "n"]) == (100, 100)
    assert 0.01 <= table.loc["other", "hold_s"] <= found.summary["wall_s"].iloc[0]


def test_a_semaphore(context):
    """Six of whom two are let in."""
    semaphore, bounded = context.Semaphore(2), context.BoundedSemaphore(2)

    def body(_):
        for _ in range(3):
            with semaphore:
                time.sleep(0.005)
            bounded.acquire()
            bounded.release()

    table, found = sync(body, 6, context)
    row = table.loc["semaphore"]
    assert (row["kind"], row["n"]) == ("semaphore", 18)
    assert row["wait_s"] == pytest.approx(waited(found, "semaphore"), rel=1e-6)
    assert row["hold_s"] != row["hold_s"]  # several have it at a time
    assert (table.loc["bounded", "kind"], table.loc["bounded", "n"]) == ("semaphore", 18)


def test_a_condition(context):
    """Five hundred rounds of two that wait for each other: each enters once a round; held is it but for the waits."""
    cond, turn = context.Condition(), context.Value("i", 0, lock=False)

    def body(n):
        for _ in range(500):
            with cond:
                while turn.value != n:
                    cond.wait(30)
                turn.value = 1 - n
                cond.notify()

    table, found = sync(body, 2, context)
    row = table.loc["cond"]
    assert (row["kind"], row["n_workers"], row["n"]) == ("condition", 2, 1000)
    assert row["wait_s"] == pytest.approx(waited(found, "cond"), rel=1e-6)
    assert 0 < row["hold_s"] <= found.summary["wall_s"].iloc[0]


def test_a_barrier(context):
    """Three wait for the one that comes late."""
    gate, barrier = context.Barrier(4), context.Barrier(4)

    def body(n):
        gate.wait(60)
        if n == 3:
            time.sleep(0.5)
        barrier.wait(60)

    table, found = sync(body, 4, context)
    row = table.loc["barrier"]
    assert (row["kind"], row["n"], row["n_workers"]) == ("barrier", 4, 4)
    assert row["contended"] >= 3
    assert row["wait_s"] > 0.5
    assert row["wait_s"] == pytest.approx(waited(found, "barrier"), rel=1e-6)


def test_an_event(context):
    """Two wait for one that is set."""
    gate, event = context.Barrier(3), context.Event()

    def body(n):
        gate.wait(60)
        if n:
            event.wait(60)
        else:
            time.sleep(0.2)
            event.set()

    table, found = sync(body, 3, context)
    assert (table.loc["event", "kind"], table.loc["event", "n"]) == ("event", 2)
    assert table.loc["event", "wait_s"] == pytest.approx(waited(found, "event"), rel=1e-6)


def test_a_queue(context):
    """Ten thousand messages of a KiB: what was put, what was got, how large that was pickled, and for how long somebody waited in it."""
    jobs = context.Queue()

    def body(n):
        for _ in range(10_000):
            if n:
                jobs.get()
            else:
                jobs.put(KIB)

    table, found = sync(body, 2, context)
    row = table.loc["jobs"]
    assert (row["kind"], row["n"], row["puts"], row["gets"]) == ("queue", 20_000, 10_000, 10_000)
    assert row["bytes"] == 10_000 * len(ForkingPickler.dumps(KIB))
    assert 0 < row["pickle_s"] < 2 * found.summary["wall_s"].iloc[0]
    assert row["wait_s"] == pytest.approx(waited(found, "jobs"), rel=1e-6, abs=1e-6)


def test_other_queues(servers):
    """A small one that is joined, and a simple one; what did not come is no get."""
    jobs, simple, empty, gate = servers.JoinableQueue(1), servers.SimpleQueue(), servers.Queue(), servers.Barrier(2)

    def body(n):
        gate.wait(60)
        for _ in range(100):
            if n:
                jobs.get(timeout=60)
                jobs.task_done()
                simple.get()
            else:
                jobs.put(KIB, timeout=60)
                simple.put(KIB)
        if not n:
            jobs.join()
        try:
            empty.get_nowait()
        except queue.Empty:
            empty.put(n)

    table, found = sync(body, 2, servers)
    size = 100 * len(ForkingPickler.dumps(KIB))
    assert (table.loc["jobs", "puts"], table.loc["jobs", "gets"], table.loc["jobs", "n"], table.loc["jobs", "bytes"]) == (
        100,
        100,
        201,
        size,
    )
    assert (table.loc["simple", "puts"], table.loc["simple", "gets"], table.loc["simple", "bytes"]) == (100, 100, size)
    assert table.loc["empty", "puts"] + table.loc["empty", "gets"] == 2
    for name in ("jobs", "simple"):
        assert table.loc[name, "wait_s"] == pytest.approx(waited(found, name), rel=1e-6, abs=1e-6)


def test_a_pipe(context):
    """Each end is a row; the other one has as many."""
    near, far = context.Pipe()

    def body(n):
        for _ in range(10_000):
            if n:
                far.recv()
            else:
                near.send(KIB)

    table, _ = sync(body, 2, context)
    size = len(ForkingPickler.dumps(KIB))
    assert (table.loc["near", "kind"], table.loc["near", "puts"], table.loc["near", "gets"]) == ("pipe", 10_000, 0)
    assert (table.loc["far", "kind"], table.loc["far", "puts"], table.loc["far", "gets"]) == ("pipe", 0, 10_000)
    assert table.loc["near", "bytes"] == table.loc["far", "bytes"] == 10_000 * size
    assert (table.loc[["near", "far"], "pickle_s"] > 0).all()


def test_bytes_through_a_pipe(servers):
    """What is sent as it is, is not pickled; a part of it is what was sent."""
    near, far = servers.Pipe()

    def body(n):
        room = bytearray(1024)
        for _ in range(100):
            if n:
                far.recv_bytes()
                far.recv_bytes_into(room)
                far.recv_bytes()
            else:
                near.send_bytes(KIB)
                near.send_bytes(KIB, 24)
                near.send_bytes(KIB, 0, 24)

    table, _ = sync(body, 2, servers)
    assert table.loc["near", "puts"] == table.loc["far", "gets"] == 300
    assert table.loc["near", "bytes"] == table.loc["far", "bytes"] == 100 * (1024 + 1000 + 24)
    assert table.loc["near", "pickle_s"] == 0


def test_a_manager(context):
    """Each call is a wait, by the name of the method; a thousand of one are as many."""
    with context.Manager() as manager:
        shared = manager.dict()

        def body(n):
            for i in range(500):
                shared.update({n: i})
            assert shared[n] == 499

        table, found = sync(body, 2, context)
    row = table.loc["shared.update"]
    assert (row["kind"], row["n"]) == ("proxy", 1000)
    assert 0 < row["wait_s"] < 2 * found.summary["wall_s"].iloc[0]
    assert row["wait_mean_s"] == pytest.approx(row["wait_s"] / 1000)
    assert table.loc["shared.__getitem__", "n"] == 2


def test_shared_values(context):
    """Their locks have their names; each look takes it."""
    count, cells = context.Value("i", 0), context.Array("i", 2)

    def body(n):
        for _ in range(50):
            with count.get_lock():
                count.value += 1
            cells[n] += 1

    table, found = sync(body, 2, context)
    assert count.value == 100
    assert (table.loc["count", "kind"], table.loc["count", "n"]) == ("value", 300)
    assert (table.loc["cells", "kind"], table.loc["cells", "n"]) == ("array", 200)
    assert (table.loc[["count", "cells"], "hold_s"] > 0).all()
    assert not any("<string>" in str(place) for place in (*found.waits["place"], *found.handoffs["wait_place"]))
    assert table.loc["count", "wait_s"] == pytest.approx(waited(found, "count"), rel=1e-6, abs=1e-6)


def test_what_is_replaced_is_not_seen(servers):
    """No frame of ours is in an error's way, and methods are as ever."""
    near, far = servers.Pipe()

    def body(_):
        same = near.send == near.send and near.send.__self__ is near and near.send.__name__ == "send" and len({near.send, near.send}) == 1
        try:
            near.send(lambda: 0)
        except (AttributeError, TypeError, pickle.PicklingError):
            return same, traceback.format_exc()

    _, found = sync(body, 1, servers, model="threads")
    same, text = found.results[0]
    assert same
    assert "connection.py" in text
    assert "parmagic" not in text
    far.close()


def test_a_method_out_of_its_class(servers):
    """What stands in a class may be called as it is, by who has taken it out of there."""
    near, far = servers.Pipe()

    def body(n):
        vars(connection._ConnectionBase)["send"](near, n)
        return vars(connection._ConnectionBase)["recv"](far)

    _, found = sync(body, 1, servers, model="threads")
    assert found.results == [0]


class Meter:
    """What a manager has: one of its methods has a name whose bytes do not end where there is no more room."""

    def aaaaaaaaaaaaaaaaaaaaaaößeln(self):  # noqa: PLC2401  (that is what is tested)
        """Return a number."""
        return 3


class Keeper(managers.BaseManager):
    """A manager of the user's."""


Keeper.register("Meter", Meter)


def test_a_long_name_at_a_manager(servers):
    """Of a name that is too long there is the begin, in whole characters."""
    with Keeper(ctx=servers) as keeper:
        there = keeper.Meter()
        table, found = sync(lambda _: there.aaaaaaaaaaaaaaaaaaaaaaößeln(), 1, servers, model="threads")
    assert found.results == [3]
    assert table.loc["there.aaaaaaaaaaaaaaaaaaaaaa", "n"] == 1


CLASSES = (connection._ConnectionBase, ForkingPickler, managers.BaseProxy)


def replaced():
    """Return what may be replaced: the addresses of C functions, and what classes have."""
    methods = [vars(_multiprocessing.SemLock)[name] for name in ("acquire", "release", "__enter__", "__exit__")]
    addresses = [ctypes.c_void_p.from_address(ctypes.c_void_p.from_address(id(each) + 40).value + 8).value for each in methods]
    return addresses, [dict(vars(kind)) for kind in CLASSES]


def test_nothing_is_left_replaced(servers):
    """Behind a run that failed, methods are the interpreter's own; so they are in a fork of a body's."""
    before, seen = replaced(), []
    near, far = servers.Pipe()

    def body(n):
        seen.append(replaced())
        child = os.fork()
        if not child:
            os._exit(0 if replaced() == before else 3)
        seen.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        near.send(n)
        if n:
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  (it has no text)
        parmagic.run(body, range(2), "threads=1", once=True, trace="off", chunk=1, timeout=60)
    assert replaced() == before
    assert all(now != then for now, then in zip(seen[0], before, strict=True))
    assert seen[1] == seen[3] == 0
    assert far.recv() == 0


def test_nothing_is_left_replaced_behind_an_interrupt(servers):
    """So it is where a Ctrl-C ends a run."""
    before, lock = replaced(), servers.Lock()

    def body(n):
        with lock:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parmagic.run(body, range(2), "threads=2", once=True, trace="off", chunk=1, timeout=60)
    assert replaced() == before


def _take(mine, first, then):
    with mine:
        first.set()
        then.wait()
        time.sleep(0.2)
    for _ in range(49):
        with mine:
            pass


def _wait(mine, first, then):
    first.wait()
    then.set()
    with mine:
        pass


def test_processes_that_a_body_starts(context):
    """What these take counts, by the names that it has in their own functions; who waited is named."""
    lock, first, then = context.Lock(), context.Event(), context.Event()

    def body(_):
        has, wants = context.Process(target=_take, args=(lock, first, then)), context.Process(target=_wait, args=(lock, first, then))
        for process in (has, wants):
            process.start()
        for process in (has, wants):
            process.join()
            assert process.exitcode == 0

    table, found = sync(body, 1, context, "threads")
    name = "lock" if "lock" in table.index else "mine"
    row, (_, waiter) = table.loc[name], found.children["name"]
    assert (row["kind"], row["n"], row["n_workers"]) == ("lock", 51, 1)
    assert row["contended"] in {1, 2}  # the other one may be in the way of one of the 49 as well
    assert 0.2 <= row["hold_s"] <= found.children["life_s"].sum()
    assert 0.2 <= row["hold_blocked_s"] <= row["hold_s"]
    assert 0.1 <= row["wait_s"] <= found.children["life_s"].iloc[1]
    assert found.handoffs["waiter"].tolist().count(f"worker 0 › {waiter}") >= 1
