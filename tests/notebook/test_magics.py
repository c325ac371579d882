"""The magics in IPython: names, expansion, settings, quiet runs, and taking them away again."""

from __future__ import annotations

import gc
import sys
import weakref

import pytest
from IPython.core.error import UsageError

import parmagic
from parmagic import RunTimeout


def test_the_run_is_the_value(ip):
    """The run is `_`, what -o names, and parmagic.last(), all the same object."""
    run = ip("%parallel threads=1 -q --once -o mine n for n in range(2)")
    assert run is ip.space["mine"] is ip.space["_"] is parmagic.last()


def test_failed_run_is_kept_before_it_raises(ip):
    """-o and last() have the run also when the body raised; later arms did not run."""
    ip("ran = []")
    error = ip.fails("%%parallel threads=1,2 -q -o mine for n in range(3)\nran.append(n)\n1 / (n - 1)")
    assert isinstance(error, ZeroDivisionError)
    run = ip.space["mine"]
    assert run is parmagic.last()
    assert run.error is error
    assert [timeline.arm.label for timeline in run._study.timelines] == ["threads=1"]
    assert ip.space["ran"] == [0, 1]


@pytest.mark.parametrize(
    "cell",
    [
        "%%parallel procs=2 -q --once for item in items\nread, 1 / 0",
        "%%parallel procs=2 -q --once --keep-going --timeout 0.2 for item in items\nread, __import__('time').sleep(60)",
        "%%parallel procs=2 -q --once --keep-going for item in items\nread, 1 / 0",
        "%%parallel serial threads=2 -q for item in items\nread, 1 / (item is not items[0])",
        "import parmagic; parmagic.run(lambda item: (read, 1 / 0), items, 'procs=2')",
        "import parmagic; parmagic.run(lambda item: 1 / (item is not items[0]), items, 'threads=2', keep_going=True)",
    ],
)
def test_failed_run_holds_nothing_of_the_notebooks(ip, cell):
    """What the notebook lets go of is gone, though last() and IPython still have the errors, with all frames that they went through.

    But for the item that the body itself had at hand: its frame is there for a debugger, as anywhere in Python.
    """
    ip("class Held: pass\nread = Held(); unread = Held(); items = [Held(), Held(), Held()]")
    held = [weakref.ref(each) for each in (ip.space["read"], ip.space["unread"], *ip.space["items"][1:])]
    ip.shell.run_cell(cell)
    run = parmagic.last()
    assert run._study.timelines[-1].errors
    ip("del read, unread, items")
    gc.collect()
    assert [ref() for ref in held] == [None] * 4
    assert run is parmagic.last()


def test_what_is_refused_leaves_the_last_run(ip):
    """A line that cannot be read neither runs nor replaces the last run."""
    run = ip("%parallel threads=1 -q --once n for n in range(2)")
    assert isinstance(ip.fails("%parallel threads=0 n for n in range(2)"), UsageError)
    assert parmagic.last() is run


def test_expansion_stops_at_the_clause(ip):
    """{name} and $name expand in models and options; the clause and the body keep their braces and dollars."""
    ip("count = 2; option = '--once -q'")
    run = ip("%%parallel threads={count} $option for s in [f'{x}$count' for x in ('a', 'b')]\n{s}, f'{s}', '$count'")
    assert run._study.timelines[0].arm.label == "threads=2"
    assert run.results == [({"a$count"}, "a$count", "$count"), ({"b$count"}, "b$count", "$count")]


@pytest.mark.parametrize(
    ("clause", "results"),
    [
        ("for a, (b, *c) in [(1, (2, 3, 4))]", [(1, 2, [3, 4])]),
        ("for a, b, c in zip('xy', 'uv', 'st') if a != 'x'", [("y", "v", "t")]),
        ("for a in range(2) for b in range(a + 1) for c in [a * b]", [(0, 0, 0), (1, 0, 0), (1, 1, 1)]),
    ],
)
def test_comprehension_grammar(ip, clause, results):
    """Tuple targets, conditions and several `for` mean what they mean in Python."""
    assert ip(f"%%parallel threads=2 -q --once {clause}\na, b, c").results == results


def test_iterable_is_evaluated_once(ip):
    """The iterable is evaluated once for all arms and the baseline, before the first of them."""
    ip("asked = []\ndef source():\n    asked.append(1)\n    yield from range(3)")
    run = ip("%parallel threads=1,2 procs=1 -q n for n in source()")
    assert ip.space["asked"] == [1]
    assert all(run.arm(label).results == [0, 1, 2] for label in ("threads=1", "threads=2", "procs=1"))


