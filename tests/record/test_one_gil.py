"""The law of one GIL, on a machine that the tests make busy; and what a thread waits for before it can do anything."""

from __future__ import annotations

import _thread
import ctypes
import time

import numpy as np
import one_gil
import pytest

import parmagic
from parmagic.model.kinds import MEASURED
from parmagic.record import hooks, meter
from parmagic.system.gil import gil_enabled

pytestmark = [
    pytest.mark.skipif(bool(hooks.why_inferred()), reason=f"waits are inferred here: {hooks.why_inferred()}"),
    pytest.mark.skipif(not gil_enabled(), reason="there is no GIL"),
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("others", [0, 1, 3, 8])
def test_at_most_one_thread_does_not_wait_for_it(others):
    """Ten runs of 2, 4 and 8 threads that compute, beside other busy processes; none of them is said to run native code.

    One in a hundred may be over: where one of ten is, a hundred are tried.
    """
    with one_gil.busy(others):
        for threads in (2, 4, 8):
            sights = one_gil.looks(10, threads, 0.2)
            if one_gil.broken(sights):
                sights += one_gil.looks(90, threads, 0.2)
            assert not one_gil.broken(sights), (threads, sights)


def test_a_law_that_is_broken_is_seen():
    """One run in a hundred may be over 1.02, none over 1.05, and none has native code."""
    fine = one_gil.Sight(0.99, 0.001)
    assert not one_gil.broken([*[fine] * 99, one_gil.Sight(1.04, 0.0)])
    for bad in ([one_gil.Sight(1.03, 0.0)] * 2, [one_gil.Sight(1.06, 0.0)], [one_gil.Sight(0.9, 0.006)]):
        assert one_gil.broken([*[fine] * (100 - len(bad)), *bad])
    assert one_gil.broken([*[fine] * 9, one_gil.Sight(1.04, 0.0)])  # of ten, none may be


def test_a_birth_under_the_gil():
    """Before its first bytecode a thread waits for the GIL, where another holds it, and its account says so."""
    hold, seen, done = ctypes.PyDLL(None).usleep, [], _thread.allocate_lock()
    done.acquire()

    def live(born):
        gauge = meter.meter(0, own_process=False, measuring=True, born=born)
        seen.append(gauge.take().tally.rows)
        gauge.close()
        done.release()

    with hooks.hooked() as measuring:
        assert measuring
        _thread.start_new_thread(live, (time.perf_counter(),))
        hold(300_000)
        assert done.acquire(timeout=60)
    rows = np.asarray(seen[0]).reshape(-1, 1 + len(MEASURED))
    spent = rows[-1] - rows[0]
    gil, core = (spent[1 + MEASURED.index(state)] for state in ("gil_wait", "cpu_wait"))
    assert 0.29 < gil + core <= spent[0]
    assert gil > 0.1  # on a busy machine it waits for a core first
    assert spent[1:].sum() == pytest.approx(spent[0], abs=1e-6)


def test_threads_are_there_before_the_first_computes():
    """None of them has to be born while another has the GIL: their start is next to nothing of their time."""
    one_gil.look(2, 0.0)  # what a process imports at its first run is no birth
    run = parmagic.run(lambda _: one_gil.spin(0.5), range(64), "threads=64", once=True, trace="off")
    assert run.workers["startup_s"].sum() < 0.05 * run.workers["wall_s"].sum()
    assert run.items["gil_wait_s"].sum() > 0.9 * run.items["wall_s"].sum()
