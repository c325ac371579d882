"""The gallery: what is shown equals the tables, and nothing that is shown can do harm."""

from __future__ import annotations

import gzip
import json
import re
import stat
from array import array
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from stories import NAN, calls_of, run_of, two_arms

from parmagic.analyze.study import Study
from parmagic.model.kinds import WORKER_STATES
from parmagic.model.load import Load
from parmagic.model.plan import Arm
from parmagic.model.recording import Batch, Clocks, Samples, WorkerId
from parmagic.model.timeline import Lane, Timeline
from parmagic.render import chrome, figures, html, page, save, svg, text

HOSTILE = "</script><script>alert(1)</script> \"'& \x1b[31mred\x07 \u202egnp.exe\u2066 \u2028next \ud800 end"


def hostile(**changes: object) -> Study:
    """Return a run in which every text that a user can make is hostile."""
    texts = {"verdict": HOSTILE, "notes": [HOSTILE, HOSTILE], "title": HOSTILE, "baseline": HOSTILE}
    calls = [(0, [calls_of(0, (HOSTILE, 1000.0, 1000.5))])]
    return two_arms(**texts, functions=lambda: calls, **changes)


class Parsed(HTMLParser):
    """All tags and all text of a page."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._silent: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember a tag."""
        self.tags.append(tag)
        self.attributes += attrs
        if tag in {"svg", "script", "style"}:
            self._silent.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Hear text again where a picture ends."""
        if self._silent and self._silent[-1] == tag:
            self._silent.pop()

    def handle_data(self, data: str) -> None:
        """Collect the text that stays when a sanitizer takes pictures, scripts and styles away."""
        if not self._silent:
            self.text += data


# ---- figures ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1.234, "1.23 s"), (0.045, "45 ms"), (3.2e-6, "3.2 µs"), (0.9996, "1 s"), (0.9994, "999 ms"), (99.94, "99.9 s"), (9.996, "10 s"),
        (99.96, "1 min 40 s"), (125, "2 min 5 s"), (3600, "1 h 0 min"), (0, "0 s"), (2e-9, "2 ns"), (NAN, figures.UNKNOWN),
    ],
)  # fmt: skip
def test_durations_have_three_digits_and_a_unit(value: float, shown: str) -> None:
    """Times are written for humans, and rounding never gives a fourth digit."""
    assert figures.seconds(value) == shown


def test_what_is_not_known_is_a_dash_without_tilde() -> None:
    """NaN is shown as unknown, never as a number or an inferred one."""
    assert [figures.seconds(NAN), figures.share(NAN), figures.number(NAN)] == [figures.UNKNOWN] * 3
    assert figures.inferred(figures.UNKNOWN, True) == figures.UNKNOWN


@pytest.mark.parametrize(("measured", "gil"), [(False, "~50 %"), (True, "50 %")])
def test_inferred_waits_have_a_tilde(measured: bool, gil: str) -> None:
    """The GIL's share equals the summary's, and says whether it was measured."""
    assert figures.arm_rows(two_arms(measured=measured))[0].gil == gil


def test_sampled_speedups_have_a_tilde() -> None:
    """A speedup against a baseline that was not measured says so."""
    row = figures.arm_rows(two_arms(baseline="sampled"))[1]
    assert (row.speedup, row.baseline, row.efficiency) == ("~1.60×", "sampled", "~80 %")


def test_cleaned_text_has_no_controls() -> None:
    """Escapes, bells, line separators, surrogates and direction overrides become visible; letters stay."""
    shown = figures.clean(HOSTILE + " שלום")
    assert "\\x1b[31mred\\x07" in shown
    assert "\\u202egnp.exe\\u2066" in shown
    assert "\\u2028next" in shown
    assert "\\ud800" in shown
    assert shown.endswith("שלום")
    assert shown.encode("utf-8")


# ---- text ------------------------------------------------------------------


def test_text_shows_the_story() -> None:
    """The lanes show exactly what the workers did, in order; verdict first, notes last."""
    lines = text.report(two_arms(), width=44).splitlines()
    assert lines[0].startswith("Use procs=2")
    assert lines[-1] == "· The body ran 4 + 4 times."
    assert "0 |" + "█" * 20 + "G" * 20 + "|" in lines
    assert "1 |" + "G" * 20 + "█" * 20 + "|" in lines
    assert "0 |" + "s" * 4 + "█" * 32 + "T" * 4 + "|" in lines
    assert "1 |" + "s" * 4 + "█" * 24 + "·" * 12 + "|" in lines


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("unicode", [True, False])
@pytest.mark.parametrize("color", [True, False])
def test_text_fits_the_width(width: int, unicode: bool, color: bool) -> None:
    """No line is wider than the terminal, with hostile and wide text, and ASCII is ASCII."""
    run = hostile()
    run.notes.append("漢字" * 300)
    shown = text.report(run, width, color, unicode)
    assert max(map(text.cells, shown.splitlines())) <= width
    assert unicode or shown.isascii()
    bare = re.sub("\x1b\\[[0-9;]*m", "", shown) if color else shown
    assert not set(bare) & {"\x1b", "\x07", "\u202e", "\u2066", "\u2028", "\ud800"}


def test_narrow_text_keeps_the_baseline() -> None:
    """Where the baseline's column does not fit, a sentence tells its kind."""
    shown = text.report(two_arms(baseline="estimated"), 60)
    assert "The serial baseline is estimated." in shown
    assert "The serial baseline" not in text.report(two_arms(baseline="estimated"), 200)


