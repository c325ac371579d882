"""What a body leaves behind in a process: it is awaited for a second, then named; and what atexit and finalizers clean up is cleaned."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from arms import spread

import parmagic

WAYS = ["procs=2", "procs=2 --start-method spawn", "procs=2 --start-method fork"]
SETUP = (
    "import atexit, concurrent.futures, gc, gzip, io, logging, logging.handlers, multiprocessing, os, subprocess, sys, tempfile, threading, "
    "time, weakref\nfrom pathlib import Path\nfork = multiprocessing.get_context('fork')\n"
    "def write(name, seconds=0.2):\n    time.sleep(seconds)\n    Path(name).write_text('all of it')\n"
    "class Thing:\n    pass"
)
ENDS = {
    "a thread": "threading.Thread(target=write, args=(f'{n}',)).start()",
    "a thread that starts another": "threading.Thread(target=lambda: threading.Thread(target=write, args=(f'{n}',)).start()).start()",
    "a timer": "threading.Timer(0.2, write, (f'{n}', 0)).start()",
    "a ThreadPoolExecutor": "sys.kept = concurrent.futures.ThreadPoolExecutor(1)\nfor k in range(3):\n    sys.kept.submit(write, f'{n}', 0.05)",
    "one that nobody holds": "_ = concurrent.futures.ThreadPoolExecutor(1).submit(write, f'{n}')",
    "a ProcessPoolExecutor": "sys.kept = concurrent.futures.ProcessPoolExecutor(1, mp_context=fork)\n_ = sys.kept.submit(write, f'{n}')",
    "a Pool": "sys.kept = fork.Pool(1)\n_ = sys.kept.apply_async(write, (f'{n}',))",
    "a Process": "fork.Process(target=write, args=(f'{n}',)).start()",
    "a program": "_ = subprocess.Popen(['sh', '-c', f'sleep 0.2; printf \"all of it\" > {n}'])",
    "a fork": "if not os.fork():\n    write(f'{n}')\n    os._exit(0)",
    "atexit": "_ = atexit.register(write, f'{n}', 0)",
    "atexit, behind a thread": "_ = atexit.register(write, f'{n}', 0)\nthreading.Thread(target=time.sleep, args=(0.1,)).start()",
    "weakref.finalize": "sys.kept = Thing()\n_ = weakref.finalize(sys.kept, write, f'{n}', 0)",
    "multiprocessing's Finalize": "_ = multiprocessing.util.Finalize(None, write, (f'{n}', 0), exitpriority=5)",
    "an open file": "sys.kept = open(f'{n}', 'w')\n_ = sys.kept.write('all of it')",
    "an open file of bytes": "sys.kept = [open(f'{n}', 'wb')]\n_ = sys.kept[0].write(b'all of it')",
    "what logging holds back": "kept = logging.handlers.MemoryHandler(100, target=logging.FileHandler(f'{n}'))\n"
    "kept.target.terminator = ''\nvars(sys).setdefault('kept', []).append(kept)\nkept.emit(logging.makeLogRecord({'msg': 'all of it', 'levelno': 20}))",
}


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize(("way", "what"), spread(WAYS, ENDS, "a thread", "a ProcessPoolExecutor", "atexit", "an open file"))
def test_what_ends_is_awaited(ip, way, what):
    """What a body has begun, and not waited for, comes to its end, with nothing said of it."""
    ip(SETUP)
    run = ip(f"%%parallel {way} --once -q --trace off for n in range(2)\n{ENDS[what]}")
    assert [Path(str(n)).read_text() for n in range(2)] == ["all of it"] * 2
    assert not [note for note in run.notes if "left behind" in note or "atexit" in note], run.notes


GOES_ON = {
    "a thread": ("threading.Thread(target=write, args=('never', 60), name='the thread').start()", "the thread the thread (at "),
    "a timer": ("threading.Timer(60, write, ('never',)).start()", "the thread Thread-"),
    "a ThreadPoolExecutor": (
        "sys.kept = concurrent.futures.ThreadPoolExecutor(1, 'mine')\n_ = sys.kept.submit(write, 'never', 60)", "the thread mine_0 (at ",
    ),
    "a ProcessPoolExecutor": (
        "sys.kept = concurrent.futures.ProcessPoolExecutor(1, mp_context=fork)\n_ = sys.kept.submit(write, 'never', 60)", "the process ForkProcess-",
    ),
    "a Pool": ("sys.kept = fork.Pool(1)\n_ = sys.kept.apply_async(write, ('never', 60))", "a task of a multiprocessing.Pool"),
    "a Process": ("fork.Process(target=write, args=('never', 60), name='mine').start()", "the process mine ("),
    "a program": ("_ = subprocess.Popen(['sleep', '60'])", "the process sleep ("),
    "a fork": ("if not os.fork():\n    write('never', 60)", "the process parmagic child ("),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize(("way", "what"), [*(("procs=1", what) for what in GOES_ON), *(("procs=1 --start-method fork", what) for what in ("a thread", "a Pool"))])
def test_what_goes_on_is_named(ip, way, what):
    """After a second it is ended, a note names it, and the results are there; what atexit calls is called all the same."""
    ip(SETUP)
    deed, name = GOES_ON[what]
    begin = time.monotonic()
    run = ip(f"%%parallel {way} --once -q --trace off for n in range(1)\n_ = atexit.register(write, 'cleaned', 0)\n{deed}\nn")
    assert time.monotonic() - begin < 10
    (note,) = [note for note in run.notes if "left behind" in note]
    assert name in note, note
    assert run.results == [0]
    assert Path("cleaned").exists()
    assert not Path("never").exists()


def test_names_of_what_goes_on_stay_out_of_files(ip):
    """A thread's name may be an item: a saved run says only that there was one."""
    ip(SETUP)
    run = ip("%%parallel procs=1 --once -q --trace off for n in range(1)\nthreading.Thread(target=time.sleep, args=(60,), name='terces'[::-1]).start()")
    assert any("the thread secret" in note for note in run.notes)
    assert "secret" not in Path(run.timeline.save("saved.html")).read_text()
    assert "a thread" in Path("saved.html").read_text()


