"""What a run can be saved, shown, plotted and opened as."""

from __future__ import annotations

import base64
import gc
import gzip
import html
import json
import re
import stat
import tempfile
import threading
import time
import urllib.error
import urllib.request
import weakref
import webbrowser
from pathlib import Path

import pytest
from stories import two_arms

import parmagic
from parmagic.render import chrome, frame, serve
from parmagic.render import html as report
from parmagic.workers.processes.forkable import user_threads

HOSTILE = "</script></iframe><img src=x onerror=alert(1)> \u202e\x1b[31m '\"& ${x} `$a^b$`"


def _until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def _get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.status, dict(answer.headers), answer.read().decode()


@pytest.fixture
def run():
    """One real run with an error in it, whose message is private."""

    def work(n):
        if n == 3:
            raise ValueError("hunter2")
        return n

    return parmagic.run(work, range(8), "threads=2 procs=2", once=True, keep_going=True)


@pytest.fixture
def served():
    """End the server after the test."""
    serve.close()
    yield
    serve.close()


def test_save_has_all_tables(run, tmp_path):
    """One private file has the timeline and every row of every table; of an error its type only."""
    path = tmp_path / "report.html"
    assert run.save(path) == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text("utf-8")
    for name in ("summary", "workers", "items", "transfers"):
        assert f"run.{name}, {len(getattr(run, name))} rows" in text
        assert all(f"<th>{column}</th>" in text for column in getattr(run, name).columns)
    assert f"<bdi>{run.workers['wall_s'].iloc[0]:.6f}".rstrip("0") in text
    assert "ValueError" in text
    assert "hunter2" not in text
    assert "<noscript>" in text
    assert "worker 0: " in text.partition("<noscript>")[2].partition("</noscript>")[0]


@pytest.mark.parametrize("name", ["report.json", "report", "html"])
def test_save_refuses_what_is_no_page(run, tmp_path, name):
    """A report is a page: another ending is refused, and nothing written."""
    with pytest.raises(ValueError, match=r"must end in \.html"):
        run.save(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no folder"):
        run.save(tmp_path / "nowhere" / "report.html")
    assert list(tmp_path.glob("*report*")) == []


def test_show_is_the_page_in_a_frame_that_may_do_nothing(run):
    """The page comes whole in a sandbox; as text it says what to do in a terminal."""
    shown = run.timeline.show(500)
    text = shown._repr_html_()
    assert re.match(r'<iframe title="Timeline" sandbox="allow-scripts" style="width:100%;height:500px;[^"]*" srcdoc="[^"]*"></iframe>$', text, re.DOTALL)
    inside = html.unescape(text.partition('srcdoc="')[2].removesuffix('"></iframe>'))
    assert inside.startswith("<!doctype html>")
    assert inside.rstrip().endswith("</html>")
    assert ".save(" in repr(shown)


def test_hostile_text_stays_in_its_frame():
    """Neither the frame nor the report nor the link can be left by a title, a note or a verdict."""
    run = two_arms(title=HOSTILE, verdict=HOSTILE, notes=[HOSTILE])
    text = frame.page_in_a_frame(run, 500)
    assert text.count("<iframe") == text.count("</iframe>") == text.count("<") / 2 == 1
    shown = report.report(run, 'http://127.0.0.1/"><script>alert(1)</script>')
    assert "<script" not in shown
    assert "<img" not in shown


def test_link(run, served):
    """A run's page is served under a secret address, always the same one, written when it is asked for."""
    url = serve.link(run._study)
    assert user_threads() == []  # the notebook can be forked beside it
    assert serve.link(run._study) == url
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/run/\d+", url)
    status, headers, text = _get(url)
    assert status == 200
    assert headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    assert "run.summary" not in text
    assert html.escape(run._study.title) in text
    other = url.replace(url.split("/")[3], "x" * 32)
    with pytest.raises(urllib.error.HTTPError, match="404") as caught:
        _get(other)
    caught.value.close()


def test_link_of_a_run_that_is_gone(served):
    """The server keeps no run alive; who comes too late is told."""
    url = serve.link(run := two_arms())
    assert _get(url)[0] == 200
    known = weakref.ref(run)
    del run
    until = time.monotonic() + 10
    while known() is not None:  # the thread that answered may be about to end
        assert time.monotonic() < until
        gc.collect()
    with pytest.raises(urllib.error.HTTPError, match="404") as caught:
        _get(url)
    assert b"This run is gone" in caught.value.read()
    caught.value.close()


def test_links_are_few(served):
    """Only so many are kept."""
    runs = [two_arms() for _ in range(serve.KEEP_RUNS + 1)]
    urls = [serve.link(run) for run in runs]
    with pytest.raises(urllib.error.HTTPError, match="404") as caught:
        _get(urls[0])
    caught.value.close()
    assert _get(urls[1])[0] == 200


def test_the_report_has_the_link_or_says_what_to_write():
    """Under a report there is a way on."""
    run = two_arms()
    assert '<a href="http://127.0.0.1:1/x/run/1" target="_blank" rel="noopener noreferrer">' in report.report(run, "http://127.0.0.1:1/x/run/1")
    assert "run.timeline.show()" in report.report(run)


def test_open_where_the_browser_is_elsewhere(run, served, monkeypatch, capsys):
    """No server that nobody can reach: a link that downloads the trace."""
    monkeypatch.delenv("PARMAGIC_REMOTE", raising=False)
    monkeypatch.setenv("JUPYTERHUB_USER", "somebody")
    monkeypatch.setattr(webbrowser, "open", lambda url: pytest.fail("opened"))
    shown = run.timeline.open()
    assert "a link that downloads it" in capsys.readouterr().out
    assert serve._pages is None
    data = re.search(r'download="timeline.json.gz" href="data:application/gzip;base64,([^"]+)"', shown._repr_html_())[1]
    assert json.loads(gzip.decompress(base64.b64decode(data)))["traceEvents"]


def test_open_here(run, served, monkeypatch, capsys):
    """The browser is sent to this machine by a private file, which is gone when it has led there: its command line holds no secret."""
    monkeypatch.setenv("PARMAGIC_REMOTE", "0")
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)
    url = run.timeline.open()
    assert "127.0.0.1" in capsys.readouterr().out
    _until(lambda: opened)
    secret = url.split("/")[3]
    assert opened[0].startswith("file:///")
    assert secret not in opened[0]
    path = Path(opened[0].removeprefix("file://"))
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)
    assert f'content="0; url={url}"' in path.read_text()
    assert b"postMessage" in _get(url)[2].encode()
    assert not path.parent.exists()