def test_columns_are_left_out_whole() -> None:
    """At 120 columns all of the arms' table is there; at 60 those that matter most, each with all of its words."""
    stories = {Arm.named("threads", 16): [[("running", 0.5), ("gil_wait", 12.5)]] * 16, Arm.named("procs", 16): [[("running", 100.5)]] * 16}
    run = run_of(stories, serial_s=1234.5, baseline="sampled")
    for width, left_out in ((120, set()), (60, {"baseline", "efficiency", "cores"})):
        lines = text.report(run, width).splitlines()
        place = next(number for number, line in enumerate(lines) if line.startswith("arm "))
        head, *table = lines[place : place + 3]
        assert [name for name in figures.HEADINGS.values() if name not in head] == [name for name in figures.HEADINGS.values() if name in left_out]
        for line, row in zip(table, figures.arm_rows(run), strict=True):
            assert all(getattr(row, name) in line for name, words in figures.HEADINGS.items() if words not in left_out)


def test_many_workers_share_rows() -> None:
    """A report does not draw a hundred lanes: neighbours share one, which shows their mean and says who they are."""
    half = [("running", 0.5), ("gil_wait", 0.5)]
    run = run_of({Arm.named("threads", 100): [half if rank % 2 else [("running", 1.0)] for rank in range(100)]}, measured=True)
    lines = text.report(run, 60).splitlines()
    assert any(line.startswith("  0–6 |████") for line in lines)
    assert sum("|" in line for line in lines) == 15
    page = html.report(run)
    assert page.count("<g transform") == 50
    assert "workers 98–99: running 75 %, GIL wait 25 %" in page
    assert html.report(run_of({Arm.named("threads", 64): [half] * 64})).count("<g transform") == 64


def test_items_show_where_they_are_wide_enough() -> None:
    """Items lie below their worker's lane, exactly where they ran, failed ones in another colour; where there are too many, none does."""
    run = two_arms(item_errors={3: ValueError("x")})
    page = html.report(run)
    assert len(re.findall(r"<title>worker \d: item ", page)) == 8
    n_bins = int(re.search(r'viewBox="0 0 (\d+) ', page)[1])
    found = re.findall(r'<rect x="([\d.]+)" y="\d+" width="([\d.]+)" height="3" fill="(#\w+)"><title>worker \d: item (\d+): ([^<]+)</title>', page)
    x, width, color, number, words = found[3]
    assert (number, words) == ("3", "800 ms, failed")
    assert color == figures.FAILED
    assert color not in {look.color for look in figures.LOOKS.values()}
    assert "failed items" in page
    assert "failed items" not in html.report(two_arms())
    assert float(x) / n_bins == pytest.approx(0.5, abs=0.01)
    assert float(width) / n_bins == pytest.approx(0.5, abs=0.01)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(svg, "ALL_ITEMS", 7)
        assert ": item " not in html.report(run)


