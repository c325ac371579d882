"""Ctrl-C means what the user's handler makes of it: the one that was there before is called, decides, and is there after."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from strikes import at_line, strikes

import parmagic
from parmagic import RunTimeout
from parmagic.notebook import cell
from parmagic.system import interrupts, limits

HERE = os.getpid()


class Stop(Exception):
    """What a user's handler raises."""


@pytest.fixture
def handle() -> Iterator[Callable[[Any], None]]:
    """Return a function that sets the handler of SIGINT; pytest's own comes back after the test."""
    before = signal.getsignal(signal.SIGINT)
    yield lambda handler: signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGINT, before)


def _strike() -> None:
    """Interrupt this process, and let its main thread see that before it goes on."""
    os.kill(HERE, signal.SIGINT)
    for _ in range(1_000):
        pass


STRIKING = f"for n in range(6)\nimport os, signal, time\nif n == 2:\n    os.kill({HERE}, signal.SIGINT)\ntime.sleep(0.05)\nn"
BOTH = pytest.mark.parametrize("model", ["threads=2", "procs=2", "serial"])


@BOTH
def test_a_handler_that_returns_ends_nothing(ip, handle, model):
    """The run goes on to its end; the handler was called once, and is there after."""
    calls = []

    def handler(number, frame):
        calls.append(number)

    handle(handler)
    run = ip(f"%%parallel {model} -q --once --chunk 1 {STRIKING}")
    assert (run.results, run.error) == (list(range(6)), None)
    assert calls == [signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) is handler


@BOTH
def test_an_ignored_ctrl_c_ends_nothing(ip, handle, model):
    """Where SIGINT is ignored, it stays so during the run and after it."""
    handle(signal.SIG_IGN)
    run = ip(f"%%parallel {model} -q --once --chunk 1 {STRIKING}")
    assert (run.results, run.error) == (list(range(6)), None)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@BOTH
@pytest.mark.parametrize("kind", [Stop, SystemExit, KeyboardInterrupt])
def test_a_handler_that_raises_ends_the_run_with_that(ip, handle, model, kind):
    """The handler's own exception comes out of the cell, is the run's error, and what was done until then is kept."""
    raised = []

    def handler(number, frame):
        raised.append(kind("enough"))
        raise raised[-1]

    handle(handler)
    result = ip.shell.run_cell(
        f"%%parallel {model} -q --once --chunk 1 for n in range(6)\nimport os, signal, time\n"
        f"if n == 1:\n    os.kill({HERE}, signal.SIGINT)\nfor _ in range(9_000 if n else 0):\n    time.sleep(0.1)\nn"
    )
    assert result.error_in_exec is parmagic.last().error is raised[0]
    assert len(raised) == 1
    assert parmagic.last().results in ([0, *[None] * 5], [None] * 6)  # a process may strike before its other item's result is home
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("parmagic")]


@BOTH
def test_a_timeout_ends_the_run_beside_a_handler_that_returns(ip, handle, model):
    """--timeout is heeded after a Ctrl-C that ended nothing."""
    handle(lambda *_: None)
    error = ip.fails(
        f"%%parallel {model} -q --once --chunk 1 --timeout 1 for n in range(2)\nimport os, signal\n"
        f"if n == 0:\n    os.kill({HERE}, signal.SIGINT)\nwhile n:\n    pass\nn"
    )
    assert isinstance(error, RunTimeout)
    assert parmagic.last().results[0] == 0


def _struck_where_exceptions_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a Ctrl-C come within a weakref's callback while the cell is read: Python prints what is raised there, and forgets it."""
    read = cell.door.read_body

    def read_and_be_struck(*args, **kwargs):
        class Weak:
            pass

        one = Weak()
        keep = weakref.ref(one, lambda _: _strike())
        del one
        assert keep() is None
        return read(*args, **kwargs)

    monkeypatch.setattr(cell.door, "read_body", read_and_be_struck)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_exception_of_the_handler_that_python_drops_is_not_lost(ip, handle, monkeypatch):
    """It is raised again, as itself."""
    raised = []

    def handler(number, frame):
        raised.append(Stop("enough"))
        raise raised[-1]

    handle(handler)
    _struck_where_exceptions_are_dropped(monkeypatch)
    ip("ran = []")
    assert ip.fails("%%parallel threads=2 --once -q for n in range(4)\nran.append(n)") is raised[0]
    assert (ip.space["ran"], len(raised)) == ([], 1)


