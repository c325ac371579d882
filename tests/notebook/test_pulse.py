"""What a run says of itself while it runs."""

from __future__ import annotations

import threading
import time

import pytest

from parmagic import workers
from parmagic.execute.story import execute
from parmagic.execute.task import CallItem, Quiet, Task
from parmagic.notebook import screen
from parmagic.parse.line import parse_models
from parmagic.record import hooks
from parmagic.system.gil import gil_enabled


class Seen(Quiet):
    """A screen that keeps what it is told of the workers."""

    def __init__(self):
        self.told = []

    def pulse(self, pulse):
        """Keep it."""
        self.told.append(pulse.doing)


def pulses(function, items, models, monkeypatch):
    """Run with short patience, and return what was told."""
    monkeypatch.setattr(workers, "QUIET_FOR", 0.2)
    monkeypatch.setattr(workers, "PULSE", 0.05)
    seen = Seen()
    task = Task(CallItem(function), items, parse_models(models, once=True, trace="off"))
    assert execute(task, seen).error is None
    return seen.told


@pytest.mark.skipif(bool(hooks.why_inferred()), reason="waits are not seen while they go on")
def test_threads(monkeypatch):
    """Of two threads that compute, one runs and one waits for the GIL; others sleep, or wait for a lock."""
    lock, end = threading.Lock(), time.monotonic() + 1.0
    lock.acquire()

    def work(n):
        if n == 0:
            time.sleep(1.0)
        elif n == 1:
            lock.acquire(timeout=1.0)
        else:
            while time.monotonic() < end:
                sum(range(1000))

    told = pulses(work, range(4), "threads=4", monkeypatch)
    told = [look for look in told if len(look) == 4]  # none has ended
    assert told
    assert all({"sleeps", "waits for a lock"} <= set(look) for look in told)
    if gil_enabled():
        assert any("waits for the GIL" in look and {"runs", "runs Python"} & set(look) for look in told)
    else:
        assert any(look.count("runs") == 2 for look in told)


@pytest.mark.skipif(bool(hooks.why_inferred()), reason="waits are not seen while they go on")
def test_processes(monkeypatch):
    """What processes do is read from their black boxes."""

    def work(n):
        end = time.monotonic() + 1.0
        while n and time.monotonic() < end:
            sum(range(1000))
        time.sleep(0 if n else 1.0)

    told = pulses(work, range(2), "procs=2", monkeypatch)
    assert ("sleeps", "runs") in told or ("runs", "sleeps") in told


def test_quick_cells_stay_quiet(monkeypatch):
    """Nothing is told in the first two seconds."""
    seen = Seen()
    execute(Task(CallItem(time.sleep), [0.1] * 4, parse_models("threads=2 procs=2", once=True)), seen)
    assert seen.told == []


def test_words():
    """Workers that do the same are counted, the most common first; what is not known is left out."""
    doing = ["runs Python", "waits for the GIL", "runs", "sleeps", "", "waits for a lock", "is blocked"]
    assert screen.counted(doing) == "2 running · 1 waiting for the GIL · 1 asleep · 1 waiting for a lock · 1 blocked"
    assert screen.counted([""]) == ""
