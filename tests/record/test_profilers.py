"""Beside other profilers, of the standard library or VizTracer's: theirs go on, ours steps aside, and nobody's error is left without a word."""

from __future__ import annotations

import cProfile
import sys
import threading
from contextlib import suppress

import pytest
from arms import MODELS

import parmagic
from parmagic.analyze import functions
from parmagic.record import clashes, profiler, tracing
from parmagic.system.gil import FREE_THREADED

BY_MONITORING = profiler.BY_MONITORING
only_threads_hooks = pytest.mark.skipif(BY_MONITORING, reason="threads have profile functions of their own on 3.11 only")
only_one_place = pytest.mark.skipif(not BY_MONITORING, reason="3.11 has no place for profilers")

FIB = "def fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\n"
PUT_BACK = FIB + """
def behind(n):
    return fib(n)

import sys
seen = []
old = sys.getprofile()
sys.setprofile(lambda frame, event, arg: seen.append(event))
fib(8)
sys.setprofile(old)
behind(3), seen.count("call") >= 67
"""
LEFT_ON = "import sys\nsys.setprofile(lambda frame, event, arg: None)\nx"
C_PROFILE = FIB + """
import cProfile
own = cProfile.Profile()
own.runcall(fib, 8), sum(each.callcount for each in own.getstats() if getattr(each.code, 'co_name', '') == 'fib')
"""
WRAPPED = "import cProfile\ntry:\n    cProfile.Profile().enable()\nexcept ValueError:\n    raise RuntimeError('no figures')"
GROUPED = "import cProfile\ntry:\n    cProfile.Profile().enable()\nexcept ValueError as error:\n    raise ExceptionGroup('all', [error])"
BY_HAND = "import sys\nsys.monitoring.use_tool_id(2, 'mine')"
NESTED = FIB + """
import json, tempfile
from viztracer import VizTracer
with tempfile.NamedTemporaryFile(suffix=".json") as file:
    with VizTracer(output_file=file.name, verbose=0, register_global=False) as own:
        fib(8)
    keep.append(own)
    found = sum("fib" in event.get("name", "") for event in json.load(file)["traceEvents"])
found >= 67
"""


def cell(ip, model, body, options="--once -q"):
    """Run a body on two items; return the run."""
    ip(f"%%parallel {model} {options} for x in range(2)\n{body}")
    return ip.space["_"]


def traced_names(run):
    """Return the functions that are in a run's timeline."""
    return {name for timeline in run._study.timelines for trace in timeline.traces for calls in functions.read(trace) for name in calls.names}


@pytest.fixture(autouse=True)
def no_hook_left():
    """Have a body's own leave the threads to come alone."""
    yield
    threading.setprofile(None)  # VizTracer's, of its own, stays there on 3.11


@pytest.fixture
def recorded():
    """Return a recording that has begun."""
    trace = tracing.prepare("full")
    trace.start()
    yield trace
    trace.end()


@pytest.mark.parametrize("model", MODELS)
def test_a_body_puts_back_the_profile_function_that_it_found(ip, model):
    """On 3.11 that is ours, and goes on: its value is right, and what is called behind it is in the timeline."""
    run = cell(ip, model, PUT_BACK, "--once -q --trace full")
    assert run.results == [(2, True)] * 2
    assert any("behind" in name for name in traced_names(run))


@pytest.mark.parametrize("model", MODELS)
def test_a_profile_function_that_a_body_leaves_on_is_told(ip, model):
    """It ends our tracing in that thread on 3.11, which the notes say; from 3.12 on both go on."""
    run = cell(ip, model, LEFT_ON, "--once -q --trace full --chunk 1")
    assert run.results == [0, 1]
    assert any("profile function of its own" in note for note in run.notes) == (not BY_MONITORING)


@pytest.mark.parametrize("model", MODELS)
def test_a_body_that_profiles_itself_works_or_is_told_how(ip, model):
    """On 3.11 cProfile works in a body; from 3.12 on its error says what has its place, and without tracing it works."""
    if BY_MONITORING:
        error = ip.fails(f"%%parallel {model} --once -q for x in range(2)\n{C_PROFILE}")
        assert (type(error), str(error)) == (ValueError, "Another profiling tool is already active")
        assert clashes.HINT in error.__notes__
    else:
        assert cell(ip, model, C_PROFILE).results == [(21, 67)] * 2
    one_at_a_time = model if model != "threads=2" else "threads=1"  # a process has one place, whoever has it
    assert cell(ip, one_at_a_time, C_PROFILE, "--once -q --trace off").results == [(21, 67)] * 2