def test_nothing_is_raised_where_the_handler_returned(ip, handle, monkeypatch):
    """A Ctrl-C within a weakref's callback that the handler is content with is none that was lost."""
    calls = []
    handle(lambda number, _: calls.append(number))
    _struck_where_exceptions_are_dropped(monkeypatch)
    assert ip("%%parallel threads=2 --once -q for n in range(4)\nn").results == [0, 1, 2, 3]
    assert calls == [signal.SIGINT]


def test_a_handler_that_the_clause_sets_stays(ip, handle):
    """What the user's own code sets while the items are listed is in force in the run, and is there after it."""
    handle(signal.default_int_handler)
    ip("import signal\ncalls = []\ndef mine(*_):\n    calls.append(1)\ndef items():\n    signal.signal(signal.SIGINT, mine)\n    return range(6)")
    run = ip(f"%%parallel threads=2 -q --once --chunk 1 {STRIKING.replace('range(6)', 'items()')}")
    assert run.results == list(range(6))
    assert ip.space["calls"] == [1]
    assert signal.getsignal(signal.SIGINT) is ip.space["mine"]


@pytest.mark.parametrize("raises", [False, True])
def test_every_signal_that_was_held_back_is_delivered(handle, raises):
    """After a block in which two came, the handler is called twice, also where it raises."""
    calls = []

    def handler(number, frame):
        calls.append(number)
        if raises:
            raise Stop(len(calls))

    handle(handler)

    def struck():
        with interrupts.held_back():
            _strike()
            _strike()
            assert calls == []

    if raises:
        with pytest.raises(Stop, match="2"):
            struck()
    else:
        struck()
    assert calls == [signal.SIGINT] * 2
    assert signal.getsignal(signal.SIGINT) is handler


def _noticed_and_on(seconds: float) -> None:
    """Set an alarm within a call of noticed(), and go on until it comes."""
    interrupts.noticed(signal.setitimer, signal.ITIMER_REAL, seconds)
    while True:
        pass


def test_the_handler_is_put_back_where_ctrl_c_comes_at_the_very_end(handle):
    """Whenever a Ctrl-C comes, however near the end of the call, the handler that was there is there after."""
    handle(signal.default_int_handler)
    alarm = signal.signal(signal.SIGALRM, lambda *_: os.kill(HERE, signal.SIGINT))
    try:
        for n in range(300):
            with pytest.raises(KeyboardInterrupt):
                _noticed_and_on((n + 1) * 1e-6)
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            assert interrupts._put_back is None
    finally:
        signal.signal(signal.SIGALRM, alarm)


