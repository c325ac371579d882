"""The report and the page in real front ends: JupyterLab, Notebook 7, a page of nbconvert's, a file."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace

import pytest

pytest.importorskip("playwright.sync_api")
pytest.importorskip("jupyterlab")

import browser
from stories import calls_of, handover, run_of, two_arms, with_handovers
from test_page import dressed

import parmagic
from parmagic.model.kinds import WAIT_KINDS
from parmagic.model.plan import Arm
from parmagic.model.recording import TraceFile
from parmagic.model.waits import WAIT_LAYOUT, Waits
from parmagic.render.figures import LOOKS
from parmagic.render.page import page
from parmagic.result import study

pytestmark = [
    pytest.mark.skipif(not browser.CHROMIUM.exists(), reason="needs Debian's Chromium"),
    pytest.mark.timeout(240),
]

CELLS = [
    "%load_ext parmagic\nimport time, parmagic",
    "%%parallel threads=3 procs=2 --once for n in range(12)\ntime.sleep(0.02)\nprint('</script><img src=x onerror=alert(1)>', n)\nsum(range(100_000))",
    """import json
run = parmagic.last()
states = run.workers[['wall_s', 'startup_s', 'running_s', 'sleep_s', 'gil_wait_s', 'idle_s']]
print('TABLES', json.dumps([[arm, rank, *row] for (arm, rank), row in zip(states.index, states.values.tolist())]))""",
    "run.timeline.show()",
]

# of every drawn lane: its words, and how many pixels of its width each state fills (its area over its height)
LANES = """
    [...document.querySelectorAll('svg[aria-label^="What the workers of"]')].flatMap((svg) => {
      const box = svg.getBoundingClientRect(), across = svg.viewBox.baseVal.width;
      return [...svg.querySelectorAll('g')].map((lane) => {
        let below = 0;
        const areas = [...lane.querySelectorAll('path')].reverse().map((path) => {
          let area = 0, x = 0, level = 0;
          for (const [, word, value] of path.getAttribute('d').matchAll(/([HV])(\\d+)/g)) {
            if (word === 'V') level = +value;
            else { area += (+value - x) * level; x = +value; }
          }
          const own = area - below;
          below = area;
          return [path.querySelector('title').textContent, own / 100 / across * box.width];
        });
        return [svg.getAttribute('aria-label'), box.width, areas];
      });
    })