@pytest.mark.parametrize("model", MODELS)
def test_the_profiler_in_python_works_or_is_told_how(ip, model):
    """``profile`` takes our profile function's last event for its own on 3.11, and its error says how; from 3.12 on it works as a rule."""
    body = FIB + "import profile\nprofile.Profile().runcall(fib, 8)"
    if BY_MONITORING:
        with suppress(AssertionError):  # where a window of tracing begins or ends meanwhile, which costs it an event
            cell(ip, model, body)
        run = parmagic.last()
        assert run.results == [21, 21] or clashes.HINT in run.error.__notes__
    else:
        error = ip.fails(f"%%parallel {model} --once -q for x in range(2)\n{body}")
        assert type(error) is AssertionError
        assert clashes.HINT in error.__notes__
    assert cell(ip, model, body, "--once -q --trace off").results == [21, 21]


@only_one_place
@pytest.mark.parametrize("body", [WRAPPED, GROUPED, BY_HAND])
@pytest.mark.parametrize("model", ["serial", "procs=2"])
def test_the_hint_reaches_what_the_body_made_of_the_error(ip, body, model):
    """Wrapped, in a group, or by hand: it is found."""
    error = ip.fails(f"%%parallel {model} --once -q for x in range(2)\n{body}")
    assert clashes.HINT in error.__notes__


@pytest.mark.parametrize("model", ["threads=2", "procs=2"])
def test_no_hint_where_nothing_of_ours_was_in_the_way(ip, model):
    """A body that raises the like while nothing is traced, or something else while it is, gets none."""
    for options, message in (("--trace off", "Another profiling tool is already active"), ("--trace full", "no such tool")):
        error = ip.fails(f"%%parallel {model} --once -q {options} for x in range(2)\nraise ValueError({message!r})")
        assert clashes.HINT not in error.__notes__


@pytest.mark.parametrize("model", MODELS)
def test_a_viztracer_of_the_body_s_own(ip, model):
    """It records what it is asked to; what ours lost by that is told; and its end ends nobody else's."""
    kept = ip.space["keep"] = []  # a tracer that is freed before its threads have ended takes memory with it
    one_at_a_time = model if model != "threads=2" else "threads=1"
    run = cell(ip, one_at_a_time, NESTED, "--once -q --trace full")
    assert run.results == [True, True]
    assert any("ended the tracing" in note or "place for profilers" in note for note in run.notes)
    assert profiler.other() is None or not BY_MONITORING
    threading.setprofile(None)
    assert any("after" in name for name in traced_names(cell(ip, one_at_a_time, "def after(): pass\nafter()", "--once -q --trace full")))
    KEPT.extend(kept)


KEPT = []


def test_a_profiler_that_begins_between_two_windows_keeps_its_place(recorded):
    """It counts on, before, within and behind our windows; ours steps aside where they cannot both be, and comes again."""

    def counted():
        pass

    recorded.switch(on=False)
    own = cProfile.Profile()
    own.enable()
    counted()
    recorded.switch(on=True)
    assert recorded.on == (not BY_MONITORING)
    counted()
    recorded.switch(on=False)
    counted()
    own.disable()
    assert sum(each.callcount for each in own.getstats() if getattr(each.code, "co_name", "") == "counted") == 3
    recorded.switch(on=True)
    assert recorded.on
    notes = recorded.finish(None).notes
    assert sum("cProfile" in note for note in notes) == BY_MONITORING


@only_one_place
def test_a_tool_that_takes_our_place_has_it(recorded):
    """One that frees it and takes it, as VizTracer does, is noticed at the next look, and still has it behind our end."""
    sys.monitoring.free_tool_id(2)
    sys.monitoring.use_tool_id(2, "taker")
    try:
        sys.monitoring.set_events(2, sys.monitoring.events.LINE)
        recorded.look()
        assert not recorded.on
        notes = recorded.finish(None).notes
        recorded.end()
        assert (sys.monitoring.get_tool(2), sys.monitoring.get_events(2)) == ("taker", sys.monitoring.events.LINE)
    finally:
        sys.monitoring.set_events(2, 0)
        sys.monitoring.free_tool_id(2)
    assert any("taker" in note for note in notes)
    again = tracing.prepare("full")
    try:
        again.start()
        assert again.on
    finally:
        again.end()
    assert sys.monitoring.get_tool(2) is None


@only_one_place
def test_a_viztracer_of_the_same_name_is_not_taken_for_ours(recorded):
    """The place is known as ours by more than its name."""
    ours = sys.monitoring.get_tool(2)
    sys.monitoring.free_tool_id(2)
    sys.monitoring.use_tool_id(2, "".join(list(ours)))
    try:
        recorded.end()
        assert sys.monitoring.get_tool(2) == ours
    finally:
        sys.monitoring.free_tool_id(2)