def test_many_things_take_no_longer_than_one(ip):
    """Threads and processes share the second; atexit's functions that take too long share another."""
    ip(SETUP)
    begin = time.monotonic()
    run = ip(
        "%%parallel procs=1 --once -q --trace off for n in range(8)\nthreading.Thread(target=time.sleep, args=(60,)).start()\n"
        "_ = subprocess.Popen(['sleep', '60'])\n_ = atexit.register(time.sleep, 60)\n_ = atexit.register(write, f'{n}', 0)"
    )
    assert time.monotonic() - begin < 10
    assert sorted(path.name for path in Path().glob("[0-9]")) == [str(n) for n in range(8)]
    assert any("and 11 more" in note for note in run.notes), run.notes
    assert any("What atexit was to call had not ended after 1 s:" in note and "sleep" in note for note in run.notes), run.notes


def test_a_finalizer_that_takes_too_long(ip):
    """It is named, and the others are called."""
    ip(SETUP)
    run = ip(
        "%%parallel procs=1 --once -q --trace off for n in range(1)\nsys.kept = Thing()\n_ = weakref.finalize(sys.kept, write, 'before', 0)\n"
        "_ = weakref.finalize(sys.kept, time.sleep, 60)\n_ = weakref.finalize(sys.kept, write, 'behind', 0)"
    )
    assert Path("before").exists()
    assert Path("behind").exists()
    assert any("What atexit was to call" in note for note in run.notes), run.notes


@pytest.mark.parametrize("way", WAYS[:2])  # in a fork of the notebook, pytest's hook has it
def test_what_raises_at_the_end(ip, way, capsys):
    """It is printed, as at the interpreter's end, costs no result, and keeps nothing else from being called."""
    ip(SETUP)
    run = ip(
        f"%%parallel {way} --once -q --trace off for n in range(2)\n_ = atexit.register(write, f'{{n}}', 0)\n"
        "_ = atexit.register(lambda: 1 / 0)\n_ = atexit.register(sys.exit, 3)\nn"
    )
    assert run.results == [0, 1]
    assert Path("0").exists()
    assert Path("1").exists()
    assert capsys.readouterr().err.count("ZeroDivisionError") == 2


def test_daemons_are_not_waited_for(ip):
    """As at the interpreter's end: nothing is said, and nothing takes a second."""
    ip(SETUP)
    run = ip("%%parallel procs=1 --once -q --trace off for n in range(1)\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
             "fork.Process(target=time.sleep, args=(60,), daemon=True).start()\nsys.kept = fork.Pool(2)")  # fmt: skip
    assert not [note for note in run.notes if "left behind" in note], run.notes


@pytest.mark.parametrize(("way", "kind"), spread(WAYS, ["TemporaryDirectory", "NamedTemporaryFile"], "TemporaryDirectory"))
def test_temporary_files_go(ip, way, kind):
    """What tempfile removes at the interpreter's end is removed, wherever the body has kept it; also behind an error."""
    ip(SETUP)
    for ending in ("", "\nif n == 1:\n    raise ValueError"):
        cell = f"%%parallel {way} --once -q --trace off --keep-going for n in range(2)\nsys.kept = [tempfile.{kind}(dir='.', prefix='mine')]\nsys.kept += [sys.kept]"
        run = ip(cell + ending)
        assert run.items["error"].notna().sum() == bool(ending)
        assert not [*Path().glob("mine*")]


SCRIPT = """
import atexit, logging.handlers, os, sys, tempfile, time, weakref
import parmagic
class Thing: pass
kept, thing = tempfile.TemporaryDirectory(dir="."), Thing()
weakref.finalize(thing, lambda: open("finalized", "a").write("x"))
atexit.register(lambda: open("exited", "a").write("x"))
half = open("half", "w")
half.write("once")
buffered = logging.handlers.MemoryHandler(100, target=logging.FileHandler("logged"))
buffered.emit(logging.makeLogRecord({"msg": "once", "levelno": 20}))
named = tempfile.NamedTemporaryFile(dir=".")
def body(n):
    return n
for options in ({}, {"start_method": "fork"}, {"start_method": "spawn"}):
    assert parmagic.run(body, range(4), "procs=2 threads=2", **options).results == [0, 1, 2, 3]
    assert os.path.isdir(kept.name) and os.path.exists(named.name)
    assert not os.path.exists("finalized") and not os.path.exists("exited")
    assert not os.path.getsize("half") and not os.path.getsize("logged")
print("fine")
"""


