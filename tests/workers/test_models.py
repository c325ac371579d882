"""What every model must do beyond the plain cases: sizes, items, memory, deaths and the way home."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
from arms import MODELS

import parmagic
from parmagic import NotShippable, WorkerDied, current_worker
from parmagic.workers.processes import hub
from parmagic.workers.stack import in_library

PROCS = [model for model in MODELS if model.startswith("procs")]
SHARED = [model for model in MODELS if not model.startswith("procs")]


@pytest.mark.parametrize("model", MODELS)
class TestEveryModel:
    """One contract for all models."""

    def test_uneven_items(self, ip, model):
        """Items that differ a thousandfold in length come back in order, each once."""
        run = ip(f"%%parallel {model} -q --once for n in range(60)\nfor _ in range(50_000 if n % 7 == 0 else 50):\n    pass\n-n")
        assert run.results == [-n for n in range(60)]
        assert run.workers["n_items"].sum() == 60

    def test_trivial_items(self, ip, model):
        """A hundred thousand trivial items are all there, in order, each recorded once."""
        run = ip(f"%parallel {model} -q --once --trace off n + 1 for n in range(100_000)")
        assert run.results == list(range(1, 100_001))
        assert run.items["rank"].notna().sum() == 100_000

    def test_big_items(self, ip, model):
        """Arrays arrive whole and can be written to; results are whole as well."""
        ip("import numpy as np\nbig = [np.full((300, 1000), float(n)) for n in range(4)]")
        run = ip(f"%%parallel {model} -q --once for a in big\na += 1\na")
        assert [(a.shape, a.min(), a.max()) for a in run.results] == [((300, 1000), n + 1.0, n + 1.0) for n in range(4)]
        assert [a[0, 0] for a in ip.space["big"]] == ([0.0, 1.0, 2.0, 3.0] if model in PROCS else [1.0, 2.0, 3.0, 4.0])

    @pytest.mark.parametrize("chunk", [1, 7, 1000])
    def test_chunk(self, ip, model, chunk):
        """With --chunk N every claim but the last has N items."""
        run = ip(f"%parallel {model} -q --once --chunk {chunk} n for n in range(30)")
        claims = sorted((b.first, len(b.begins)) for lane in run._study.timelines[0].lanes for b in lane.batches)
        assert claims == [(first, min(chunk, 30 - first)) for first in range(0, 30, chunk)]
        assert run.results == list(range(30))

    def test_kinds_of_classes(self, ip, model):
        """Nested classes, enumerations, named tuples and data classes of the notebook come back as themselves."""
        ip(
            "import collections, dataclasses, enum\nclass Outer:\n    class Inner:\n        pass\n"
            "class Color(enum.Enum):\n    RED = 1\nPair = collections.namedtuple('Pair', 'a b')\n"
            "@dataclasses.dataclass\nclass Data:\n    x: int"
        )
        run = ip(f"%%parallel {model} -q --once for n in range(2)\n[Outer.Inner(), Color.RED, Pair(n, 2), Data(n)]")
        space = ip.space
        for n, (inner, red, pair, data) in enumerate(run.results):
            assert type(inner) is space["Outer"].Inner
            assert red is space["Color"].RED
            assert (type(pair), pair) == (space["Pair"], (n, 2))
            assert data == space["Data"](n)

    def test_closures(self, ip, model):
        """A closure takes what it closes over along, also where it comes from a function of the notebook."""
        ip("def adder(k):\n    def add(n):\n        return n + k\n    return add\nadders = [adder(1), lambda n: 2 * n]")
        run = ip(f"%parallel {model} -q --once [f(n) for f in adders] for n in range(3)")
        assert run.results == [[1, 0], [2, 2], [3, 4]]

    def test_current_worker(self, ip, model):
        """parmagic.current_worker() is the body's worker, also where the user has taken that name, and nobody's outside."""
        ip("import parmagic\nworker = 'mine'")
        run = ip(f"%parallel {model} -q --once (worker, parmagic.current_worker().model) for n in range(3)")
        assert run.results == [("mine", model.split("=")[0])] * 3
        with pytest.raises(RuntimeError, match="no worker here"):
            current_worker()

    def test_unended_line(self, ip, model, capsys):
        """What is printed without a newline at the end appears all the same, as a line of its own."""
        ip(f"%%parallel {model} -q --once for n in range(1)\nprint('unended', n, end='')")
        kind = model.split("=")[0].split()[0]
        assert [line for line in capsys.readouterr().out.splitlines() if "unended" in line][-1].startswith(f"[{kind} ")

    def test_deep_recursion(self, ip, model):
        """A RecursionError is that, and not a dead worker."""
        ip("%xmode Minimal\ndef deeper():\n    return deeper()")  # IPython takes seconds to show a thousand frames
        error = ip.fails(f"%parallel {model} -q --once deeper() for n in range(2)")
        assert type(error) is RecursionError
        assert "item" in error.__notes__[0]

    def test_chained_exceptions(self, ip, model):
        """The cause and the notes of the body's exception are kept."""
        error = ip.fails(
            f"%%parallel {model} -q --once for n in range(1)\ntry:\n    1 / 0\nexcept ZeroDivisionError as e:\n"
            "    wrong = ValueError('wrapped')\n    wrong.add_note('my own note')\n    raise wrong from e"
        )
        assert type(error) is ValueError
        assert type(error.__cause__) is ZeroDivisionError
        assert error.__notes__[0] == "my own note"

    def test_spmd_waits_at_the_gate(self, ip, model):
        """Without a clause each rank runs once; the results are in rank order."""
        run = ip(f"%parallel {model} -q --once n for n in range(1)") if model == "serial" else ip(f"%%parallel {model} -q --once\nworker.rank")
        assert run.results == list(range(run._study.timelines[0].n_items))


