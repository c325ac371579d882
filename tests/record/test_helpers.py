"""Threads of libraries: what they used is told by library, and nobody else's CPU time is theirs.

Each case runs in a process of its own, beside a library that is built for it: its threads compute for so many CPU seconds, so that they
want a core all that time, on it or in the run queue, however busy the machine is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from parmagic.record import hooks

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are found in /proc"),
    pytest.mark.skipif(COMPILER is None, reason="there is no C compiler"),
    pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the system does not tell who stood in a run queue"),
]

measured = pytest.mark.skipif(bool(hooks.why_inferred()), reason=f"waits are inferred here: {hooks.why_inferred()}")

POOL = """
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int started, wanted, left;
static double amount;
static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}
static void *work(void *_) {
    for (;;) {
        pthread_mutex_lock(&lock);
        while (!wanted) pthread_cond_wait(&changed, &lock);
        wanted--;
        double end = now(CLOCK_THREAD_CPUTIME_ID) + amount;
        pthread_mutex_unlock(&lock);
        while (now(CLOCK_THREAD_CPUTIME_ID) < end);
        pthread_mutex_lock(&lock);
        left--;
        pthread_cond_broadcast(&changed);
        syscall(SYS_futex, &left, FUTEX_WAKE_PRIVATE, 100, 0, 0, 0);
        pthread_mutex_unlock(&lock);
    }
    return 0;
}
/* Have two threads compute for so many CPU seconds, which begin with the first job and stay, and wait for them: as C++ does, or as Rust. */
void compute(double seconds, int by_futex) {
    pthread_t thread;
    pthread_mutex_lock(&lock);
    for (; started < 2; started++) pthread_create(&thread, 0, work, 0);
    amount = seconds;
    wanted += 2;
    left += 2;
    pthread_cond_broadcast(&changed);
    while (!by_futex && left) pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    for (int still; (still = __atomic_load_n(&left, __ATOMIC_ACQUIRE));) syscall(SYS_futex, &left, FUTEX_WAIT_PRIVATE, still, 0, 0, 0);
}
static pthread_mutex_t door = PTHREAD_MUTEX_INITIALIZER;
/* Threads of the caller's, one after another: that is a lock, and no pool. */
void alone(double seconds) {
    pthread_mutex_lock(&door);
    double end = now(CLOCK_MONOTONIC) + seconds;
    while (now(CLOCK_MONOTONIC) < end) usleep(1000);
    pthread_mutex_unlock(&door);
}
/* The callers' own threads, which wait for each other. */
void follow(double seconds, int rank) {
    static int gone;
    if (rank) {
        usleep(seconds * 1e6);
        __atomic_store_n(&gone, 1, __ATOMIC_RELEASE);
        syscall(SYS_futex, &gone, FUTEX_WAKE_PRIVATE, 100, 0, 0, 0);
    }
    while (!__atomic_load_n(&gone, __ATOMIC_ACQUIRE)) syscall(SYS_futex, &gone, FUTEX_WAIT_PRIVATE, 0, 0, 0, 0);
}
"""
BEGIN = """
import _thread, ctypes, os, sys, threading, time
import parmagic
from parmagic.analyze import helpers
from parmagic.result import study
helpers.available_cpus = lambda: CORES
PATH = os.path.abspath("libcounter.so")
def compute(seconds, by_futex=0): ctypes.CDLL(PATH).compute(ctypes.c_double(seconds), by_futex)
def spin(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end: pass
def run(body, items, models, **options):
    global timelines
    found = parmagic.run(body, items, models, once=True, trace="off", timeout=60, **options)
    timelines = study(found).timelines
    return found
def noted(run): return [note for note in run.notes if "Helper threads" in note]
def used(): return {each.library: each.cpu_s for timeline in timelines for each in timeline.helpers}
if __name__ == "__main__":
"""


def in_a_process(folder: Path, script: str, cores: int = 1, **variables: str) -> None:
    """Run a script where the library is, for which there are so many cores; it must end well."""
    code = folder / "counter.c"
    code.write_text(POOL)
    subprocess.run([COMPILER, "-O1", "-shared", "-fPIC", "-pthread", "-o", "libcounter.so", code], cwd=folder, check=True)
    lines = "".join(f"    {line}\n" for line in (script + "\nprint('fine')").strip("\n").splitlines())
    (folder / "script.py").write_text(BEGIN.replace("CORES", str(cores)) + lines)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, env=environment, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=100,
    )  # fmt: skip
    assert done.stdout.endswith("fine\n"), done.stdout


@pytest.mark.parametrize("model", ["threads=1", "procs=2"])
@pytest.mark.parametrize("before", ["compute(0.2)", "pass"])
def test_a_pool_is_named(tmp_path, model, before):
    """What its threads used is the library's, also where they were there before the arm; and they wanted more cores than there are."""
    script = f"""
{before}
found = run(lambda n: compute(0.3), range(2), "{model}")
(note,) = noted(found)
assert note.startswith("Helper threads of libcounter used "), note
assert "where libcounter has a setting".capitalize() in note, note
assert [*used()] == ["libcounter"], used()
(finding,) = [each for each in study(found).findings if each.rule == "helpers"]
assert 1.2 < finding.evidence["cores_wanted"] <= 2 * timelines[0].arm.count + 0.5, finding
"""
    in_a_process(tmp_path, script)


@measured
@pytest.mark.parametrize("by_futex", [0, 1])
@pytest.mark.parametrize("model", ["threads=2", "procs=2"])
def test_waits_for_a_pool(tmp_path, model, by_futex):
    """They are for its threads, whichever way it waits: neither I/O, nor a lock that somebody could hold for less long."""
    script = f"""
found = run(lambda n: compute(0.3, {by_futex}), range(2), "{model}")
waits = found.waits[found.waits["total_s"] > 0.1]
assert {{*waits["kind"]}} == {{"helpers"}} and {{*waits["object"]}} == {{"helper threads of libcounter"}}, found.waits
assert found.workers["lock_wait_s"].sum() > 0.2 and found.workers["io_wait_s"].max() < 0.05, found.workers.T
assert found.summary["speedup"].isna().all(), found.summary
"""
    in_a_process(tmp_path, script)


@measured
def test_a_lock_within_a_library(tmp_path):
    """A library without threads of its own has no helpers: what is waited for within it is a lock."""
    script = """
def alone(seconds): ctypes.CDLL(PATH).alone(ctypes.c_double(seconds))
def follow(seconds): ctypes.CDLL(PATH).follow(ctypes.c_double(seconds), worker_of().rank)
worker_of = parmagic.current_worker
for body in (alone, follow):
    found = run(body, [0.2] * 2, "threads=2")
    waits = found.waits[found.waits["total_s"] > 0.1]
    assert "lock" in {*waits["kind"]} <= {"lock", "sleep"}, found.waits
    assert not waits["object"].astype(str).str.contains("helper").any(), found.waits
"""
    in_a_process(tmp_path, script)


def test_enough_cores(tmp_path):
    """Where there are cores for all of them, threads of libraries are no problem."""
    in_a_process(tmp_path, "assert not noted(run(lambda n: compute(0.3), range(2), 'threads=1'))\nassert used()", cores=3)


@pytest.mark.parametrize("model", ["threads=2", "procs=2"])
def test_what_it_takes_to_look(tmp_path, model):
    """To ask whose threads these are takes the asking thread its own time, also that of a worker which ends; so does to leave."""
    script = f"""
from parmagic.system import natives
asked = natives.begun_by
def slowly(threads):
    spin(0.1)
    return asked(threads)
natives.begun_by = slowly
class Kept:
    def __enter__(self): pass
    def __exit__(self, *_): spin(0.1)
def body(n):
    parmagic.current_worker().once(Kept)
    compute(0.1)
run(body, range(2), "{model}")
assert [*used()] == ["libcounter"], used()
"""
    in_a_process(tmp_path, script)


def test_who_is_no_helper(tmp_path):
    """Neither the main thread, nor threads of Python's that run on or end meanwhile, nor workers that wait, nor ranks in step."""
    script = """
def beside(begin):
    def body():
        while not stop: spin(0.01)
    stop = []
    begin(body)
    return stop.append
for item in (time.sleep, spin):
    for model in ("threads=2", "procs=2"):
        assert not noted(run(item, [0.2] * 4, model)), (item, model)
        assert not used(), (item, model, used())
for begin in (lambda body: threading.Thread(target=body).start(), lambda body: _thread.start_new_thread(body, ())):
    end = beside(begin)
    assert not noted(run(time.sleep, [0.2] * 4, "threads=2"))
    assert not {*used()} - {""}, used()
    end(1)
def pool(n):
    thread = threading.Thread(target=spin, args=(0.2,))
    thread.start()
    thread.join()
assert not noted(run(pool, range(4), "threads=2")) and not noted(run(pool, range(4), "procs=2"))
gate = threading.Barrier(2)
def rank(n):
    gate.wait(30)
    time.sleep(0.2 if n else 0)
    gate.wait(30)
assert not noted(run(rank, range(2), "threads=2")) and not used()
"""
    in_a_process(tmp_path, script)
