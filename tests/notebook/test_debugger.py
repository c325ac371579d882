"""Beside a debugger: a kernel with its own one attached, debugpy in a script, pdb in a body."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from debugged import Debugged

pytest.importorskip("ipykernel", minversion="7", reason="debuggers were tried with ipykernel 7")

MODELS = ["threads=2", "procs=2", "procs=2 --start-method spawn", "procs=2 --start-method fork", "serial"]


@pytest.fixture(scope="module")
def kernel() -> Iterator[Debugged]:
    """Return a kernel whose debugger was attached before the first run, so that even the server is started beside it."""
    made = Debugged()
    try:
        made.run("%load_ext parmagic")
        made.attach()
        yield made
    finally:
        made.close()


def _frames(kernel: Debugged, event: dict[str, Any] | None) -> list[tuple[str, int]]:
    """Return the names and lines of the frames of the thread that an event tells of."""
    assert event is not None
    answer = kernel.ask("stackTrace", threadId=event["threadId"])
    return [(frame["name"], frame["line"]) for frame in answer["body"]["stackFrames"]]


def test_the_first_run_is_not_slowed(kernel):
    """No import of ours goes through the debugger, which would make a second of it ten on 3.11; a note says what it does to figures."""
    begin = time.monotonic()
    assert kernel.run("%%parallel threads=2 --once for n in range(4)\nn * n").ended
    assert time.monotonic() - begin < 10
    assert kernel.value("run.results") == "[0, 1, 4, 9]"
    assert "A debugger is attached" in kernel.value("run.notes")
    assert "Helper threads" not in kernel.value("run.notes")


@pytest.mark.parametrize("model", MODELS)
def test_runs_end_as_usual(kernel, model):
    """Results, prints, tables and the baseline are as without it: neither a run nor the debugger waits for a process of ours."""
    begin = time.monotonic()
    shown = kernel.run(f"%%parallel {model} for n in range(4)\nprint('item', n)\nn * n")
    assert time.monotonic() - begin < 10
    assert sorted(line[-6:] for line in shown.text.splitlines() if line) == [f"item {n}" for n in range(4)]
    assert kernel.value("run.results") == "[0, 1, 4, 9]"
    if model != "serial":
        assert "serial" in shown.results[0]
        assert kernel.value("list(run.summary.baseline)[0]") == "measured"


@pytest.mark.parametrize("model", ["threads=2", "procs=2", "serial"])
def test_errors_show_the_cell(kernel, model):
    """A cell that the debugger knows by its file shows its lines as any other where it fails."""
    cell = f"%%parallel {model} --once -q for n in range(3)\ny = n\ndef g(x):\n    return 1 / x\ng(y - 1)"
    kernel.stop_at(cell)
    error = kernel.run(cell).error
    assert "----> 5 g(y - 1)" in error
    assert "----> 4     return 1 / x" in error
    assert "Cell In[" in error
    assert "in item 1 (1), worker" in error


@pytest.mark.parametrize("model", ["threads=2", "procs=2"])
def test_interrupt(kernel, model):
    """Ctrl-C ends a run that nothing holds."""
    number = kernel.send(f"%%parallel {model} --once -q for n in range(4)\nimport time\nprint('begun')\ntime.sleep(60)")
    kernel.watch(number, text="begun")
    kernel.interrupt()
    assert "KeyboardInterrupt" in kernel.watch(number).error


@pytest.mark.parametrize("options", ["--trace full", "--trace off"])
def test_breakpoint_in_threads(kernel, options):
    """Workers stop at a line of the cell, with the body's frames alone; each can be stepped through, and all go on."""
    cell = f"%%parallel threads=2 --once -q {options} for n in range(2)\ny = n + 1\nz = y + 1\ny * z"
    kernel.stop_at(cell, 3)
    number = kernel.send(cell)
    shown = kernel.watch(number, until="stopped")
    assert _frames(kernel, shown.event) == [("<cell>", 3)]
    assert kernel.ask("next", threadId=shown.event["threadId"])["success"]
    shown = kernel.watch(number, until="stopped")
    while not shown.ended:  # the other one may have come to its own breakpoint meanwhile, or not
        assert _frames(kernel, shown.event)[0][1] in {3, 4}
        assert kernel.ask("continue", threadId=shown.event["threadId"])["success"]
        shown = kernel.watch(number, until="stopped")
    assert not shown.error
    assert kernel.value("run.results") == "[2, 6]"


@pytest.mark.parametrize("model", ["serial", "threads=1"])
def test_breakpoints_stop_no_process(kernel, model):
    """A serial run stops as threads do; the baseline, which is a fork of the notebook with the same breakpoints, does not."""
    cell = f"%%parallel {model} for n in range(2)\ny = n + 1\ny * 2"
    kernel.stop_at(cell, 3)
    number = kernel.send(cell)
    for _ in range(2):
        event = kernel.watch(number, until="stopped").event
        assert _frames(kernel, event) == [("<cell>", 3)]
        kernel.ask("continue", threadId=event["threadId"])
    assert kernel.watch(number, until="stopped").ended
    assert kernel.value("run.results") == "[2, 4]"
    assert "measured" in kernel.value("list(run.summary.baseline)")


