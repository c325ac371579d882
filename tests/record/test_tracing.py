"""VizTracer's hooks in our threads."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading

import pytest
from strikes import at_line

import parmagic
from parmagic.record import budget, profiler, tracing
from parmagic.system import limits
from parmagic.system.gil import FREE_THREADED


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="threads have hooks of their own on 3.11 only")
def test_a_hook_that_is_taken_away_while_it_is_called_stays_alive():
    """3.11 collects garbage between looking a profile function up and calling it: who takes it away then must not free it."""
    recorded = tracing.prepare("full")
    recorded.start()
    failures = []

    def take_it_away(phase, _info):
        if phase == "stop" and sys.getprofile() is not None:
            recorded.switch(on=False)
            keep.extend(set().discard for _ in range(50))  # takes the place of what was freed

    def work():
        try:
            for _ in range(200):
                recorded.switch(on=True)
                recorded.refresh()
                [[] for _ in range(20)]
        except TypeError as error:
            failures.append(error)

    keep = []
    before = gc.get_threshold()
    gc.callbacks.append(take_it_away)
    gc.set_threshold(1)
    try:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(take_it_away)
        recorded.end()
    assert not failures


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="threads have hooks of their own on 3.11 only")
@pytest.mark.parametrize(("blamed", "between"), [(False, "a window that closed and opened"), (True, "a profile function of the body's")])
def test_the_body_is_blamed_for_what_it_did_only(blamed, between):
    """A window that opens during the last item has not hooked its thread: that is not the body's doing."""
    recorded = tracing.prepare("full")
    recorded.start()
    try:
        recorded.attach(0)
        recorded.refresh()
        if blamed:
            sys.setprofile(None)
        else:
            recorded.switch(on=False)
            recorded.switch(on=True)
        recorded.detach()
        written = recorded.finish(None)
    finally:
        recorded.end()
    assert any("The body set a profile function" in note for note in written.notes) == blamed, between


@pytest.mark.skipif(not FREE_THREADED, reason="with a GIL, recording may begin again")
def test_recording_falls_silent_once_without_a_gil():
    """While threads compute, beside one that is nobody's worker, the first window ends, and nothing crashes."""

    def fib(n):
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    def beside():
        while not done.wait(0.0005):
            fib(8)

    done = threading.Event()
    thread = threading.Thread(target=beside)
    thread.start()
    try:
        for _ in range(10):
            run = parmagic.run(lambda _: fib(16), range(100), "threads=4", once=True)
            (arm,) = run._study.timelines
            assert any("windows" in note for note in run.notes)
            assert arm.traces[0].gaps[0][0] < arm.end
    finally:
        done.set()
        thread.join()
    assert profiler.other() is None


_UNHOOK_AMONG_SHORT_LIVES = """
import sys, threading
from parmagic.record import profiler

def born():
    while not over:
        threading._start_new_thread(int, ())

over = False
ours = profiler.get()
sys.setswitchinterval(1e-6)
threads = [threading.Thread(target=born) for _ in range(3)]
for thread in threads:
    thread.start()
for _ in range(3_000):
    ours.unhook_threads()
over = True
for thread in threads:
    thread.join()
print("fine")
"""


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="threads have hooks of their own on 3.11 only")
def test_hooks_are_taken_away_while_threads_begin_and_end():
    """Threads may begin and end at any moment while the hooks of all are taken away, once for each of many windows."""
    done = subprocess.run([sys.executable, "-c", _UNHOOK_AMONG_SHORT_LIVES], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "fine\n", (done.returncode, done.stderr[-2000:])


OURS = {tracing.__file__, profiler.__file__, budget.__file__, limits.__file__}


class _Struck(BaseException):
    """What a Ctrl-C raises."""


def _begin_struck_at(trace: tracing.Tracing, line: int) -> bool:
    """Begin a recording, and raise at so many lines of ours; return whether it got that far."""

    def within(frame):  # take's lock is let go at a line where this would be heard, and no signal is
        return frame.f_code.co_filename in OURS and frame.f_code.co_name != "take"

    def strike():
        raise _Struck

    try:
        at_line(line, within, strike, trace.start)
    except _Struck:
        return True
    return False


@pytest.mark.parametrize("mode", ["auto", "full"])
def test_whatever_interrupts_its_begin_a_recording_can_be_ended(mode):
    """Struck at any of its lines, it is ended: no thread, no hook and no owner is left, and the next one begins."""
    lines = 0
    while True:
        trace = tracing.prepare(mode)
        struck = _begin_struck_at(trace, lines)
        trace.end()
        for thread in threading.enumerate():
            if thread.name == "parmagic tracing":
                thread._started.wait(5)  # struck before it was known to have begun
                thread.join(5)
                assert not thread.is_alive(), lines
        assert profiler.get().owner is None
        assert sys.getprofile() is None
        if not struck:
            break
        lines += 1
    assert lines > 20


def test_another_run_of_ours_is_called_one(ip):
    """A run beside one that traces says so, and not that VizTracer, or a profile function of its, is at work; the first one records."""
    inner = ip("%%parallel threads=1 --once -q --trace full\nimport parmagic\nparmagic.run(abs, [-1, -2], 'threads=1', once=True)").results[0]
    assert inner.results == [1, 2]
    (said,) = [note for note in inner.notes if "not traced" in note]
    assert said == "Functions were not traced: another run traces this process."


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="threads have hooks of their own on 3.11 only")
@pytest.mark.parametrize("model", ["threads", "procs"])
def test_what_a_worker_does_between_claims_is_not_recorded(ip, model):
    """What is recorded is what claims do: each costs, in time and in the trace, and nobody sees ours."""
    ip("def called(n): return [n]")
    run = ip(f"%%parallel {model}=2 --chunk 1 --once -q --trace full for n in range(40)\ncalled(n)")
    recorded = b"".join(trace.data for timeline in run._study.timelines for trace in timeline.traces)
    assert recorded.count(b"called (") == 40
    assert b"perform (" in recorded  # around them
    ours = ("Channel.report", "_Crew._report", "Channel.send", "pack", "BoardDeck.take", "SharedDeck.take", "MeasuringMeter.take", "work")
    assert not [name for name in ours if f'"{name} ('.encode() in recorded]


def test_one_tracer_for_all_threads(monkeypatch):
    """Threads that ask for the tracer at the same time make one."""
    made, another = [], threading.Event()

    def make(entries):
        made.append(entries)
        if len(made) > 1:
            another.set()
        another.wait(0.2)  # for one that is made meanwhile
        return object()  # a real one is never freed

    monkeypatch.setattr(profiler, "_profiler", None)
    monkeypatch.setattr(profiler, "Profiler", make)
    threads = [threading.Thread(target=profiler.get) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [profiler.ENTRIES]
