"""Pictures of what users see, in light and dark, into ``screenshots/``; with ``--readme``, those of the README into ``docs/``.

python tests/pictures.py [--readme]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import browser

ROOT = Path(__file__).parent.parent

CELLS = [
    """%load_ext parmagic
import sysconfig, time, zlib
from pathlib import Path
paths = [p for p in sorted(Path(sysconfig.get_paths()['stdlib']).rglob('*.py')) if 'test' not in str(p)][:650]""",
    """%%parallel threads=2 procs=2 for path in paths
code = compile(path.read_bytes(), str(path), "exec")
len(code.co_code)""",
    """%%parallel threads=4 --once --trace full for n in range(24)
def pack(data):
    return zlib.compress(data)
time.sleep(0.01)
len(pack(bytes(range(256)) * 8000)) + sum(range(200_000))""",
]


def take(chromium: browser.Browser, top: Path, *, dark: bool) -> dict[str, bytes]:
    """Return the pictures of one theme, by name."""
    found = {}
    for app in browser.PLACES:
        folder = top / app
        folder.mkdir()
        browser.write(folder / "run.ipynb", CELLS)
        if dark:
            settings = folder / ".home" / "lab-settings" / "@jupyterlab" / "apputils-extension"
            settings.mkdir(parents=True, exist_ok=True)
            (settings / "themes.jupyterlab-settings").write_text('{"theme": "JupyterLab Dark"}')
        with browser.server(folder, app) as address:
            tab = browser.Tab(chromium, dark=dark, width=1240, height=1500)
            browser.run_all(tab, address.format("run.ipynb"), len(CELLS))
            tab.page.wait_for_timeout(500)
            found[app] = tab.page.screenshot()
            if app == "lab":
                found["report"] = tab.page.locator(".jp-CodeCell").nth(1).screenshot()
                url = tab.page.locator("a", has_text="the timeline, to zoom into").last.get_attribute("href")
                found["timeline"] = _timeline(chromium, url, dark=dark)
            tab.context.close()
    return found


def _timeline(chromium: browser.Browser, url: str, *, dark: bool) -> bytes:
    """Return the page of the timeline, zoomed in, with a slice chosen."""
    tab = browser.Tab(chromium, dark=dark, width=1240, height=860)
    tab.page.goto(url)
    tab.page.evaluate("look(whole.end * 0.3, whole.end * 0.62)")
    tab.page.fill("#search", "GIL")
    tab.page.press("#search", "Enter")
    tab.page.evaluate("look(whole.end * 0.3, whole.end * 0.62); document.getElementById('search').value = ''; found = null; ask()")
    tab.page.wait_for_timeout(400)
    picture = tab.page.screenshot()
    tab.context.close()
    return picture


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readme", action="store_true", help="also replace the pictures of the README")
    asked = parser.parse_args()
    target = ROOT / "screenshots"
    target.mkdir(exist_ok=True)
    with browser.chromium() as chromium:
        for theme in ("light", "dark"):
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                pictures = take(chromium, Path(folder), dark=theme == "dark")
            for name, data in pictures.items():
                (target / f"{name}-{theme}.png").write_bytes(data)
                if asked.readme and theme == "light" and name in {"report", "timeline"}:
                    (ROOT / "docs" / f"{name}.png").write_bytes(data)
    print("\n".join(str(path) for path in sorted(target.glob("*.png"))))


if __name__ == "__main__":
    main()
