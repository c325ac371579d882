"""Runs on a machine that others use, which these tests make busy themselves; and in a container with a quota."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import pytest
from crowd import crowd, spin, used

import parmagic
from parmagic.model.kinds import MEASURED
from parmagic.record import hooks
from parmagic.record.machine import held_back_s
from parmagic.workers.processes import hub

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not tell")


@pytest.fixture(autouse=True)
def _looks(monkeypatch):
    """Have the machine be looked at, as users do."""
    monkeypatch.delenv("PARMAGIC_LOAD", raising=False)

@pytest.mark.parametrize("model", ["procs=2", "threads=2", "serial"])
def test_a_crowd_is_seen_and_said_first(model):
    """What others took is what their own clocks say, or more, as this machine may have others still; the verdict begins with it."""
    cpus = len(os.sched_getaffinity(0))
    with crowd(2 * cpus) as pids:
        before, begin = used(pids), perf_counter()
        run = parmagic.run(spin, [0.4] * 4, model, once=True, trace="off")
        truth = (used(pids) - before) / (perf_counter() - begin)
    row = run.summary.iloc[0]
    assert truth - 0.2 < row["others_cores"] < cpus + 0.1
    assert row["others_cores"] + row["cores_used"] < cpus + 0.25
    assert run.verdict.startswith(f"Other programs took {row['others_cores']:.1f} of {cpus} cores: figures are too low, try again when it is quiet. ")


def test_nobody_is_blamed_for_our_own_children():
    """What a body's own programs use is no other program's."""
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    before = _all_used()
    run = parmagic.run(lambda _: subprocess.run([sys.executable, "-c", burn], check=True) and None, range(2), "threads=2", once=True, trace="off")
    others = run.summary["others_cores"].iloc[0] * run.summary["wall_s"].iloc[0]
    assert others < _all_used() - before - 0.9


def _all_used() -> float:
    """Return the seconds for which this machine's CPUs have run programs."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()
    return sum(map(int, fields[1:4])) / os.sysconf("SC_CLK_TCK")


def test_short_arms_do_not_know():
    """An arm of less than 0.2 s has no figures of others, and no note about them."""
    run = parmagic.run(abs, range(3), "threads=2 procs=2", once=True)
    short = run.summary[run.summary["wall_s"] < 0.15]
    assert all(map(math.isnan, [*short["others_cores"], *short["throttled_s"]]))


@contextmanager
def half_a_cpu():
    """Make a control group with a quota of half a CPU, where that is allowed; yield the file that takes processes."""
    old, new = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
    folder = (old if old.is_dir() else new) / f"parmagic-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group may be made here ({error.strerror}): throttling was not tried")
    try:
        quota = {"cpu.cfs_quota_us": "50000"} if old.is_dir() else {"cpu.max": "50000 100000"}
        weight = {"cpu.shares": "262144"} if old.is_dir() else {"cpu.weight": "10000"}  # others leave it all that it may use
        try:
            for name, value in (quota | weight).items():
                (folder / name).write_text(value)
        except OSError as error:
            pytest.skip(f"no quota may be set here ({error.strerror}): throttling was not tried")
        yield folder
    finally:
        while (folder / "cgroup.procs").read_text():  # what starts workers ends a moment behind the notebook
            time.sleep(0.01)
        folder.rmdir()


LIMITED = """
import os, sys
from pathlib import Path
Path(sys.argv[1]).write_text(str(os.getpid()))
sys.path[:0] = sys.argv[2:]
import parmagic
from crowd import spin
run = parmagic.run(spin, [0.5] * 8, "procs=8", once=True, trace="off")
print(run.summary["throttled_s"].iloc[0], run.summary["wall_s"].iloc[0], run.verdict, sep="|")
print(parmagic.run(lambda _: sum(range(3_000_000)), range(8), "threads=2 ", once=True, trace="off").verdict)
"""


def test_a_quota_is_seen_and_said_first():
    """In a container that may use half a CPU, the seconds for which it was held back are told, and no processes are advised."""
    with half_a_cpu() as group:
        paths = [str(Path(parmagic.__file__).parents[1]), str(Path(__file__).parents[1])]
        done = subprocess.run([sys.executable, "-c", LIMITED, str(group / "cgroup.procs"), *paths], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        counted = held_back_s((group / "cpu.stat").read_bytes())
    first, second = done.stdout.splitlines()
    throttled, wall, verdict = first.split("|")
    assert 0.1 * float(wall) < float(throttled) <= counted
    assert verdict.startswith("This container may use 0.5 CPUs and was held back ")
    assert "Try procs" not in second


def test_a_process_that_waits_for_a_core_to_be_born():
    """What a process stood in the run queue for since it was forked is a wait for a core, and no start-up."""
    if hooks.why_inferred():
        pytest.skip("waits are not measured here")
    cpus, width = len(os.sched_getaffinity(0)), 1 + len(MEASURED)
    label, born_late = f"procs={4 * cpus}", 0
    with crowd(4 * cpus):
        while not born_late:
            hub.close()  # no process is made ahead
            run = parmagic.run(spin, [0.01] * 8 * cpus, label, once=True, trace="off")
            timeline = run._study.timelines[0]
            for lane in timeline.lanes:
                rows = lane.tally.rows
                if rows[width + 1 + MEASURED.index("cpu_wait")] == pytest.approx(rows[width] - rows[0]):  # the first reading has nothing but that
                    born_late += 1
                    assert min(span.begin for span in lane.spans if span.kind == "startup") <= rows[0]
                    within = min(rows[width], timeline.end) - rows[0]
                    assert run.workers.loc[(label, lane.worker.rank), "cpu_wait_s"] >= 0.99 * within


AHEAD = """
import time
from parmagic.model.kinds import MEASURED
from parmagic.record import meter
def queued_in(account):
    return account.tally.rows[-len(MEASURED) + MEASURED.index("cpu_wait")]
def queued():
    begin = time.perf_counter()
    while not (account := meter.birth(begin, measuring=True)):
        pass
    return queued_in(account)
first = queued()
begin = time.perf_counter()
meter.made_ahead()
assert meter.birth(begin - 60, measuring=False) is None
account = meter.birth(begin - 60, measuring=True)
print(first > 0.001, account is None or queued_in(account) <= time.perf_counter() - begin)
"""


def test_what_a_process_made_ahead_has_waited_before_is_nobodys():
    """Only from when it waits for what to do on does its time in the run queue count."""
    with crowd(2 * len(os.sched_getaffinity(0))):
        done = subprocess.run([sys.executable, "-c", AHEAD], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["True", "True"], done.stderr
