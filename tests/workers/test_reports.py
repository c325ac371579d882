"""A report that a thread has handed over is delivered, wherever Ctrl-C strikes the one who listens."""

from __future__ import annotations

import queue
import signal

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


class _Striking:
    """A queue that strikes when it has given something away."""

    def get(self, timeout):
        signal.raise_signal(signal.SIGINT)
        return "a"

    def empty(self):
        return True


def test_a_strike_behind_the_queue():
    """What the queue has given away is among the rest, once; nothing is where it was delivered."""
    reports = Reports()
    reports._queue = _Striking()
    with pytest.raises(KeyboardInterrupt):
        reports.take(1)
    assert list(reports.rest()) == ["a"]
    assert list(reports.rest()) == []


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
