"""Threads that bodies start: each is there under its own name, its states tile its life, and nothing is left of what watched them."""

from __future__ import annotations

import gc
import multiprocessing
import multiprocessing.spawn
import os
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from queue import SimpleQueue
from threading import get_ident

import numpy as np
import pytest

import parmagic
from parmagic.model.kinds import WORKER_STATES
from parmagic.record import boxes, children, hooks, lives, starts
from parmagic.result import study
from parmagic.system.interrupts import raise_in
from parmagic.workers.stack import frames_of, in_library

STATES = [f"{state}_s" for state in WORKER_STATES]
SLEPT = 0.1
"""Seconds that a nap shows at least: it ends at a deadline, and a thread that loses its core on the way into it sleeps for less."""
measured = pytest.mark.skipif(bool(hooks.why_inferred()), reason=f"waits are inferred here: {hooks.why_inferred()}")
in_both = pytest.mark.parametrize("model", ["threads=2", "procs=2", "serial"])


def run(body, model, items=2, **options):
    """Run a body without a baseline."""
    return parmagic.run(body, range(items), model, once=True, trace="off", timeout=60, **options)


def started(*targets, **options):
    """Have a thread do each of these, and wait for all."""
    threads = [threading.Thread(target=target, **options) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def nap():
    """Sleep 0.2 s."""
    time.sleep(0.2)


def dig():
    """Compute for 0.1 s."""
    end = time.thread_time() + 0.1
    while time.thread_time() < end:
        pass


def two(_):
    """Start two threads, one of each."""
    started(nap, dig)


def nested(_):
    """Start a thread that starts one."""
    started(lambda: started(nap, name="grandchild"), name="child")


def pooled(_):
    """Have a pool do one task of 0.2 s and one of nothing."""
    with ThreadPoolExecutor(2, thread_name_prefix="pool") as pool:
        for task in [pool.submit(nap), pool.submit(int)]:
            task.result()


def pool_of_multiprocessing(_):
    """Have the other pool of threads do one task of 0.2 s."""
    with ThreadPool(2) as pool:
        pool.apply(nap)


@in_both
def test_each_has_a_row(model):
    """Under the rank that started it, by its own name, with a number of its own; its states add up to its life, which lies within the arm."""
    found = run(two, model)
    rows = found.children
    assert [*rows.columns] == ["name", "kind", "pid", "tid", "begin_s", "life_s", *STATES]
    assert sorted(rows.index.get_level_values("rank")) == sorted([*found.items["rank"]] * 2)
    assert sorted(name.partition("(")[2] for name in rows["name"]) == ["dig)", "dig)", "nap)", "nap)"], rows
    assert {*rows["kind"]} == {"thread"}
    assert rows["tid"].nunique() == 4
    assert not {*rows["tid"]} & {*found.workers["tid"]}
    assert np.allclose(rows[STATES].sum(axis=1), rows["life_s"], atol=1e-6), rows.T
    assert ((rows["begin_s"] > 0) & (rows["begin_s"] + rows["life_s"] <= found.summary["wall_s"].iloc[0])).all()


@measured
@in_both
def test_what_they_did(model):
    """One slept, the other was on a core; both were born without a wait that nobody can name."""
    rows = run(two, model).children
    naps, digs = (rows[rows["name"].str.contains(name)] for name in ("nap", "dig"))
    assert (naps["sleep_s"] > SLEPT).all(), rows.T
    assert (naps["running_s"] < 0.1).all(), rows.T
    assert (digs["running_s"] > 0.09).all(), rows.T
    assert (digs["sleep_s"] == 0).all(), rows.T
    assert (rows["unknown_s"] < 0.01 * rows["life_s"]).all(), rows.T


@in_both
def test_threads_of_threads(model):
    """What a thread starts is its worker's, too."""
    rows = run(nested, model, items=1).children
    assert [*rows["name"]] == ["child", "grandchild"]
    assert rows["life_s"].iloc[0] > rows["life_s"].iloc[1] >= 0.2


@measured
@pytest.mark.parametrize("body", [pooled, pool_of_multiprocessing])
def test_who_waits_for_work_is_idle(body):
    """A pool's threads wait for work, which is no lock; a task's own waits are what they are."""
    rows = run(body, "threads=1", items=1).children
    assert rows["sleep_s"].sum() > SLEPT
    assert rows["idle_s"].max() > 0.15, rows.T
    assert (rows["lock_wait_s"] < 0.1).all(), rows.T


def test_what_goes_on():
    """A thread that nobody waits for is told of until the arm's end, and there is a note; then nobody looks at it any more."""
    go, gone = threading.Event(), threading.Event()

    def behind():
        go.wait(30)
        gone.set()

    from parmagic.analyze.verdict import BRIEF

    found = run(lambda _: threading.Thread(target=behind, name="behind").start(), "threads=1", items=1)
    rows = found.children
    assert [*rows["name"]] == ["behind"]
    assert rows["begin_s"].iloc[0] + rows["life_s"].iloc[0] <= found.summary["wall_s"].iloc[0] + 1e-9
    assert any("behind still ran when the last item had ended. Join it in the body" in note for note in found.notes), found.notes
    brief = bool(found.summary["serial_s"].iloc[0] < BRIEF)  # where the machine is not so busy that to start a thread takes long
    assert found.verdict.startswith("Nothing to tell: the body took " if brief else "No serial run to compare with"), found.verdict
    assert ("(behind)" in found.verdict) is brief, found.verdict
    go.set()
    assert gone.wait(30)


@measured
def test_a_pool_that_is_kept():
    """Threads that wait for work when the arm ends have nothing to do: no note."""
    kept = []

    def body(_):
        kept.append(ThreadPoolExecutor(1))
        kept[0].submit(nap).result()
        time.sleep(0.05)  # until it waits

    found = run(body, "threads=1", items=1)
    assert len(found.children) == 1
    assert not any("still ran" in note for note in found.notes), found.notes
    kept[0].shutdown()


def test_a_thread_that_goes_on_keeps_nothing():
    """What a run's body held is let go of, though a thread that it started lives on."""
    go, kept = threading.Event(), []

    class Thing:
        """What a body closes over."""

    def bodies(thing):
        def body(_):
            kept.append(threading.Thread(target=go.wait, args=(60,)))
            kept[0].start()
            return repr(thing)[:0]

        return body, weakref.ref(thing)

    body, thing = bodies(Thing())
    run(body, "threads=1", items=1)
    del body
    parmagic.run(int, [0], "threads=1", once=True, trace="off")  # last() is another one
    gc.collect()
    alive = thing()
    go.set()
    kept[0].join()
    assert alive is None


def test_an_ended_thread_keeps_nothing():
    """What a thread was told to do, and has made, is gone with the body's last name for it, and not with the run."""

    class Maker(threading.Thread):
        """A thread that keeps what it has made."""

        def run(self):
            """Make something."""
            self.made = np.zeros(10)

    def body(_):
        maker = Maker()
        maker.start()
        maker.join()
        made = weakref.ref(maker)
        del maker
        gc.collect()
        return made() is None

    assert run(body, "threads=1", items=1).results == [True]


def test_names_are_not_asked_for():
    """A thread's name is what it was called, and no code of its class runs for that."""
    asked = []

    class Called(threading.Thread):
        """One that says another name."""

        @property
        def name(self):
            """Say it, but not to us."""
            asked.extend(frame for frame in [sys._getframe(1).f_globals["__name__"]] if frame.startswith("parmagic"))
            return "other"

        @name.setter
        def name(self, name):
            """Take one."""

    def body(_):
        thread = Called(target=nap, name="mine")
        thread.start()
        thread.join()

    assert [*run(body, "threads=1", items=1).children["name"]] == ["mine"]
    assert not asked


def test_who_is_nobodys():
    """Threads that are no body's, and our own, are not among them; nor is one from before."""
    stop = threading.Event()
    before = threading.Thread(target=lambda: stop.wait(30))
    before.start()
    found = run(lambda _: time.sleep(0.01), "threads=2 procs=2 serial")
    stop.set()
    before.join()
    assert found.children.empty
    assert [*found.children.columns] == ["name", "kind", "pid", "tid", "begin_s", "life_s", *STATES]


forked = pytest.mark.skipif(not hasattr(os, "fork") or bool(hooks.why_inferred()), reason="no processes are seen here")
fork = multiprocessing.get_context("fork") if hasattr(os, "fork") else None


def processes(_):
    """Start two processes, one of each."""
    both = [fork.Process(target=target) for target in (nap, dig)]
    for process in both:
        process.start()
    for process in both:
        process.join()


@forked
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@in_both
def test_processes_have_rows(model):
    """A forked process has one, under the name that multiprocessing gives it, with the account that it kept itself."""
    found = run(processes, model)
    rows = found.children
    assert {*rows["kind"]} == {"process"}
    assert all(name.startswith("ForkProcess-") for name in rows["name"]), rows
    assert rows["pid"].nunique() == 4
    assert np.allclose(rows[STATES].sum(axis=1), rows["life_s"], atol=1e-6), rows.T
    assert sorted((rows["sleep_s"] > SLEPT) * 1 + (rows["running_s"] > 0.09) * 2) == [1, 1, 2, 2], rows.T
    assert ((rows["begin_s"] > 0) & (rows["begin_s"] + rows["life_s"] <= found.summary["wall_s"].iloc[0])).all()
    assert "processes that its body starts" in found.verdict or found.summary["efficiency"].iloc[0] > 0.5, found.verdict


@forked
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("model", ["threads=1", "procs=1"])
def test_pools_of_processes(model):
    """Their workers are idle where they wait for work, also where they are killed in that; a task's own time is what it is."""

    def body(_):
        with fork.Pool(2) as pool:
            pool.apply(nap)
        with ProcessPoolExecutor(2, mp_context=fork) as pool:
            pool.submit(nap).result()

    rows = run(body, model, items=1).children
    workers = rows[rows["kind"] == "process"]
    assert {name.partition("-")[0] for name in workers["name"]} == {"ForkPoolWorker", "ForkProcess"}, workers
    assert workers["sleep_s"].sum() > 0.39, workers.T
    assert (workers["unknown_s"] < 0.01).all(), workers.T
    assert ((rows["lock_wait_s"] + rows["io_wait_s"]) < 0.15).all(), rows.T


@forked
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("model", ["threads=1", "procs=1"])
def test_processes_of_processes(model):
    """What a body's process starts in its turn is not there, and does not take that one's name and number."""

    def child():
        process = fork.Process(target=nap)
        process.start()
        process.join()

    def body(_):
        process = fork.Process(target=child, name="mine")
        process.start()
        process.join()
        return process.pid

    found = run(body, model, items=1)
    assert [*zip(found.children["name"], found.children["pid"], strict=True)] == [("mine", found.results[0])]


@forked
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("most", [0, 64])
def test_a_fork_that_ends_its_thread(monkeypatch, capfd, most):
    """A thread's fork may come to the end of what the thread was to do: that is an end as any other, in silence."""
    monkeypatch.setattr(boxes, "AT_ONCE", most)
    ends = []

    def forks_itself():
        pid = os.fork()
        if pid:
            ends.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        else:
            nap()

    rows = run(lambda _: started(forks_itself), "threads=1", items=1).children
    assert ends == [0]
    assert [*rows["kind"]] == ["thread", "process"][: 1 + bool(most)]
    assert (rows["sleep_s"][rows["kind"] == "process"] > SLEPT).all(), rows.T
    assert capfd.readouterr().err == ""


@forked
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_without_multiprocessing(capfd):
    """One where a body has taken multiprocessing away is silent, too."""

    def body(_):
        there, sys.modules["multiprocessing"] = sys.modules["multiprocessing"], None
        try:
            return forks(_)
        finally:
            sys.modules["multiprocessing"] = there

    assert run(body, "procs=1", items=1).results == [0]
    assert capfd.readouterr().err == ""


@forked
@pytest.mark.parametrize("how", ["spawn", "forkserver"])
@pytest.mark.parametrize("model", ["threads=1", "procs=1"])
def test_processes_that_start_anew(model, how):
    """They keep their account from where they can, and are starting until then; a pool's workers are idle where they wait for work."""

    def body(_):
        context = multiprocessing.get_context(how)
        process = context.Process(target=time.sleep, args=(0.2,), name="mine")
        process.start()
        process.join()
        with context.Pool(1) as pool:
            pool.apply(time.sleep, (0.2,))

    rows = run(body, model, items=1).children
    rows = rows[rows["kind"] == "process"]
    assert [name.partition("PoolWorker-")[0] for name in rows["name"]] == ["mine", {"spawn": "Spawn", "forkserver": "ForkServer"}[how]], rows
    assert (rows["startup_s"] > 0).all(), rows.T
    assert (rows["sleep_s"] > SLEPT).all(), rows.T
    assert np.allclose(rows[STATES].sum(axis=1), rows["life_s"], atol=1e-6), rows.T


def test_a_process_without_parmagic():
    """One that cannot load what keeps the account does what it is to do, and nothing is known of it."""
    code = f"from types import SimpleNamespace\nexec({boxes.JOIN!r}, dict(about=(0, 0, ''), file=SimpleNamespace(detach=lambda: 0)))\nprint('done')"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=False, capture_output=True, text=True, timeout=100)
    assert (done.stdout, done.stderr) == ("done\n", "")


