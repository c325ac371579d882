"""Arrows between lanes: which of them a picture shows, where they begin and end, and what is said of the others."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from stories import child, handover, run_of, with_handovers

from parmagic.model.plan import Arm
from parmagic.render import arrows, chrome, html, scene
from parmagic.render.figures import drawn

STORY = [("running", 1.0), ("lock_wait", 1.0)]


def told(*handovers, children=(), lanes=3):
    """Return a run of one arm of two seconds; each of ``handovers`` is behind the rank of who waited."""
    run = run_of({Arm.named("threads", lanes): [STORY] * lanes}, measured=True)
    run.timelines = (with_handovers(replace(run.timelines[0], children=tuple(children)), handovers),)
    return run


def paths(text):
    """Return of each arrow of a report where it is across, in percent, its begin and its tip, in pixels."""
    found = re.findall(r'<svg x="([\d.]+)%" overflow="visible"><title>[^<]*</title><path d="M0 (\S+?)V[^"]*H3L0 (\S+?)z"/></svg>', text)
    return [tuple(map(float, each)) for each in found]


def test_in_a_report():
    """It comes from the middle of the lane of who let go, and its tip lies in that of who waited, at the end of the wait."""
    run = told((2, handover(0.5, 1.0, blocker=1, waker=0)), (0, handover(0.5, 1.5, blocker=1)))
    text = html.report(run)
    up, down = paths(text)
    assert down == (50.0, 8.5, 22 * 2 + 1 + 4)
    assert up == (75.0, 22 + 8.5, 1 + 15 - 4)
    assert "worker 2 waited 500 ms for lock (util.py:3): blocked by worker 1 (util.py:7), let go by worker 0 (util.py:9)" in text
    assert "worker 0 waited 1 s for lock (util.py:3): blocked by worker 1 (util.py:7)<" in text
    assert "from who had it, or woke, to who waited<" in text


def test_nothing_to_show():
    """There is no arrow, and no word of them, where nobody waited for another, in vain, or for itself."""
    vain, itself = (1, handover(0.5, 1.0, blocker=0, got=False)), (0, handover(0.5, 1.0, blocker=0, waker=0))
    for run in (told(), told(vain), told(itself)):
        assert not paths(html.report(run))
        assert "who waited" not in html.report(run)


def test_the_longest_in_a_report():
    """Short waits have none, and of many the longest have one: the legend says of how many."""
    waits = [(1, handover(0.01 * n, 0.01 * n + 0.02 + 0.001 * n, blocker=0)) for n in range(100)]
    found = arrows.chosen(told(*waits), told(*waits).timelines[0], drawn(told().timelines[0], 64), arrows.MOST)
    assert (len(found.arrows), found.of) == (0, 0)  # lanes of another run
    run = told(*waits, (1, handover(1.5, 1.51, blocker=0)))
    found = arrows.chosen(run, run.timelines[0], drawn(run.timelines[0], 64), arrows.MOST)
    assert (len(found.arrows), found.of) == (24, 101)
    assert min(arrow.end - arrow.begin for _, _, arrow in found.arrows) == pytest.approx(0.02 + 0.076)
    assert len(paths(html.report(run))) == 24
    assert "who waited (the longest 24 of 101)" in html.report(run)
    one = told((1, handover(0.5, 0.519, blocker=0)), (1, handover(1.0, 1.021, blocker=0)))
    assert len(paths(html.report(one))) == 1
    assert "who waited (the longest 1 of 2)" in html.report(one)


def test_many_arms_share_the_room():
    """A report stays small, however many arms it has."""
    run = told(*[(1, handover(0.01 * n, 0.01 * n + 0.1, blocker=0)) for n in range(100)])
    run.timelines = tuple(replace(run.timelines[0], arm=Arm.named("threads", 3)) for _ in range(20))
    text = "".join(html.pictures(run))
    assert len(paths(text)) == 60
    assert "the longest 60 of 2,000" in text


def test_hostile_names():
    """What the body calls a thing is text, wherever it is shown."""
    run = told((1, handover(0.5, 1.0, blocker=0, name="<img src=x>\u202e")))
    assert "<img" not in html.report(run)
    data, _ = scene.scene(run)
    assert data["arms"][0]["arrows"][0][7] == "<img src=x>\\u202e"


def test_on_the_page(monkeypatch):
    """The page has them all, up to a number, with lanes by their places."""
    waits = (2, handover(0.5, 1.0, blocker=1, waker=0, woken=0.75)), (1, handover(0.2, 0.3, blocker=0, got=False))
    data, said = scene.scene(told(*waits))
    first, second = data["arms"][0]["arrows"]
    causes = {"blocked by": "worker 1 (util.py:7)", "let go by": "worker 0 (util.py:9)"}
    assert first == [2, 1, 0, 0, 500_000_000, 1_000_000_000, 750_000_000, "lock", "util.py:3", causes]
    assert second[:4] == [1, 0, -1, -1]
    assert not said
    monkeypatch.setattr(scene, "MAX_ARROWS", 1)
    data, said = scene.scene(told(*waits))
    assert [each[0] for each in data["arms"][0]["arrows"]] == [2]
    assert said == ["The page tells of the 1 longest of 2 waits of threads=3 for others who caused them."]


def flows(run):
    """Return the flow events of a trace by their numbers, and its slices."""
    events = json.loads(chrome.dumps(run))["traceEvents"]
    found = {}
    for event in events:
        if event["ph"] in "sf":
            found.setdefault(event["id"], {})[event["ph"]] = event
    return [*found.values()], [event for event in events if event["ph"] == "X"]


def test_in_a_trace():
    """A flow begins in an item of who let go, and ends in the wait; each end lies in a slice, else Perfetto drops it."""
    thread = child(0, 0.1, 0.8)
    thread = replace(thread, synced=replace(thread.synced, serials=(77,)))
    run = told((2, handover(1.2, 2.0, blocker=1, waker=0, woken=1.9)), (1, handover(0.5, 0.9, blocker=0, serial=77)), children=[thread])
    (let_go, joined), slices = flows(run)

    def at(event):
        name = next((each["name"] for each in slices if each["tid"] == event["tid"] and each["ts"] <= event["ts"] < each["ts"] + each["dur"]), None)
        return event["tid"], event["ts"], name

    assert at(let_go["s"]) == (1_000_001, 1_900_000.0, "item 1")
    assert (let_go["f"]["tid"], let_go["f"]["ts"]) == (1_000_022, 1_999_999.999)
    assert let_go["f"]["args"] == {"place": "util.py:3", "blocked by": "worker 1 (util.py:7)", "let go by": "worker 0 (util.py:9)"}
    assert at(joined["s"]) == (1_500_000, 799_999.999, "Thread-1 (load)")  # its life was over then
    assert all((flow["s"]["cat"], flow["s"]["name"]) == (flow["f"]["cat"], flow["f"]["name"]) for flow in (let_go, joined))
    assert all(flow["f"]["bp"] == "e" and flow["s"]["ts"] <= flow["f"]["ts"] for flow in (let_go, joined))


def test_flows_that_lead_nowhere():
    """Who let go before it had begun anything is in no slice; who is not drawn has no thread."""
    run = told((1, handover(-0.2, -0.1, blocker=0)), (1, handover(0.2, 0.3, blocker=0, got=False)))
    assert flows(run)[0] == []