"""


@pytest.fixture(scope="module")
def chromium():
    """Return a browser."""
    with browser.chromium() as one:
        yield one


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_in_a_notebook(chromium, tmp_path, app):
    """The lanes are as wide as the tables say, to a pixel; the page is drawn in its frame; all of it is there after save and reload."""
    if app == "notebook":
        pytest.importorskip("notebook")
    browser.write(tmp_path / "run.ipynb", CELLS)
    with browser.server(tmp_path, app) as address:
        tab = browser.Tab(chromium, height=1600)
        browser.run_all(tab, address.format("run.ipynb"), len(CELLS))
        text = tab.page.locator(".jp-OutputArea-output", has_text="TABLES").first.text_content()
        rows = json.loads(text.partition("TABLES")[2].strip())
        lanes = tab.page.evaluate(LANES)
        _lanes_are_the_tables(lanes, rows)
        frame = next(frame for frame in tab.page.frames if frame != tab.page.main_frame and frame.query_selector("#lanes"))
        assert len(frame.query_selector_all("#lanes canvas")) == 5
        tab.page.wait_for_timeout(300)
        last = "[lanes.at(-1).canvas.getBoundingClientRect().bottom, window.innerHeight]"
        bottom, height = frame.evaluate(last)
        assert bottom <= height  # no lane is cut
        assert height - bottom < 200
        assert frame.evaluate("lanes[0].canvas.getContext('2d').getImageData(0, 5, lanes[0].canvas.width, 1).data.some((byte) => byte)")
        tab.page.keyboard.press("Control+s")
        tab.until("!document.querySelector('.jp-mod-dirty')")
        time.sleep(1)
        tab.page.reload()
        tab.page.wait_for_selector("svg[aria-label^='What the workers of']")
        assert tab.page.evaluate(LANES) == lanes
        _narrow_is_whole(tab)
        assert [error for error in tab.errors if "parmagic" in error or "alert" in error or "Uncaught" in error] == []
        assert not [error for error in tab.errors if error.startswith("dialog")]
    saved = (tmp_path / "run.ipynb").read_text()
    report = next(o for o in json.loads(saved)["cells"][1]["outputs"] if "text/html" in o.get("data", {}))
    assert len("".join(report["data"]["text/html"])) < 200_000


def _lanes_are_the_tables(lanes, rows):
    assert len(lanes) == len(rows) == 5
    words = {LOOKS[state].words: place for place, state in enumerate(("startup", "running", "sleep", "gil_wait", "idle"), 3)}
    for (label, width, areas), row in zip(lanes, rows, strict=True):
        assert row[0] in label
        drawn = {title.partition(": ")[2].split(" ~")[0].rsplit(" ", 2)[0]: pixels for title, pixels in areas}
        for state, place in words.items():
            wanted = (row[place] or 0.0) / row[2] * width
            assert drawn.get(state, 0.0) == pytest.approx(wanted, abs=1.0), (row[:2], state)


def _narrow_is_whole(tab):
    """At 640 pixels no cell of the arms' table is cut or wraps, no bar is, and all rows break at the same cell."""
    tab.page.set_viewport_size({"width": 640, "height": 1000})
    tab.page.locator(".jp-CodeCell").nth(1).scroll_into_view_if_needed()
    tab.page.wait_for_timeout(500)
    rows = tab.until("""(() => {
      const table = [...document.querySelectorAll('.jp-OutputArea-output table')].find((each) => each.textContent.includes('of the ideal'));
      if (!table) return null;  // cells that are out of sight may not be there
      const right = table.parentElement.getBoundingClientRect().right;
      return [...table.querySelectorAll('tr')].map((row) => {
        const top = row.getBoundingClientRect().top, boxes = [...row.children].map((cell) => {
          const range = document.createRange();
          range.selectNodeContents(cell);
          const bar = cell.querySelector('div'), drawn = (bar || range).getBoundingClientRect();
          return [Math.round(cell.getBoundingClientRect().left), drawn.right <= right, range.getClientRects().length];
        });
        return boxes;
      });
    })()""")
    assert len(rows) == 3
    assert all(inside for row in rows for _, inside, _ in row)
    assert all(lines == 1 for row in rows for place, (_, _, lines) in enumerate(row) if place != 3), "a cell wraps"
    assert [left for left, _, _ in rows[0]] == [left for left, _, _ in rows[1]] == [left for left, _, _ in rows[2]]


def test_a_page_of_nbconvert(chromium, tmp_path):
    """A page without a kernel, offline: the lanes are there, and the console is silent."""
    browser.write(tmp_path / "run.ipynb", CELLS[:2])
    subprocess.run(
        [sys.executable, "-m", "nbconvert", "--to", "html", "--execute", str(tmp_path / "run.ipynb")], check=True, cwd=tmp_path, capture_output=True
    )
    tab = browser.Tab(chromium, offline=True)
    tab.page.goto((tmp_path / "run.html").as_uri())
    lanes = tab.page.evaluate(LANES)
    assert len(lanes) == 5
    assert all(sum(pixels for _, pixels in areas) == pytest.approx(width, abs=1) for _, width, areas in lanes)
    # its template asks the network for MathJax and RequireJS
    assert [error for error in tab.errors if "ERR_" not in error and "is not defined" not in error] == []