@forked
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("how", ["os._exit(3)", "os.kill(os.getpid(), 9)", "sys.exit(3)", "raise ValueError"])
def test_however_it_ends(how):
    """What a process did is known whatever has ended it."""

    def body(_):
        pid = os.fork()
        if not pid:
            dig()
            nap()
            exec(how)
        os.waitpid(pid, 0)

    (row,) = run(body, "threads=1", items=1).children.to_dict("records")
    assert row["kind"] == "process"
    assert row["running_s"] > 0.09, row
    assert row["sleep_s"] > SLEPT, row
    assert sum(row[state] for state in STATES) == pytest.approx(row["life_s"], abs=1e-6)


@forked
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_many_processes(monkeypatch):
    """Descriptors are given back of those that have ended; of more at a time than are looked at, how many is known."""
    monkeypatch.setattr(boxes, "AT_ONCE", 3)
    before = len(os.listdir("/proc/self/fd"))

    def body(_):
        for _ in range(10):
            pid = os.fork()
            if not pid:
                os._exit(0)
            os.waitpid(pid, 0)

    found = run(body, "threads=1", items=1)
    assert len(found.children) == 10
    assert not any("is without" in note for note in found.notes)
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def forks_at_once(_):
    """Have five processes at a time."""
    pids = [os.fork() or (nap(), os._exit(0)) for _ in range(5)]
    for pid in pids:
        os.waitpid(pid, 0)


