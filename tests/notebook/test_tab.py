"""The tab key and `?` in IPython, and in a kernel: our words where we have some, and nothing of ours once the extension is gone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from IPython.core.completer import provisionalcompleter
from jupyter_client.manager import start_new_kernel

from parmagic.parse.options import FLAGS, VALUES

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # IPython's older way is still what some frontends use


def _completed(ip: Any, text: str) -> tuple[list[str], list[str]]:
    """Return what the lines become by IPython's older and newer way to ask, in the order in which they are shown."""
    line = text.split("\n", maxsplit=1)[0]
    token, older = ip.shell.complete("", line, len(line))
    with provisionalcompleter():
        newer = [text[: each.start] + each.text for each in ip.shell.Completer.completions(text, len(line))]
    return [line.removesuffix(token) + word for word in older], newer


@pytest.mark.parametrize("jedi", [True, False])
@pytest.mark.parametrize(
    ("line", "lines"),
    [
        ("%%parallel th", ["%%parallel threads="]),
        ("%%parallel threads=2 --tr", ["%%parallel threads=2 --trace"]),
        ("%%parallel --trace ", ["%%parallel --trace auto", "%%parallel --trace full", "%%parallel --trace off"]),
        ("%%parallel --trace=f", ["%%parallel --trace=full"]),
        ("%%parallel --start-method s", ["%%parallel --start-method spawn"]),
        ("%%parallel threads=$count --onc", ["%%parallel threads=$count --once"]),
        ("%%parallel threads={count} f", ["%%parallel threads={count} for"]),
        ("%%parallel for x in pa", ["%%parallel for x in pairs", "%%parallel for x in paths"]),
        ("%%parallel for x in enumerate(5-pa", ["%%parallel for x in enumerate(5-pairs", "%%parallel for x in enumerate(5-paths"]),
        ("%parallel procs=2 pai", ["%parallel procs=2 pairs"]),
        ("run = %parallel proc", ["run = %parallel procs="]),
    ],
)
def test_completed(ip, line, lines, jedi):
    """Our words alone, in our order: no files and no other names among them, with jedi and without."""
    ip("paths, pairs, count = [], [], 3; open('pa.txt', 'w').close()")
    ip.shell.Completer.use_jedi = jedi
    assert _completed(ip, f"{line}\npass") == (lines, lines)


def test_lines_of_others(ip):
    """What stands in other lines is IPython's business, and so is what follows a dot."""
    ip("paths, par = [], 5")
    for line in ("x = par", "'%parallel th", "%%parallels th", "%timeit par"):
        assert not {"threads=", "procs="} & {each.rsplit(" ", 1)[-1] for each in _completed(ip, line)[1]}
    assert "%%parallel for x in paths.append" in _completed(ip, "%%parallel for x in paths.app")[1]


def test_looking_runs_nothing(ip):
    """No code of the user's runs for it: neither an expression in braces nor an object's own text."""
    ip("ran = []\nclass Loud:\n    def __format__(self, how): ran.append(1); return '3'\n    __str__ = __repr__ = lambda self: ran.append(1) or '3'\nloud = Loud()")
    for line in ("%%parallel threads={loud} --", "%%parallel threads=$loud --", "%%parallel threads={ran.append(1)} --", "%%parallel for x in lo"):
        ip.shell.complete("", line, len(line))
    assert ip.space["ran"] == []


PUBLIC = [
    "arm", "children", "error", "factors", "handoffs", "items", "notes", "plot", "results", "save", "summary", "sync", "timeline", "transfers", "verdict",
    "waits", "workers",
]  # fmt: skip


@pytest.mark.parametrize("jedi", [True, False])
def test_what_a_run_offers(ip, jedi):
    """What the README names and nothing else, each with a docstring; so do a timeline and an arm, and a run that failed."""
    ip.shell.Completer.use_jedi = jedi
    ip("%parallel threads=1 -q --once -o run n for n in range(2)")
    ip("timeline, arm = run.timeline, run.arm('threads=1')")
    ip.fails("%parallel threads=1 -q --once -o failed 1 / n for n in range(2)")
    for name, public in (("run", PUBLIC), ("failed", PUBLIC), ("timeline", ["open", "save", "show"]), ("arm", ["label", "results"])):
        assert sorted(each.removeprefix(f"{name}.") for each in _completed(ip, f"{name}.")[1]) == public
        shown = ip.space[name]
        assert [each for each in dir(shown) if not each.startswith("_")] == public
        assert all(each == "label" or getattr(type(shown), each).__doc__ for each in public)


def test_the_readme_names_what_a_run_offers():
    """Each of them is in its table."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    table = readme.partition("## The run")[2].partition("\n## ")[0]
    assert [name for name in PUBLIC if not re.search(rf"[`.]{name}[`(]", table)] == []


@pytest.mark.parametrize("line", ["%parallel?", "%%parallel?", "?%parallel"])
def test_help(ip, capsys, line):
    """Examples come first, then the line with all of its options."""
    ip(line)
    shown = capsys.readouterr().out
    first, line, *options = (shown.index(text) for text in ("path in paths\n", "[MODEL[=COUNTS]]", *(f"\n  {option} " for option in (*FLAGS, *VALUES))))
    assert first < line < min(options)
    assert max(options) < shown.index("``worker.rank``")


def test_nothing_stays(ip):
    """Behind %unload_ext IPython's matchers are its own again; loading twice does not offer anything twice."""
    with_ours = len(ip.shell.Completer.magic_arg_matchers)
    ip.shell.run_line_magic("reload_ext", "parmagic")
    assert len(ip.shell.Completer.magic_arg_matchers) == with_ours
    ip.shell.run_line_magic("unload_ext", "parmagic")
    left = ip.shell.Completer.magic_arg_matchers
    assert len(left) == with_ours - 1
    assert all(each.__self__ is ip.shell.Completer for each in left)
    ip.shell.run_line_magic("load_ext", "parmagic")


def test_completed_in_a_kernel():
    """A frontend's complete_request gets the same words, and where they go."""
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        client.execute_interactive("%load_ext parmagic\npaths = pairs = []", timeout=60)
        for code, place, words in (
            ("%%parallel threads=2 --trace \nx = 1", 29, ["auto", "full", "off"]),
            ("%%parallel threads=2 --st", 25, ["--start-method"]),
            ("%%parallel for x in pa\nx", 22, ["pairs", "paths"]),
            ("y = 1\n%parallel procs=2 pa", 26, ["pairs", "paths"]),
        ):
            reply = client.complete(code, place, reply=True, timeout=60)["content"]
            assert reply["matches"] == words
            assert all(word.startswith(code[reply["cursor_start"] : place]) for word in words)
            assert reply["cursor_end"] == place
        twice = client.complete("%%parallel --o --once for x in pa", 14, reply=True, timeout=60)["content"]
        assert "--once" not in twice["matches"]
        client.execute_interactive("%unload_ext parmagic", timeout=60)
        gone = client.complete("%%parallel th", 13, reply=True, timeout=60)["content"]
        assert "threads=" not in gone["matches"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