def test_the_page_equals_the_tables(chromium, tmp_path):
    """The lanes of the page have as many pixels of each state as the tables say; so has the table of the states."""
    run = two_arms(measured=True)
    tab = browser.Tab(chromium, offline=True)
    (tmp_path / "page.html").write_text(page(run), "utf-8")
    tab.page.goto((tmp_path / "page.html").as_uri())
    for number, (index, row) in enumerate(run.workers.iterrows()):
        arm = next(timeline for timeline in run.timelines if timeline.arm.label == index[0])
        whole = run.timelines[-1].end - run.timelines[0].begin
        for state in ("running", "gil_wait", "startup", "transfer"):
            red, green, blue = bytes.fromhex(LOOKS[state].color[1:])
            seen, width = tab.page.evaluate(f"""(() => {{
                const at = lanes[{number}], row = at.canvas.getContext('2d').getImageData(0, 9, at.canvas.width, 1).data;
                let count = 0;
                for (let place = 0; place < row.length; place += 4)
                  if (row[place] === {red} && row[place + 1] === {green} && row[place + 2] === {blue}) count++;
                return [count, at.canvas.width];
            }})()""")
            assert seen == pytest.approx(row[f"{state}_s"] / whole * width, abs=1.5), (index, state)
        assert arm.end > arm.begin
    tab.until("document.querySelectorAll('#states tbody tr').length === 4")
    cells = tab.page.evaluate("[...document.querySelectorAll('#states tbody tr')].map((row) => [...row.children].map((cell) => cell.textContent))")
    assert cells[0][:3] == ["threads=2, worker 0", "800 ms · 50 %", "800 ms · 50 %"]
    assert tab.errors == []


def test_the_bar_covers_no_table(chromium, tmp_path):
    """The bar stays above the lanes while these are scrolled, and leaves with the last one: tables are never behind it."""
    run = parmagic.run(lambda n: n, range(20), "threads=8 procs=2", once=True, trace="off")
    run.save(tmp_path / "report.html")
    tab = browser.Tab(chromium, offline=True, width=800, height=500)
    tab.page.goto((tmp_path / "report.html").as_uri())
    tab.until("document.querySelectorAll('#states tbody tr').length > 0")
    tab.page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    tab.page.evaluate("window.scrollTo(0, lanes[4].canvas.getBoundingClientRect().top - 300)")
    assert tab.page.evaluate("document.getElementById('bar').getBoundingClientRect().top") == 0
    tab.page.evaluate("lanes[2].canvas.scrollIntoView({ block: 'nearest' })")
    assert tab.page.evaluate("lanes[2].canvas.getBoundingClientRect().top >= document.getElementById('bar').getBoundingClientRect().bottom - 1")
    tables = tab.page.locator("#states, #workers, details table")
    assert tables.count() >= 6
    for number in range(tables.count()):
        seen = tables.nth(number).evaluate("""(table) => {
          table.scrollIntoView({ block: 'start' });
          const box = table.querySelector('tr').getBoundingClientRect();
          return table.contains(document.elementFromPoint(box.left + 5, box.top + box.height / 2));
        }""")
        assert seen, number
    assert tab.errors == []