def test_open_waits_for_no_browser_and_no_trace(run, served, monkeypatch, capsys):
    """It says what it does and returns while the browser is still starting; the trace is written when that asks for it, once."""
    monkeypatch.setenv("PARMAGIC_REMOTE", "0")
    up, written = threading.Event(), []
    dumps = chrome.dumps
    monkeypatch.setattr(webbrowser, "open", lambda _: up.wait(60))
    monkeypatch.setattr(chrome, "dumps", lambda view: written.append(view) or dumps(view))
    try:
        url = run.timeline.open()
        assert not up.is_set()
        assert written == []
        assert capsys.readouterr().out.startswith("Opening the timeline")
        for _ in range(2):
            status, _, text = _get(url.replace("/trace/", "/data/"))
            assert (status, json.loads(text)["traceEvents"][0]["name"], len(written)) == (200, "process_name", 1)
    finally:
        up.set()
        _until(lambda: all(thread.name != "parmagic-browser" for thread in threading.enumerate()))


def test_open_without_a_browser(run, served, monkeypatch, capsys):
    """It says that the address has to be opened by hand."""
    monkeypatch.setenv("PARMAGIC_REMOTE", "0")
    monkeypatch.setattr(serve, "_OPENS_WITHIN", 60)
    monkeypatch.setattr(webbrowser, "open", lambda _: False)
    run.timeline.open()
    assert "open the address below yourself" in capsys.readouterr().out


def test_what_a_browser_never_asked_for_is_removed(run, served, monkeypatch):
    """The file that leads to a trace goes with the server, and at once where there is no browser."""
    monkeypatch.setenv("PARMAGIC_REMOTE", "0")
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(Path.cwd()))
    there = lambda: list(Path.cwd().glob("parmagic-*"))  # noqa: E731  (said twice)
    for is_one in (True, False):
        monkeypatch.setattr(webbrowser, "open", lambda _, found=is_one: bool(there()) and found)
        run.timeline.open()
        _until(lambda found=is_one: bool(there()) == found)
        serve.close()
        assert there() == []


def test_a_link_opens_its_run_alone(served, monkeypatch):
    """What is in a notebook's file leads to that run: neither to others, nor to traces, nor to the viewer."""
    one, other, trace = serve.link(first := two_arms()), serve.link(second := two_arms()), serve.open_trace(b"{}", "t")
    assert first is not second
    secret = one.split("/")[3]
    for url in (other, trace, trace.replace("trace", "data"), trace.replace("trace/3", "ui/index.html")):
        assert _get(url)[0] == 200
        with pytest.raises(urllib.error.HTTPError, match="404") as caught:
            _get(url.replace(url.split("/")[3], secret))
        caught.value.close()


def test_no_server_no_link(run, served, monkeypatch):
    """Where no server can be started, the report is shown without its link, and a trace that is to be opened says what to do."""
    monkeypatch.setattr(threading.Thread, "start", lambda _: (_ for _ in ()).throw(RuntimeError("can't start new thread")))
    assert serve.link(run._study) == ""
    with pytest.raises(parmagic.ParmagicError, match=r"can't start new thread\): save the timeline"):
        serve.open_trace(b"{}", "t")


class TestPlot:
    """The figure, where matplotlib is installed."""

    @pytest.fixture(autouse=True)
    def matplotlib(self):
        """Skip where there is none."""
        pytest.importorskip("matplotlib")

    def test_figures_are_the_tables(self):
        """Bars are as long as speedups, ideals and shares say; every worker has a lane."""
        run = two_arms(measured=True)
        figure = run_plot(run)
        *lanes, speedups, states = figure.axes
        assert [axes.get_title("left") for axes in lanes] == ["threads=2, 1.6 s", "procs=2, 1 s"]
        assert [label.get_text() for label in lanes[0].get_yticklabels()] == ["worker 0", "worker 1"]
        widths = [patch.get_width() for patch in speedups.patches]
        assert widths == pytest.approx([2, 2, *run.summary["speedup"]])
        assert sum(patch.get_width() for patch in states.patches) == pytest.approx(2.0)
        assert figure._repr_png_().startswith(b"\x89PNG")

    def test_hostile_text_is_text(self):
        """Dollars are no formula, controls are visible."""
        figure = run_plot(two_arms(verdict=HOSTILE))
        assert figure._repr_png_().startswith(b"\x89PNG")

    def test_a_real_run(self, run, tmp_path):
        """It saves as any figure does."""
        run.plot().savefig(tmp_path / "run.svg")
        assert (tmp_path / "run.svg").stat().st_size > 1000

    def test_a_run_without_arms(self):
        """The verdict alone."""
        empty = two_arms()
        empty.timelines = ()
        assert run_plot(empty)._repr_png_().startswith(b"\x89PNG")


def run_plot(view):
    """Return a view's figure."""
    from parmagic.render import plot

    return plot.figure(view)