@forked
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_processes_that_are_left_out(monkeypatch):
    """They are counted in a note."""
    monkeypatch.setattr(boxes, "AT_ONCE", 3)
    found = run(forks_at_once, "threads=1", items=1)
    assert len(found.children) == 3
    assert any(note.startswith("run.children is without 2 of the processes that the body started") for note in found.notes), found.notes


@forked
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_no_file_may_be_as_large():
    """Nothing of a box is left that could not be made."""
    import resource

    def body(_):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            return forks(_)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    there = len(os.listdir("/proc/self/fd"))
    found = run(body, "threads=1", items=1)
    assert found.results == [0]
    assert found.children.empty
    assert len(os.listdir("/proc/self/fd")) <= there


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="nothing takes descriptors here")
def test_descriptors_are_the_bodys():
    """Where few are free, none is taken from it."""
    import resource

    def body(_):
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        opened = [os.open(os.devnull, os.O_RDONLY)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (opened[0] + 100, before[1]))
        go = threading.Event()
        threads = [threading.Thread(target=go.wait, args=(30,)) for _ in range(50)]
        try:
            for thread in threads:
                thread.start()
            opened.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(70))
        finally:
            go.set()
            for thread in threads:
                thread.join()
            for each in opened:
                os.close(each)
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        return len(opened)

    found = run(body, "threads=1", items=1)
    assert found.results == [71]
    assert len(found.children) == 50