def test_strings_stay_as_they_are(ip):
    """A string over several lines keeps its text: the body is never indented."""
    assert ip('%%parallel threads=1 -q --once for n in range(1)\n"""a\n  b\nc"""').results == ["a\n  b\nc"]


def test_semicolon_drops_the_result(ip):
    """A trailing semicolon gives None, and so does a body whose last line is no expression."""
    assert ip("%%parallel threads=1 -q --once for n in range(2)\nn;").results == [None, None]
    run = ip("%%parallel threads=1 -q --once for n in range(2)\nm = n")
    assert run.results == [None, None]
    assert any("last line" in note for note in run.notes)


def test_report_is_shown(ip, capsys):
    """Without -q the text report appears under the cell, once."""
    ip("%parallel threads=2 --once n for n in range(3)")
    assert capsys.readouterr().out.count("threads=2") >= 1
    ip("%parallel threads=2 --once n for n in range(3);")
    ip("1 + 1")
    assert "2" in capsys.readouterr().out


def test_quiet_speaks_again(ip, capsys):
    """-q hides its own cell's value only, not the next one's."""
    ip("%parallel threads=1 -q --once n for n in range(2)")
    assert capsys.readouterr().out == ""
    ip("6 * 7")
    assert "42" in capsys.readouterr().out


QUIET = "%parallel threads=1 -q --once n for n in range(2)"
SILENT = "%parallel threads=1 --once n for n in range(2);"


@pytest.mark.parametrize("line", [QUIET, SILENT])
def test_only_the_run_is_hushed(ip, capsys, line):
    """What else the cell shows is shown, and Out[n] is what the cell's last expression is."""
    number = ip.shell.execution_count
    ip(f"{line}\n6 * 7")
    assert capsys.readouterr().out == f"Out[{number}]: 42\n"
    assert ip.space["Out"] == {number: 42}
    assert ip.space["_"] == 42
    result = ip.shell.run_cell(f"print('printed')\n'not shown'\n{line}", store_history=True)
    assert capsys.readouterr().out == "printed\n"
    assert ip.space["Out"] == {number: 42, number + 1: parmagic.last()}
    assert ip.space["_"] is result.result is parmagic.last()


@pytest.mark.parametrize("line", [QUIET, SILENT])
def test_every_statement_that_shows_is_its_own(ip, capsys, line):
    """Where all expressions of a cell are shown, those around the run are; in a loop, no turn's run is."""
    ip.shell.ast_node_interactivity = "all"
    ip(f"'before'\n{line}\n'after'\nfor _ in range(2):\n    {line}\n    'turn'")
    shown = [text.partition(": ")[2] for text in capsys.readouterr().out.splitlines() if text]
    assert shown == ["'before'", "'after'", "'turn'", "'turn'"]
    hook = ip.shell.displayhook
    assert "quiet" not in vars(hook)


def test_a_hushed_run_can_be_shown_by_name(ip, capsys):
    """Who asks for the run on the cell's last line gets it shown: only the magic's own value is not."""
    ip(f"{QUIET.replace('-q', '-q -o mine')}\nmine")
    assert "threads=1" in capsys.readouterr().out
    assert ip.space["_"] is ip.space["mine"]


@pytest.mark.parametrize(
    "cell",
    [
        f"get_ipython().run_line_magic('parallel', {QUIET[10:]!r})",
        f"def run():\n    return get_ipython().run_line_magic('parallel', {QUIET[10:]!r})\nrun()",
        f"get_ipython().run_cell({QUIET!r});",
        f"%%capture\n{QUIET}",
    ],
    ids=["called", "in a function", "a cell in a cell", "captured"],
)
def test_a_run_is_hushed_wherever_it_was_called(ip, capsys, cell):
    """From a function, or a cell within a cell, -q hides the run; the next cell is shown, and by IPython's own hook."""
    before = sys.displayhook
    ip.shell.run_cell(cell, store_history=True).raise_error()
    assert capsys.readouterr().out == ""
    assert sys.displayhook is before
    ip("6 * 7")
    assert "42" in capsys.readouterr().out


def test_the_error_comes_with_the_report(ip, capsys):
    """Before the exception the report is shown; with -q it is not."""
    ip.fails("%%parallel threads=2 --once for n in range(3)\nraise ValueError('no')")
    assert "ended early" in capsys.readouterr().out
    ip.fails("%%parallel threads=2 --once -q for n in range(3)\nraise ValueError('no')")
    assert "ended early" not in capsys.readouterr().out