@pytest.mark.parametrize("model", SHARED)
def test_shared_memory_changes(ip, model):
    """A serial arm and threads run in the notebook's memory."""
    ip("cache = {}")
    ip(f"%%parallel {model} -q --once for n in range(3)\ncache[n] = n")
    assert ip.space["cache"] == {0: 0, 1: 1, 2: 2}


@pytest.mark.parametrize("model", PROCS)
class TestProcesses:
    """What only processes can get wrong."""

    def test_memory_stays(self, ip, model):
        """Neither the notebook's objects nor its classes change, and the notes say so."""
        ip("cache = {}\nclass Point:\n    flag = 'home'")
        run = ip(f"%%parallel {model} -q --once for n in range(3)\ncache[n] = n\nPoint.flag = 'away'\nPoint()")
        assert ip.space["cache"] == {}
        assert ip.space["Point"].flag == "home"
        assert {type(point) for point in run.results} == {ip.space["Point"]}
        assert any("cache" in note for note in run.notes)

    def test_death_before_the_first_item(self, ip, model):
        """A worker that dies while it starts is blamed for no item, and --keep-going does not hide it."""
        if model.endswith("fork"):
            pytest.skip("a forked worker unpickles nothing")
        ip("import os\nclass Bomb:\n    def __reduce__(self):\n        return os._exit, (3,)\nbomb = Bomb()")
        for option in ("", "--keep-going"):
            error = ip.fails(f"%%parallel {model} -q --once {option} for n in range(4)\nbomb\nn")
            assert isinstance(error, WorkerDied)
            assert "exit code 3 before its first item" in str(error)
            assert parmagic.last().items["error"].tolist() == ["not started"] * 4

    def test_death_after_the_last_item(self, ip, model):
        """A worker that dies when all of its items are done takes nobody else's results away."""
        ip("import multiprocessing\nfrom multiprocessing import util\nimport os\nevent = multiprocessing.get_context('fork').Event()" if model.endswith("fork") else "import multiprocessing\nfrom multiprocessing import util\nimport os\nevent = multiprocessing.get_context('forkserver').Event()")
        run = ip(
            f"%%parallel {model} -q --once --chunk 3 for n in range(6)\n"
            "if n == 0:\n    util.Finalize(None, os._exit, args=(3,), exitpriority=1)\n    event.wait(10)\n"
            "if n == 3:\n    event.set()\n    __import__('time').sleep(0.3)\nn"
        )
        assert run.results == list(range(6))
        assert run.error is None
        assert any("after its last item" in note for note in run.notes)

    def test_result_that_cannot_be_read(self, ip, model):
        """A result that pickles and does not unpickle gets a message with what to do; the run is kept."""
        ip("class Odd:\n    def __reduce__(self):\n        return int, ('no number',)")
        error = ip.fails(f"%parallel {model} -q --once Odd() if n == 2 else n for n in range(4)")
        assert isinstance(error, NotShippable)
        assert "cannot be read" in str(error)
        assert parmagic.last().error is error

    def test_wide_characters(self, ip, model, capsys):
        """Characters are whole, wherever the pipe cuts their bytes."""
        ip(f"%%parallel {model} -q --once for n in range(1)\nprint('x' + '€' * 100_000)")
        assert f"x{'€' * 100_000}\n" in capsys.readouterr().out


