"""Where a worker process is: seen while it runs, without an effect on what it runs."""

from __future__ import annotations

import re
import sys
import threading
import time
from threading import Event

import pytest

from parmagic.system.descriptors import Descriptor
from parmagic.system.files import anonymous_file
from parmagic.workers import stack

HERE = __file__


@pytest.fixture
def lookout(monkeypatch):
    """Have this thread looked at all the time; return the file that this is written to."""
    monkeypatch.setattr(stack, "EVERY", 0.001)
    monkeypatch.setattr("faulthandler.enable", lambda _: None)  # pytest has it
    file = anonymous_file()
    descriptor = Descriptor(file)
    before = set(threading.enumerate())
    made = stack.Lookout(descriptor)
    yield file
    made.end()
    for thread in set(threading.enumerate()) - before:
        thread.join()
    descriptor.close()


def _below(n):
    if n:
        yield from _below(n - 1)
    yield n


def _look_seen(file):
    frames = stack.last_stack(file, crash=False)
    return frames if any(frame.file == HERE for frame in frames) else []


def test_looks_at_code_that_runs_do_no_harm(lookout):
    """Frames come and go while others read them: thousands of times, of calls, generators and imports."""
    end, seen = time.monotonic() + 2, 0
    while time.monotonic() < end:
        assert list(_below(30)) == list(range(31))
        sorted(range(100), key=lambda n: -n)
        for name in [name for name in sys.modules if name.partition(".")[0] in {"html", "sndhdr", "this"}]:
            del sys.modules[name]
        import html.parser  # noqa: F401

        seen += bool(_look_seen(lookout))
    assert seen


def test_standing_still_is_told_with_the_line(ip, monkeypatch, capsys):
    """Of a process that computes, in a fork, which has what is set here."""
    monkeypatch.setattr("parmagic.workers.PATIENCE", 0.6)
    monkeypatch.setattr(stack, "EVERY", 0.1)
    lines = "import time", "end = time.monotonic() + 3", "while time.monotonic() < end:", "    sum(range(100))"
    ip.shell.run_cell("\n".join(("%%parallel procs=1 --once --trace off --start-method fork", *lines)))
    assert re.search("no item has ended for a while; item 0, line [45]: ", capsys.readouterr().out)


def test_the_innermost_frame_comes_first(lookout):
    """It is where the worker waits; our own frames are left out."""

    def waits():
        until = time.monotonic() + 20
        while not _look_seen(lookout) and time.monotonic() < until:
            Event().wait(0.01)
        return _look_seen(lookout)

    names = [frame.name for frame in waits()]
    assert names.index("waits") < names.index("test_the_innermost_frame_comes_first")