def test_finding_and_choosing(chromium, tmp_path):
    """A search finds functions and dims the rest, a click tells facts, a range has figures of its own, keys move."""
    calls = [calls_of(0, ("outer (/a/b.py:12)", 1000.0, 1000.8), ("inner (/a/b.py:20)", 1000.1, 1000.2), ("inner (/a/b.py:20)", 1000.5, 1000.7))]
    run = two_arms(measured=True, functions=lambda: [(0, calls)])
    tab = browser.Tab(chromium, offline=True)
    (tmp_path / "page.html").write_text(page(run), "utf-8")
    tab.page.goto((tmp_path / "page.html").as_uri())
    tab.page.keyboard.press("/")
    tab.page.keyboard.type("inner")
    tab.until("document.getElementById('hits').textContent === '0 of 2'")
    tab.page.keyboard.press("Enter")
    assert tab.page.inner_text("#hits") == "1 of 2"
    facts = dict(zip(tab.page.locator("#chosen b").all_text_contents(), tab.page.locator("#chosen bdi").all_text_contents(), strict=True))
    assert facts["function"] == "inner"
    assert (facts["file"], facts["line"], facts["took"], facts["in item"]) == ("/a/b.py", "20", "100 ms", "0")
    tab.page.keyboard.press("Enter")
    assert "200 ms" in tab.page.locator("#chosen bdi").all_text_contents()
    tab.page.keyboard.press("Escape")
    tab.page.keyboard.press("Escape")
    assert tab.page.is_hidden("#chosen")
    tab.page.keyboard.press("0")
    tab.until("view.begin === whole.begin && view.end === whole.end")
    box = tab.page.locator("#lanes canvas").first.bounding_box()
    scale = box["width"] / tab.page.evaluate("whole.end")
    # clicking on the outer call
    tab.page.mouse.click(box["x"] + 0.75e9 * scale, box["y"] + tab.page.evaluate("lanes[0].rows.find((row) => row.kind === 'call').top") + 5)
    assert tab.page.locator("#chosen bdi").first.text_content() == "outer"
    # choosing the second half of the first arm's running time
    tab.page.keyboard.down("Shift")
    tab.page.mouse.move(box["x"] + 0.4e9 * scale, box["y"] + 8)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + 0.8e9 * scale, box["y"] + 8, steps=4)
    tab.page.mouse.up()
    tab.page.keyboard.up("Shift")
    tab.until("document.getElementById('part').textContent.startsWith('In the chosen')")
    first = tab.page.evaluate("[...document.querySelectorAll('#states tbody tr')[0].children].map((cell) => cell.textContent)")
    assert first[1].endswith("100 %")
    tab.page.keyboard.press("f")
    tab.until("Math.abs(view.end - view.begin - (range.end - range.begin)) < 1e6")
    begin = tab.page.evaluate("view.begin")
    tab.page.keyboard.press("d")
    tab.until(f"view.begin > {begin}")
    span = tab.page.evaluate("view.end - view.begin")
    tab.page.keyboard.press("w")
    tab.until(f"view.end - view.begin < {span} * 0.8")
    # the map: a drag over its first tenth shows that
    box = tab.page.locator("#map").bounding_box()
    tab.page.mouse.move(box["x"] + 1, box["y"] + 10)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + box["width"] / 10, box["y"] + 10, steps=5)
    tab.page.mouse.up()
    tab.until("view.end < whole.end * 0.12 && view.begin < whole.end * 0.01")
    assert tab.errors == []


ARROWS = """[...document.querySelectorAll('#arrows path')].map((path) => {
  const [, fromX, fromY, tipX, tipY] = /^M(\\S+) (\\S+)L(\\S+) (\\S+?)M/.exec(path.getAttribute('d')).map(Number);
  const layer = document.getElementById('arrows').getBoundingClientRect(), lane = (y) => lanes.findIndex(({ canvas }) => {
    const box = canvas.getBoundingClientRect();
    return box.top <= layer.top + y && layer.top + y <= box.bottom;
  });
  const box = lanes[0].canvas.getBoundingClientRect(), time = (x) => view.begin + (layer.left + x - box.left) / box.width * (view.end - view.begin);
  return [lane(fromY), lane(tipY), time(fromX) / 1e9, time(tipX) / 1e9, path.getAttribute('class')];
})"""


def waiting():
    """Return a run of three threads: 2 waits for 1, which waits for 0, and many short waits."""
    story = [("running", 0.4), ("lock_wait", 0.4), ("running", 0.2)]
    run = run_of({Arm.named("threads", 3): [story] * 3}, measured=True)
    short = [(0, handover(0.001 * n, 0.001 * n + 0.0005, blocker=1, waker=1)) for n in range(100)]
    waits = [(1, handover(0.4, 0.8, blocker=0, waker=0, woken=0.7)), (2, handover(0.5, 0.9, blocker=1)), *short]
    timeline = with_handovers(run.timelines[0], waits)
    events = {rank: event(begin, end) for rank, begin, end in ((1, 0.4, 0.8), (2, 0.5, 0.9))}
    lanes = [replace(lane, waits=Waits(events.get(lane.worker.rank, b""))) for lane in timeline.lanes]
    run.timelines = (replace(timeline, lanes=tuple(lanes)),)
    return run


