"""What a plain print shows of a run and its summary, in terminals of several widths."""

from __future__ import annotations

import copy
import pickle

import pandas as pd
import pytest
from stories import two_arms

from parmagic.analyze.printed import LOOKED_FOR
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
