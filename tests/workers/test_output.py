"""What workers print: whole lines, last states, and whose they are."""

from __future__ import annotations

import io
import random
import re
import subprocess
import sys
import threading
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from itertools import permutations

import pytest

from parmagic.model.plan import Plan
from parmagic.model.progress import Printed
from parmagic.record.items import Worker
from parmagic.workers.lines import MOST, Lines
from parmagic.workers.output import ThreadOutput, leave, mark


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


def test_lines_are_the_same_however_they_arrive():
    """A text that comes in one piece and one that comes by the character give the same lines, with the same last states."""
    rng = random.Random(11)
    for _ in range(2_000):
        text = "".join(rng.choices("ab\r\n", (4, 4, 2, 1), k=12)).replace("\n", "c\n") + "."
        at_once, by_character = Lines(), Lines()
        whole = at_once.feed(text) + at_once.rest()
        characters = re.findall("[^\n]\n?", text)  # bare newlines are another matter: they are held
        assert "".join(map(by_character.feed, characters)) + by_character.rest() == whole
        assert whole == "".join(line.rstrip("\r").split("\r")[-1] + "\n" for line in text.split("\n"))


@pytest.mark.parametrize(
    ("piece", "count"),
    [
        ("x" * 65_536, 1_600),
        ("x" * 100_000_000, 1),
        (".", 1_100_000),
        ("\n", 1_000_000),
        ("a\n", 500_000),
        ("界" * 10_000, 1_000),
        ("long line " * 1_000 + "\n", 5_000),
        ("form feed\x0c", 500_000),
        ("\ud800" * 10_000, 100),
    ],
    ids=["pieces", "one piece", "dots", "blank lines", "short lines", "wide", "long lines", "form feeds", "half characters"],
)
def test_a_flood_is_cut_as_it_arrives(piece, count):
    """Whatever the flood is made of, at most a megabyte is shown with all marks, the rest is counted, and nothing of it is kept."""
    lines = Lines()
    shown = "".join(lines.feed(piece) for _ in range(count))
    kept = sum(map(len, lines._open))
    shown += lines.rest()
    note = "… cut here: this worker has printed 1 MB, the rest is counted only\n"
    assert shown.endswith(note)
    assert len(mark(Printed(0, "stdout", shown), "threads").encode("utf-8", "surrogatepass")) <= MOST + 100
    assert kept == 0
    size = len(piece.encode("utf-8", "surrogatepass"))
    assert lines.lost == pytest.approx(count * size - len(shown.removesuffix(note).encode("utf-8", "surrogatepass")), abs=1)


def test_a_rewritten_line_is_no_flood():
    """What a progress bar has overwritten does not count: its last state shows, however long it ran."""
    lines = Lines()
    assert {lines.feed(f"\r{n:50d}") for n in range(100_000)} == {""}
    assert (lines.rest(), lines.lost) == (f"{99_999:50d}\n", 0)


@pytest.mark.parametrize("model", ["threads=1", "procs=1"])
@pytest.mark.parametrize(
    ("body", "least"),
    [("sys.stdout.write('x' * 100_000_000)", 98.9), ("for _ in range(1_200_000):\n    sys.stdout.write('.')", 0.2)],
    ids=["100 MB", "dots"],
)
def test_a_flood_without_newlines(ip, capsys, model, body, least):
    """100 MB without a newline, and a million dots, end soon, from threads as from processes; a megabyte is shown, and a note has the rest."""
    ip("import sys, time")
    run = ip(f"%%parallel {model} -q --once --trace off for n in range(1)\n{body};")
    shown = capsys.readouterr().out
    assert 900_000 < len(shown) < MOST + 200
    (note,) = [note for note in run.notes if "more than is shown" in note]
    assert float(note.split(" printed ")[1].split(" MB")[0]) >= least
    assert run.summary["wall_s"].iloc[0] < 20  # it took minutes, where every piece was joined to all before it