def test_breakpoint_is_told(kernel):
    """While a worker is held, the run goes on listening and says so; the time is the worker's, and nothing is said to be done."""
    cell = "%%parallel threads=2 --once for n in range(1)\ny = n + 1\ny * 2"
    kernel.stop_at(cell, 3)
    number = kernel.send(cell)
    event = kernel.watch(number, until="stopped").event
    assert "1 held by the debugger" in kernel.watch(number, text="held by the debugger").text  # the bar, from 2 s on
    kernel.ask("continue", threadId=event["threadId"])
    assert kernel.watch(number).ended
    assert kernel.value("run.results") == "[2]"
    assert float(kernel.value("run.workers.lock_wait_s.max()")) > 1.5


def test_interrupt_at_a_breakpoint(kernel):
    """Ctrl-C ends workers where they are held: what stands behind the breakpoint is not run, and nothing is held afterwards."""
    cell = "%%parallel threads=2 --once -q for n in range(4)\ny = n + 1\nprint('behind')\ny * 2"
    kernel.stop_at(cell, 3)
    number = kernel.send(cell)
    assert kernel.watch(number, until="stopped").event
    kernel.interrupt()
    shown = kernel.watch(number, seconds=10)
    assert shown.error == "KeyboardInterrupt"
    assert not shown.text
    kernel.stop_at(cell)
    assert kernel.run(cell).ended
    assert kernel.value("run.results") == "[2, 4, 6, 8]"


def test_timeout_at_a_breakpoint(kernel):
    """--timeout, which is asked for, holds at a breakpoint as well."""
    cell = "%%parallel threads=2 --once -q --timeout 0.5 for n in range(2)\ny = n + 1\nprint('behind')\ny * 2"
    kernel.stop_at(cell, 3)
    shown = kernel.watch(kernel.send(cell), seconds=10)
    assert "RunTimeout" in shown.error
    assert "behind" not in shown.text


def test_no_breakpoint_in_processes(kernel):
    """Workers that are processes of their own pass it by."""
    cell = "%%parallel procs=2 --once -q for n in range(2)\ny = n + 1\ny * 2"
    kernel.stop_at(cell, 3)
    assert kernel.run(cell).ended
    assert kernel.value("run.results") == "[2, 4]"


@pytest.mark.parametrize(("model", "knows"), [("threads=2", True), ("serial", True), ("procs=2", False)])
def test_post_mortem(kernel, model, knows):
    """%debug shows the body's frames, with their values where the worker was this process."""
    kernel.run(f"%%parallel {model} --once -q for n in range(3)\ny = n\n1 / (y - 1)")
    number = kernel.send("%debug", asks=True)
    for text in ("p 'y is', y", "q"):
        kernel.answer(text)
    text = kernel.watch(number).text
    assert "1[39m / (y" in text or "1 / (y" in text or "<cell>" in text
    assert ("('y is', 1)" in text) is knows


@pytest.mark.parametrize("how", ["breakpoint()", "import pdb; pdb.set_trace()"])
def test_pdb_in_processes(kernel, how):
    """A process has nobody to ask: the error says what to write instead."""
    error = kernel.run(f"%%parallel procs=2 --once -q for n in range(2)\ny = n\n{how}\ny").error
    assert "NoShell" in error
    assert "%%parallel serial" in error


@pytest.mark.parametrize("model", ["threads=1", "serial"])
def test_pdb_in_this_process(kernel, model):
    """A body in the kernel's own process may ask."""
    number = kernel.send(f"%%parallel {model} --once -q for n in range(1)\ny = n + 1\nimport pdb; pdb.set_trace()\ny * 2", asks=True)
    for text in ("p 'y is', y", "c"):
        kernel.answer(text)
    assert "('y is', 1)" in kernel.watch(number).text
    assert kernel.value("run.results") == "[2]"


def test_after_the_debugger(kernel):
    """When it has gone, runs are as before, and nothing is said of it."""
    assert kernel.ask("disconnect", restart=False, terminateDebuggee=False)["success"]
    assert kernel.run("%%parallel threads=2 procs=2 for n in range(4)\nn * n").ended
    assert kernel.value("run.results") == "[0, 1, 4, 9]"
    assert "debugger" not in kernel.value("run.notes")


SCRIPT = """
import parmagic

def body(n):
    return n * n

if __name__ == "__main__":
    print(parmagic.run(body, range(4), "threads=2 procs=2").results)
"""


@pytest.mark.filterwarnings("default")
def test_debugpy_in_a_script(tmp_path):
    """A script under debugpy, which has subprocesses connect back to it by default, starts ours beside it."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = subprocess.run(
        [sys.executable, "-m", "debugpy", "--listen", f"127.0.0.1:{port}", str(script)],
        capture_output=True, text=True, timeout=60, check=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.stdout == "[0, 1, 4, 9]\n"
