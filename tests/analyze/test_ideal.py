"""The ideal speedup: bounded by the workers, and by the CPUs as far as the work needs them."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from stories import run_of

import parmagic
from parmagic.analyze.laws import ideal_speedup
from parmagic.model.load import Load
from parmagic.model.plan import Arm

NAN = float("nan")


@pytest.mark.parametrize(
    ("n_workers", "cpus", "work_s", "on_core_s", "ideal"),
    [
        (8, 2, 10.0, 10.0, 2.0),  # it computes
        (8, 2, 10.0, 14.0, 2.0),  # and what it computes beyond the work is none
        (8, 2, 10.0, 0.1, 8.0),  # it waits
        (8, 2, 10.0, 5.0, 4.0),  # half of each: 5 s on two CPUs are 2.5 s
        (2, 64, 10.0, 10.0, 2.0),
        (1, 2, 10.0, 10.0, 1.0),
        (8, 0, 10.0, 10.0, 8.0),  # nobody knows the CPUs
        (8, 2, NAN, 10.0, 8.0), (8, 2, 10.0, NAN, 8.0), (8, 2, 0.0, 0.0, 8.0),
    ],
)  # fmt: skip
def test_what_is_scarcer_bounds_it(n_workers, cpus, work_s, on_core_s, ideal):
    """Computing is bounded by CPUs, waiting by workers; what is not known bounds nothing."""
    assert ideal_speedup(n_workers, cpus, work_s, on_core_s) == pytest.approx(ideal)


def test_a_serial_run_that_waited_for_a_core_had_no_more_work():
    """Its seconds are no part of the work, so that a busy machine makes no ideal of four out of two CPUs; those of locks may be."""
    stories = {Arm.named("threads", 4): [[("running", 1.0), ("gil_wait", 3.0)]] * 4}
    assert _ideal(stories, 12.0) == 2.0
    assert _ideal(stories, NAN) == 2.0
    waiting = {Arm.named("threads", 4): [[("running", 0.1), ("lock_wait", 0.9)]] * 4}
    assert _ideal(waiting, 4.0) == 4.0
    assert _ideal(waiting, 0.4) == 2.0  # the locks were the workers' own


def _ideal(stories, serial_s):
    run = run_of(stories, measured=True, serial_s=serial_s)
    run.timelines = tuple(replace(timeline, load=Load(2)) for timeline in run.timelines)
    return run.ideals["threads=4"]


def test_of_a_run(monkeypatch):
    """The CPUs are those of when it ran; threads that compute cannot gain more than these, threads that wait as much as there are."""
    monkeypatch.setattr("parmagic.record.machine.affinity", lambda: 2)
    computes = parmagic.run(lambda n: sum(range(1_500_000)), range(16), "serial threads=8", trace="off")
    waits = parmagic.run(_wait, range(16), "serial threads=8", trace="off")
    monkeypatch.undo()
    assert [timeline.cpus for timeline in computes._study.timelines] == [2, 2]
    assert computes._study.ideals["serial"] == waits._study.ideals["serial"] == 1.0
    assert 2.0 <= computes._study.ideals["threads=8"] <= 8.0
    if computes.workers["measured"].all():
        assert computes._study.ideals["threads=8"] < 3.0
    assert waits._study.ideals["threads=8"] == 8.0
    again = parmagic.result.from_plain(parmagic.result.to_plain(computes))
    assert again._study.ideals == computes._study.ideals


def _wait(_):
    threading.Event().wait(0.03)