def test_unreadable_body_is_not_hidden(ip):
    """A body that workers cannot read is an error also with --keep-going."""
    ip("class Bad:\n    def __reduce__(self):\n        return __import__, ('no_such_module',)\nbad = Bad()")
    error = ip.fails("%%parallel procs=2 -q --once --keep-going for n in range(4)\nbad\nn")
    assert isinstance(error, NotShippable)
    assert "no_such_module" in str(error)
    assert parmagic.last().results == [None] * 4


def test_run_without_a_lane_has_tables(ip):
    """Where no worker came to life, all tables and the report can be looked at."""
    ip("class Bad:\n    def __reduce__(self):\n        return __import__, ('no_such_module',)\nbad = Bad()")
    ip.fails("%%parallel procs=1 -q --once for n in range(2)\nbad\nn")
    run = parmagic.last()
    assert run.summary.index.tolist() == ["procs=1"]
    assert len(run.workers) == 0
    assert run.items["error"].tolist() == ["not started"] * 2
    assert run.verdict.startswith("The run ended early: NotShippable")
    assert "NotShippable" in repr(run)


def test_too_many_descriptors(ip):
    """More pipes than one message can carry are refused with their number; the server lives on."""
    ip("import multiprocessing\npipes = [multiprocessing.Pipe() for _ in range(150)]")
    error = ip.fails("%parallel procs=2 -q --once len(pipes) for n in range(2)")
    ip("for a, b in pipes:\n    a.close()\n    b.close()\ndel pipes, a, b")
    assert isinstance(error, NotShippable)
    assert "pipes" in str(error)
    assert ip("%parallel procs=2 -q --once n for n in range(2)").results == [0, 1]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_server_dies(ip):
    """When the server is killed under a run, that run says so, its items are kept, and the next run has a new one."""
    ip("import os, signal, time")
    dead = hub.get().pid
    error = ip.fails("%%parallel procs=1 -q --once --chunk 1 for n in range(6)\nif n == 3:\n    os.kill(os.getppid(), signal.SIGKILL)\n    time.sleep(60)\nn")
    assert isinstance(error, WorkerDied)
    assert "starts workers has ended" in str(error)
    assert parmagic.last().results[:3] == [0, 1, 2]
    run = ip("%parallel procs=2 -q --once __import__('time').sleep(0.1) for n in range(2)")
    assert hub.get().pid != dead
    assert run.workers["sleep_s"].sum() > 0.1  # the sampler is a new one, too


def test_keep_going_baseline_is_measured(ip):
    """Where failed items fail serially as well, all items ran: the baseline is measured and not called a sample."""
    run = ip("%%parallel procs=2 -q --keep-going for n in range(9)\n1 / (n - 4)\nn")
    assert run.summary["baseline"].tolist() == ["measured"]
    assert not any("sample of" in note for note in run.notes)


def test_keep_going_goes_on_behind_an_arm_without_failures(ip):
    """Failures of one arm end none that come later, whether the arms between them fail or not."""
    run = ip("%%parallel threads=2,1 procs=2 -q --once --keep-going\nif worker.rank == 1:\n    raise ValueError(1)\nworker.rank")
    assert [timeline.arm.label for timeline in run._study.timelines] == ["threads=2", "threads=1", "procs=2"]
    assert (run.results, run.error) == ([0, None], None)


def test_interrupt_in_the_baseline(ip):
    """Ctrl-C while the baseline runs keeps the arm's results and leaves no worker."""
    ip("import os, signal")
    notebook = os.getpid()
    error = ip.fails(f"%%parallel procs=2 -q for n in range(4)\nif worker.model == 'serial' and n == 2:\n    os.kill({notebook}, signal.SIGINT)\n    signal.pause()\nn")
    assert isinstance(error, KeyboardInterrupt)
    run = parmagic.last()
    assert run.results == [0, 1, 2, 3]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_pandas_in_processes(ip):
    """What asks for `get_ipython` under `except NameError`, as pandas does, works in a process; frames travel both ways."""
    ip("import pandas as pd; frames = [pd.DataFrame({'a': range(n)}) for n in range(4)]")
    run = ip("%parallel procs=2 -q --once frame.assign(b=frame['a'] * 2) for frame in frames")
    assert [frame["b"].sum() for frame in run.results] == [0, 0, 2, 6]


