"""What every test stands on: a fresh shell, and a look at what was left behind."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import psutil
import pytest
from IPython.core.interactiveshell import InteractiveShell
from kin import children, other_servers
from traitlets.config import Config

import parmagic
from parmagic.record import hooks
from parmagic.workers.processes import hub, watch

os.environ["PARMAGIC_LOAD"] = "off"  # what other programs do to the figures of a test is none of its business, but of those that look


def _threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("parmagic")}


def _hooks() -> int:
    """Return how many calls of this process still go to the recorder."""
    return 0 if hooks.why_inferred() else hooks.extension()[0].state()["patched"]


def _strangers(before: set[int]) -> list[psutil.Process]:
    """Return new processes of ours that are neither the server nor the sampler nor a resource tracker."""
    server = hub._server.pid if hub._server is not None else -1
    found = []
    for pid in children(os.getpid()) - before:
        try:
            child = psutil.Process(pid)
            known = pid == server or "resource_tracker" in " ".join(child.cmdline())
            if not known and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


OURS = {"parmagic server", "parmagic spare", "parmagic sample"}


def _workers() -> list[psutil.Process]:
    """Return what runs below the server but for its sampler and its spares, which are called after the server when they are born."""
    if hub._server is None or not hub._server.alive():
        return []
    found = []
    for pid in children(hub._server.pid):
        with suppress(psutil.NoSuchProcess):
            child = psutil.Process(pid)
            if child.name() not in OURS and "resource_tracker" not in " ".join(child.cmdline()):
                found.append(child)
    return found


def _left(look: Callable[[], list[Any]]) -> list[Any]:
    """Return what is still there after the time that an ending process may take."""
    until = time.monotonic() + 2
    while (left := look()) and time.monotonic() < until:
        time.sleep(0.002)
    return left


def _left_of_workers() -> list[psutil.Process]:
    """Return the workers that do not end by themselves: a run does not wait until those are gone that said their last word."""
    return _left(_workers)


@pytest.fixture(autouse=True, scope="module")
def little_to_collect() -> None:
    """Keep the collector, which runs after every test, from what is there before the first one: modules, most of all."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _main_has_a_spec() -> None:
    """A shell of another test took it along, when it was reset; multiprocessing looks at it where a process starts anew."""
    if not hasattr(sys.modules["__main__"], "__spec__"):
        sys.modules["__main__"].__spec__ = None


@pytest.fixture(params=["fork", "forkserver", "spawn"])
def context(request: pytest.FixtureRequest) -> Any:
    """How processes are made, and what they share."""
    return multiprocessing.get_context(request.param)


@pytest.fixture
def no_timer() -> Iterator[None]:
    """Have no alarm that ends tests which take too long: its handler may be somebody who wakes others."""
    left = signal.setitimer(signal.ITIMER_REAL, 0)
    yield
    signal.setitimer(signal.ITIMER_REAL, *left)


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in a folder of its own, and leave no thread, process, descriptor, stream or hook behind."""
    monkeypatch.chdir(tmp_path)
    hub.get()
    if hooks.why_inferred():
        watch.watch.wait_until_ready()
    streams, threads = (sys.stdout, sys.stderr), _threads()  # what an earlier test left is not blamed on this one
    before = children(os.getpid())
    descriptors = len(os.listdir("/proc/self/fd"))
    yield
    gc.collect()
    forkserver._forkserver._stop()  # the body's own: what multiprocessing starts by default since 3.14
    assert not _threads() - threads
    assert (sys.stdout, sys.stderr) == streams
    assert sys.getprofile() is None
    assert threading.getprofile() is None
    assert not _hooks()
    assert not _strangers(before)
    assert not _left_of_workers(), "a worker outlived its run"
    assert not _left(other_servers), "a server outlived its use"
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 4  # a resource tracker, a new server


class Shell:
    """A fresh IPython with the extension loaded, and what it showed."""

    def __init__(self) -> None:
        InteractiveShell.clear_instance()
        # its history is its own, in no file: IPython would leave that open behind each shell
        self.shell = InteractiveShell.instance(config=Config({"HistoryManager": {"hist_file": ":memory:"}}))
        self.shell.run_line_magic("load_ext", "parmagic")

    def __call__(self, cell: str) -> Any:
        """Run a cell as a user would; return its value (the run, of a magic), raise what it raises."""
        result = self.shell.run_cell(cell, store_history=True)
        result.raise_error()
        return parmagic.last() if cell.startswith("%") else result.result

    def fails(self, cell: str) -> BaseException:
        """Run a cell that must fail; return the exception."""
        result = self.shell.run_cell(cell, store_history=True)
        error = result.error_in_exec or result.error_before_exec
        assert error is not None
        return error

    @property
    def space(self) -> dict[str, Any]:
        """The notebook's names."""
        return self.shell.user_ns


@pytest.fixture
def ip() -> Iterator[Shell]:
    """Return a fresh shell."""
    shell = Shell()
    yield shell
    shell.shell.reset(new_session=False)
    shell.shell.history_manager.end_session()
    InteractiveShell.clear_instance()
