"""How long it takes until a report is shown, until a large page is written, opened, and moved in.

python benchmarks/report.py

The browser's part needs Chromium and Playwright.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
import time
from pathlib import Path
from time import perf_counter

from common import median, where
from IPython.core.interactiveshell import InteractiveShell

from parmagic.render import html, text
from parmagic.result import Run, study

ROUNDS = 5
WAITING = "import time\nfor _ in range(6_250):\n    time.sleep(0)\n    lock.acquire(timeout=1e-5)\n"
CALLING = "f(100_000)"
CHROMIUM = "/usr/bin/chromium"


def cell(shell: InteractiveShell, line: str, body: str) -> tuple[Run, float]:
    """Run a cell; return the run, and the seconds from its last result to the end of the cell with both reports made."""
    run: Run = shell.run_cell_magic("parallel", line, body)
    html.report(study(run))
    text.report(study(run))
    return run, perf_counter() - study(run).timelines[-1].end


def in_a_browser(page: Path) -> None:
    """Open a page and move in it; print how long that takes."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  (it may not be here)

    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        opened = []
        for _ in range(ROUNDS):
            tab = browser.new_page(viewport={"width": 1400, "height": 1000})
            begin = perf_counter()
            tab.goto(page.as_uri())
            tab.evaluate("new Promise(requestAnimationFrame)")
            opened.append(perf_counter() - begin)
            if len(opened) < ROUNDS:
                tab.close()
        print(f"{'opened and drawn':45} {median(opened):8.2f} s")
        for name, share in (("all of it", 1.0), ("a tenth of it", 0.1), ("a thousandth of it", 0.001)):
            tab.evaluate(f"look(0, whole.end * {share})")
            rate = tab.evaluate("""new Promise((done) => {
                let frames = 0; const begin = performance.now();
                (function next() {
                  if (++frames > 60) return done(60000 / (performance.now() - begin));
                  move(frames % 2 ? 0.01 : -0.01); requestAnimationFrame(next);
                })();
            })""")
            print(f"{'frames a second while moving in ' + name:45} {rate:8.0f}")
        browser.close()


def main() -> None:
    """Print all."""
    print(where(), f"- medians of {ROUNDS}")
    os.chdir(tempfile.mkdtemp())
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "parmagic")
    shell.run_cell("import threading; lock = threading.Lock(); lock.acquire()\ndef g(): pass\ndef f(n):\n    for _ in range(n): g()")
    took = []
    for _ in range(ROUNDS):
        run, seconds = cell(shell, "threads=4 -q --once --trace off", WAITING)
        took.append(seconds)
    kept = sum(len(list(lane.waits)) for lane in study(run).timelines[0].lanes)
    print(f"{f'report of 4 workers with {kept:,} intervals':45} {median(took) * 1e3:8.1f} ms")
    run, _ = cell(shell, "threads=4 -q --once --trace full", CALLING)
    run, _ = cell(shell, "threads=5 -q --once --trace full", CALLING)
    page = Path("page.html").absolute()
    took = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        run.timeline.save(page)
        took.append(perf_counter() - begin)
    slices = sum(len(calls) for _, arm in study(run).functions() for calls in arm)
    print(f"{f'page of {slices:,} calls written':45} {median(took):8.2f} s  ({page.stat().st_size / 1e6:.1f} MB)")
    if Path(CHROMIUM).exists() and importlib.util.find_spec("playwright"):
        in_a_browser(page)


if __name__ == "__main__":
    main()