def test_settings(ip):
    """The baseline can be switched off for good, and the default of --trace changed; the line wins."""
    ip("%config ParallelMagics.baseline = False")
    assert ip("%parallel threads=1 -q n for n in range(2)").summary["baseline"].tolist() == ["estimated"]
    ip("%config ParallelMagics.trace = 'off'")
    assert ip("%parallel threads=1 -q n for n in range(2)")._study.timelines[0].traces == ()
    assert len(ip("%parallel threads=1 -q --trace full n for n in range(2)")._study.timelines[0].traces) == 1


def test_a_setting_that_there_is_not(ip, caplog):
    """A wrong value for the trace setting is refused with those that there are, and changes nothing."""
    ip("%config ParallelMagics.trace = 'ful'")
    assert "'auto', 'full', 'off'" in caplog.text
    assert ip.shell.magics_manager.registry["ParallelMagics"].trace == "auto"


def test_folder_and_keep_runs(ip, tmp_path):
    """Runs' files go where the setting says, and only so many are kept."""
    ip(f"%config ParallelMagics.folder = {str(tmp_path / 'traces')!r}")
    ip("%config ParallelMagics.keep_runs = 2")
    ip("def called(n): return n")
    for _ in range(4):
        ip("%parallel threads=1 -q --once --trace full sum(called(k) for k in range(5000)) for n in range(2)")
    assert len(list((tmp_path / "traces").glob("run-*"))) == 2
    assert not (tmp_path / ".parmagic").exists()


def test_timeout_covers_the_arms_together(ip):
    """The second arm is ended by what the first one used up."""
    ip("import time")
    error = ip.fails("%parallel threads=1,2 -q --once --timeout 0.5 time.sleep(0.1) for n in range(5) for _ in range(9)")
    assert isinstance(error, RunTimeout)
    run = parmagic.last()
    assert run.error is error
    assert len(run._study.timelines) == 1


def test_unload_and_load_again(ip):
    """%unload_ext takes the magics and the displays away; %load_ext brings them back."""
    ip.shell.run_line_magic("unload_ext", "parmagic")
    assert ip.shell.find_cell_magic("parallel") is None
    assert ip.shell.find_line_magic("parallel") is None
    formatters = ip.shell.display_formatter.formatters
    assert all(parmagic.Run not in formatters[mime].type_printers for mime in ("text/html", "text/plain"))
    ip.shell.run_line_magic("load_ext", "parmagic")
    assert ip("%parallel threads=1 -q --once n for n in range(2)").results == [0, 1]


def test_plain_python_raises_and_keeps():
    """parmagic.run raises the function's own exception with its note; options are keyword arguments."""
    with pytest.raises(ZeroDivisionError) as caught:
        parmagic.run(lambda n: 1 // n, [1, 0], "threads=1", once=True)
    assert "item 1 (0), worker 0, threads=1" in caught.value.__notes__[0]
    assert parmagic.last().results == [1, None]
    assert parmagic.run(lambda n: 1 // n, [1, 0], "threads=1", once=True, keep_going=True).results == [1, None]


def test_no_such_arm(ip):
    """An arm that there is not is a KeyError that names those that there are."""
    run = ip("%parallel threads=1 -q --once n for n in range(2)")
    with pytest.raises(KeyError, match="threads=1"):
        run.arm("threads=9")


def test_expansion_sees_the_notebook_only(ip):
    """`{name}` in the front is the notebook's name; the magic's own variables are none of it."""
    ip("n_workers = 2")
    assert [t.arm.label for t in ip("%parallel threads={n_workers} -q --once n for n in range(2)")._study.timelines] == ["threads=2"]
    for word in ("line", "word", "shell", "self"):
        assert isinstance(ip.fails(f"%parallel threads={{{word}}} n for n in range(2)"), UsageError)


def test_the_timeline_shows_itself(ip):
    """`run.timeline` on a cell's last line is a picture of the lanes in a notebook, and says what it can do in a terminal."""
    run = ip("%parallel threads=2 -q --once n for n in range(4)")
    data, _ = ip.shell.display_formatter.format(run.timeline)
    assert data["text/html"].count("<svg") == 1
    assert "worker 1" in data["text/html"]
    assert ".save(" in data["text/plain"]


def test_unload_takes_the_displays_away(ip):
    """After %unload_ext a run is shown as any object is."""
    run = ip("%parallel threads=1 -q --once n for n in range(2)")
    assert "text/html" in ip.shell.display_formatter.format(run)[0]
    ip("%unload_ext parmagic")
    assert "text/html" not in ip.shell.display_formatter.format(run)[0]