def test_the_longest_waits_are_listed() -> None:
    """A folded table has the longest waits first, hostile names as text, how many are left out; what is inferred has a tilde."""
    index = pd.MultiIndex.from_tuples([("threads=2", k % 2) for k in range(20)], names=["arm", "rank"])
    rows = [("lock", f"<b>{k}</b>", 3.0, f"<i>{k}</i>.py:9", 10.0, float(k), 0.5) for k in range(18)]
    rows += [("lock", "a lock in logging", 4.0, None, 10.0, 18.0, 0.5), ("gil", None, NAN, None, NAN, 99.0, NAN)]
    waits = pd.DataFrame(rows, index=index, columns=["kind", "object", "line", "place", "n", "total_s", "max_s"])
    page = html.report(two_arms(waits=waits))
    table = page.partition("What they waited for longest")[2]
    cells = re.findall(r"<td>(.*?)</td>", table)
    dash = figures.UNKNOWN
    assert cells[:8] == ["threads=2", "1", "<bdi>gil</bdi>", dash, f"<bdi>{dash}</bdi>", dash, "~99.0000", dash]
    assert cells[8:16] == ["threads=2", "0", "<bdi>a lock in logging</bdi>", "4", f"<bdi>{dash}</bdi>", "10", "18.0000", "0.5000"]
    assert cells[18:21] == ["<bdi>lock &lt;b&gt;17&lt;/b&gt;</bdi>", "3", "<bdi>&lt;i&gt;17&lt;/i&gt;.py:9</bdi>"]
    assert "… and 5 more in run.waits" in table
    assert "What they waited for" not in html.report(run_of({Arm.named("threads", 1): [[("running", 1.0)]]}))


def test_short_items_lie_together() -> None:
    """What is too narrow to be seen between two that are not is one piece."""
    begins = [0.0, 0.5, 0.501, 0.502, 0.6, 0.9]
    ends = [0.4, 0.5005, 0.5015, 0.503, 0.8, 0.9001]
    batch = Batch(0, array("d", begins), array("d", ends), [None] * 6)
    empty = array("d")
    lane = Lane(WorkerId(0, 1, 1), (), (batch,), Clocks(empty, empty, empty), Samples(empty, array("b")), None)
    timeline = Timeline(Arm.named("threads", 1), 0.0, 1.0, 6, (lane,))
    found = svg.pieces(timeline, figures.Drawn((lane,)))
    assert [(piece.begin, piece.end, piece.words) for piece in found] == [
        (0.0, 0.4, "item 0: 400 ms"), (0.5, 0.503, "3 shorter items"), (0.6, 0.8, "item 4: 200 ms"), (0.9, 0.9001, "a shorter item"),
    ]  # fmt: skip
    assert svg.pieces(timeline, figures.Drawn((lane, lane))) == []


def test_a_run_without_arms_has_a_report() -> None:
    """A run that ended before its first arm shows its verdict and notes in every renderer."""
    run = run_of({}, error=ValueError("E"))
    assert text.report(run).startswith("The run ended before")
    assert "The run ended before" in html.report(run)
    assert "The run ended before" in page.page(run)
    assert json.loads(chrome.dumps(run))["traceEvents"] == []


# ---- HTML ------------------------------------------------------------------


def test_html_escapes_everything() -> None:
    """No hostile text becomes a tag or an attribute, and there is no script."""
    shown = Parsed(html.report(hostile()))
    assert "script" not in shown.tags
    assert not [name for name, _ in shown.attributes if name.startswith("on")]
    assert shown.text.count("</script><script>alert(1)</script>") >= 3
    assert "\u202e" not in shown.text
    assert "\x1b" not in shown.text


def test_html_needs_no_network() -> None:
    """Nothing in the report is loaded from anywhere."""
    shown = Parsed(html.report(two_arms()))
    assert not {"img", "link", "iframe", "script"} & set(shown.tags)
    assert not {"src", "href"} & {name for name, _ in shown.attributes}


def test_html_survives_a_sanitizer() -> None:
    """Without styles and pictures, verdict, figures, states of workers and notes are still there as text."""
    shown = Parsed(html.report(two_arms())).text
    for words in ("Use procs=2", "1.60×", "worker 0: running 50 %, GIL wait ~50 %", "The body ran"):
        assert words in shown


