"""What workers print: whole lines, last states, and whose they are."""

from __future__ import annotations

import io
import sys
import threading
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import pytest

from parmagic.model import Printed
from parmagic.output import Lines, ThreadOutput, mark
from parmagic.recorder import Worker, enter


@pytest.mark.parametrize(
    ("parts", "whole", "rest"),
    [
        (["a\nb\n"], "a\nb\n", ""),
        (["a", "b", "\n"], "ab\n", ""),
        (["a\nb"], "a\n", "b\n"),
        ([""], "", ""),
        (["\n\n"], "", "\n\n"),  # it may be a bar on its way down: it comes with what follows
        (["\n\n", "a\n"], "\n\na\n", ""),
        (["\n", "\r 5 %", "\x1b[A", "\n", "\r10 %", "\x1b[A"], "", "10 %\n"),  # a bar below another one
        (["\r10 %", "\n", "next\n"], "10 %\nnext\n", ""),
        (["1 %\r", "2 %\r", "3 %\n"], "3 %\n", ""),
        (["1 %\r2 %\r"], "", "2 %\n"),
        (["windows\r\n"], "windows\n", ""),
        (["\r"], "", ""),
    ],
)
def test_lines(parts, whole, rest):
    """Lines come out whole; of a rewritten one the last state stays; an unended one waits for the end."""
    lines = Lines()
    assert "".join(lines.feed(part) for part in parts) == whole
    assert lines.rest() == rest
    assert lines.rest() == ""


def test_a_long_progress_bar_keeps_little():
    """A bar that is rewritten a million times does not fill the memory, and its last state is right."""
    lines = Lines()
    for n in range(20_000):
        assert lines.feed(f"{n:6d} of many\r") == ""
    assert len(lines._open) < 10_000
    assert lines.rest() == " 19999 of many\n"


def test_every_line_is_marked():
    """Each line says which worker printed it."""
    assert mark(Printed(1, "stdout", "a\n\nb\n"), "procs") == "[procs 1] a\n[procs 1] \n[procs 1] b\n"


@contextmanager
def _streams():
    """Put two fresh streams in place of the real ones (in the test: between its phases pytest changes its own)."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        yield out, err


def _as_worker(rank, action):
    def run():
        enter(Worker(rank, 2, "threads"))
        action()
        enter(None)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


def test_only_workers_are_caught():
    """Worker threads' lines are emitted, by worker and stream; everybody else prints as ever."""
    emitted = []
    with _streams() as streams:
        with ThreadOutput(emitted.append):
            _as_worker(1, lambda: print("out"))
            _as_worker(0, lambda: print("err", file=sys.stderr))
            print("mine")
        assert (sys.stdout, sys.stderr) == streams
    assert emitted == [Printed(1, "stdout", "out\n"), Printed(0, "stderr", "err\n")]
    assert [stream.getvalue() for stream in streams] == ["mine\n", ""]


def test_unended_lines_are_emitted_at_the_end():
    """What has no newline waits, and comes out when the arm is over."""
    emitted = []
    with _streams(), ThreadOutput(emitted.append):
        _as_worker(1, lambda: print("un", end="", flush=True))
        _as_worker(1, lambda: print("ended", end=""))
        assert emitted == []
    assert emitted == [Printed(1, "stdout", "unended\n")]


def test_lines_of_two_workers_do_not_mix():
    """Half a line of one worker is not ended by another's newline."""
    emitted = []
    with _streams(), ThreadOutput(emitted.append):
        _as_worker(0, lambda: sys.stdout.write("zero "))
        _as_worker(1, lambda: sys.stdout.writelines(["one", "\n"]))
        _as_worker(0, lambda: sys.stdout.write("ends\n"))
    assert emitted == [Printed(1, "stdout", "one\n"), Printed(0, "stdout", "zero ends\n")]


def test_a_stream_that_the_body_put_there_stays():
    """Who replaces sys.stdout in the meantime keeps the replacement."""
    own = io.StringIO()
    with _streams() as (_, err):
        with ThreadOutput(lambda _: None):
            sys.stdout = own
        assert sys.stdout is own
        assert sys.stderr is err


def test_the_router_is_the_stream_in_everything_else():
    """Other methods and attributes are the original's."""
    with _streams(), ThreadOutput(lambda _: None):
        print("passed on")
        assert sys.stdout.getvalue() == "passed on\n"
        assert not sys.stdout.isatty()


def test_colours_end_with_their_line():
    """What a worker paints does not paint the next one's line."""
    assert mark(Printed(1, "stdout", "\x1b[31mred\nplain\n"), "procs") == "[procs 1] \x1b[31mred\x1b[0m\n[procs 1] plain\n"