def event(begin, end):
    """Return a wait for a lock as it is recorded, in seconds behind the arm's begin."""
    return WAIT_LAYOUT.pack(round((1000 + begin) * 1e9), round((1000 + end) * 1e9), 1, WAIT_KINDS.index("lock"), -1, 3, 0, 0)


def test_a_wait_leads_to_its_blocker(chromium, tmp_path):
    """Arrows begin and end on the lanes of those they are of, when these let go and had it; a click, or N and B, follow the chain."""
    tab = browser.Tab(chromium, offline=True)
    (tmp_path / "page.html").write_text(page(waiting()), "utf-8")
    tab.page.goto((tmp_path / "page.html").as_uri())
    tab.until("document.querySelectorAll('#arrows path').length === 2")  # the short ones have none
    first, second = sorted(tab.page.evaluate(ARROWS))
    assert first == [0, 1, pytest.approx(0.7, abs=0.002), pytest.approx(0.8, abs=0.002), ""]
    assert second == [1, 2, pytest.approx(0.9, abs=0.002), pytest.approx(0.9, abs=0.002), ""]
    assert tab.page.inner_text("#arrowed") == "↕ from who had it, or woke, to who waited"
    box = tab.page.locator("#lanes canvas").nth(2).bounding_box()
    top = tab.page.evaluate("lanes[2].rows.find((row) => row.kind === 'wait').top")
    tab.page.mouse.click(box["x"] + box["width"] * 0.7, box["y"] + top + 4)
    assert told(tab) == {"blocked by": "worker 1 (util.py:7)", "object": "lock", "place": "util.py:3", "in": "worker 2 (process 4000, thread 5002)"}
    tab.until("document.querySelectorAll('#arrows .mine').length === 1")
    assert tab.page.evaluate("[blocker.at === lanes[1], blocker.arrow.begin]") == [True, 500_000_000]
    tab.page.click("#leads")
    assert told(tab)["in"] == "worker 1 (process 4000, thread 5001)"
    assert (told(tab)["blocked by"], told(tab)["let go by"]) == ("worker 0 (util.py:7)", "worker 0 (util.py:9)")
    tab.page.keyboard.press("b")  # worker 0 waited for nobody: what it did was its item
    assert told(tab) == {"item": "0", "in": "worker 0 (process 4000, thread 5000)"}
    assert tab.page.is_hidden("#leads")
    tab.page.evaluate("lanes[1].canvas.focus()")
    tab.page.keyboard.press("n")
    assert told(tab)["blocked by"] == "worker 0 (util.py:7)"
    tab.page.keyboard.press("n")  # there is no other one
    assert told(tab)["blocked by"] == "worker 0 (util.py:7)"
    tab.page.evaluate("choose(null); look(0, 1.5e7)")
    tab.until("document.querySelectorAll('#arrows path').length > 10")  # what was too short to be seen
    assert tab.page.evaluate(ARROWS)[0][:2] == [1, 0]
    assert tab.errors == []


def test_many_arrows(chromium, tmp_path):
    """Only so many are drawn, of the longest waits in view; the page says of how many, and one without any has no word of them."""
    waits = [(0, handover(0.001 * n, 0.001 * n + 0.1 + 0.001 * (n % 7), blocker=1)) for n in range(500)]
    run = run_of({Arm.named("threads", 2): [[("running", 1.0)]] * 2}, measured=True)
    (tmp_path / "none.html").write_text(page(run), "utf-8")
    run.timelines = (with_handovers(run.timelines[0], waits),)
    (tmp_path / "page.html").write_text(page(run), "utf-8")
    tab = browser.Tab(chromium, offline=True)
    tab.page.goto((tmp_path / "page.html").as_uri())
    tab.until("document.querySelectorAll('#arrows path').length === 60")
    assert tab.page.inner_text("#arrowed").endswith(": the 60 longest waits of 500 in view")
    assert all(round((arrow[3] - 0.106) * 1000) % 7 == 6 for arrow in tab.page.evaluate(ARROWS))
    tab.page.goto((tmp_path / "none.html").as_uri())
    tab.page.wait_for_timeout(200)
    assert (tab.page.inner_text("#arrowed"), tab.page.locator("#arrows path").count()) == ("", 0)
    assert "N P" not in tab.page.inner_text("#help")
    assert tab.errors == []