def test_the_bar_is_held_against_what_the_cpus_allow() -> None:
    """Eight workers that compute on two CPUs could be twice as fast: the bar is full then, and says so."""
    stories = {Arm.named("threads", 8): [[("startup", 0.1), ("running", 0.4), ("cpu_wait", 1.1)]] * 8}
    run = run_of(stories, measured=True, serial_s=3.2)
    shown = html.report(run)
    assert ">of the ideal<" in shown.replace("</th>", "<")
    assert "</div> of 8×" in shown  # nobody knows the CPUs
    run.timelines = (replace(run.timelines[0], load=Load(2)),)
    del run.ideals
    shown = html.report(run)
    assert "width:100%;height:10px" in shown
    assert 'title="2.00×, where 8 workers on 2 CPUs could reach 2× at most"' in shown
    assert "</div> of 2×" in shown


def test_html_stays_small() -> None:
    """A report with the most workers, states and notes stays below 200 KB."""
    rng = np.random.default_rng(1)
    story = [[(state, float(rng.uniform(0.001, 0.003))) for state in list(WORKER_STATES) * 30] for _ in range(32)]
    run = run_of({Arm.named("threads", 32): story, Arm.named("procs", 32): story, Arm.named("threads", 64): story * 2}, measured=True)
    run.notes = [HOSTILE * 20] * 100
    assert len(html.report(run).encode()) < 200_000


def test_picture_equals_the_tables() -> None:
    """The areas of the drawn states are the seconds of the workers table."""
    run = two_arms()
    timeline = run.timelines[1]
    for lane in timeline.lanes:
        heights = svg.stack(figures.bins(run, timeline, figures.Drawn((lane,)), 50))
        row = run.workers.loc[(timeline.arm.label, lane.worker.rank)]
        below = np.zeros(50)
        for state in figures.LOOKS:
            area = (np.array(heights[state]) - below).sum() / svg.SCALE / 50 * row["wall_s"]
            assert area == pytest.approx(np.nan_to_num(row[f"{state}_s"]), abs=1e-3)
            below = np.array(heights[state])
        assert below.tolist() == [svg.SCALE] * 50


def test_outline_is_a_stair() -> None:
    """A path goes up and down at the bins' edges, from floor to floor."""
    assert svg.outline([40, 40, 0, 100]) == "M0 0V40H2V0H3V100H4V0z"


# ---- the page --------------------------------------------------------------


def test_page_escapes_everything() -> None:
    """Hostile text ends neither a script nor a string; the page has its own two scripts only."""
    source = page.page(hostile(item_errors={0: ValueError(HOSTILE)}))
    shown = Parsed(source)
    assert shown.tags.count("script") == source.count("</script>") == 2
    assert not [name for name, _ in shown.attributes if name.startswith("on")]
    assert not {"\u2028", "\u202e", "\x1b", "\ud800"} & set(source)


def test_page_data_can_be_read() -> None:
    """The embedded data is JSON in which nothing can end its script, and hostile names are in it."""
    source = page.page(hostile())
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', source, re.DOTALL)
    assert not set("<>&\u2028\u2029") & set(found)
    assert any(name.startswith("</script><script>") for name in json.loads(found)["names"])


def test_page_needs_no_network() -> None:
    """The page loads nothing, and its policy forbids it."""
    source = page.page(two_arms())
    shown = Parsed(source)
    assert not {"src", "href"} & {name for name, _ in shown.attributes}
    assert any("default-src 'none'" in (value or "") for _, value in shown.attributes)


def test_page_has_its_figures_as_text() -> None:
    """Verdict, arms and notes can be read without JavaScript."""
    shown = Parsed(page.page(two_arms())).text
    for words in ("Use procs=2", "1.60×", "GIL wait", "The body ran 4 + 4 times."):
        assert words in shown


# ---- trace files -----------------------------------------------------------


def by_thread(trace: dict) -> dict[tuple[str, str], list[dict]]:
    """Return the slices by the names of their process and thread."""
    events = trace["traceEvents"]
    arms = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    threads = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert len({tid for _, tid in threads}) == len(threads)
    found: dict[tuple[str, str], list[dict]] = {(arms[pid], name): [] for (pid, _), name in threads.items()}
    for event in events:
        if event["ph"] == "X":
            found[arms[event["pid"]], threads[event["pid"], event["tid"]]].append(event)
    return found