@only_one_place
@pytest.mark.skipif(FREE_THREADED, reason="there is one window")
def test_a_window_stays_open_for_a_tool_that_has_moved_in(ip):
    """line_profiler asks for events of its own in our place, and fails where that is freed: ours is left when it has gone."""
    body = """
import sys, time
place, lines = sys.monitoring, 0
def count(code, line):
    nonlocal lines
    lines += 1
before = place.get_events(2)
assert before
place.register_callback(2, place.events.LINE, count)
place.set_events(2, before | place.events.LINE)
until = time.process_time() + 0.25  # several windows
while time.process_time() < until:
    pass
place.set_events(2, before)
place.register_callback(2, place.events.LINE, None)
lines > 100
"""
    assert ip(f"%%parallel threads=1 --once -q for x in range(1)\n{body}").results == [True]


@only_threads_hooks
def test_profile_functions_of_others_stay_where_they_are(recorded):
    """One of another thread, and one for threads to come, are there behind our windows; ours is off the worker."""
    calls, hooks = [], {}
    begin, go_on, at_work = threading.Event(), threading.Event(), threading.Barrier(3)

    def theirs(frame, event, arg):
        calls.append(event)

    def other():
        sys.setprofile(theirs)
        at_work.wait()
        go_on.wait()
        hooks["other"] = sys.getprofile()

    def worker():
        recorded.attach(0)
        recorded.refresh()
        at_work.wait()
        go_on.wait()
        hooks["worker"] = sys.getprofile()

    threads = [threading.Thread(target=each) for each in (other, worker)]
    for thread in threads:
        thread.start()
    at_work.wait()
    threading.setprofile(theirs)
    begin.set()
    recorded.switch(on=False)
    recorded.switch(on=True)
    recorded.switch(on=False)
    to_come = threading.getprofile()
    threading.setprofile(None)
    go_on.set()
    for thread in threads:
        thread.join()
    assert hooks == {"other": theirs, "worker": None}
    assert to_come is theirs
    assert calls


@pytest.mark.parametrize("line", ["threads=1 --trace off", "procs=1 --once --start-method fork --trace off"])
def test_what_is_forked_has_no_profile_function_of_the_notebook_s(ip, tmp_path, line):
    """One that is on in the notebook's main thread does not slow the baseline, nor forked workers: threads have none either."""
    body = f"import sys\nwith open({str(tmp_path / 'seen')!r}, 'a') as file: file.write(repr(sys.getprofile()) + ';')"
    sys.setprofile(lambda frame, event, arg: None)
    try:
        ip(f"%%parallel {line} -q for x in range(1)\n{body}")
    finally:
        sys.setprofile(None)
    assert (tmp_path / "seen").read_text() == "None;" * (1 if "--once" in line else 2)


@only_threads_hooks
def test_a_thread_with_the_number_of_one_that_ended_is_not_blamed(recorded):
    """Threads get the identities of those that have ended: such a one has no hook yet, and did nothing."""
    numbers = []

    def work():
        numbers.append(threading.get_ident())
        recorded.attach(0)
        recorded.refresh()

    while len(numbers) == len(set(numbers)):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert not any("profile function" in note for note in recorded.finish(None).notes)


@pytest.mark.parametrize("step", ["start", "stop", "dump", "getts", "clear", "reset_stack", "add_instant"])
@pytest.mark.parametrize("mode", ["auto", "full"])
def test_whatever_fails_in_a_trace_the_results_are_right(ip, monkeypatch, step, mode):
    """VizTracer raises at a step: the run goes on without it, and the next one has its trace."""
    body = "def named(): return x\nnamed()"
    tracer = profiler.get()._tracer
    assert cell(ip, "threads=2", body).results == [0, 1]  # what is done once is done
    with monkeypatch.context() as broken:
        broken.setattr(tracer, step, _raise, raising=True)
        run = cell(ip, "threads=2", body, f"--once -q --trace {mode}")
    assert run.results == [0, 1]
    if step in {"start", "getts", "add_instant"}:
        assert any("Functions were not traced: tracing is broken" in note for note in run.notes), run.notes
    again = cell(ip, "threads=2", body, "--once -q --trace full")
    assert again.results == [0, 1]
    assert any("named" in name for name in traced_names(again))


def _raise(*_: object, **__: object) -> None:
    raise RuntimeError("tracing is broken")