def test_bytes_of_a_worker(ip, capsys):
    """What a thread writes to sys.stdout.buffer is marked as its text is; half a character waits for its other half."""
    ip("import sys")
    ip(
        "%%parallel threads=1 -q --once for n in range(1)\nsys.stdout.write('text and ')\nwhole = 'bytes é\\n'.encode()\n"
        "sys.stdout.buffer.write(whole[:-2])\nsys.stdout.buffer.write(whole[-2:])\nsys.stdout.buffer.write(b'\\xff\\n');"
    )
    assert capsys.readouterr().out == "[threads 0] text and bytes é\n[threads 0] \ufffd\n"


def test_text_that_lies(ip, capsys):
    """Of a str that overrides its methods, the text is printed; what is no str is refused, as by any stream."""
    ip("import sys\nclass Liar(str):\n    __len__ = __str__ = __iter__ = __eq__ = __hash__ = None\nliar = Liar('the text\\n')")
    assert ip("%parallel threads=1 -q --once sys.stdout.write(liar) for n in range(1)").results == [9]
    assert capsys.readouterr().out == "[threads 0] the text\n"
    assert isinstance(ip.fails("%parallel threads=1 -q --once sys.stdout.write(5) for n in range(1)"), TypeError)


@pytest.mark.parametrize("model", ["threads=1", "procs=1"])
def test_characters_that_the_notebook_cannot_show(ip, model):
    """A notebook whose stream knows fewer characters than the body's shows them escaped, and the run goes on."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with redirect_stdout(out):
        run = ip(f"%%parallel {model} -q --once for n in range(1)\nprint('\\u754c')\nn")
    assert run.results == [0]
    assert out.buffer.getvalue().endswith(b"0] \\u754c\n")


def test_every_line_is_marked():
    """Each line says which worker printed it."""
    assert mark(Printed(1, "stdout", "a\n\nb\n"), "procs") == "[procs 1] a\n[procs 1] \n[procs 1] b\n"


@contextmanager
def _streams():
    """Put two fresh streams in place of the real ones (in the test: between its phases pytest changes its own)."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        yield out, err


def _as_worker(output, rank, action):
    def run():
        output.attach(Worker(rank, 2, "threads", Plan(())))
        action()
        leave()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


def test_only_workers_are_caught():
    """Worker threads' lines are emitted, by worker and stream; everybody else prints as ever."""
    emitted = []
    with _streams() as streams:
        with ThreadOutput(emitted.append) as output:
            _as_worker(output, 1, lambda: print("out"))
            _as_worker(output, 0, lambda: print("err", file=sys.stderr))
            print("mine")
        assert (sys.stdout, sys.stderr) == streams
    assert emitted == [Printed(1, "stdout", "out\n"), Printed(0, "stderr", "err\n")]
    assert [stream.getvalue() for stream in streams] == ["mine\n", ""]


def test_unended_lines_are_emitted_at_the_end():
    """What has no newline waits, and comes out when the arm is over."""
    emitted = []
    with _streams(), ThreadOutput(emitted.append) as output:
        _as_worker(output, 1, lambda: print("un", end="", flush=True))
        _as_worker(output, 1, lambda: print("ended", end=""))
        assert emitted == []
    assert emitted == [Printed(1, "stdout", "unended\n")]


def test_lines_of_two_workers_do_not_mix():
    """Half a line of one worker is not ended by another's newline."""
    emitted = []
    with _streams(), ThreadOutput(emitted.append) as output:
        _as_worker(output, 0, lambda: sys.stdout.write("zero "))
        _as_worker(output, 1, lambda: sys.stdout.writelines(["one", "\n"]))
        _as_worker(output, 0, lambda: sys.stdout.write("ends\n"))
    assert emitted == [Printed(1, "stdout", "one\n"), Printed(0, "stdout", "zero ends\n")]


