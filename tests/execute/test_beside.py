"""Runs beside each other in one process, and one in another's body: what is said of their figures, and what all of it leaves behind."""

from __future__ import annotations

import _thread
import os
import resource
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import parmagic
from parmagic.parse import body as door
from parmagic.system import runs
from parmagic.workers.processes import capacity, forkable


def _beside(run):
    return [note for note in run.notes if "at work in this process meanwhile" in note]


def _together(*bodies, models="threads=2"):
    """Run bodies of one item and more in threads of their own, all at work before the first may end; return their runs, or errors."""
    gate = threading.Barrier(len(bodies))

    def one(body):
        met = []

        def meeting(item):
            if item == 0 and not met:
                met.append(gate.wait(30))
            return body(item)

        try:
            return parmagic.run(meeting, range(4), models, once=True)
        except Exception as error:  # noqa: BLE001  (it is looked at)
            return error

    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(one, bodies))


def test_the_note_comes_for_both():
    """Runs that were at work at the same time say so, and what of their figures that concerns; nothing blames helper threads."""

    def busy(_):
        return sum(range(1_000_000))

    for run in _together(busy, busy):
        (note,) = _beside(run)
        assert note.startswith("Another run was at work")
        assert not [each for each in run.notes if "Helper threads" in each]
        assert run.results == [sum(range(1_000_000))] * 4


def test_many_are_counted_and_one_that_fails_fails_alone():
    """Each of five runs counts the four others, but for the one whose body raises: it is told its own error only."""

    def fails(item):
        if item == 0:  # behind the gate
            raise LookupError
        return item

    *others, failed = _together(*[abs] * 4, fails)
    assert isinstance(failed, LookupError)
    for run in others:
        (note,) = _beside(run)
        assert note.startswith("4 other runs were at work")
        assert run.results == [0, 1, 2, 3]


def test_a_run_alone_says_nothing():
    """One run after another is none beside another."""
    for _ in range(2):
        assert not _beside(parmagic.run(abs, [-1], "threads=1", once=True))
    assert not runs.some()


def test_one_that_ends_without_anything_having_run_is_not_at_work():
    """A task that is refused is forgotten as well."""
    with pytest.raises(parmagic.ParmagicError):
        parmagic.run(lambda _: threading.Lock(), [threading.Lock()], "procs=2", once=True)
    assert not runs.some()


@pytest.mark.parametrize(("workers", "notes"), [(1, 0), (2, 1)])
def test_within_a_body(workers, notes):
    """A run in the body of another counts that where it has other workers; the outer one, whose own work it is, does not count it."""

    def body(item):
        inner = parmagic.run(abs, [-item], "threads=1", once=True)
        return len(_beside(inner)), inner.results

    outer = parmagic.run(body, [5], f"threads={workers}", once=True)
    assert outer.results == [(notes, [5])]
    assert not _beside(outer)


def test_workers_within_a_body_are_no_helpers():
    """The CPU time of a run in the body is nobody's helper threads'."""

    def body(_):
        return parmagic.run(lambda n: sum(range(300_000)), range(8), "threads=2", once=True).error

    assert not [note for note in parmagic.run(body, range(4), "threads=2", once=True).notes if "Helper threads" in note]


def test_prints_within_a_body(capsys):
    """What a run in a body prints is the outer worker's, marked with both; the outer's other workers print as ever."""

    def body(item):
        gate.wait(30)
        parmagic.run(lambda _: print("inner") or gate.wait(30), [0], "threads=1", once=True) if item else gate.wait(30)
        print("outer", item)
        gate.wait(30)

    gate = threading.Barrier(2)
    parmagic.run(body, [0, 1], "threads=2", once=True)
    lines = capsys.readouterr().out.splitlines()
    inside = next(line for line in lines if "inner" in line)
    assert inside.startswith("[threads ")
    assert inside.endswith("] [threads 0] inner")
    assert sorted(line.partition("] ")[2] for line in lines) == ["[threads 0] inner", "outer 0", "outer 1"]


def test_no_fork_beside_another_run():
    """Forking this process is not safe while another run's workers run the user's code, also in threads that look like a front end's."""

    def body(_):
        begun.set()
        ended.wait(30)

    begun, ended = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:  # as asyncio.to_thread's
        run = pool.submit(parmagic.run, body, [0], "threads=1", once=True)
        begun.wait(30)
        assert forkable.user_threads() == ["those of another run"]
        ended.set()
        assert run.result(30).error is None
    assert forkable.user_threads() == []


def test_what_has_ended_keeps_nobody_from_forking():
    """A thread that ``threading`` did not start, and learned of by its asking, counts as long as it runs, and not for ever."""
    go_on, known = threading.Event(), threading.Event()

    def ask():
        threading.current_thread()
        known.set()
        go_on.wait(30)

    ident = _thread.start_new_thread(ask, ())
    assert known.wait(30)
    assert len(forkable.user_threads()) == 1
    go_on.set()
    while ident in sys._current_frames():
        time.sleep(0.001)
    assert forkable.user_threads() == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a fork")
def test_a_child_runs_nothing_of_its_parents():
    """In a process that a body forks, the parent's run is at work no longer."""

    def body(_):
        pid = os.fork()
        if not pid:
            os._exit(3 if runs.some() or runs.current() else 0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert parmagic.run(body, [0], "threads=1", once=True).results == [0]


@pytest.mark.parametrize("first", [0, 1])
def test_the_limit_of_open_files(monkeypatch, first):
    """It stays raised for the run that still needs it, and is as before behind the last, whichever that is."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    monkeypatch.setattr(capacity, "_open_files", lambda: 100)
    try:
        blocks = [capacity.made(100, "procs=100"), capacity.made(200, "procs=200")]
        for block in blocks:
            block.__enter__()
        raised = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert raised >= 100 + 5 * (100 + 200) + 64
        blocks[first].__exit__(None, None, None)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == raised
        blocks[1 - first].__exit__(None, None, None)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 512
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_of_recursion(monkeypatch):
    """Cells that are read at the same time in several threads leave the interpreter's limit as it was."""

    def read():
        door.read_body("n", line="", target="n", namespace={}, filename="<cell>", flags=0)

    def checked(self, *args):
        if threading.current_thread() is threads[0]:
            second.wait(0.2)
        else:
            second.set()
            threads[0].join(10)  # the first to come is the first to go
        return real(self, *args)

    real, second = door._Reader.checked, threading.Event()
    monkeypatch.setattr(door._Reader, "checked", checked)
    before = sys.getrecursionlimit()
    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sys.getrecursionlimit() == before