def test_trace_has_arms_workers_items_and_waits() -> None:
    """Every worker has its functions, items and waits side by side, in µs from the first arm's begin."""
    run = two_arms(functions=lambda: [(1, [calls_of(0, ("f", 1001.95, 1002.0))])])
    threads = by_thread(json.loads(chrome.dumps(run)))
    assert [name for arm, name in threads if arm == "procs=2"][:3] == [
        "worker 0 · procs 4000", "worker 0 · items", "worker 0 · waits",
    ]  # fmt: skip
    assert ("threads=2", "worker 1 · threads 5001") in threads
    (call,) = threads["procs=2", "worker 0 · procs 4000"]
    assert (call["name"], call["ts"], call["dur"]) == ("f", 950_000.0 + 1e6, 50_000.0)
    assert [e["name"] for e in threads["threads=2", "worker 1 · items"]] == ["item 2", "item 3"]
    assert [e["name"] for e in threads["procs=2", "worker 0 · waits"]] == ["start-up", "transfer"]


def test_waits_follow_the_samples() -> None:
    """Consecutive samples of one state are one inferred slice, whose length is the table's within a sample."""
    run = two_arms()
    (wait,) = by_thread(json.loads(chrome.dumps(run)))["threads=2", "worker 0 · waits"]
    assert wait["name"] == "GIL wait"
    assert wait["args"] == {"inferred": True, "samples": 80}
    expected = run.workers.loc[("threads=2", 0), "gil_wait_s"] * 1e6
    assert wait["dur"] == pytest.approx(expected, abs=10_000)


def test_recorded_spans_win_over_inferred_waits() -> None:
    """A wait that was inferred across a recorded transfer is cut around it."""
    story = [("gil_wait", 0.2), ("transfer", 0.2), ("gil_wait", 0.2), ("running", 0.1)]
    run = run_of({Arm.named("threads", 1): [story]})
    waits = sorted(by_thread(json.loads(chrome.dumps(run)))["threads=1", "worker 0 · waits"], key=lambda e: e["ts"])
    assert [e["name"] for e in waits] == ["GIL wait", "transfer", "GIL wait"]
    ends = [e["ts"] + e["dur"] for e in waits]
    assert all(later["ts"] >= end for end, later in zip(ends, waits[1:], strict=False))


def test_slices_nest() -> None:
    """Whatever overlaps, on each thread a slice ends no later than the one that it begins in."""
    rng = np.random.default_rng(7)
    begins = rng.uniform(1000, 1001.6, 500)
    spans = [(int(k % 2), (f"f{k}", b, b + rng.exponential(0.1))) for k, b in enumerate(begins)]
    calls = [calls_of(rank, *(span for r, span in spans if r == rank)) for rank in range(2)]
    for slices in by_thread(json.loads(chrome.dumps(two_arms(functions=lambda: [(0, calls)])))).values():
        ends: list[int] = []
        for event in slices:
            begin, end = round(event["ts"] * 1000), round((event["ts"] + event["dur"]) * 1000)
            while ends and ends[-1] <= begin:
                ends.pop()
            assert not ends or end <= ends[-1]
            ends.append(end)


def test_trace_is_plain_json() -> None:
    """Hostile names are ASCII in the file, and NaN never gets in."""
    data = chrome.dumps(hostile())
    assert data.isascii()
    names = {event["name"] for event in json.loads(data)["traceEvents"]}
    assert figures.clean(HOSTILE) in names


@pytest.mark.parametrize("suffix", [".json", ".json.gz", ".html", ".JSON"])
def test_save_writes_privately(tmp_path, suffix: str) -> None:
    """Each suffix gives its file, for the owner's eyes only, with nothing left beside it."""
    path = tmp_path / f"x{suffix}"
    path.write_text("older")
    save.save(two_arms(), path)
    data = path.read_bytes()
    data = gzip.decompress(data) if suffix == ".json.gz" else data
    assert data.startswith(b"<!doctype html>" if suffix == ".html" else b'{"traceEvents"')
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["x.txt", "x", "x.gz", "json"])
def test_save_refuses_other_suffixes(tmp_path, name: str) -> None:
    """The error names the file and the suffixes that there are; nothing is written."""
    with pytest.raises(ValueError, match=rf"'{name}'.*\.html, \.json or \.json\.gz"):
        save.save(two_arms(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_nothing(tmp_path) -> None:
    """Where the target can't be replaced, the temporary file goes away and the error comes through."""
    (tmp_path / "x.json").mkdir()
    with pytest.raises(OSError, match=r"x\.json"):
        save.save(two_arms(), tmp_path / "x.json")
    assert [one.name for one in tmp_path.iterdir()] == ["x.json"]