def test_spawn_beside_threads(ip):
    """The baseline of a line with threads is a fork, also where its processes are spawned."""
    run = ip("%parallel threads=2 procs=2 -q --start-method spawn n for n in range(10)")
    assert run.summary["baseline"].tolist() == ["measured", "measured"]
    assert not [note for note in run.notes if "failed" in note]


@pytest.mark.parametrize("model", MODELS)
def test_cores_are_at_most_the_workers(ip, model):
    """CPU seconds end with the last result: what is done with the trace afterwards is nobody's work."""
    ip("def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)")
    run = ip(f"%parallel {model} -q --once fib(20) for _ in range(16)")
    assert run.summary["cores_used"].iloc[0] < 2.5


@pytest.mark.parametrize("model", ["threads=2", "procs=2"])
def test_keep_going_tells_what_failed(ip, model):
    """With --keep-going, a note says how many items failed and names them; good items have no error."""
    run = ip(f"%parallel {model} -q --once --keep-going 1 / (n - 2) for n in range(6)")
    assert f"1 of 6 items of {model} failed (item 2; ZeroDivisionError); run.items['error'] tells how." in run.notes
    assert [error is None for error in run.items["error"]] == [True, True, False, True, True, True]


def test_arms_that_did_not_run(ip):
    """After a failure a note says which arms were left out."""
    ip.fails("%parallel threads=2 procs=2 -q --once 1 / n for n in range(2)")
    assert "procs=2 did not run." in parmagic.last().notes


@pytest.mark.parametrize(("model", "body"), [("procs=2", "while True:\n    pass"), ("threads=2", "import time\ntime.sleep(3)")])
def test_items_that_were_ended_were_not_idle(ip, model, body):
    """Workers that a timeout ended were at work until then, and their items say when they began."""
    ip.fails(f"%%parallel {model} -q --once --trace off --timeout 0.5 for _ in range(2)\n{body}")
    run = parmagic.last()
    assert run.items["wall_s"].min() > 0.3
    if run.workers["measured"].all():
        state = "running_s" if model == "procs=2" else "sleep_s"
        # of a loop that was killed, the time in the run queue since its last reading is not known
        assert (run.workers[state] + run.workers["cpu_wait_s"] + run.workers["unknown_s"]).min() > 0.3
        assert run.workers[state].min() > 0.05
    assert run.workers["idle_s"].max() < 0.2
    for thread in threading.enumerate():
        if thread.name.startswith("parmagic"):
            thread.join(5)


def test_threads_that_are_left_behind_do_not_stop_the_next_run(ip):
    """A thread that is blocked in C keeps its exception; later runs, traced ones as well, take no notice."""
    ip("import os\nfrom itertools import starmap\nfrom operator import call\nreading, writing = os.pipe()\nsaying, hearing = os.pipe()[::-1]")
    space = ip.space

    def end_it_when_both_are_blocked():
        while len(heard) < 2:
            heard.extend(os.read(space["hearing"], 1))
        os.kill(os.getpid(), signal.SIGINT)

    heard = []
    ending = threading.Thread(target=end_it_when_both_are_blocked, daemon=True)
    ending.start()
    left = []
    try:
        # between the two calls there is no Python: who has said that it is there can be raised in only when it has read
        body = "list(starmap(call, [(os.write, saying, b'x'), (os.read, reading, 1)]))"
        assert type(ip.fails(f"%%parallel threads=2 -q --once for _ in range(2)\n{body}")) is KeyboardInterrupt
        left = [thread for thread in threading.enumerate() if thread.name.startswith("parmagic threads")]
        assert ip("%parallel threads=2 -q --once n * n for n in range(4)").results == [0, 1, 4, 9]
        assert [thread.is_alive() for thread in left] == [True, True]
    finally:
        os.write(space["writing"], b"on")
        for thread in left:
            thread.join()
        os.write(space["saying"], b"xx")  # where they never came
        ending.join()
        for name in ("reading", "writing", "saying", "hearing"):
            os.close(space[name])


