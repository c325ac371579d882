"""Ten runs at once in a real kernel, from threads, from asyncio and from subshells: whose prints are where, and what is left."""

from __future__ import annotations

import queue
import re
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

from parmagic.notebook import hush

LIMIT = 90.0
"""Seconds that ten runs may take on a busy machine."""

PREPARED = """
%load_ext parmagic
import asyncio, resource, signal, sys, threading
import parmagic
from parmagic.record import hooks
from parmagic.system import runs

MODELS = "threads=2", "procs=2", "serial", "threads=1 procs=1"

def state():
    patched = 0 if hooks.why_inferred() else hooks.extension()[0].state()["patched"]
    return (
        sys.stdout, sys.stderr, sys.displayhook, sys.excepthook, threading.excepthook, signal.getsignal(signal.SIGINT), sys.getprofile(),
        threading.getprofile(), sys.gettrace(), patched, sys.getrecursionlimit(), resource.getrlimit(resource.RLIMIT_NOFILE),
        sys.monitoring.get_tool(2) if hasattr(sys, "monitoring") else None, runs.some(),
        sorted(t.name for t in threading.enumerate() if t.name.startswith("parmagic")),
    )

def one(k):
    def body(n):
        print(f"run {k} item {n}")
        if k == 7 and n == 3:
            raise LookupError("of run 7")
        return k, n, sum(range(20_000))
    gate.wait(60)
    try:
        run = parmagic.run(body, range(6), MODELS[k % len(MODELS)], once=True)
    except LookupError as error:
        return str(error)
    assert any("at work in this process meanwhile" in note for note in run.notes), run.notes
    return run.results == [(k, n, sum(range(20_000))) for n in range(6)]

before = state()
"""


class _Kernel:
    """A kernel in which cells can run at the same time."""

    def __init__(self) -> None:
        self.manager, self.client = start_new_kernel(kernel_name="python3")
        self.outputs: dict[str, list[Any]] = defaultdict(list)
        self._replies: dict[str, Any] = {}
        self._idle: set[str] = set()
        features = self.client.kernel_info(reply=True, timeout=LIMIT)["content"].get("supported_features", [])
        self.has_subshells = "kernel subshells" in features

    def subshell(self) -> str:
        """Open one more subshell."""
        message = self.client.session.msg("create_subshell_request", {})
        self.client.control_channel.send(message)
        while True:
            reply = self.client.get_control_msg(timeout=LIMIT)
            if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                return str(reply["content"]["subshell_id"])

    def send(self, code: str, subshell: str | None = None) -> str:
        """Begin a cell; return by what it is known."""
        content = {
            "code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False, "stop_on_error": False,
        }  # fmt: skip
        message = self.client.session.msg("execute_request", content)
        if subshell is not None:
            message["header"]["subshell_id"] = subshell
        self.client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    def end(self, *cells: str) -> list[Any]:
        """Wait until cells have ended; return their replies."""
        until = time.monotonic() + LIMIT
        while not (self._idle >= {*cells} and self._replies.keys() >= {*cells}):
            assert time.monotonic() < until, "cells did not end"
            self._listen()
        return [self._replies[cell] for cell in cells]

    def printed(self, cell: str, text: str) -> None:
        """Wait until a cell has printed a text."""
        until = time.monotonic() + LIMIT
        while text not in self.text(cell):
            assert time.monotonic() < until, f"the cell did not print {text!r}"
            self._listen()

    def _listen(self) -> None:
        try:
            message = self.client.get_iopub_msg(timeout=0.05)
        except queue.Empty:
            pass
        else:
            cell = message["parent_header"].get("msg_id", "")
            if message["content"].get("execution_state") == "idle":
                self._idle.add(cell)
            self.outputs[cell].append(message)
        try:
            message = self.client.get_shell_msg(timeout=0)
        except queue.Empty:
            return
        self._replies[message["parent_header"]["msg_id"]] = message["content"]

    def run(self, code: str) -> str:
        """Run a cell to its end; return what it printed."""
        cell = self.send(code)
        (reply,) = self.end(cell)
        assert reply["status"] == "ok", reply
        return self.text(cell)

    def text(self, cell: str) -> str:
        """Return what a cell has printed to stdout."""
        return "".join(m["content"]["text"] for m in self.outputs[cell] if m["content"].get("name") == "stdout")

    def shown(self, cell: str) -> list[str]:
        """Return what a cell has displayed, as plain text."""
        return [m["content"]["data"]["text/plain"] for m in self.outputs[cell] if m["msg_type"] == "display_data"]

    def is_as_before(self) -> None:
        """Tell whether nothing of a run is left in the kernel's process."""
        assert self.run("print(state() == before or (state(), before))") == "True\n"


@pytest.fixture(scope="module")
def kernel() -> Iterator[_Kernel]:
    """Return one kernel, in which a state is known that was before all runs."""
    one = _Kernel()
    try:
        one.run(PREPARED)
        yield one
    finally:
        one.client.stop_channels()
        one.manager.shutdown_kernel(now=True)


def _lines(text: str, run: int) -> list[str]:
    """Return the items of a run whose lines are there, each marked with a worker."""
    return sorted(re.findall(rf"(?m)^\[(?:threads|procs|serial) \d\] run {run} item (\d)$", text))


THREADS = """
threads = [threading.Thread(target=lambda k=k: told.update({k: one(k)})) for k in range(10)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(60)
"""
TO_THREAD = """
asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(10))
told = dict(enumerate(await asyncio.gather(*(asyncio.to_thread(one, k) for k in range(10)))))
"""


