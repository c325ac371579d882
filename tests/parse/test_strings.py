"""Names that stand in strings of a body: they are sent to processes as those of its text are."""

from __future__ import annotations

import ast

import pytest
from arms import MODELS, spread

from parmagic.parse.strings import named_in_strings


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ('df.query("x > @limit and y < @other.most")', {"limit", "other"}),
        ('df.query(f"{column} > @limit")', {"limit"}),
        ('df.eval("z = x + @shift")', {"shift"}),
        ('pd.eval("a + b")', {"a", "b"}),
        ('df.query(expr="x == @k")', {"k"}),
        ('df.query("x > y"); df.eval("z = x + y")', set()),
        ('ne.evaluate("2 * a")', {"a"}),
        ('eval("f(y) + [k for k in z][0]")', {"f", "y", "k", "z"}),
        ('exec("v = g(1)")', {"v", "g"}),
        ('eval(compile("h()", "<s>", "eval"))', {"h"}),
        ('globals()["k"], globals().get("m"), vars()["n"]', {"k", "m", "n"}),
        ('df.query(text); eval(other); print("@limit"); d["k"]; vars(o)["p"]', set()),
        ('eval("no python (")', {"no", "python"}),
        ('eval("0x1for y.k, 1_000if z else 2")', {"y", "z"}),
        ('eval("\\x00")', set()),
    ],
)
def test_names_in_strings(body, names):
    """What is handed to query, eval, exec and globals() is read for names; other strings are not."""
    assert named_in_strings(ast.parse(body).body) == names


DEFINED = """
import pandas as pd
df = pd.DataFrame({"x": range(10)})
limit, shift, y, k = 6, 100, 3, "a value"
def f(v): return v * 2
def indirect(text): return eval(text)
text = "li" + "mit"
"""


FOUND = {
    'len(df.query("x > @limit"))': 3,
    'int(df.eval("x + @shift").iloc[-1])': 109,
    'eval("f(y)")': 6,
    'globals()["k"]': "a value",
}


@pytest.mark.parametrize(("model", "expression"), spread(MODELS, FOUND, 'len(df.query("x > @limit"))', 'globals()["k"]'))
def test_they_are_found_everywhere(ip, model, expression):
    """In every model, and in the serial baseline."""
    ip(DEFINED)
    ip(f"%parallel {model} -q -o there {expression} for n in range(2)")
    assert ip.space["there"].results == [FOUND[expression]] * 2


def test_names_of_the_items_own(ip):
    """A name that the body binds is its own, though the notebook has it, too."""
    ip(DEFINED)
    ip('%%parallel procs=2 -q --once -o there for limit in [1, 2]\nlen(df.query("x > @limit"))')
    assert ip.space["there"].results == [8, 7]


def test_what_is_not_seen_gets_a_note(ip):
    """Where a name is put together when the body runs, the error says how it gets to a process."""
    ip(DEFINED)
    for expression in ("eval(text)", 'df.query("x > @" + text)', "indirect('shift')"):
        error = ip.fails(f"%parallel procs=2 -q --once {expression} for n in range(2)")
        name = "shift" if "indirect" in expression else "limit"
        assert any(f"`{name}` is not: write it there" in note for note in error.__notes__), error.__notes__
        ip(f"%%parallel procs=2 -q --once -o there for n in range(2)\n{name}\n_ = {expression}")
    error = ip.fails("%parallel procs=2 -q --once eval('no_such' + '_name') for n in range(2)")
    assert not any("write it there" in note for note in getattr(error, "__notes__", []))
