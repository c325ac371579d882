"""How a job's workers are listened to: scripted reports under hand-made policies, and the baseline's rule for what hangs."""

from __future__ import annotations

import os
import signal
import sys
import time
from array import array

import pytest
from strikes import traced

from parmagic.errors import ParmagicError, RunTimeout
from parmagic.execute import baseline
from parmagic.execute.conductor import conduct, listen
from parmagic.execute.task import Quiet
from parmagic.model.plan import Arm, Plan
from parmagic.model.progress import Displayed, InLine, Printed, Pulse, Standing
from parmagic.model.recording import Batch, Clock, Recording, WorkerId
from parmagic.model.timeline import Packed
from parmagic.workers import Job
from parmagic.workers.dispatch import COMMON

ARM = Arm.named("threads", 1)
JOB = Job(print, range(4), ARM, Plan((ARM,), timeout=0.5), COMMON, lambda _: None)
CHATTER = [Printed(0, "stdout", "text\n", lost=2_000_000), Displayed(0, {}, {}), Standing(0, 1, 1, ""), Pulse(tuple), None]


def _recording(first=0, *ends):
    batches = (Batch(first, array("d", [0.0] * len(ends)), array("d", ends), [None] * len(ends)),) if ends else ()
    return Recording(WorkerId(0, os.getpid(), 1), batches=batches)


class _Scripted:
    """Workers that report what they are told to, and keep what ended them; then they have last words."""

    in_this_process = False

    def __init__(self, *reports, error=None, last_words=()):
        self._reports = reports
        self._error = error
        self._last_words = last_words
        self.ended_by = None

    def map(self, _):
        try:
            yield from self._reports
            if self._error:
                raise self._error  # noqa: TRY301  (as workers do)
        except GeneratorExit:
            self.ended_by = GeneratorExit
            raise
        except BaseException as error:
            self.ended_by = error
            yield from self._last_words
            raise


class _Noting(Quiet):
    """A screen that keeps what it is to show."""

    def __init__(self):
        self.shown = []

    def begin(self, arm, n_items):
        self.shown.append(("begin", arm, n_items))

    def done(self, n_items):
        self.shown.append(n_items)

    def printed(self, printed, model):
        self.shown.append(printed)

    displayed = printed

    def standing(self, standing, model):
        self.shown.append(standing)

    def pulse(self, pulse):
        self.shown.append(pulse)

    def end(self):
        self.shown.append("end")


class _Policy:
    """Lets so many reports come; behind the last of them it raises ``error``, where it has one."""

    def __init__(self, n=100, error=None):
        self.screen = _Noting()
        self._left = n
        self._error = error

    def goes_on(self, _):
        self._left -= 1
        if not self._left and self._error:
            raise self._error
        return bool(self._left)


def test_everything_is_shown_and_kept():
    """A screen is told the arm, what came, how many items are done, and the end; recordings are kept, lost prints counted."""
    parts, policy = [_recording(), _recording(0, 1.0, 2.0)], _Policy()
    heard = listen(_Scripted(parts[0], *CHATTER, parts[1]), JOB, policy)
    assert policy.screen.shown == [("begin", "threads=1", 4), *CHATTER[:4], 0, 2, "end"]
    assert heard.parts == parts
    assert heard.error is None
    assert heard.lost == {0: 2_000_000}


def test_a_job_ends_with_its_last_item():
    """What comes behind the last item does not make a job longer; where no item ended it ends with its workers."""
    seen = []

    class Clock(_Policy):
        def goes_on(self, report):
            seen.append(time.perf_counter())
            return super().goes_on(report)

    heard = listen(_Scripted(_recording(), _recording(0, 1.0), None, _recording()), JOB, Clock())
    assert seen[0] <= heard.end <= seen[1]
    heard = listen(_Scripted(_recording(), None), JOB, Clock())
    assert seen[-1] <= heard.end


def test_a_job_that_waits_in_line_has_not_begun():
    """While another run has what a job needs, its time does not run, nor does that of a baseline, which does not hang either."""
    policy = _Policy()
    policy.goes_on = lambda _: seen.append(time.perf_counter()) or True
    seen = []
    heard = listen(_Scripted(None, InLine(), InLine(), _recording(0, 1.0)), JOB, policy)
    assert seen[1] <= heard.begin <= seen[2]
    enough = baseline._UntilEnough(Quiet(), 4, 0.0, 0.0)
    assert enough.goes_on(InLine())
    assert not enough.goes_on(None)


def test_a_policy_has_enough():
    """Where a policy does not go on, the workers are ended, what they had reported is kept, and there is no error."""
    workers, policy = _Scripted(_recording(0, 1.0), _recording(1, 2.0), last_words=[_recording(2, 3.0)]), _Policy(1)
    heard = listen(workers, JOB, policy)
    assert heard.error is None
    assert heard.parts == [_recording(0, 1.0)]
    assert workers.ended_by is GeneratorExit
    assert policy.screen.shown[-1] == "end"


