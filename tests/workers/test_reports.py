"""A report that a thread has handed over is delivered, wherever Ctrl-C strikes the one who listens."""

from __future__ import annotations

import collections
import os
import queue
import signal
import threading

import pytest

from parmagic.workers.reports import Reports


def test_in_their_order():
    """They come as they were put; where none comes in time, the queue says so."""
    reports = Reports()
    for each in "ab":
        reports.put(each)
    assert [reports.take(1), reports.take(1)] == ["a", "b"]
    with pytest.raises(queue.Empty):
        reports.take(0)


class _Striking(collections.deque):
    """What strikes when it has given something away."""

    def popleft(self):
        signal.raise_signal(signal.SIGINT)
        return super().popleft()


def test_a_strike_when_a_report_is_taken():
    """What the queue has given away is among the rest, once; nothing is where it was delivered."""
    reports = Reports()
    reports._put = _Striking("a")
    with pytest.raises(KeyboardInterrupt):
        reports.take(1)
    assert list(reports.rest()) == ["a"]
    assert list(reports.rest()) == []


def test_a_strike_in_the_wait():
    """It comes at once, whatever is left of the wait."""
    reports = Reports()
    strike = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    strike.start()
    with pytest.raises(KeyboardInterrupt):
        reports.take(60)
    strike.join()


def test_a_signal_that_is_handled_longer_than_the_wait():
    """The wait is over then: it has an end, whatever the handler does and returns."""
    reports, late = Reports(), threading.Event()
    before = signal.signal(signal.SIGALRM, lambda *_: late.wait(0.2))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(queue.Empty):
            reports.take(0.1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_put_while_nobody_waits():
    """A report that was heard of too early is no wait cut short: the next one is waited for."""
    reports = Reports()
    reports.put("a")
    assert reports.take(1) == "a"
    later = threading.Timer(0.05, reports.put, ("b",))
    later.start()
    assert reports.take(60) == "b"
    later.join()
    assert reports.empty()


def test_what_was_delivered_is_not_delivered_again():
    """Also where it is the listener who is struck, with the report in hand."""
    reports = Reports()
    reports.put("a")
    reports.put("b")
    handed = reports.delivered(reports.take(1))
    assert next(handed) == "a"
    with pytest.raises(KeyboardInterrupt):
        handed.throw(KeyboardInterrupt)
    assert list(reports.rest()) == ["b"]