def test_a_stream_that_the_body_put_there_stays():
    """Who replaces sys.stdout in the meantime keeps the replacement."""
    own = io.StringIO()
    with _streams() as (_, err):
        with ThreadOutput(lambda _: None):
            sys.stdout = own
        assert sys.stdout is own
        assert sys.stderr is err


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_runs_that_overlap(order):
    """Each run's workers print to their own run, whichever began last, and who ends last puts the streams back, in whatever order."""
    with _streams() as streams:
        heard = [[], [], []]
        outputs = [ThreadOutput(each.append).__enter__() for each in heard]  # they end in another order than blocks would
        for rank, output in enumerate(outputs):
            _as_worker(output, rank, lambda: print("out"))
            _as_worker(output, 0, lambda: print("err", file=sys.stderr))
        for ended in order:
            print("mine")
            outputs[ended].end()
            for output in outputs:
                _as_worker(output, 1, lambda: print("late"))
        assert (sys.stdout, sys.stderr) == streams
    late = dict(zip(order, range(3), strict=True))  # how often each could still say so
    for rank, each in enumerate(heard):
        expected = [Printed(rank, "stdout", "out\n"), Printed(0, "stderr", "err\n")] + [Printed(1, "stdout", "late\n")] * late[rank]
        assert each == expected
    assert sorted(streams[0].getvalue().split()) == ["late"] * 6 + ["mine"] * 3
    assert streams[1].getvalue() == ""


def test_a_stream_that_is_put_back_late():
    """Who took the stream away while runs were on, and puts it back behind the last of them, gets the original at the next print."""
    with _streams() as (out, _):
        with ThreadOutput(lambda _: None):
            redirected = redirect_stdout(io.StringIO())
            redirected.__enter__()
        redirected.__exit__(None, None, None)
        print("mine")
        assert sys.stdout is out
        assert out.getvalue() == "mine\n"


PRINT_BESIDE_THE_END = """
import gc, io, sys, threading
from parmagic.workers.output import ThreadOutput

class Slow(io.StringIO):
    def write(self, text):
        begun.set()
        ended.wait()
        return super().write(text)

begun, ended, real = threading.Event(), threading.Event(), sys.stdout
sys.stdout = slow = Slow()
output = ThreadOutput(print).__enter__()
beside = threading.Thread(target=print, args=("one", "two"))
beside.start()
begun.wait()
output.end()
del output
gc.collect()
ended.set()
beside.join()
assert sys.stdout is slow
print(slow.getvalue().strip(), file=real)
"""


def test_a_print_that_is_under_way_where_a_run_ends():
    """Up to Python 3.13, print goes on with a stream that it does not keep alive: ours stays alive behind its last run."""
    done = subprocess.run([sys.executable, "-c", PRINT_BESIDE_THE_END], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.returncode) == ("one two\n", 0), done.stderr


def test_a_stream_between_two_runs_stays():
    """A stream that is put there between the begins of two runs stays, and each of them is heard."""
    own, heard = io.StringIO(), []
    with _streams() as (out, err):
        first = ThreadOutput(lambda printed: heard.append((1, printed.text))).__enter__()
        sys.stdout = own
        second = ThreadOutput(lambda printed: heard.append((2, printed.text))).__enter__()
        for output in (first, second):
            _as_worker(output, 0, lambda: print("line"))
        first.end()
        print("mine")
        second.end()
        assert (sys.stdout, sys.stderr) == (own, err)
    assert heard == [(1, "line\n"), (2, "line\n")]
    assert (own.getvalue(), out.getvalue()) == ("mine\n", "")


def test_the_router_is_the_stream_in_everything_else():
    """Other methods and attributes are the original's."""
    with _streams(), ThreadOutput(lambda _: None):
        print("passed on")
        assert sys.stdout.getvalue() == "passed on\n"
        assert not sys.stdout.isatty()
        with pytest.raises(AttributeError):
            _ = sys.stdout.name  # as io.StringIO


def test_colours_end_with_their_line():
    """What a worker paints does not paint the next one's line."""
    assert mark(Printed(1, "stdout", "\x1b[31mred\nplain\n"), "procs") == "[procs 1] \x1b[31mred\x1b[0m\n[procs 1] plain\n"