def test_what_is_the_notebooks_stays(tmp_path):
    """Workers clean up nothing of the notebook's, which does so once, at its own end."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert done.stdout == "fine\n", done.stderr[-3000:]
    assert {name: (tmp_path / name).read_text() for name in ("finalized", "exited", "half", "logged")} == {
        "finalized": "x", "exited": "x", "half": "once", "logged": "once\n",
    }  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} - {".parmagic"} == {"finalized", "exited", "half", "logged"}


ENDED = {
    "in a with": "with tempfile.TemporaryDirectory(dir='.', prefix='mine'):\n    Path(f'begun{n}').touch()\n    time.sleep(60)",
    "in a finally": "Path(f'mine{n}').touch()\ntry:\n    Path(f'begun{n}').touch()\n    while True:\n        sum(range(99))\nfinally:\n    os.unlink(f'mine{n}')",
    "kept": "sys.kept = tempfile.TemporaryDirectory(dir='.', prefix='mine')\nPath(f'begun{n}').touch()\nthreading.Event().wait()",
    "atexit": "Path(f'mine{n}').touch()\n_ = atexit.register(os.unlink, f'mine{n}')\nPath(f'begun{n}').touch()\n_ = subprocess.run(['sleep', '60'])",
    "asyncio": "import asyncio\nasync def held():\n    try:\n        Path(f'mine{n}').touch()\n        Path(f'begun{n}').touch()\n"
    "        await asyncio.sleep(60)\n    finally:\n        os.unlink(f'mine{n}')\nasyncio.run(held())",
}


@pytest.mark.parametrize(("way", "what"), spread(WAYS, ENDED, "in a finally", "atexit"))
def test_a_worker_that_is_ended_cleans_up(ip, way, what):
    """Behind a Ctrl-C, what stands in `with` and `finally` is done, and what atexit and finalizers have."""
    ip(SETUP)
    script = f"until [ -e begun0 ] && [ -e begun1 ]; do sleep 0.02; done; kill -INT {os.getpid()}"
    with subprocess.Popen(["sh", "-c", script]) as interrupts:
        error = ip.fails(f"%%parallel {way} --once -q --trace off --chunk 1 for n in range(2)\n{ENDED[what]}")
        assert isinstance(error, KeyboardInterrupt)
        assert not [*Path().glob("mine*")]
        interrupts.kill()


def test_a_timeout_cleans_up(ip):
    """Behind a timeout as well."""
    ip(SETUP)
    error = ip.fails(f"%%parallel procs=2 --once -q --trace off --timeout 4 for n in range(2)\n{ENDED['in a with']}")
    assert isinstance(error, parmagic.RunTimeout)
    assert Path("begun0").exists()
    assert not [*Path().glob("mine*")]


@pytest.mark.parametrize("way", WAYS)
def test_a_worker_that_does_not_listen_is_killed(ip, way):
    """One that ignores what it is asked gets a second; others are done meanwhile."""
    ip(SETUP)
    begin = time.monotonic()
    error = ip.fails(
        f"%%parallel {way} --once -q --trace off --timeout 1 for n in range(2)\nwhile True:\n    try:\n        time.sleep(60)\n    except BaseException:\n        pass"
    )
    assert isinstance(error, parmagic.RunTimeout)
    assert time.monotonic() - begin < 8


def test_a_signal_of_somebody_else_ends_nothing(ip):
    """A SIGINT that the body sends to itself, or to its children, does what it did: nothing."""
    ip("import os, signal, _thread")
    run = ip("%%parallel procs=2 --once -q --trace off for n in range(4)\nos.kill(os.getpid(), signal.SIGINT)\n_thread.interrupt_main()\nn")
    assert run.results == [*range(4)]
    assert run.error is None


def test_threads_of_the_notebook_live_on(ip):
    """In threads, what a body leaves is the notebook's: it goes on behind the run."""
    goes_on, ended = threading.Event(), threading.Event()
    ip.space.update(goes_on=goes_on, ended=ended, threading=threading)
    run = ip("%%parallel threads=2 --once -q --trace off for n in range(1)\nthreading.Thread(target=lambda: (goes_on.wait(20), ended.set())).start()\nn")
    assert run.results == [0]
    assert not ended.is_set()
    goes_on.set()
    assert ended.wait(20)


def test_temporary_directories_of_a_baseline(ip):
    """The serial baseline cleans up as well, also where it is cut short."""
    ip(SETUP)
    run = ip("%%parallel procs=2 -q --trace off for n in range(4)\nsys.kept = tempfile.TemporaryDirectory(dir='.', prefix='mine')\nn")
    assert run.results == [*range(4)]
    assert not [*Path().glob("mine*")]
    assert tempfile.gettempdir() not in os.listdir()