@pytest.mark.parametrize("together", [THREADS, TO_THREAD], ids=["threads", "to_thread"])
def test_ten_in_one_cell(kernel, together):
    """Each run has its own results, and its own error; its lines are marked, whole, and under the cell; all is as before behind the last."""
    kernel.run("gate, told = threading.Barrier(10), {}\nfrom concurrent.futures import ThreadPoolExecutor")
    cell = kernel.send(f"{together}\nprint([told[k] for k in range(10)])")
    (reply,) = kernel.end(cell)
    assert reply["status"] == "ok", reply
    text = kernel.text(cell)
    assert text.splitlines()[-1] == str(["of run 7" if k == 7 else True for k in range(10)])
    for k in range(10):
        arms = 2 if k % 4 == 3 and k != 7 else 1
        assert k == 7 or _lines(text, k) == sorted("012345" * arms), k
    assert all(re.match(r"\[(threads|procs|serial) \d\] run \d item \d$", line) for line in text.splitlines()[:-1])
    kernel.is_as_before()


def test_ten_in_subshells(kernel):
    """What each run prints, displays and raises is under its own cell, and nothing under any other."""
    if not kernel.has_subshells:
        pytest.skip("this ipykernel has no subshells")
    where = [None, *(kernel.subshell() for _ in range(9))]
    kernel.run("gate = threading.Barrier(10)\ndef met():\n    gate.wait(60)\n    return range(6)")
    models = "threads=2", "procs=2", "serial", "threads=1 procs=1"
    cells = [
        kernel.send(
            f"%%parallel {models[k % 4]} --once -q -o run_{k} for n in met()\nimport time\nprint('run {k} item', n)\n"
            f"time.sleep(0.05)\ndisplay('shown {k}')\nif {k} == 7 and n == 3: raise LookupError('of run 7')\n({k}, n)",
            each,
        )
        for k, each in enumerate(where)
    ]
    replies = kernel.end(*cells)
    assert [(reply["status"], reply.get("evalue")) for reply in replies] == [("error", "of run 7") if k == 7 else ("ok", None) for k in range(10)]
    for k, cell in enumerate(cells):
        text, arms = kernel.text(cell), 2 if k % 4 == 3 and k != 7 else 1
        assert all(f"] run {k} item " in line for line in text.splitlines()), kernel.outputs[cell]
        assert {*kernel.shown(cell)} == {f"'shown {k}'"}
        if k != 7:
            assert _lines(text, k) == sorted("012345" * arms)
            assert len(kernel.shown(cell)) == 6 * arms
            assert kernel.run(f"print(run_{k}.results == [({k}, n) for n in range(6)])") == "True\n"
            assert "meanwhile" in kernel.run(f"print(run_{k}.notes)")
    kernel.is_as_before()


def test_an_interrupt_in_one_of_them(kernel):
    """Ctrl-C ends the run of the main shell; one in a subshell goes on, prints under its own cell, and has its results."""
    if not kernel.has_subshells:
        pytest.skip("this ipykernel has no subshells")
    kernel.run("go = threading.Event()")
    beside = kernel.send(
        "%%parallel threads=2 --once -q -o beside for n in range(4)\nprint('beside', n)\nassert go.wait(60)\nprint('goes on', n)\nn",
        kernel.subshell(),
    )
    kernel.printed(beside, "beside 1")
    ended = kernel.send("%%parallel threads=2 --once -q for n in range(4)\nprint('to be ended')\nwhile True: pass")
    kernel.printed(ended, "to be ended")
    kernel.manager.interrupt_kernel()
    (reply,) = kernel.end(ended)
    assert reply["ename"] == "KeyboardInterrupt"
    kernel.run("go.set()")
    (reply,) = kernel.end(beside)
    assert reply["status"] == "ok", reply
    assert sorted(line.partition("] ")[2] for line in kernel.text(beside).splitlines()) == sorted(
        [f"{what} {n}" for what in ("beside", "goes on") for n in range(4)]
    )
    assert {*kernel.text(ended).splitlines()} <= {"[threads 0] to be ended", "[threads 1] to be ended"}
    assert kernel.run("print(beside.results)") == "[0, 1, 2, 3]\n"
    kernel.is_as_before()


def test_prints_of_no_worker_go_where_they_went(kernel):
    """A thread of the user's prints under the cell, unmarked, while a run is on and behind it."""
    text = kernel.run(
        "def other():\n    for n in range(3):\n        print('unmarked', n)\n        turn.wait(30)\n"
        "turn = threading.Barrier(2)\nthread = threading.Thread(target=other)\nthread.start()\n"
        "first = parmagic.run(lambda _: turn.wait(30), [0], 'threads=1', once=True)\n"
        "turn.wait(30)\nturn.wait(30)\nthread.join(30)"
    )
    assert text == "unmarked 0\nunmarked 1\nunmarked 2\n"
    kernel.is_as_before()


def test_hushing_is_one_threads():
    """What a cell of another thread shows is shown while a run is to be hushed, which is then hushed all the same, and once."""
    run, shown, before = object(), [], sys.displayhook
    hushed = hush._Hushed(shown.append, run)
    try:
        sys.displayhook = hushed
        other = threading.Thread(target=hushed, args=("of another cell",))
        other.start()
        other.join()
        assert (shown, sys.displayhook) == (["of another cell"], hushed)
        hushed(run)
        assert len(shown) == 1
        assert sys.displayhook != hushed
        hushed(run)
        assert shown == ["of another cell", run]
    finally:
        sys.displayhook = before
