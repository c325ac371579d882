"""What a plain print shows of a run and its summary, in terminals of several widths."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pandas as pd
import pytest
from stories import two_arms

from parmagic.analyze.printed import LOOKED_FOR, LOOKED_FOR_IN_SYNC
from parmagic.analyze.sync import sync_table
from parmagic.model.taken import Synced, Taken
from parmagic.result import Run


@pytest.fixture(params=[60, 80, 120])
def width(request, monkeypatch):
    """Have a terminal of that many columns."""
    monkeypatch.setenv("COLUMNS", str(request.param))
    return request.param


def test_a_run(width, capsys):
    """Wall time and speedup come first in its table, and no line is wider than the terminal."""
    run = Run(two_arms())
    print(run)
    shown = capsys.readouterr().out
    header = next(line for line in shown.splitlines() if line.startswith("arm "))
    assert header.split()[:3] == ["arm", "wall", "speedup"]
    assert max(map(len, shown.splitlines())) <= width
    assert width - 9 <= max(map(len, shown.splitlines()))
    assert [line.split()[:3] for line in shown.splitlines() if line.startswith(("threads=2 ", "procs=2 "))] == [
        ["threads=2", "1.6", "s"], ["procs=2", "1", "s"],
    ]  # fmt: skip


def test_a_summary(width, capsys):
    """Its lines are whole: wall time and speedup first, as many as fit, and where the others are."""
    summary = two_arms().summary
    print(summary)
    header, *lines = capsys.readouterr().out.splitlines()
    assert max(map(len, (header, *lines))) <= width
    assert header.split() == list(LOOKED_FOR[: {60: 5, 80: 6, 120: 9}[width]])
    assert [line.split()[:2] for line in lines[1:3]] == [["threads=2", f"{1.6:.1f}"], ["procs=2", f"{1.0:.1f}"]]
    assert lines[-1] == f"[2 rows x {len(summary.columns)} columns: .T has all]"


def test_a_wide_terminal_shows_all(monkeypatch):
    """In the frame's own order; and so does pandas where it is told to."""
    summary = two_arms().summary
    monkeypatch.setenv("COLUMNS", "400")
    assert repr(summary).splitlines()[0].split() == list(summary.columns)
    monkeypatch.setenv("COLUMNS", "60")
    with pd.option_context("display.max_columns", None):
        assert all(column in repr(summary) for column in summary.columns)


def test_what_is_made_of_it_is_plain():
    """A part, a copy, a pickle: they are printed as pandas prints them, and need nothing of ours."""
    summary = two_arms().summary
    for other in (summary[["wall_s"]], summary.T, copy.copy(summary), copy.deepcopy(summary), pickle.loads(pickle.dumps(summary)), pd.concat([summary])):
        assert type(other) is pd.DataFrame
    pd.testing.assert_frame_equal(summary, pickle.loads(pickle.dumps(summary)))
    assert summary.equals(pd.DataFrame(summary))
    assert repr(summary.head(0)) == repr(pd.DataFrame(summary).head(0))


def test_no_rows(monkeypatch):
    """A run that ended before its first arm has a summary, too."""
    monkeypatch.setenv("COLUMNS", "60")
    summary = type(two_arms().summary)(two_arms().summary.head(0))
    assert "wall_s" in repr(summary)
    assert max(map(len, repr(summary).splitlines())) <= 60


def locks():
    """Return the table of two locks and a queue, of which less is known."""
    held = Taken(1, "", "", 4, 3, 0.6, 0.3, 0.8, 0.2, 0.7, waits=(0, 3), name="lock", thing="lock")
    fed = Taken(2, "Queue", "put", 8, 0, 0.0, 0.0, 0.0, 0.0, 0.0, name="jobs", thing="queue")
    timeline = two_arms().timelines[0]
    return sync_table([with_taken(timeline, held)]), sync_table([with_taken(timeline, held, fed)])


def with_taken(timeline, *taken):
    """Return an arm whose first worker took these."""
    first, *others = timeline.lanes
    return replace(timeline, lanes=(replace(first, synced=Synced(taken)), *others))


def test_locks(width):
    """What they are, how often they were taken and for how long, comes first; what is of no lock of these has no column."""
    one, both = locks()
    header, *lines = repr(one).splitlines()
    assert max(map(len, (header, *lines))) <= width
    assert header.split() == list(LOOKED_FOR_IN_SYNC[: {60: 5, 80: 7, 120: 7}[width]])
    assert lines[-1] == "[1 rows x 22 columns: .T has all]"
    assert repr(both).splitlines()[0].split() == list(LOOKED_FOR_IN_SYNC[: {60: 5, 80: 7, 120: 11}[width]])


def test_in_a_notebook():
    """No column is left out that has a figure, and it says how many others there are."""
    one, _ = locks()
    with pd.option_context("display.max_columns", 20):
        shown = one._repr_html_()
    assert "..." not in shown
    assert "<th>hold_blocked_s</th>" in shown
    assert "<th>puts</th>" not in shown
    assert shown.endswith("<div>10 more columns, in which nothing is known: .T has all</div>")
    with pd.option_context("display.max_columns", 30):
        assert "<th>puts</th>" in one._repr_html_()
