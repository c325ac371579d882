"""Queues that are in C, and joins of threads: who waits for whom."""

from __future__ import annotations

import math
import queue
import threading
import time

import pytest
from each import run_each

from parmagic.record import hooks

pytestmark = pytest.mark.skipif(bool(hooks.why_inferred()), reason=f"waits are inferred here: {hooks.why_inferred()}")


def run(body, workers):
    """Return the tables of what was taken and of who made whom wait, of a run of one item for each worker."""
    found = run_each(body, workers)
    return found.sync.droplevel("arm"), found.handoffs.droplevel("arm"), found


mail = queue.SimpleQueue()


def test_a_queue_in_c():
    """What is put and got is counted exactly; who waits is known, and for whom, and how much was in it."""

    def body(n):
        for each in range(50):
            if n:
                mail.get()
            else:
                time.sleep(0.002)
                mail.put(each)

    table, handoffs, found = run(body, 2)
    row = table.loc["mail"]
    assert (row["kind"], row["n"], row["puts"], row["gets"], row["capacity"]) == ("queue", 100, 50, 50, math.inf)
    waits = found.waits[found.waits["object"] == "mail"]
    assert row["wait_s"] == pytest.approx(waits["total_s"].sum(), rel=0.05, abs=2e-3)
    assert row["empty_s"] == pytest.approx(row["wait_s"], rel=0.2, abs=0.02)
    assert row["full_s"] == 0
    assert row["wait_s"] > 0.05
    most = handoffs.loc[["mail"]].iloc[0]
    assert most["total_s"] == pytest.approx(row["wait_s"], rel=0.1, abs=5e-3)
    assert {most["waiter"], most["blocker"]} == {"worker 0", "worker 1"}


def test_a_queue_in_c_that_is_not_waited_for():
    """Who asks without waiting gets what is there, or an error as ever; what was not got is not counted."""
    mail = queue.SimpleQueue()

    def body(_):
        for each in range(3):
            mail.put_nowait(each)
        got = [mail.get_nowait(), mail.get(block=False), mail.get(timeout=1)]
        with pytest.raises(queue.Empty):
            mail.get_nowait()
        with pytest.raises(queue.Empty):
            mail.get(timeout=0.01)
        with pytest.raises(queue.Empty):
            mail.get(False)
        with pytest.raises(TypeError):
            mail.get(1, 2, 3)
        return got

    table, _, found = run(body, 1)
    (row,) = (table.loc[name] for name in table.index if table.loc[name, "kind"] == "queue")
    assert found.results == [[0, 1, 2]]
    assert (row["puts"], row["gets"], row["level_max"]) == (3, 3, 3)


def test_joins():
    """Who joins a thread waits for that one, by its name."""

    def task():
        time.sleep(0.1)

    def body(_):
        thread = threading.Thread(target=task, name="sleeper")
        thread.start()
        thread.join()

    table, handoffs, found = run(body, 1)
    (row,) = (table.loc[name] for name in table.index if table.loc[name, "kind"] == "thread")
    assert row["n"] == 1
    assert row["made_at"].endswith(f"test_simple.py:{body.__code__.co_firstlineno + 1}")
    assert 0.05 < row["wait_s"] < 5
    assert row["wait_s"] == pytest.approx(found.waits[found.waits["line"].notna() | found.waits["place"].notna()]["total_s"].max(), rel=0.05, abs=2e-3)
    (who,) = (pair for _, pair in handoffs.iterrows() if pair["total_s"] > 0.04)
    assert who["waiter"] == "worker 0"
    assert who["blocker"] == "worker 0 › sleeper"
    assert who["block_place"].endswith(f"test_simple.py:{task.__code__.co_firstlineno + 1}")


def test_nothing_is_left_replaced():
    """Behind a run, the methods are the interpreter's own."""
    import ctypes

    def addresses():
        methods = [vars(queue.SimpleQueue)[name] for name in ("put", "get", "put_nowait", "get_nowait")]
        return [ctypes.c_void_p.from_address(ctypes.c_void_p.from_address(id(each) + 40).value + 8).value for each in methods]

    before, seen = addresses(), []
    run(lambda _: seen.append(addresses()), 1)
    assert addresses() == before
    assert all(here != there for here, there in zip(before, seen[0], strict=True))
