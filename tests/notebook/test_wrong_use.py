"""Wrong use: each mistake has its own message, nothing has run, and nothing is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import weakref

import pytest
from IPython.core.error import UsageError

import parmagic
from parmagic import CellError, NotShippable, ParmagicError, RunTimeout, WorkerDied
from parmagic.notebook import cell
from parmagic.system.gil import gil_enabled


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("proces=2 for x in xs", "proces"),
        ("threads=0 for x in xs", "threads=0"),
        ("threads=abc for x in xs", "threads=abc"),
        ("threads=2 for x in", "for x in"),
        ("n_jobs=4 for x in xs", "threads=4"),
        ("threads=2 --trace=ful for x in xs", "full"),
    ],
)
def test_line(ip, line, words):
    """A line that cannot be read is shown with a caret under the place; the cell has not run."""
    ip("xs = [1]; ran = []")
    error = ip.fails(f"%%parallel {line}\nran.append(x)")
    assert isinstance(error, UsageError)
    assert words in str(error)
    assert "^" in str(error)
    assert ip.space["ran"] == []


def test_syntax_error_in_the_body(ip):
    """A syntax error has the line that the margin shows: the magic's own line is 1."""
    error = ip.fails("%%parallel threads=2\nx = 1\ny = = 2")
    assert isinstance(error, SyntaxError)
    assert error.lineno == 3


@pytest.mark.parametrize("cell", ["%%parallel {}\nx = 1\ny = (2 +\nz = 3", "%%parallel {} for n in range(3)\nx = 1\n  y = 2", "%%parallel {}\nx = 1\nbreak"])
@pytest.mark.parametrize("model", ["threads=2", "procs=2"])
def test_a_syntax_error_is_shown_as_a_cell_s(ip, cell, model, capsys):
    """With the cell's line and a caret, and without any frame, as where no magic is; IPython alone shows all that lie above."""
    ip.fails(cell.format(model))
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert "line 3" in shown
    assert "^" in shown
    assert "Error: " in shown.strip().splitlines()[-1]
    assert ".py" not in shown


@pytest.mark.parametrize("model", ["threads=2", "procs=2", "serial"])
def test_a_syntax_error_that_the_body_raises(ip, model, capsys):
    """Of the frames of its run, the body's are shown, and none of ours."""
    ip.fails(f"%%parallel {model} -q --once\nx = 1\nexec('a b')")
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert "exec('a b')" in shown
    assert "SyntaxError: invalid syntax" in shown
    assert f"parmagic{os.sep}" not in shown


def test_other_syntax_errors_are_shown_as_ever(ip, capsys):
    """A cell's own, and one that a cell without the magic raises; behind %unload_ext the shell's method is its own again."""
    number = r"In\[\d+\]|ipython-input-\d+|line \d+ in run_code"  # of the cell, as each IPython says it
    for text in ("y = (2 +", "def f():\n    exec('a b')\nf()"):
        ip.fails(text)
        shown = capsys.readouterr().out
        ip("%unload_ext parmagic")
        assert "showsyntaxerror" not in vars(ip.shell)
        ip.fails(text)
        assert re.sub(number, "", capsys.readouterr().out) == re.sub(number, "", shown)
        ip("%load_ext parmagic")
        ip("%parallel threads=1 -q --once n for n in range(1)")


def test_a_method_of_the_user_s_stays(ip):
    """Who has put another one there gets it back; who does so later keeps it."""
    ip("%unload_ext parmagic")
    mine, later = (lambda *_, **__: None), (lambda *_, **__: None)
    ip.shell.showsyntaxerror = mine
    ip("%load_ext parmagic")
    ip("%parallel threads=1 -q --once n for n in range(1)")
    ip("%unload_ext parmagic")
    assert ip.shell.showsyntaxerror is mine
    ip("%load_ext parmagic")
    ip("%parallel threads=1 -q --once n for n in range(1)")
    ip.shell.showsyntaxerror = later
    ip("%unload_ext parmagic")
    assert ip.shell.showsyntaxerror is later
    del ip.shell.showsyntaxerror
    ip("%load_ext parmagic")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("await x", "asyncio.run"),
        ("return 1", "return"),
        ("yield 1", "yield"),
        ("from math import *", "import"),
        ("input('name')", "input"),
    ],
)
def test_body_that_cannot_run(ip, body, words):
    """What makes no sense in a parallel body is refused with what to write instead."""
    error = ip.fails(f"%%parallel threads=2\n{body}")
    assert isinstance(error, CellError)
    assert words in str(error)


