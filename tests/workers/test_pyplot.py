"""A run is told where its threads draw by pyplot, by whatever way they come to it; nothing is left in pyplot."""

from __future__ import annotations

import io
import subprocess
import sys
import threading

import pandas as pd
import pytest

import parmagic

plt = pytest.importorskip("matplotlib.pyplot")
Gcf, Figure = sys.modules["matplotlib._pylab_helpers"].Gcf, sys.modules["matplotlib.figure"].Figure


def _closes(n):
    fig, ax = plt.subplots()
    ax.plot([n])
    plt.close(fig)


def _on_the_current(n):
    plt.plot([n])


def _helps(n):
    return _closes(n)


def _frame(n):
    plt.close(pd.DataFrame({"a": [n, 2]}).plot().figure)


def _by_number(n):
    plt.figure(1)


def _own(n):
    fig = Figure()
    fig.subplots().plot([n])
    fig.savefig(io.BytesIO())
    return fig


def _none(n):
    return plt.rcParams["lines.linewidth"]


@pytest.fixture(autouse=True)
def as_it_was():
    """Whatever is listened by is gone again."""
    plt.switch_backend("Agg")
    before = dict(vars(Gcf))
    yield
    plt.close("all")
    assert {name: vars(Gcf)[name] for name in before if name != "figs"} == {name: before[name] for name in before if name != "figs"}


def _told(run):
    return [note for note in run.notes if "pyplot was used in threads" in note]


@pytest.mark.parametrize("body", [_closes, _on_the_current, _helps, _frame, _by_number])
def test_its_use_in_threads_is_noted(body):
    """Directly, in a helper, in a library, also where every figure is closed again; with what to write instead."""
    run = parmagic.run(body, range(4), "threads=2", once=True, trace="off")
    assert len(_told(run)) == 1
    assert "matplotlib.figure.Figure()" in _told(run)[0]


@pytest.mark.parametrize("models", ["threads=1", "serial", "procs=2"])
def test_where_one_draws_alone_nothing_is_said(models):
    """One thread has the current figure to itself, and a process as well."""
    assert not _told(parmagic.run(_closes, range(2), models, once=True, trace="off"))


@pytest.mark.parametrize("body", [_own, _none])
def test_figures_of_an_items_own_are_no_matter(body):
    """The way that the note recommends gets none."""
    run = parmagic.run(body, range(4), "threads=2", once=True, trace="off")
    assert not _told(run)
    assert plt.get_fignums() == []


def test_what_another_thread_draws_is_not_the_runs():
    """The notebook may draw beside a run; and of two runs only the one that draws is told."""
    drawn, runs = threading.Event(), []

    def waits(_):
        assert drawn.wait(30)

    other = threading.Thread(target=lambda: runs.append(parmagic.run(waits, range(2), "threads=2", once=True, trace="off")))
    other.start()
    mine = parmagic.run(_closes, range(4), "threads=2", once=True, trace="off")
    _closes(0)
    drawn.set()
    other.join()
    assert (len(_told(mine)), len(_told(runs[0]))) == (1, 0)


def test_nothing_stays_behind_an_error():
    """As the fixture looks."""

    def fails(n):
        _closes(n)
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        parmagic.run(fails, range(4), "threads=2", once=True, trace="off")


FIRST = """
import sys, parmagic
def body(n):
    import matplotlib.pyplot as plt
    plt.close(plt.figure())
def lean(n):
    import matplotlib
first = parmagic.run(lean, range(2), "threads=2", once=True)
assert "matplotlib.pyplot" not in sys.modules
second, third = (parmagic.run(body, range(2), "threads=2", once=True) for _ in range(2))
print([sum("pyplot was used" in note for note in run.notes) for run in (first, second, third)])
"""


def test_a_body_that_imports_it(tmp_path):
    """It is noted in the run that loads it, too."""
    done = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert done.stdout == "[0, 1, 1]\n", done.stderr