def test_shared_objects_do_come_back(ip):
    """What processes change in a Value or a Queue does come back: no note says that it would not."""
    ip("import multiprocessing as mp; context = mp.get_context('forkserver'); value = context.Value('i', 0); q = context.Queue(); mine = []")
    run = ip("%%parallel procs=2 -q --once for n in range(4)\nwith value.get_lock():\n    value.value += 1\nq.put(n)\nmine.append(n)")
    assert ip("value.value") == 4
    notes = [note for note in run.notes if "changed in the body" in note]
    assert notes == ["mine: changed in the body; what processes change stays in them."]


def test_children_of_workers_end_with_the_notebook(tmp_path):
    """When the notebook is killed, what its workers started ends as well."""
    script = f"""
import os, subprocess, parmagic
def work(_):
    child = subprocess.Popen(["sleep", "60"])
    open({str(tmp_path / "pid")!r}, "w").write(str(child.pid) + "\\n")
    child.wait()
parmagic.run(work, [1], "procs=1", once=True)
"""
    notebook = subprocess.Popen([sys.executable, "-c", script])
    path = tmp_path / "pid"
    while not path.exists() or not path.read_text().endswith("\n"):
        assert notebook.poll() is None
        time.sleep(0.01)
    child = psutil.Process(int(path.read_text()))
    notebook.kill()
    notebook.wait()
    child.wait(5)
    assert not child.is_running()


def test_processes_run_the_same_parmagic(ip):
    """Workers run the parmagic that the notebook runs, also where another one is installed."""
    ip("import sys")
    run = ip("%parallel procs=1 -q --once sys.modules['parmagic'].__file__ for _ in range(1)")
    assert run.results == [parmagic.__file__]


@pytest.mark.parametrize("how", ["Ctrl-C", "--timeout"])
def test_threads_that_are_blocked_when_a_run_ends_are_all_accounted_for(ip, how):
    """Every thread's item is cut off where the run was ended: its seconds are those of the arm, not those of the farewell."""
    ip("import time, threading, os, signal")
    if how == "Ctrl-C":
        threading.Timer(0.8, os.kill, (os.getpid(), signal.SIGINT)).start()
    error = ip.fails(f"%%parallel threads=3 --once -q --trace off {'--timeout 0.8' if how == '--timeout' else ''}\ntime.sleep(2.5)")
    assert isinstance(error, KeyboardInterrupt if how == "Ctrl-C" else parmagic.RunTimeout)
    run = parmagic.last()
    wall = run.summary["wall_s"].iloc[0]
    assert 0.5 < wall < 1.5
    assert (run.items["wall_s"] > 0.4).all()
    assert (run.items["wall_s"] <= wall + 1e-6).all()
    assert run.workers["n_items"].tolist() == [1, 1, 1]
    assert sum("left behind" in note for note in run.notes) == 3
    if run.workers["measured"].all():
        assert (run.workers["sleep_s"] > 0.4).all()
    for thread in [each for each in threading.enumerate() if each.name.startswith("parmagic")]:
        thread.join(10)


def test_no_items_have_no_speedup(ip):
    """Of nothing, nothing is told."""
    run = ip("%parallel threads=2 procs=2 --once -q n for n in []")
    assert run.summary["speedup"].isna().all()
    assert run.verdict == "There were no items: nothing was run."


@pytest.mark.parametrize("model", ["threads", "procs"])
def test_nothing_is_recommended_where_all_failed(ip, model):
    """How fast items fail says nothing of how fast they would work."""
    ip("import time")
    run = ip(f"%%parallel {model}=4 --once -q --keep-going for n in range(8)\ntime.sleep(0.05)\nraise ValueError(n)")
    assert run.verdict.startswith("Every item failed")


def test_threads_are_not_ended_within_the_library():
    """An exception from outside would leave the library's locks locked: who is in it is told apart from who is in the body."""
    inside, outside, end, begun = threading.Event(), [True], threading.Event(), threading.Barrier(3)

    def in_the_library():
        begun.wait()
        inside.wait()

    def in_the_body():
        begun.wait()
        while outside:
            pass
        end.set()

    threads = [threading.Thread(target=work, daemon=True) for work in (in_the_library, in_the_body)]
    for thread in threads:
        thread.start()
    begun.wait()
    until = time.monotonic() + 10
    while [in_library(thread) for thread in threads] != [True, False]:
        assert time.monotonic() < until
    inside.set()
    outside.clear()
    assert end.wait(10)
    for thread in threads:
        thread.join(10)
