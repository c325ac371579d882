"""Beside profilers in a body: each gives its figures, under tracing, in threads and processes; and a profiler of the notebook goes on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from alongside import tool

for name in ("coverage", "line_profiler", "memray", "pyinstrument", "yappi"):
    pytest.importorskip(name)

SHELL = """\
import os, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("%load_ext parmagic").raise_error()
cell = os.environ["BODY"]
shell.run_cell(f"%%parallel {' '.join(sys.argv[1:])} --once -q -o run for x in range(2)\\n{cell}").raise_error()
run = shell.user_ns["run"]
assert run.results == [True, True], run.results
print(*run.notes, sep="\\n")
"""
WORK = """\
import time

def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)

def busy():  # for longer than a window of auto
    until, rounds = time.perf_counter() + 0.15, 0
    while time.perf_counter() < until:
        fib(8)
        rounds += 1
    return rounds
"""
HEAD = """\
import os, tempfile
from work import busy, fib
"""
LINES = """\
from line_profiler import LineProfiler
own = LineProfiler(fib, busy)
rounds = own.runcall(busy)
hits = sum(times for places in own.get_stats().timings.values() for line, times, _ in places if times > rounds + 1)
rounds * 67 <= hits
"""
COVERED = """\
import coverage
own = coverage.Coverage(data_file=None, include=[fib.__code__.co_filename], config_file=False)
own.start()
busy()
own.stop()
len(own.get_data().lines(fib.__code__.co_filename) or ()) >= 1
"""
MEMORY = """\
import memray
file = os.path.join(tempfile.mkdtemp(), "own.bin")
with memray.Tracker(file):
    kept = bytearray(1 << 22)
    busy()
memray.FileReader(file).metadata.peak_memory >= 1 << 22
"""
SAMPLES = """\
import pyinstrument
own = pyinstrument.Profiler(interval=0.001)
with own:
    busy()
"fib" in own.output_text(show_all=True)
"""
CALLS = """\
import yappi
yappi.start(builtins=False)
rounds = busy()
yappi.stop()
found = [each.ncall for each in yappi.get_func_stats() if each.name == "fib"]
yappi.clear_stats()
sum(found) >= 67 * rounds
"""
BLOCKS = """\
import tracemalloc
tracemalloc.start()
kept = bytearray(1 << 20)
busy()
current, peak = tracemalloc.get_traced_memory()
tracemalloc.stop()
peak >= 1 << 20
"""
COUNTED = """\
import trace
own = trace.Trace(count=1, trace=0)
own.runfunc(fib, 8) == 21 and bool(own.results().counts)
"""
STACKS = """\
import faulthandler
with tempfile.TemporaryFile() as file:
    faulthandler.dump_traceback_later(60, file=file)
    busy()
    faulthandler.cancel_dump_traceback_later()
    faulthandler.dump_traceback(file)
    file.seek(0)
    seen = file.read()
b"File" in seen
"""
BODIES = {
    "line_profiler": LINES, "coverage": COVERED, "memray": MEMORY, "pyinstrument": SAMPLES, "yappi": CALLS,
    "tracemalloc": BLOCKS, "trace": COUNTED, "faulthandler": STACKS,
}  # fmt: skip
ONE_IN_A_PROCESS = {"line_profiler", "coverage", "memray", "yappi", "tracemalloc"}
NOTEBOOK_S = """\
import sys, threading, time
import parmagic, PROFILER

def busy(x):
    until = time.perf_counter() + 0.3
    while time.perf_counter() < until:
        sum(range(1000))
    return x

def mine():
    pass

def run():
    runs.append(parmagic.run(busy, range(16), sys.argv[1], once=True))
    done.set()

runs, done, calls = [], threading.Event(), 0
parmagic.run(busy, range(1), sys.argv[1], once=True)
thread = threading.Thread(target=run)
thread.start()
time.sleep(0.3)  # beyond the first window
BEGIN
while not done.wait(0.001):
    mine()
    calls += 1
END
thread.join()
assert runs[0].results == list(range(16))
assert counted == calls > 0, (counted, calls)
print(*runs[0].notes, sep="\\n")
"""
OF_C_PROFILE = {
    "PROFILER": "cProfile", "BEGIN": "own = cProfile.Profile()\nown.enable()",
    "END": "own.disable()\ncounted = sum(each.callcount for each in own.getstats() if getattr(each.code, 'co_name', '') == 'mine')",
}  # fmt: skip
OF_YAPPI = {
    "PROFILER": "yappi", "BEGIN": "yappi.start(profile_threads=False)",
    "END": "yappi.stop()\ncounted = sum(each.ncall for each in yappi.get_func_stats() if each.name == 'mine')",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a module that a body uses, and what runs the body."""
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "shell.py").write_text(SHELL)
    return tmp_path


def words(name: str, model: str) -> str:
    """Return the model, with one thread for a tool of which a process has one."""
    return model.replace("threads=2", "threads=1") if name in ONE_IN_A_PROCESS else model


@pytest.mark.parametrize("model", ["threads=2", "procs=2"])
@pytest.mark.parametrize("name", BODIES)
def test_a_body_has_its_own(folder, name, model):
    """It works within a body while functions are traced, over several windows, and its figures are right."""
    printed = tool("shell.py", *words(name, model).split(), into=folder, BODY=HEAD + BODIES[name])
    assert "Functions were not traced: " not in printed


@pytest.mark.parametrize("core", ["ctrace", "sysmon"] if sys.version_info >= (3, 12) else ["ctrace"])
@pytest.mark.parametrize("mode", ["auto", "full"])
def test_cores_of_coverage(folder, core, mode):
    """Both of its ways to see lines go together with tracing."""
    tool("shell.py", "threads=1", "--trace", mode, into=folder, BODY=HEAD + COVERED, COVERAGE_CORE=core)


@pytest.mark.parametrize("model", ["threads=2", "procs=2"])
@pytest.mark.parametrize("own", [OF_C_PROFILE, OF_YAPPI], ids=["cProfile", "yappi"])
def test_one_of_the_notebook_goes_on(tmp_path, own, model):
    """One that begins in the notebook while a run goes on in another thread counts each of its calls; the run is right."""
    script = NOTEBOOK_S
    for place, text in own.items():
        script = script.replace(place, text)
    (tmp_path / "script.py").write_text(script)
    tool("script.py", model, into=tmp_path)