STARTS = [name for name in ("_start_new_thread", "_start_joinable_thread") if hasattr(threading, name)]


def left():
    """Return what of ours starts threads, and prepares processes."""
    there = [getattr(threading, name) for name in STARTS] + [multiprocessing.spawn.get_preparation_data]
    return [each for each in there if type(each).__module__.startswith("parmagic")]


def fails(_):
    """Raise when a thread has ended."""
    started(nap)
    raise ValueError("no")


def forks(_):
    """Return how much of ours there is in a fork."""
    child = os.fork()
    if not child:
        os._exit(len(left()))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@in_both
def test_nothing_is_left(model):
    """What starts threads is put back: behind a run, an error, and in a fork."""
    run(two, model)
    assert not left()
    with pytest.raises(ValueError, match="no"):
        run(fails, model)
    assert not left()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@in_both
def test_nothing_is_left_in_a_fork(model):
    """A process that a body forks starts threads as ever."""
    assert run(forks, model).results == [0, 0]


def test_a_start_is_not_torn(monkeypatch):
    """While a worker starts a thread it is not interrupted: up to 3.11, the new thread would take what is meant for the worker."""
    original, heard, go, test = getattr(threading, STARTS[0]), [], threading.Event(), get_ident()

    def starts(*args, **kwargs):
        if get_ident() != test:  # which starts the worker
            heard.append(raise_in(get_ident(), KeyError))
        return original(*args, **kwargs)

    def body(_):
        me = get_ident()
        started(lambda: heard.append(raise_in(me, KeyError)))
        go.wait(30)

    monkeypatch.setattr(threading, STARTS[0], starts)
    with pytest.raises(KeyError):
        run(body, "threads=1", items=1)
    assert heard == [False, True]


