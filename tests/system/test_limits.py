"""Where the system grants too little: the run ends, right or with an error that names the limit."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from parmagic.errors import LimitReached, ParmagicError
from parmagic.execute.conductor import conduct
from parmagic.execute.task import Quiet
from parmagic.parse.line import parse_models
from parmagic.record import usage
from parmagic.system import limits
from parmagic.system.files import Folder
from parmagic.workers import Job
from parmagic.workers.dispatch import COMMON, OWN
from parmagic.workers.threads import SharedWorkers

LINUX = sys.platform.startswith("linux")
pytestmark = pytest.mark.skipif(not LINUX, reason="limits as Linux has them")
ROOT = LINUX and os.getuid() == 0
NOBODY = 54321  # a user who has no other process

_HEAD = """
import json, os, resource, signal, sys, threading, time
import numpy, parmagic, parmagic.analyze.tables, parmagic.workers.processes.child
def square(item): return item * item
parmagic.run(square, range(4), {line!r})  # all that is imported late is there
parmagic.workers.processes.hub._server and parmagic.workers.processes.hub._server.close()

def fill_up(left):
    # leave this process so many descriptors
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    held = []
    try:
        while True: held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        for _ in range(left): os.close(held.pop())

def apart(what, *arguments):
    # do it in a fork that is ended where it hangs, and print what came of it
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code: print(json.dumps(["ended by", code, arguments]))
        return
    signal.alarm(30)
    try:
        found = ["run", *what(*arguments)]
    except parmagic.ParmagicError as error:
        found = [type(error).__name__, str(error)]
    print(json.dumps([*found, [thread.name for thread in threading.enumerate()][1:]]), flush=True)
    os._exit(0)
"""


def _apart(line: str, script: str) -> list[list[Any]]:
    """Run a script behind the head above; return what it printed, a list in a line."""
    script = _HEAD.format(line=line) + script
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]


SQUARES = [item * item for item in range(20)]


@pytest.mark.parametrize(("line", "numbers"), [("threads=4", [*range(15), 20, 40]), ("procs=2", [0, 5, 14, 40])])
def test_any_number_of_descriptors_left(line, numbers):
    """With 0 to 40 descriptors left, a run has the right results or an error that tells of ``ulimit -n``, and no thread stays."""
    script = f"""
def few(left):
    fill_up(left)
    return parmagic.run(square, range(20), {line!r}).results,
for left in {numbers}: apart(few, left)
"""
    found = _apart(line, script)
    assert len(found) == len(numbers)
    for kind, what, threads in found:
        assert (kind, what) == ("run", SQUARES) or (kind == "LimitReached" and "ulimit -n" in what), (kind, what)
        assert not threads
    assert found[-1][0] == "run"
    if line == "procs=2":
        assert found[0][0] == "LimitReached"


def test_figures_that_cannot_be_read_are_not_made_up():
    """With no descriptor left, a thread's peak memory and what it waited for a core are NaN, and its row tiles the wall time."""
    script = """
def nap(item): time.sleep(0.02)
def figures(left):
    fill_up(left)
    run = parmagic.run(nap, range(8), "threads=2", once=True)
    rows = run.workers.drop(columns="rss_mb").filter(regex="_s$").drop(columns=["cpu_s"])
    tiles = rows.drop(columns="wall_s").sum(axis=1)
    return bool(run.workers.cpu_wait_s.isna().all()), bool(run.workers.rss_mb.isna().all()), float((tiles / rows.wall_s).min())
apart(figures, 0)
apart(figures, 100)
"""
    none, enough = _apart("threads=2", script)
    assert none[1:3] == [True, True]
    assert none[3] == pytest.approx(1, abs=1e-6)
    assert enough[1:3] == [False, False]


def test_a_body_that_keeps_all_descriptors():
    """Threads whose body opens files until there are no more, and keeps them, end with the right results."""
    script = """
kept = []
def greedy(item):
    try:
        while True: kept.append(open(os.devnull))
    except OSError:
        return item
def greedily():
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    run = parmagic.run(greedy, range(20), "threads=4", once=True)
    return run.results,
apart(greedily)
"""
    [(kind, results, threads)] = _apart("threads=4", script)
    assert (kind, results, threads) == ("run", list(range(20)), [])


def test_a_process_that_keeps_all_descriptors():
    """A worker process without a descriptor left still sends home a large array, and ends well."""
    script = """
kept = []
def greedy(item):
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    try:
        while True: kept.append(open(os.devnull))
    except OSError:
        return numpy.full(300_000, item)
def greedily():
    run = parmagic.run(greedy, range(4), "procs=2", once=True)
    return [float(each.mean()) for each in run.results], [len(each) for each in run.results]
apart(greedily)
"""
    [(kind, means, sizes, _)] = _apart("procs=2", script)
    assert (kind, means, sizes) == ("run", [0, 1, 2, 3], [300_000] * 4)