@pytest.mark.parametrize("error", [RunTimeout("late"), KeyboardInterrupt()])
def test_a_policy_raises(error):
    """What a policy raises is the job's error: the workers get it, and their last words are kept."""
    workers, policy = _Scripted(_recording(0, 1.0), None, last_words=[None, _recording(1, 2.0)]), _Policy(2, error)
    heard = listen(workers, JOB, policy)
    assert heard.error is workers.ended_by is error
    assert heard.parts == [_recording(0, 1.0), _recording(1, 2.0)]
    assert policy.screen.shown[-1] == "end"
    if isinstance(error, KeyboardInterrupt):
        assert heard.end == 2.0  # its last item's end: what it took to end the workers does not count


def test_a_second_ctrl_c_keeps_the_last_words():
    """Ctrl-C that strikes while a last word comes onto our clock loses neither it nor what was heard before."""
    calls, heard = [], []

    def strike(found):
        if found == "analyze/clocks.py:on_ours":
            calls.append(found)
            if len(calls) == 2:
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)

    workers, policy = _Scripted(_recording(0, 1.0), last_words=[_recording(1, 2.0), None]), _Policy(1, RunTimeout("late"))
    assert traced(lambda: heard.append(listen(workers, JOB, policy)), strike) is None
    assert len(calls) == 2
    assert heard[0].parts == [_recording(0, 1.0), _recording(1, 2.0)]
    assert type(heard[0].error) is RunTimeout
    assert policy.screen.shown[-1] == "end"


def test_workers_raise():
    """What workers raise is the job's error as well."""
    error = ParmagicError("a worker")
    heard = listen(_Scripted(_recording(0, 1.0), error=error, last_words=[_recording(1, 2.0)]), JOB, _Policy())
    assert heard.error is error
    assert heard.parts == [_recording(0, 1.0), _recording(1, 2.0)]


def test_an_arm_has_a_deadline():
    """Behind its deadline an arm is ended by a RunTimeout that names it; before, it is not."""
    report = _recording(0, 1.0)
    timeline, _ = conduct(_Scripted(report, None), JOB, Quiet(), time.monotonic() - 1.0)
    assert type(timeline.error) is RunTimeout
    assert "--timeout 0.5: the arm threads=1" in str(timeline.error)
    timeline, _ = conduct(_Scripted(report, None), JOB, Quiet(), time.monotonic() + 1000.0)
    assert timeline.error is None


def test_the_baseline_shows_its_progress_only():
    """The baseline has its own name and count of items; nothing that its worker prints or does is shown."""
    screen = _Noting()
    policy = baseline._UntilEnough(screen, 3, 1000.0, 1000.0)
    listen(_Scripted(_recording(), *CHATTER, _recording(0, 1.0, 2.0)), JOB, policy)
    assert screen.shown == [("begin", "serial baseline", 3), 2, "end"]


def test_the_baseline_has_a_limit():
    """When its time is up it does not go on, not even for a report of items."""
    assert baseline._UntilEnough(Quiet(), 1, 1000.0, 0.0).goes_on(_recording(0, 1.0))
    assert not baseline._UntilEnough(Quiet(), 1, -1.0, 0.0).goes_on(_recording(0, 1.0))


def test_the_baseline_hangs(monkeypatch):
    """Without patience, each look asks for an item's end or for CPU time since the last look; else the baseline hangs."""
    monkeypatch.setattr(baseline, "PATIENCE", 0.0)
    policy = baseline._UntilEnough(Quiet(), 1, 1000.0, 0.0)
    assert policy.goes_on(_recording())
    assert policy.goes_on(None)  # this process has used CPU before
    assert not all(policy.goes_on(None) for _ in range(100))  # the clock of a process ticks: now and then a look sees it move
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert policy.goes_on(None)
    assert not all(policy.goes_on(None) for _ in range(100))  # the clock of a process ticks: now and then a look sees it move
    assert policy.goes_on(_recording(0, 1.0))
    assert baseline._UntilEnough(Quiet(), 1, 1000.0, 100.0).goes_on(None)  # three times the longest item are waited for


def test_workers_on_another_clock():
    """What they report, also when they are ended, is on our clock before anything is made of it: the shipping, and when the arm ended."""
    now, far = time.perf_counter(), Clock("far", offset=-1000.0, uncertainty=0.25)
    first, last = (
        Recording(WorkerId(0, 1, 1, host="far"), batches=(Batch(item, array("d", [begin]), array("d", [begin + 0.25]), [None]),), clock=far)
        for item, begin in ((0, now + 1000.0), (1, now + 1000.25))
    )
    timeline, _ = conduct(_Scripted(first, error=KeyboardInterrupt(), last_words=[last]), JOB, Quiet(), packed=Packed(10, 0.5))
    (lane,) = timeline.lanes
    assert [begin - now for batch in lane.batches for begin in batch.begins] == pytest.approx([0.0, 0.25], abs=1e-9)
    (shipped,) = lane.spans
    assert (shipped.end - shipped.begin, shipped.begin) == (pytest.approx(0.5), timeline.begin)
    assert now <= shipped.end
    assert timeline.end - now < 100.0
    assert (lane.worker.host, lane.uncertainty) == ("far", 0.25)