def test_who_starts_a_thread_is_in_the_library(monkeypatch):
    """Our code stands there for the library's: locks of its callers would stay locked."""
    gate = SimpleQueue()
    monkeypatch.setattr(starts, "is_ours", gate.get)  # it blocks in C: the innermost frame is ours

    def start():
        mine.adopt(0, measuring=False)
        started(nap)

    with children.Children() as mine:
        thread = threading.Thread(target=start)
        thread.start()
        until = time.monotonic() + 30
        while next(frames_of(thread.ident)).file != starts.__file__ and time.monotonic() < until:
            time.sleep(0.001)
        found = in_library(thread)
        gate.put(False)
        thread.join()
    assert found


def test_somebody_elses_patch_stays():
    """Who has put something else there meanwhile finds that again, and it works when we are gone."""
    original = getattr(threading, STARTS[0])

    def body(_):
        ours = getattr(threading, STARTS[0])
        setattr(threading, STARTS[0], partial(ours))
        started(nap)

    try:
        found = run(body, "threads=1", items=1)
        assert len(found.children) == 1
        done = []
        started(lambda: done.append(1))
        assert done == [1]
        assert [*run(lambda _: started(nap, name="one"), "threads=1", items=1).children["name"]] == ["one"]  # there are two of ours now
    finally:
        setattr(threading, STARTS[0], original)


def test_many_at_once(monkeypatch):
    """Of more than are metered, the life and the CPU time are known, and the rest says so; of more than are kept, how many there were."""
    monkeypatch.setattr(children, "AT_ONCE", 3)
    monkeypatch.setattr(children, "MOST", 8)
    gate = threading.Barrier(10)
    found = run(lambda _: started(*[lambda: gate.wait(30)] * 10), "threads=1", items=1)
    rows = found.children
    assert len(rows) == 8
    assert any("the first 8 threads that the body started; 2 more are not in it" in note for note in found.notes), found.notes
    assert np.allclose(rows[STATES].sum(axis=1), rows["life_s"], atol=1e-6), rows.T
    if not hooks.why_inferred():
        assert (rows["lock_wait_s"].iloc[:3] + rows["gil_wait_s"].iloc[:3] > 0).all(), rows.T
        assert (rows["lock_wait_s"].iloc[3:].fillna(0) == 0).all(), rows.T


def test_runs_beside_each_other():
    """Each run has its own threads, also one within a body."""

    def inner(_):
        started(nap, name="inner")

    def outer(_):
        started(dig, name="outer")
        return [*run(inner, "threads=1", items=1).children["name"]]

    found = run(outer, "threads=1", items=1)
    assert found.results == [["inner"]]
    assert [*found.children["name"]] == ["outer"]
    assert not left()


