"""A real JupyterLab or Notebook 7 in headless Chromium, with nothing but this machine to reach."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
LIMIT = 60_000
"""Milliseconds for anything to show on a busy machine."""

_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]  # fmt: skip

PLACES = {"lab": "lab/tree", "notebook": "notebooks"}


def write(path: Path, cells: list[str]) -> Path:
    """Write a notebook."""
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(metadata=metadata, cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), path)
    return path


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a browser."""
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=str(CHROMIUM), args=_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A page, and what its console complained about."""

    def __init__(self, browser: Browser, dark: bool = False, width: int = 1300, height: int = 1000, offline: bool = False) -> None:
        scheme = "dark" if dark else "light"
        self.context: BrowserContext = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, offline=offline
        )
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(LIMIT)
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        self.page.on("dialog", lambda dialog: self.errors.append(f"dialog: {dialog.message}"))

    def until(self, expression: str) -> Any:
        """Wait until JavaScript gives something true; return that. What Playwright waits with, a page's own policy may forbid."""
        end = time.monotonic() + LIMIT / 1000
        while not (found := self.page.evaluate(expression)):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.05)
        return found


@contextmanager
def server(folder: Path, app: str) -> Iterator[str]:
    """Start JupyterLab or Notebook 7 in a folder; yield the address that opens a file of it, to be filled in."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    home = folder / ".home"
    home.mkdir(exist_ok=True)
    places = {f"JUPYTER_{kind}_DIR": str(home / kind.lower()) for kind in ("CONFIG", "RUNTIME", "DATA")}
    settings = home / "lab-settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True, exist_ok=True)
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    environment = {**os.environ, **places, "HOME": str(home), "JUPYTERLAB_SETTINGS_DIR": str(home / "lab-settings"), "IPYTHONDIR": str(home / "ipython"), "JUPYTER_PREFER_ENV_PATH": "1", "PARMAGIC_REMOTE": "0"}
    command = [
        sys.executable, "-m", "jupyter", app, "--no-browser", "--allow-root", f"--ServerApp.port={port}", "--ServerApp.ip=127.0.0.1",
        f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}", "--ServerApp.log_level=ERROR", "--LabApp.news_url=''",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_for(f"http://127.0.0.1:{port}/api?token={token}", process)
        yield f"http://127.0.0.1:{port}/{PLACES[app]}/{{}}?token={token}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + LIMIT / 1000
    while time.monotonic() < end:
        assert process.poll() is None, "the server has ended: see server.log"
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the server does not answer")


def run_all(tab: Tab, address: str, count: int) -> None:
    """Open a notebook and run its cells one after another; return when each has run."""
    tab.page.goto(address)
    tab.page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    for number in range(count):
        prompt = f"(document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')[{number}]?.textContent || '')"
        while "[ ]" in tab.page.evaluate(prompt):  # the kernel may not be there yet
            for button in tab.page.locator("dialog.jp-Dialog button.jp-mod-accept").all():  # it asks for a kernel that is slow to come
                button.click()
            tab.page.locator(".jp-CodeCell .cm-content").nth(number).click()
            tab.page.keyboard.press("Shift+Enter")
            tab.page.wait_for_timeout(500)
        tab.until(f"/\\[\\d+\\]/.test({prompt})")
