"""A body that no process can have: the others' arms run, as if the line had no processes."""

from __future__ import annotations

import threading

import pytest

import parmagic
from parmagic import NotShippable
from parmagic.result import from_plain, to_plain
from parmagic.system import runs

HELD = {
    "lock": "import threading\nlock = threading.Lock()",
    "file": "file = open('held.txt', 'w')",
    "numbers": "numbers = (n for n in [1, 2, 3])",
    "helper": "import threading\nhidden = threading.Lock()\ndef helper(n):\n    with hidden: return n",
}
USED = {"lock": "with lock: value = n\nvalue", "file": "file.name and n", "numbers": "numbers is None or n", "helper": "helper(n)"}


@pytest.fixture
def held(ip, request):
    """Give the notebook a thing that no process can have; take it away again."""
    ip(HELD[request.param])
    yield request.param
    ip(f"{request.param}.close()" if request.param == "file" else f"del {request.param}")


@pytest.mark.parametrize("held", HELD, indirect=True)
def test_the_others_run(ip, capsys, held):
    """The note names the arms, the name and the reason; so does the error of who asks for such an arm."""
    run = ip(f"%%parallel serial threads=2 procs=1,2 for n in range(4)\n{USED[held]}")
    assert run.results == [0, 1, 2, 3]
    assert run.error is None
    assert run.summary.index.tolist() == ["serial", "threads=2"]
    (note,) = [note for note in run.notes if "left out" in note]
    assert note.startswith(f"procs=1, procs=2 were left out. The body reads {held!r} (a ")
    assert ", which cannot be sent to a process: " in note
    for label in ("procs=1", "procs=2"):
        with pytest.raises(KeyError, match=rf"no arm '{label}': this run has serial, threads=2\. procs=1, procs=2 were left out\. The body reads '{held}'"):
            run.arm(label)
    with pytest.raises(KeyError, match=r"no arm 'procs=3': this run has serial, threads=2\"$"):
        run.arm("procs=3")
    assert "were left out. The body reads" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("held", HELD, indirect=True)
@pytest.mark.parametrize("line", ["procs=2", "procs=1,2 --once", "procs=1 --keep-going"])
def test_processes_alone(ip, held, line):
    """There is nothing to run: it raises before anything ran, and leaves nothing."""
    ip("ran = []")
    error = ip.fails(f"%%parallel {line} for n in range(4)\nran.append(n)\n{USED[held]}")
    assert isinstance(error, NotShippable)
    assert f"The body reads {held!r}" in str(error)
    assert not runs.some()


def test_nothing_has_run_when_it_is_told(ip):
    """It is packing that tells: what the arms that run find is as it was, and each runs once."""
    ip("import threading\nlock, ran = threading.Lock(), []")
    run = ip("%%parallel procs=2 threads=2 -q --once for n in range(4)\nwith lock: ran.append(n)\nlen(ran)")
    assert sorted(ip.space["ran"]) == [0, 1, 2, 3]
    assert sorted(run.results) == [1, 2, 3, 4]


def test_the_baseline_is_that_of_a_line_without_processes(ip):
    """It sees memory as it was before the first arm, and is measured; results are those of threads."""
    ip("import threading\nlock, counted = threading.Lock(), [0]")
    body = "with lock: counted[0] += 1\n(counted[0] <= 4, n)"
    mixed = ip(f"%%parallel threads=2 procs=2 -q --trace off for n in range(4)\n{body}")
    assert ip.space["counted"] == [4]
    ip("counted[0] = 0")
    alone = ip(f"%%parallel threads=2 -q --trace off for n in range(4)\n{body}")
    for run in (mixed, alone):
        assert run.summary["baseline"].tolist() == ["measured"]
        assert run.results == [(True, n) for n in range(4)]
        assert sum(note.startswith("The body ran 4 + 4 times") for note in run.notes) == 1


def test_ranks(ip):
    """Without a clause, too; a serial arm that remains alone is one rank, as on a line of its own."""
    ip("import threading\nlock = threading.Lock()")
    run = ip("%%parallel serial procs=3 -q\nlock is None, worker.rank, worker.count")
    assert run.results == [(False, 0, 1)]
    assert run.summary.index.tolist() == ["serial"]
    run = ip("%%parallel threads=2 procs=3 -q --once\nlock is None, worker.rank, worker.count")
    assert run.results == [(False, 0, 2), (False, 1, 2)]


def test_no_other_arm_can_run(ip):
    """Where the serial arm cannot run either, the line is one of processes alone."""
    ip("import threading\nmeet = threading.Barrier(1)")
    assert isinstance(ip.fails("%%parallel serial procs=2 -q\nmeet.wait()"), NotShippable)


def test_items(ip):
    """What is true of names is true of items."""
    ip("import threading\nlocks = [threading.Lock(), threading.Lock()]")
    run = ip("%%parallel threads=2 procs=2 -q --once for lock in locks\nlock.locked()")
    assert run.results == [False, False]
    assert [note for note in run.notes if note.startswith("procs=2 was left out. Item 0 (a _thread.lock) cannot be sent to a process: ")]


def test_a_start_method_that_cannot_be(ip):
    """An option that cannot be followed is refused, whatever else the line has."""
    there, end = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: (there.set(), end.wait()))
    thread.start()
    there.wait()
    try:
        error = ip.fails("%%parallel threads=2 procs=2 -q --once --start-method fork for n in range(4)\nn")
        assert isinstance(error, NotShippable)
        assert "--start-method fork" in str(error)
    finally:
        end.set()
        thread.join()


def test_plain_python():
    """``parmagic.run`` does the same, also where the function closes over it."""
    lock = threading.Lock()

    def locked(n):
        with lock:
            return n

    run = parmagic.run(locked, range(3), "threads=1 procs=1", once=True)
    assert run.results == [0, 1, 2]
    with pytest.raises(KeyError, match=r"procs=1 was left out\. .*cannot pickle '_thread\.lock' object"):
        run.arm("procs=1")
    with pytest.raises(NotShippable):
        parmagic.run(locked, range(3), "procs=1", once=True)


def test_what_files_say(ip):
    """The reason may hold text of the user's: a file has its kind, and a run that was read again knows it as well."""
    ip("class Secret:\n    def __reduce__(self): raise ValueError('hunter2')\nsecret = Secret()")
    run = ip("%%parallel threads=1 procs=1 -q --once for n in range(2)\nsecret is None")
    assert any("hunter2" in note for note in run.notes)
    assert "hunter2" not in str(to_plain(run))
    with pytest.raises(KeyError, match=r"procs=1 was left out\. The body cannot be shipped to a process \(NotShippable\)\."):
        from_plain(to_plain(run)).arm("procs=1")