FORKING_AT_THE_END = """
import os, threading, time, parmagic
lock = threading.Lock()

def wait():
    until = time.monotonic() + 0.4  # the run is told to end meanwhile
    while time.monotonic() < until:
        pass

def release():
    wait()
    lock.release()

os.register_at_fork(before=lambda: (lock.acquire(), wait()), after_in_parent=release, after_in_child=lock.release)
behind = []

def body(n):
    os.fork() or os._exit(0)
    while True:
        behind.append(n)  # it is ended behind the fork

try:
    parmagic.run(body, range(1), "threads=1", once=True, timeout=0.1)
except parmagic.RunTimeout:
    print(lock.locked(), len(behind) > 0, [note for note in parmagic.last().notes if "left behind" in note])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked here")
def test_a_thread_is_ended_behind_a_fork_and_not_in_its_hooks():
    """What Python calls around a fork is let alone: an exception is dropped there, and a lock would stay locked (logging's, say)."""
    done = subprocess.run([sys.executable, "-c", FORKING_AT_THE_END], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "False True []\n", (done.stdout, done.stderr[-2000:])
    assert "Exception ignored" not in done.stderr


FORKING_IN_ALARM = """
import _imp, os, signal, sys, threading, time
from parmagic.system import interrupts
begun, children = threading.Event(), []
os.register_at_fork(before=begun.set, after_in_child=lambda: None)
interrupts.heed_forks()

def fork():
    sys.setprofile(lambda *_: None)
    children.append(os.fork() or os._exit(0))

_imp.acquire_lock()  # a fork waits for it, behind all hooks
blocked, forking = threading.Thread(target=time.sleep, args=(1,)), threading.Thread(target=fork)
blocked.start()
forking.start()
begun.wait()
print(interrupts.raise_in(blocked.ident, SystemExit))
_imp.release_lock()
forking.join()
print(interrupts.raise_in(blocked.ident, SystemExit))
until = time.monotonic() + 10
while not (ended := os.waitpid(children[0], os.WNOHANG)[0]) and time.monotonic() < until:
    time.sleep(0.01)
print(ended == children[0])
ended or os.kill(children[0], signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked here")
def test_nothing_is_raised_in_any_thread_while_one_forks():
    """An exception that waits for a thread which the child has not would keep 3.11 from its first line, forever."""
    done = subprocess.run([sys.executable, "-c", FORKING_IN_ALARM], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "False\nTrue\nTrue\n", (done.stdout, done.stderr[-2000:])


def _start_struck_at(thread: threading.Thread, line: int) -> bool:
    """Start a thread, with a Ctrl-C at so many lines of that; return whether it got that far."""
    try:
        at_line(line, lambda frame: frame.f_code.co_filename == threading.__file__, _strike, lambda: limits.start(thread))
    except KeyboardInterrupt:
        return True
    return False


def test_a_thread_that_ctrl_c_kept_from_starting_is_not_among_the_living(handle):
    """Wherever a Ctrl-C comes while a thread is started, it is raised, and the thread runs and ends, or never was."""
    handle(signal.default_int_handler)
    lines = 0
    while True:
        thread = threading.Thread(target=int)
        struck = _start_struck_at(thread, lines)
        if thread.ident is not None:  # else it came before all that
            thread.join(5)
        assert thread not in threading.enumerate(), lines
        if not struck:
            break
        lines += 1
    assert lines > 5


OF_C = """
#include <signal.h>
static volatile int count;
static void handler(int number) { count += 1; }
int struck(void) { return count; }
__attribute__((constructor)) static void before_python(void) { signal(SIGINT, handler); }
"""

RUN_BESIDE_IT = """
import ctypes, os, signal, sys, parmagic
struck = ctypes.CDLL(sys.argv[1]).struck
assert signal.getsignal(signal.SIGINT) is None
def item(n):
    if n == 2:
        os.kill(here, signal.SIGINT)
    return n
here = os.getpid()
for models in ("threads=2", "procs=2", "serial"):
    assert parmagic.run(item, range(6), models, once=True).results == list(range(6))
assert signal.getsignal(signal.SIGINT) is None
assert struck() == 3, struck()
print("fine")
"""


@pytest.mark.skipif(not shutil.which("cc") or sys.platform != "linux", reason="needs a C compiler, and LD_PRELOAD")
def test_a_handler_that_is_no_python_is_left_alone(tmp_path):
    """A handler that a C library has set before Python began is called for every signal, and nothing stands in its place."""
    (tmp_path / "handler.c").write_text(OF_C)
    library = str(tmp_path / "handler.so")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, str(tmp_path / "handler.c")], check=True)
    done = subprocess.run(
        [sys.executable, "-c", RUN_BESIDE_IT, library], env={**os.environ, "LD_PRELOAD": f"{os.environ.get('LD_PRELOAD', '')} {library}"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "fine\n", done.stderr[-2000:]


def test_a_block_that_is_left_by_a_tracer_holds_nothing_back():
    """What a tracer raises behind a block's last line, where no signal is heard, leaves the user's handler in its place."""
    before, lines = signal.getsignal(signal.SIGINT), 0

    def block():
        with interrupts.held_back():
            pass

    while True:
        try:
            at_line(lines, lambda frame: frame.f_code is block.__code__, lambda: 1 / 0, block)
            break
        except ZeroDivisionError:
            lines += 1
        assert signal.getsignal(signal.SIGINT) is before
    assert lines >= 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@BOTH
def test_a_ctrl_c_at_the_begin_of_any_function(model):
    """Wherever in a run it comes, it ends the run, and streams, hooks, handler and threads are as before."""
    # from 3.12 on, VizTracer and the tracer that strikes are called by one and the same, and VizTracer fails beside one that raises
    trace = "auto" if sys.version_info < (3, 12) else "off"
    found = list(strikes(lambda: parmagic.run(abs, [1, 2], model, once=True, timeout=20, trace=trace)))
    assert len(found) > 100
    assert [each for each in found if each[2]] == []


def test_a_run_of_another_thread_forgets_nothing(monkeypatch):
    """What has struck the main thread, and is yet to be raised there, is not dealt with because a run in another thread says so."""
    error = KeyboardInterrupt()
    monkeypatch.setattr(interrupts, "_struck", error)
    thread = threading.Thread(target=interrupts.forget)
    thread.start()
    thread.join()
    assert interrupts.lost() is error
