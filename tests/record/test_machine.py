"""What the kernel says of the machine: its files, and CPU time that is ours."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from parmagic.record import machine

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the files are Linux's")


@pytest.fixture(autouse=True)
def _looks(monkeypatch):
    """Have the machine be looked at, as users do."""
    monkeypatch.delenv("PARMAGIC_LOAD", raising=False)

TICK = os.sysconf("SC_CLK_TCK")

STAT = b"""cpu  900 90 300 5000 40 0 70 30 0 0
cpu0 500 50 200 2000 20 0 30 10 0 0
cpu1 400 40 100 3000 20 0 40 20 0 0
cpu10 9000 0 0 0 0 0 0 9000 0 0
intr 1 2 3
ctxt 5
"""


def test_what_cpus_were_used_for():
    """User, nice and system are programs', of the CPUs that are asked for; interrupts are nobody's, and what is stolen is told apart."""
    assert machine.used(STAT, {0, 1}) == pytest.approx((1290 / TICK, 30 / TICK))
    assert machine.used(STAT, {1}) == pytest.approx((540 / TICK, 20 / TICK))
    assert all(map(math.isnan, machine.used(STAT, {0, 7})))  # it does not tell of one
    assert all(map(math.isnan, machine.used(b"", {0})))


def test_a_process():
    """The fields are counted behind its name, which may hold anything; children that it has reaped are in it."""
    assert machine.seconds_of(b"7 (a) S 1 (b) R 1 7 7 0 -1 4194304 1 2 3 4 100 20 30 4 20 0 1 0 55") == pytest.approx(154 / TICK)


@pytest.mark.parametrize(
    ("stat", "seconds"),
    [
        (b"usage_usec 5\nnr_periods 9\nnr_throttled 4\nthrottled_usec 2500000\n", 2.5),
        (b"nr_periods 9\nnr_throttled 4\nthrottled_time 2500000000\n", 2.5),
        (b"usage_usec 5\n", math.nan),
        (b"", math.nan),
    ],
)
def test_a_control_group(stat, seconds):
    """Both versions tell how long they held threads back; the root of one does not."""
    assert machine.held_back_s(stat) == pytest.approx(seconds, nan_ok=True)


BURN = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"


def test_children_are_ours():
    """What a child has used is ours while it lives, when it has ended, and when it has been reaped."""
    before = machine.look()
    child = subprocess.Popen([sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    assert machine.look().own - before.own >= 0.28
    child.communicate(b"\n")
    assert machine.look().own - before.own >= 0.28


def test_processes_apart_are_ours_once():
    """A process that is nobody's child, and is known, is counted; one that is a child as well is counted once."""
    child = subprocess.Popen([sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    before = machine.look().own
    machine.apart.add(child.pid)
    try:
        assert machine.look().own - before < 0.25
    finally:
        machine.apart.discard(child.pid)
        child.communicate(b"\n")


def test_an_arm_that_is_too_short():
    """Of less than 0.2 s nothing is told but how many CPUs there are."""
    load = machine.since(machine.look())
    assert load.cpus == len(os.sched_getaffinity(0))
    assert math.isnan(load.others_cores)
    assert math.isnan(load.throttled_s)


def test_nobody_looks_where_that_is_off(monkeypatch):
    """PARMAGIC_LOAD=off leaves all but the number of CPUs unknown, however long it was."""
    monkeypatch.setenv("PARMAGIC_LOAD", "off")
    seen = machine.look()
    assert math.isnan(seen.busy)
    assert math.isnan(machine.since(replace(seen, at=seen.at - 10)).others_cores)


@pytest.mark.parametrize("text", [b"cpu0 1 2\n", b"cpu0 a b c d e f g h\n", b"\xff"])
def test_files_of_another_make(monkeypatch, text):
    """What cannot be read is not known, and ends no run."""
    monkeypatch.setattr(machine, "_read", lambda path: text if path == "/proc/stat" else b"")
    monkeypatch.setattr(machine, "_usable", lambda: {0})
    assert math.isnan(machine.look().busy)