@forked
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("model", ["threads=1", "procs=1"])
@pytest.mark.parametrize("within", ["threads=2", "serial"])
def test_a_run_within_a_fork(model, within):
    """A process that a body forks may have runs of its own: all of their items, and what is behind them."""

    def body(_):
        pid = os.fork()
        if not pid:
            found = run(lambda item: started(nap, name="inner") or item, within)
            os._exit(10 * len(found.children) + sum(found.results))
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    found = run(body, model, items=1)
    assert found.results == [21]
    assert [*found.children["kind"]] == ["process"]


def test_errors_are_threadings(monkeypatch):
    """What a thread raises goes where it always goes, with no frame of ours."""
    seen = []
    monkeypatch.setattr(threading, "excepthook", seen.append)

    def wrong():
        raise KeyError("here")

    found = run(lambda _: started(wrong), "threads=1", items=1)
    (error,) = seen
    assert error.exc_type is KeyError
    assert error.thread.name == found.children["name"].iloc[0]
    trace, files = error.exc_traceback, []
    while trace:
        files.append(Path(trace.tb_frame.f_code.co_filename))
        trace = trace.tb_next
    assert not any(file.is_relative_to(Path(parmagic.__file__).parent) for file in files), files


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@in_both
def test_programs_have_no_rows(model):
    """Nor have those that are forked, and run Python until they are one."""
    found = run(lambda _: subprocess.run([sys.executable, "-c", ""], preexec_fn=os.getpid, check=True).returncode, model)
    assert found.results == [0, 0]
    assert not len(found.children), found.children


def keeps(_, kept=[]):  # noqa: B006  (it is meant to be kept)
    """Leave a pool behind that has nothing to do."""
    kept.append(ThreadPoolExecutor(1))
    kept[0].submit(int).result()


class Strange(threading.Thread):
    """A thread whose name is code of the user's."""

    @property
    def name(self):
        """Do not tell."""
        raise AssertionError("the user's code ran")

    @name.setter
    def name(self, _):
        """Be called nothing."""


def test_whose_name_is_code():
    """It is not run, and the thread ends as it would."""

    def body(_):
        thread = Strange(target=nap)
        thread.start()
        thread.join()

    (name,) = run(body, "threads=1", items=1).children["name"]
    assert name.startswith("Thread-")


def test_a_process_that_starts_behind_the_run():
    """It has no box, as nobody would close that."""
    with children.Children() as ours:
        ours.adopt(0, measuring=True)
        family = lives.here.family
        ours.take()
        assert ours.box_for(family) is None
    lives.leave()


def test_inferred():
    """Where nothing is hooked, what was on a core is known, and the rest is said not to be; a pool's thread likely waits for work."""
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "import test_children as t\n"
        "if __name__ == '__main__':\n"
        "    rows = t.run(t.two, 'threads=1', items=1).children\n"
        "    assert abs(rows[t.STATES].sum(axis=1) - rows['life_s']).max() < 1e-6, rows.T\n"
        "    assert rows['running_s'].max() > 0.09 and rows['native_s'].isna().all(), rows.T\n"
        "    assert rows['unknown_s'].max() > 0.15 and not rows['sleep_s'].sum() > 0, rows.T\n"
        "    kept = t.run(t.keeps, 'threads=1', items=1)\n"
        "    assert len(kept.children) == 1 and not any('still ran' in note for note in kept.notes), kept.notes\n"
    )
    environment = {**os.environ, "PARMAGIC_WAITS": "off"}
    command = [sys.executable, "-c", code, str(Path(__file__).parent), *sys.path]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


def test_the_account_of_many():
    """Where there are some hundreds one after another, each is there, and the worker is hardly slower."""

    def body(_):
        for _ in range(300):
            started(lambda: None)

    found = run(body, "threads=1", items=1)
    assert len(found.children) == 300
    assert found.children["begin_s"].is_monotonic_increasing
    assert len(study(found).timelines[0].children) == 300