def test_read_before_bound(ip):
    """A name that is read before it is bound gets both ways out, before anything has run."""
    ip("total = 0; ran = []")
    error = ip.fails("%%parallel threads=2 for n in range(3)\nran.append(n)\ntotal += n")
    assert isinstance(error, CellError)
    assert "global total" in str(error)
    assert ip.space["ran"] == []


def test_read_before_bound_at_run_time(ip):
    """Where only the run shows it, the UnboundLocalError says the same."""
    ip("total = 0")
    error = ip.fails("%%parallel threads=2 --once -q for n in range(3)\nif n < 0:\n    total = 1\ntotal")
    assert isinstance(error, UnboundLocalError)
    assert any("global total" in note for note in error.__notes__)


def test_iterable_that_raises(ip):
    """An exception of the iterable is its own."""
    ip("def xs():\n    yield 1\n    raise LookupError('no more')")
    assert isinstance(ip.fails("%%parallel threads=2 for x in xs()\nx"), LookupError)


def test_unpicklable_name(ip):
    """A name that processes cannot have is named, with its type and what to do."""
    ip("import threading\nlock = threading.Lock()")
    error = ip.fails("%%parallel procs=2 for x in range(3)\nwith lock:\n    x")
    assert isinstance(error, NotShippable)
    assert "'lock'" in str(error)
    assert "threads" in str(error)


def test_unpicklable_item(ip):
    """An item that cannot be sent is named by its number."""
    ip("import threading\nxs = [1, 2, threading.Lock()]")
    error = ip.fails("%parallel procs=2 x for x in xs")
    assert isinstance(error, NotShippable)
    assert "Item 2" in str(error)


def test_unpicklable_result(ip):
    """A result that cannot come back names its item and type; other results are kept."""
    ip("import threading")
    run = ip("%parallel procs=2 --once -q --keep-going threading.Lock() if n == 3 else n for n in range(6)")
    assert run.results == [0, 1, 2, None, 4, 5]
    message = str(ip.fails("%parallel procs=2 --once -q threading.Lock() if n == 3 else n for n in range(6)"))
    assert "item 3" in message
    assert "lock" in message


def test_exception_that_cannot_travel(ip):
    """An exception that cannot be pickled is told by what it said, in the right item."""
    ip("import threading\nclass Odd(Exception):\n    pass")
    error = ip.fails("%%parallel procs=2 --once -q for n in range(3)\nif n == 1:\n    raise Odd('so odd', threading.Lock())")
    assert isinstance(error, NotShippable)
    assert "so odd" in str(error)
    assert "item 1" in error.__notes__[0]


@pytest.mark.parametrize(
    ("death", "words"),
    [
        ("os.kill(os.getpid(), 9)", "SIGKILL"),
        ("os.kill(os.getpid(), 11)", "SIGSEGV"),
        ("os.abort()", "SIGABRT"),
        ("os._exit(3)", "exit code 3"),
    ],
)
def test_ways_to_die(ip, death, words):
    """A worker that dies is reported with how, and in which item; with --keep-going all others are done."""
    ip("import os")
    error = ip.fails(f"%%parallel procs=2 --once -q for n in range(9)\nif n == 5:\n    {death}\nn")
    assert isinstance(error, WorkerDied)
    assert words in str(error)
    assert "item 5" in str(error)
    run = ip(f"%%parallel procs=2 --once -q --keep-going for n in range(200)\nif n == 5:\n    {death}\nn")
    assert run.results == [None if n == 5 else n for n in range(200)]