def told(tab):
    """Return what the panel tells of what is chosen, but for what all have."""
    facts = dict(zip(tab.page.locator("#chosen b").all_text_contents(), tab.page.locator("#chosen bdi").all_text_contents(), strict=True))
    return {name: value for name, value in facts.items() if name not in {"took", "from", "wait", "kind", "line", "in item"}}


def test_a_stretch_without_functions_is_marked(chromium, tmp_path):
    """It is hatched below the waits of its workers alone, as far as their items go, and says what it is."""
    calls = [calls_of(0, ("outer (/a/b.py:12)", 1000.0, 1000.3))]
    run = two_arms(measured=True, functions=lambda: [(0, calls)])
    first, second = run.timelines
    rank = first.lanes[0].worker.rank
    trace = TraceFile("", 1, ((0.0, 0.0), (1.0, 1.0)), {7: rank}, gaps=((1000.4, 1000.6), (1000.7, 1010.0)))
    run.timelines = (replace(first, traces=(trace,)), second)
    (tmp_path / "page.html").write_text(page(run), "utf-8")
    tab = browser.Tab(chromium, offline=True)
    tab.page.goto((tmp_path / "page.html").as_uri())
    last = first.lanes[0].stretches()[-1][1]
    gaps = tab.page.evaluate("lanes.map((at) => at.lane.gaps.map(([begin, end]) => [begin / 1e9, end / 1e9]))")
    assert gaps[0] == [pytest.approx([0.4, 0.6]), pytest.approx([0.7, last - 1000.0])]
    assert not any(gaps[1:])
    drawn = """(seconds) => { const { canvas, calls } = lanes[0], x = Math.round(seconds * 1e9 / whole.end * canvas.width);
      return [...canvas.getContext('2d').getImageData(x, calls, 12, 8).data].some((byte) => byte); }"""
    assert [tab.page.evaluate(drawn, at) for at in (0.35, 0.45, 0.65, 0.75)] == [False, True, False, True]
    box = tab.page.locator("#lanes canvas").first.bounding_box()
    tab.page.mouse.move(box["x"] + 0.5e9 / tab.page.evaluate("whole.end") * box["width"], box["y"] + tab.page.evaluate("lanes[0].calls") + 5)
    tab.until("document.getElementById('tip').textContent.includes('functions were not recorded here')")
    assert tab.errors == []


@pytest.mark.parametrize("dark", [False, True])
def test_many_slices(chromium, tmp_path, dark):
    """Many slices are drawn, in any theme; how fast half a million are is for the benchmark to say."""
    run = study(parmagic.run(lambda n: n, range(4), "threads=2", once=True, trace="off"))
    lane = next(lane for lane in run.timelines[0].lanes if lane.batches)  # one may have had all of them
    begin, step = lane.batches[0].begins[0], 1e-7
    spans = [(f"f{k % 50} (x.py:{k % 50})", begin + k * step, begin + (k + 0.9) * step) for k in range(20_000)]
    view = dressed(run, functions=lambda: [(0, [calls_of(lane.worker.rank, *spans)])], transfers=run.transfers, waits=run.waits, items=run.items)
    (tmp_path / "page.html").write_text(page(view), "utf-8")
    tab = browser.Tab(chromium, offline=True, dark=dark)
    tab.page.goto((tmp_path / "page.html").as_uri())
    assert tab.page.evaluate("lanes.reduce((sum, at) => sum + at.rows.reduce((n, row) => n + (row.kind === 'call') * row.begin.length, 0), 0)") == 20_000
    tab.until("document.querySelectorAll('#states tbody tr').length > 0")
    back = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert back == ("rgb(20, 23, 28)" if dark else "rgb(255, 255, 255)")
    assert tab.errors == []
