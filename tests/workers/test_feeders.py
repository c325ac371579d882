"""A queue that a body writes more to than a pipe holds, and that nobody reads: that is told, can be ended, and the queue is whole after it."""

from __future__ import annotations

import io
import os
import queue
import signal
import threading
import time
from contextlib import redirect_stdout

import pytest

import parmagic

WAYS = ["forkserver", "fork"]
SETUP = (
    "import multiprocessing, threading, time\ncontext = multiprocessing.get_context({way!r})\nq, bounded, joinable = context.Queue(), context.Queue(3), "
    "context.JoinableQueue()\nheld = [context.Queue()]"
)
BODIES = {
    "q": ("q.put(bytes(10_000_000))", "`q`"),
    "many messages": ("for k in range(300):\n    q.put(bytes(3_000))", "`q`"),
    "a closed one": ("q.put(bytes(10_000_000))\nif n:\n    q.close()", "`q`"),
    "a bounded one": ("bounded.put(bytes(10_000_000))", "`bounded`"),
    "one to join": ("joinable.put(bytes(10_000_000))", "`joinable`"),
    "one in a list": ("held[0].put(bytes(10_000_000))", "a queue"),
}


def _get(q, **how):
    """Get from a queue, in a thread that a broken queue may keep."""
    found = []

    def get():
        try:
            found.append(q.get(**how))
        except queue.Empty:
            found.append("empty")

    thread = threading.Thread(target=get, daemon=True)
    thread.start()
    thread.join(10)
    assert found, "the queue blocks, whatever the timeout"
    return found[0]


def _is_usable(q):
    """Empty a queue, and see that it takes and gives what is put there."""
    while _get(q, timeout=0.2) != "empty":
        pass
    for n in range(3):
        q.put(n)
    assert [_get(q, timeout=10) for _ in range(3)] == [0, 1, 2]
    q.close()
    q.join_thread()


class Impatient(io.StringIO):
    """A screen at which somebody hits Ctrl-C when it says that a queue is written to; once: a second one ends workers at once."""

    hit = False

    def write(self, text):
        """Write, and look what it is."""
        written = super().write(text)
        if "feeder thread" in text and not self.hit:
            self.hit = True
            os.kill(os.getpid(), signal.SIGINT)
        return written


@pytest.mark.parametrize(("way", "what"), [*(("forkserver", what) for what in BODIES), ("fork", "q"), ("fork", "one in a list")])
def test_a_queue_that_nobody_reads(ip, way, what):
    """It is said after a second which queue is written to, Ctrl-C ends it, results are kept, and the queue is usable."""
    ip(SETUP.format(way=way))
    body, name = BODIES[what]
    with redirect_stdout(Impatient()) as screen:
        error = ip.fails(f"%%parallel procs=2 --once -q --trace off for n in range(2)\n{body}\nn")
    assert isinstance(error, KeyboardInterrupt)
    run = parmagic.last()
    assert run.results == [0, 1]
    assert f"] has done its items: its feeder thread still writes to {name}" in screen.getvalue()
    assert any(f"its feeder thread still writes to {name}" in note for note in run.notes), run.notes
    used = name.strip("`")
    _is_usable(ip.space[used] if used in ip.space else ip.space["held"][0])


@pytest.mark.parametrize("way", WAYS)
def test_a_timeout_ends_it(ip, way):
    """As Ctrl-C does."""
    ip(SETUP.format(way=way))
    error = ip.fails("%%parallel procs=2 --once -q --trace off --timeout 2.5 for n in range(2)\nq.put(bytes(10_000_000))\nn")
    assert isinstance(error, parmagic.RunTimeout)
    assert parmagic.last().results == [0, 1]
    _is_usable(ip.space["q"])


@pytest.mark.parametrize("way", WAYS)
def test_what_came_before_stays(ip, way):
    """Messages that were whole in the queue are there when the run was ended, in their order; their count is right."""
    ip(SETUP.format(way=way))
    ip("%%parallel procs=1 --once -q --trace off for n in range(3)\njoinable.put(n)")
    with redirect_stdout(Impatient()):
        error = ip.fails("%%parallel procs=1 --once -q --trace off for n in range(1)\njoinable.put(bytes(10_000_000))")
    assert isinstance(error, KeyboardInterrupt)
    joinable = ip.space["joinable"]
    assert [_get(joinable, timeout=10) for _ in range(3)] == [0, 1, 2]
    assert _get(joinable, timeout=0.2) == "empty"
    for _ in range(3):
        joinable.task_done()
    waits = threading.Thread(target=joinable.join, daemon=True)
    waits.start()
    waits.join(10)
    assert not waits.is_alive()


@pytest.mark.parametrize("way", WAYS)
def test_one_that_somebody_reads(ip, way):
    """Where it is read meanwhile, the run ends by itself, and everything arrives."""
    ip(SETUP.format(way=way))
    got, goes_on = [], threading.Event()

    def read():
        goes_on.wait(20)
        got.extend(len(ip.space["q"].get()) for _ in range(2))

    reader = threading.Thread(target=read, name="parmagic reads")  # by its name no thread of the user's, beside which no run forks
    reader.__class__ = type("Reader", (threading.Thread,), {"__module__": "tornado"})
    reader.start()
    timer = threading.Timer(1.5, goes_on.set)
    timer.__class__ = type("Sets", (threading.Timer,), {"__module__": "tornado"})
    timer.start()
    run = ip("%%parallel procs=2 --once -q --trace off --timeout 30 for n in range(2)\nq.put(bytes(10_000_000))\nn")
    reader.join(20)
    timer.join()
    assert run.results == [0, 1]
    assert got == [10_000_000] * 2


def test_one_that_the_body_gives_up(ip):
    """With cancel_join_thread(), nobody waits, as in multiprocessing."""
    ip(SETUP.format(way="forkserver"))
    begin = time.monotonic()
    run = ip("%%parallel procs=1 --once -q --trace off for n in range(1)\nq.cancel_join_thread()\nq.put(bytes(10_000_000))\nn")
    assert run.results == [0]
    assert time.monotonic() - begin < 10
    assert not any("feeder" in note for note in run.notes)


@pytest.mark.parametrize("way", WAYS)
def test_an_item_that_is_ended_beside_it(ip, way):
    """A worker that is ended within an item leaves the queue whole as well, which an earlier item has written to."""
    ip(SETUP.format(way=way))
    error = ip.fails("%%parallel procs=2 --once -q --trace off --timeout 2 for n in range(2)\nq.put(bytes(10_000_000))\ntime.sleep(60)")
    assert isinstance(error, parmagic.RunTimeout)
    _is_usable(ip.space["q"])