def test_exit_is_a_failure_of_its_item(ip):
    """sys.exit() in the body ends neither the worker nor the notebook."""
    ip("import sys")
    run = ip("%%parallel threads=2 procs=2 --once -q --keep-going for n in range(4)\nsys.exit(3) if n == 1 else n")
    assert run.results == [0, None, 2, 3]


@pytest.mark.parametrize("model", ["threads=2", "procs=2"])
def test_interrupt(ip, model):
    """Ctrl-C ends the cell, leaves no worker, and keeps what was done."""
    ip("import time")
    interrupt = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    try:
        error = ip.fails(f"%%parallel {model} --once -q --chunk 1 for n in range(4)\nfor _ in range(int(1e9) if n > 1 else 1):\n    pass\nn")
    finally:
        interrupt.cancel()
        interrupt.join()
    assert isinstance(error, KeyboardInterrupt)
    run = parmagic.last()
    assert run.error is error
    assert run.results == [0, 1, None, None]
    assert run.items["error"].notna().sum() == 2


def test_an_interrupted_report(ip, capsys, monkeypatch):
    """Ctrl-C while the report is made ends the cell in a line that says where the run is, and not in the frames of pandas."""
    run = ip("%%parallel threads=2 --once -q for n in range(2)\nn")

    def interrupted(self, *_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pandas.DataFrame.__getitem__", interrupted)
        capsys.readouterr()
        assert isinstance(ip.fails("_"), KeyboardInterrupt)
    shown = capsys.readouterr()
    said = (shown.out + shown.err).strip().splitlines()
    assert said[-1].endswith("KeyboardInterrupt: the report was interrupted; parmagic.last() is the run"), said
    assert len(said) == 1
    assert parmagic.last() is run


@pytest.mark.parametrize("model", ["threads=2", "procs=2"])
def test_timeout(ip, model):
    """--timeout ends the run, and keeps what was done."""
    error = ip.fails(f"%%parallel {model} --once -q --chunk 1 --timeout 0.4 for n in range(4)\nwhile n == 3:\n    pass\nn")
    assert isinstance(error, RunTimeout)
    assert parmagic.last().results == [0, 1, 2, None]


def test_magics_in_processes(ip):
    """A shell escape works in threads, and says in processes why it does not."""
    assert ip("%%parallel threads=1 --once -q for n in range(1)\nlines = !echo hello\nlines[0]").results == ["hello"]
    error = ip.fails("%%parallel procs=1 --once -q for n in range(1)\nlines = !echo hello")
    assert isinstance(error, CellError)
    assert "subprocess" in str(error)


@pytest.mark.skipif(not gil_enabled(), reason="without a GIL, cProfile crashes or hangs where other threads run (CPython 3.13.5)")
@pytest.mark.parametrize("body", ["%time twice = 2 * n\ntwice", "%prun -q abs(n)"])
def test_names_in_a_line_magic_of_the_body(ip, body):
    """A name that a line magic in the body was to bind, or cannot see, is explained."""
    ip.fails(f"%%parallel threads=1 --trace off -q --once for n in range(1)\nother = 1\n{body}")
    assert "stands in a line magic" in parmagic.last().error.__notes__[-1]


def test_another_profiler(ip):
    """Where another profiler is at work, functions are not traced, and a note says so."""
    ip("import cProfile\nprofile = cProfile.Profile()\nprofile.enable()")
    try:
        run = ip("%parallel threads=2 --once -q n for n in range(3)")
    finally:
        ip("profile.disable()")
    assert any("not traced" in note for note in run.notes)
    assert run.results == [0, 1, 2]


def test_a_system_that_cannot_fork(ip, monkeypatch):
    """Without os.fork, processes are refused with what to do, and threads run with an estimated speedup."""
    monkeypatch.delattr(os, "fork")
    error = ip.fails("%%parallel procs=2 for n in range(2)\nn")
    assert isinstance(error, ParmagicError)
    assert "Use threads" in str(error)
    run = ip("%%parallel serial threads=2 -q for n in range(3)\nn")
    assert run.arm("serial").results == run.results == [0, 1, 2]
    run = ip("%%parallel threads=2 -q for n in range(3)\nn")
    assert list(run.summary["baseline"]) == ["estimated"]
    assert any("cannot fork" in note for note in run.notes)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("model", ["threads=2", "procs=2"])
def test_a_ctrl_c_that_python_drops_while_the_cell_is_read_is_not_lost(ip, monkeypatch, model):
    """An exception within a weakref's callback is printed and forgotten, a KeyboardInterrupt like any other."""
    read = cell.door.read_body

    def struck(_):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(100):
            pass

    def read_and_be_struck(*args, **kwargs):
        class Weak:
            pass

        one = Weak()
        keep = weakref.ref(one, struck)
        del one
        assert keep() is None
        return read(*args, **kwargs)

    monkeypatch.setattr(cell.door, "read_body", read_and_be_struck)
    ip("ran = []")
    error = ip.fails(f"%%parallel {model} --once -q for n in range(4)\nran.append(n)")
    assert isinstance(error, KeyboardInterrupt)
    assert ip.space["ran"] == []


STRUCK_IN_AN_IMPORT = """
import os, signal, sys
from IPython.core.interactiveshell import InteractiveShell
signal.signal(signal.SIGINT, signal.default_int_handler)
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "parmagic")
class Strike:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy.linalg":
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Strike())
assert "numpy" not in sys.modules
first = shell.run_cell("%parallel threads=2 n for n in range(4)")
assert isinstance(first.error_in_exec, KeyboardInterrupt), first
shell.run_cell("%parallel threads=2 n for n in range(4)").raise_error()
import numpy
print("fine", numpy.linalg.det(numpy.eye(2)))
"""


def test_a_ctrl_c_in_the_first_import_of_numpy_ruins_nothing(tmp_path):
    """NumPy cannot be imported twice: what a run imports, it imports to the end."""
    done = subprocess.run([sys.executable, "-c", STRUCK_IN_AN_IMPORT], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.rstrip().endswith("fine 1.0"), done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.parametrize(
    ("body", "loop"),
    [
        ("for x in xs: x + 1", "for x in xs"),
        ("total = 0\nfor i, x in enumerate(xs):\n    total += x\ntotal", "for i, x in enumerate(xs)"),
        ("for k in range(1000): k * k", "for k in range(1000)"),
        ("for x in [a for a in xs if a > 100_000_000_000_000_000_000_000_000_000]: x", "for x in [a for a in xs if a > 10000000000000000000000000000…"),
    ],
)
def test_a_loop_that_every_worker_ran(ip, body, loop):
    """Without a clause every worker runs all: where nobody looks at the worker, a note says how to share the loop out."""
    ip("xs = list(range(50))")
    run = ip(f"%%parallel threads=2 -q --once\n{body}")
    assert f"Every worker ran all of `{loop}`: did you mean `%%parallel … {loop}`, which shares it out?" in run.notes


@pytest.mark.parametrize(
    "body",
    [
        "for x in xs[worker.rank::worker.count]: x", "for x in xs: f(x, worker)", "for _ in range(1000): f(1)", "for x in few: x", "for x in (1, 2): x",
        "for k in range(3): k", "for k in range(n): k", "def g():\n    for x in xs: x\ng()", "for x in xs: q.put(x)", "import parmagic\nfor x in xs: f(x, parmagic.current_worker())",
    ],
)  # fmt: skip
def test_a_loop_that_every_worker_is_to_run(ip, body):
    """Nothing is said of a loop by ranks, of a short one, of repetitions, of a queue that is shared, nor of one within a function."""
    ip("import queue; xs = list(range(50)); few = 'abc'; n = 2; q = queue.Queue()\ndef f(*_): pass")
    assert not any("Every worker ran" in note for note in ip(f"%%parallel threads=2 -q --once\n{body}").notes)
    assert not any("Every worker ran" in note for note in ip("%%parallel threads=1 -q --once\nfor x in xs: x").notes)