@pytest.mark.skipif(not ROOT, reason="only root can be a user who has no other process")
@pytest.mark.parametrize("sharing", [COMMON, OWN], ids=lambda sharing: sharing.share)
def test_a_thread_that_cannot_be_started(sharing):
    """Where the third thread of four cannot be started, the others end, at the gate as well, and the error names the limit."""
    script = f"""
from parmagic.execute.conductor import conduct
from parmagic.execute.task import Quiet
from parmagic.workers import Job
from parmagic.workers.dispatch import Sharing
from parmagic.workers.threads import SharedWorkers
from parmagic.parse.line import parse_models
plan = parse_models("threads=4", trace="off")
def patient(item, worker):
    while True: time.sleep(0.002)
job = Job(patient, range(4), plan.arms[0], plan, {sharing}, lambda rank: None)
def few():
    resource.setrlimit(resource.RLIMIT_NPROC, (3, 3))  # this one, and two more
    os.setuid({NOBODY})
    raise conduct(SharedWorkers(), job, Quiet())[0].error
apart(few)
"""
    [(kind, text, threads)] = _apart("threads=4", script)
    assert kind == "LimitReached"
    assert "3 threads and processes of this user (ulimit -u)" in text
    assert not threads


def test_little_address_space():
    """With 0 to 100 MB of address space left, eight threads are right, or the error names the limit (``ulimit -v``)."""
    script = """
parmagic.system.limits.BORN_WITHIN = 1
def little(megabytes):
    size = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGESIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + megabytes * 10**6,) * 2)
    return parmagic.run(square, range(20), "threads=8", once=True).results,
for megabytes in (0, 10, 30, 100, 1000): apart(little, megabytes)
"""
    found = _apart("threads=8", script)
    for kind, what, threads in found:
        assert (kind, what) == ("run", SQUARES) or (kind == "LimitReached" and "ulimit -v" in what), (kind, what)
        assert not threads
    assert {kind for kind, _, _ in found} == {"run", "LimitReached"}


class Odd(BaseException):
    """What nobody expects."""


class Items(Sequence):
    """Items of which one raises when a worker takes it."""

    def __init__(self, error):
        self.error = error

    def __len__(self):
        """Return four."""
        return 4

    def __getitem__(self, place):
        """Return a part, or raise."""
        if place.start == 2:
            raise self.error
        return list(range(4))[place]


@pytest.mark.parametrize("sharing", [COMMON, OWN], ids=lambda sharing: sharing.share)
@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (OSError(errno.EMFILE, "Too many open files"), LimitReached, "ulimit -n"),
        (MemoryError(), LimitReached, "no memory left"),
        (Odd("here"), ParmagicError, "ended by Odd: here"),
        (SystemExit(3), ParmagicError, "ended by SystemExit: 3"),
        (KeyboardInterrupt(), ParmagicError, "ended by KeyboardInterrupt"),
    ],
)  # fmt: skip
def test_whatever_ends_a_worker_reaches_the_notebook(error, kind, text, sharing):
    """What a thread raises outside of the body ends the arm, as an error of ours; what others have done is kept."""
    plan = parse_models("threads=4", trace="off", chunk=1)
    job = Job(lambda item, _: item, Items(error), plan.arms[0], plan, sharing, lambda rank: Folder().file(f"0-{rank}.json"))
    timeline, _ = conduct(SharedWorkers(), job, Quiet())
    assert type(timeline.error) is kind
    assert text in str(timeline.error)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENFILE, ""), "whole system"),
        (BlockingIOError(errno.EAGAIN, ""), "No further thread or process"),
        (OSError(errno.ENOSPC, "", "/tmp/x"), "no space left for this run's files: /tmp/x"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), "let TMPDIR name"),
        (ImportError("libx.so: cannot open shared object file: Too many open files"), "ulimit -n"),
    ],
)
def test_what_is_said_of_a_limit(error, text):
    """Each refusal is told in words, with what to try, and its cause is kept."""
    with pytest.raises(LimitReached, match=r"\.$|:") as found, limits.explained():
        raise error
    assert text in str(found.value)
    assert found.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "no such file"), RuntimeError("other"), ImportError("no such module"),
        BlockingIOError(errno.EAGAIN, "a stream is full", 3),
    ],
)  # fmt: skip
def test_what_is_no_limit(error):
    """Other errors stay what they are."""
    with pytest.raises(type(error)) as found, limits.explained():
        raise error
    assert found.value is error


def test_peak_memory_without_proc():
    """Peak memory is a number here (where it is not, it is NaN: see above)."""
    assert usage.peak_rss_mb() > 1
