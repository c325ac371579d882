"""What bodies started is drawn below its worker's lane, over its life only, and by its own name, which may be anything."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from stories import child, run_of
from test_page import data_of
from test_render import HOSTILE, Parsed

from parmagic.model.plan import Arm
from parmagic.render import chrome, figures, html, page, scene, svg, text


def with_children(*lanes):
    """Return a run of two workers that wait for what they have started, from 0.2 s to 1.4 s of 1.6 s."""
    arm = Arm.named("threads", 2)
    stories = {arm: [[("running", 0.2), ("lock_wait", 1.2), ("running", 0.2)], [("running", 1.6)]]}
    study = run_of(stories, measured=True)
    study.timelines = (replace(study.timelines[0], children=lanes),)
    return study


TWO = child(0, 0.2, 1.0), child(0, 0.4, 1.4, "Process-1", "running", "process")


def test_in_a_terminal():
    """Its row is empty before its begin and behind its end; the legend has its states."""
    shown = text.report(with_children(*TWO), 80).splitlines()
    rows = {line.partition("|")[0].strip(): line.partition("|")[2].rstrip("|") for line in shown if "|" in line}
    assert [*rows] == ["0", "› Thread-1 (load)", "› Process-1", "1"]
    sleeps, runs = rows["› Thread-1 (load)"], rows["› Process-1"]
    assert len(sleeps) == len(runs) == len(rows["0"])
    width = len(sleeps) / 1.6
    assert sleeps.strip() == "z" * len(sleeps.strip())
    assert (len(sleeps) - len(sleeps.lstrip())) / width == pytest.approx(0.2, abs=0.05)
    assert len(sleeps.rstrip()) / width == pytest.approx(1.0, abs=0.05)
    assert runs.strip() == "█" * len(runs.strip())
    assert any("z sleep" in line for line in shown)
    assert any(line.startswith("> Thread-1 (load)") for line in text.report(with_children(*TWO), 80, unicode=False).splitlines())


def test_a_long_name_leaves_room():
    """In a terminal, a third of a line is a name's at most."""
    shown = text.report(with_children(child(0, 0.2, 1.0, "x" * 200)), 60).splitlines()
    assert all(len(line) <= 60 for line in shown)
    assert any(line.startswith(f"› {'x' * 17}… |") for line in shown), shown


def test_a_page_of_many(monkeypatch):
    """Of more than a browser can draw, the page has those that lived longest, and says so."""
    monkeypatch.setattr(scene, "MAX_BELOW", 2)
    drawn, said = scene.scene(with_children(child(0, 0.2, 0.3, "short"), *TWO))
    assert [lane["name"] for lane in drawn["arms"][0]["lanes"]] == ["worker 0", "worker 0 › Thread-1 (load)", "worker 0 › Process-1", "worker 1"]
    assert said == ["The page draws the 2 of the 3 threads and processes that the body of threads=2 started which lived longest."]


def test_in_a_notebook():
    """Words beside it say what it did of its own life, and so does the picture where it is pointed at."""
    shown = Parsed(html.report(with_children(*TWO))).text
    assert "› Thread-1 (load): sleep 100 %" in shown
    assert "› Process-1: running 100 %" in shown
    view = with_children(*TWO)
    rows = figures.drawn(view.timelines[0], 64)
    assert [row.name for row in rows] == ["worker 0", "› Thread-1 (load)", "› Process-1", "worker 1"]
    drawn = svg.lanes(view, view.timelines[0], rows, 80, [[] for _ in rows])
    assert "<title>› Thread-1 (load): sleep 800 ms</title>" in drawn


def test_where_there_is_no_room():
    """More than fit are left out of the picture, and the workers stay."""
    many = with_children(*[child(0, 0.2, 1.0)] * 70)
    assert [row.name for row in figures.drawn(many.timelines[0], 64)] == ["worker 0", "worker 1"]
    assert len(many.children) == 70


def test_on_the_page():
    """It has a lane, with its states and without items, below its worker's."""
    view = with_children(*TWO)
    lanes = data_of(page.page(view))["arms"][0]["lanes"]
    assert [lane["name"] for lane in lanes] == ["worker 0", "worker 0 › Thread-1 (load)", "worker 0 › Process-1", "worker 1"]
    assert [sorted(lane["states"]) for lane in lanes[1:3]] == [["sleep"], ["running"]]
    assert all(not lane["items"]["begin"] for lane in lanes[1:3])


def test_in_a_trace():
    """It is a thread of the trace, with a slice for its life, between its worker's and the next one's."""
    events = json.loads(chrome.dumps(with_children(*TWO)))["traceEvents"]
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    order = {event["tid"]: event["args"]["sort_index"] for event in events if event["name"] == "thread_sort_index"}
    assert len(names) == len({*names}) == 2 * 3 + 2
    assert [names[tid] for tid in sorted(names, key=lambda tid: (order[tid], tid))][3:5] == [
        "worker 0 › Thread-1 (load)", "worker 0 › Process-1",
    ]  # fmt: skip
    lives = {event["name"]: event for event in events if event.get("cat") == "life"}
    assert (lives["Thread-1 (load)"]["ts"], lives["Thread-1 (load)"]["dur"]) == (200_000.0, 800_000.0)
    assert lives["Process-1"]["args"] == {"kind": "process"}


def test_in_a_figure():
    """It has a row, and its name beside it."""
    pytest.importorskip("matplotlib")
    from parmagic.render import plot

    made = plot.figure(with_children(*TWO))
    labels = [label.get_text() for axes in made.axes for label in axes.get_yticklabels()]
    assert "› Thread-1 (load)" in labels


def test_a_hostile_name():
    """It is text wherever it is shown."""
    view = with_children(child(0, 0.2, 1.0, HOSTILE))
    for shown in (html.report(view), page.page(view)):
        assert "<script>alert" not in shown
        assert "\x1b" not in shown
    assert all("\x1b" not in line for line in text.report(view, 80).splitlines())
    json.loads(chrome.dumps(view))


def test_its_row_adds_up():
    """Begin and life are from the arm's begin, and the states are its own."""
    rows = with_children(*TWO).children
    assert rows[["begin_s", "life_s", "sleep_s", "running_s"]].to_numpy() == pytest.approx(np.array([[0.2, 0.8, 0.8, 0], [0.4, 1, 0, 1]]))


def test_a_life_beyond_the_arm():
    """What lies outside of the arm is in no figure."""
    (row,) = with_children(child(0, 1.2, 3.2)).children.to_dict("records")
    assert row["life_s"] == pytest.approx(0.4)
    assert row["sleep_s"] == pytest.approx(0.4)
