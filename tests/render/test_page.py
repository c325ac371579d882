"""The page: whole, safe whatever the names are, and with the same figures as the tables."""

from __future__ import annotations

import base64
import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from stories import calls_of, two_arms

import parmagic
from parmagic.model.kinds import WORKER_STATES
from parmagic.model.timeline import Slice
from parmagic.render import chrome, figures, scene
from parmagic.render.page import embed, page
from parmagic.result import study
from parmagic.system.gil import gil_enabled

HOSTILE = "</script><img src=x onerror=alert(1)>\u2028\u2029\"'&amp;${title}\udc80\x00"


@pytest.fixture(scope="module")
def run():
    """The study of one real run of one arm."""
    return study(parmagic.run(lambda _: sum(range(10000)), range(8), "threads=2", once=True, trace="off"))


def dressed(run, **changes):
    """Return the run's view with some attributes changed."""
    names = ("title", "verdict", "tells", "rough", "notes", "error", "timelines", "summary", "ideals", "workers", "shares", "slices", "functions", "arrows")
    view = SimpleNamespace(**{name: getattr(run, name) for name in names} | changes)
    view.saved = view
    return view


def hostile(run):
    """Return the run with hostile text wherever text may come from outside."""
    lane = next(lane for lane in run.timelines[0].lanes if lane.batches)
    begin = lane.batches[0].begins[0]
    calls = [(0, [calls_of(lane.worker.rank, (HOSTILE, begin, begin + 1e-4))])]
    return dressed(run, title=HOSTILE, verdict=HOSTILE, notes=[HOSTILE], functions=lambda: calls)


class Reader(HTMLParser):
    """Collects a page's tags, and its text by the id of the element around it."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.scripts, self._script = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Keep a tag and its attributes."""
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        self._script = tag == "script"
        if self._script:
            self.scripts.append("")

    def handle_endtag(self, tag):
        """Leave a script."""
        self._script = False

    def handle_data(self, data):
        """Keep a script's text."""
        if self._script:
            self.scripts[-1] += data


def data_of(text):
    """Return what the page's lanes are drawn from."""
    return json.loads(Reader(text).scripts[0])


def cells(text, table):
    """Return a table's rows of plain text."""
    inner = re.search(rf'<table id="{table}">(.*?)</table>', text, re.DOTALL)[1]
    return [re.findall(r"<td[^>]*><bdi>(.*?)</bdi></td>", row) for row in inner.split("<tr>")[2:]]


def test_hostile_names_do_not_break_out(run):
    """No text from outside becomes a tag, an attribute or the end of a script; the names arrive whole."""
    plain, text = Reader(page(run)), page(hostile(run))
    read = Reader(text)
    assert "img" not in read.tags
    assert "onerror" not in read.attributes
    assert read.tags.count("script") == plain.tags.count("script") == 2
    assert "\u2028" not in text
    assert "\udc80" not in text
    assert data_of(text)["names"][0].startswith("</script><img src=x onerror=alert(1)>")


def test_embed_round_trips():
    """What is embedded has none of the characters that HTML or JavaScript read, and is the same afterwards."""
    text = embed({"x": HOSTILE})
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text) == {"x": HOSTILE}


def test_nan_is_refused():
    """JSON has no NaN: a page that a browser can't read is never written."""
    with pytest.raises(ValueError, match="JSON"):
        embed([float("nan")])


def test_nothing_is_loaded(run):
    """The policy allows no source, and the page names none."""
    text = page(run)
    assert "default-src 'none'" in text
    assert not re.search(r"https?://|\bsrc=|href=|@import|url\(", text)


def test_figures_are_those_of_the_tables(run):
    """The arms' row and the workers' rows are the tables' figures, inferred ones with ~, unknown ones as a dash."""
    text = page(run)
    (arm,) = cells(text, "arms")
    row = run.summary.loc["threads=2"]
    known = not np.isnan(row["speedup"])
    assert arm[0] == "threads=2"
    assert arm[1] == figures.seconds(row["wall_s"])
    assert arm[2] == (f"~{row['speedup']:.2f}×" if known else figures.UNKNOWN)
    assert arm[7] == "estimated"
    assert arm[5] == (f"~{row['efficiency']:.0%}".replace("%", " %") if known else figures.UNKNOWN)
    for shown, (index, worker) in zip(cells(text, "workers"), run.workers.iterrows(), strict=True):
        assert shown[:4] == [index[0], str(index[1]), str(int(worker["n_items"])), f"{worker['wall_s']:.4f}"]
        assert shown[5] == f"{worker['running_s']:.4f}"
        assert shown[6] == (figures.UNKNOWN if np.isnan(worker["native_s"]) else f"{worker['native_s']:.4f}")
        assert not np.isnan(worker["native_s"]) or not (worker["measured"] and gil_enabled())


def unpacked(text, kind):
    """Return an array of the page."""
    return np.frombuffer(base64.b64decode(text), kind)


def test_lanes_add_up_to_the_workers_table(run):
    """A lane's seconds in a state end with the worker's figure, and its items are the items table's."""
    (arm,) = data_of(page(run))["arms"]
    took = {}
    for lane in arm["lanes"]:
        row = run.workers.loc[("threads=2", int(lane["name"].removeprefix("worker ")))]
        for state in WORKER_STATES:
            last = unpacked(lane["states"][state], "<f4")[-1] if state in lane["states"] else 0.0
            assert last == pytest.approx(np.nan_to_num(row[f"{state}_s"]), rel=1e-5, abs=1e-7)
        items = unpacked(lane["items"]["key"], "<u4").tolist()
        took |= dict(zip(items, unpacked(lane["items"]["took"], "<f4").tolist(), strict=True))
    walls = run.items.loc["threads=2"]["wall_s"]
    assert sorted(took) == list(range(8))
    assert np.allclose([took[item] / 1e9 for item in range(8)], walls.loc[range(8)], rtol=1e-6, atol=2e-9)


def test_items_are_capped_evenly(run, monkeypatch):
    """Of more items than are drawn, every n-th is chosen, and the notes say so."""
    monkeypatch.setattr(scene, "MAX_ITEMS", 3)
    text = page(run)
    drawn = [item for lane in data_of(text)["arms"][0]["lanes"] for item in unpacked(lane["items"]["key"], "<u4")]
    assert sorted(drawn) == [0, 3, 6]
    assert "draws 3 of the 8 items of threads=2" in text


def test_the_longest_calls_are_kept(run, monkeypatch):
    """Of more calls than are drawn, the longest are, with those around them; and the notes say so."""
    monkeypatch.setattr(scene, "MAX_CALLS", 2)
    calls = [calls_of(0, ("short", 1.0, 1.1), ("outer", 1.0, 3.0), ("inner", 1.5, 2.5))]
    text = page(dressed(run, functions=lambda: [(0, calls)]))
    assert data_of(text)["names"] == ["outer", "inner"]
    assert "the 2 longest of 3 recorded function calls" in text


def test_nest():
    """Calls are as deep as those open when they began, and never reach beyond them."""
    rows: list = []
    scene.nest([0, 1, 6], [5, 9, 8], [0, 1, 0], rows)
    assert rows == [([0, 6], [5, 2], [0, 0]), ([1], [4], [1])]


def test_waits_tell_what_is_known_of_them():
    """A wait's slice has its words and colour, its kind and object, and who held the GIL."""
    seen = [Slice(1000.1, 1000.2, "gil_wait", "gil", holder=1), Slice(1000.3, 1000.4, "lock_wait", "lock", line=3, object=7, name="forks[2]")]
    data, _ = scene.scene(two_arms(slices=lambda lane: seen if lane.worker.rank == 0 else []))
    assert [kind["name"] for kind in data["waits"]] == ["GIL, held by worker 1", "lock wait"]
    assert [kind["color"] for kind in data["waits"]] == [figures.LOOKS["gil_wait"].color, figures.LOOKS["lock_wait"].color]
    assert data["waits"][1]["known"] == {"kind": "lock", "object": "forks[2]", "line": "3"}
    drawn = data["arms"][0]["lanes"][0]["waits"]
    assert unpacked(drawn["begin"], "<f8").tolist() == [100_000_000, 300_000_000]
    assert unpacked(drawn["took"], "<f4").tolist() == [100_000_000, 100_000_000]


def test_many_waits_are_described_once(monkeypatch):
    """The page and the trace put each kind of wait in words once, however many there are; others in the same words are the same to the page."""
    seen = [Slice(1000.1 + k / 1e5, 1000.1 + (k + 0.5) / 1e5, "lock_wait", "lock", line=3, object=7 + k % 2, name="forks[2]") for k in range(1000)]
    asked = []

    def slice_words(piece):
        asked.append(piece[2:])
        return figures.slice_words(piece)

    view = two_arms(slices=lambda lane: seen if lane.worker.rank == 0 else [])
    monkeypatch.setattr(scene, "slice_words", slice_words)
    data, _ = scene.scene(view)
    assert sorted(asked) == sorted({piece[2:] for piece in seen})
    assert [kind["known"]["object"] for kind in data["waits"]] == ["forks[2]"]
    monkeypatch.setattr(chrome, "slice_words", slice_words)
    asked.clear()
    drawn = [each for each in json.loads(chrome.dumps(view))["traceEvents"] if each["name"] == "lock wait"]
    assert len(drawn) == len(seen)
    assert all(each["args"] == {"kind": "lock", "line": 3, "object": "forks[2]"} for each in drawn)
    assert sorted(asked) == sorted({piece[2:] for piece in seen})


def test_a_run_without_arms(run):
    """A run that ended before its first arm is still a page."""
    empty = dressed(run, timelines=(), summary=run.summary.iloc[:0], workers=run.workers.iloc[:0], functions=list)
    assert data_of(page(empty))["arms"] == []


def until(condition):
    """Wait until something holds; the page's own policy forbids what Playwright would wait with."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.skipif(not Path("/usr/bin/chromium").exists(), reason="needs Chromium")
def test_in_a_browser(run, tmp_path):
    """Without a network the page draws, zooms, moves and tells, and the console stays silent, hostile names included."""
    playwright = pytest.importorskip("playwright.sync_api")
    file = tmp_path / "page.html"
    file.write_text(page(hostile(run)), "utf-8")
    said: list[str] = []
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        tab = browser.new_context(offline=True).new_page()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("dialog", lambda dialog: said.append(dialog.message))
        tab.goto(file.as_uri())
        box = tab.locator("#lanes canvas").first.bounding_box()
        middle = (box["x"] + box["width"] / 2, box["y"] + 5)
        whole = tab.evaluate("[view.begin, view.end]")
        tab.mouse.move(*middle)
        tab.mouse.wheel(0, -300)
        until(lambda: tab.evaluate("view.end - view.begin < whole.end * 0.9"))
        near = tab.evaluate("[view.begin, view.end]")
        tab.mouse.move(middle[0] + 3, middle[1])
        tip = tab.locator("#tip").text_content()
        tab.keyboard.press("d")
        moved = tab.evaluate("view.begin")
        tab.mouse.dblclick(*middle)
        again = tab.evaluate("[view.begin, view.end]")
        browser.close()
    assert said == []
    assert sum(near) / 2 == pytest.approx(sum(whole) / 2, rel=0.01)
    assert tip.startswith("threads=2, worker 0")
    assert "%" in tip
    assert moved > near[0]
    assert again == whole
