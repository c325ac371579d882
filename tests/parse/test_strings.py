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
        ('low = 1\nq = "x > @low and x < @limit"\ndf.query(q)', {"low", "limit"}),
        ('df.query("x < @a" if n else "x > @b"); df.query(q := "x == @c")', {"a", "b", "c"}),
        ('eval("limit + {}".format(n)); eval("+".join(["f", "g"])); eval("h + %d" % n)', {"limit", "f", "g", "h", "d"}),
        ('[eval(s) for s in ("k", "m")]; list(map(eval, ["n"]))', {"k", "m", "n"}),
        ('builtins.eval("k"); exprs = {"a": "m + 1"}\neval(exprs["a"])', {"k", "m"}),
        ('"{limit} {k}".format_map(globals()); "{m}".format(**globals()); "%(n)s" % globals()', {"limit", "k", "m", "n", "s"}),
        ('string.Template("$limit").substitute(globals()); timeit.timeit("f(y)", globals=globals())', {"limit", "f", "y"}),
        ('g = globals()\ng["k"]; "m" in g; g.setdefault("n", 1); [globals()[z] for z in ("p", "q")]', {"k", "m", "n", "p", "q"}),
        ('exec("def z(a):\\n    return a + limit\\nr = z(1)")', {"z", "a", "limit", "r"}),
        ('print("{limit}".format(limit=1)); d = {"k": 1}\nd["k"]; "k" in d; re.compile(text)', set()),
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


HELPERS = """
from functools import partial
condition = "x > @limit"
def asked(d): return len(d.query("x > @limit"))
def held(): return globals()["k"], eval("f(y)")
class Asks:
    def go(self, d): return len(d.query("x > @limit")), "{k}".format_map(globals())
asks, less = Asks(), lambda d: len(d.query("x < @limit"))
def whole(n): return len(df.query("x > @limit")) + eval("f(y)")
def given(d, n): return len(d.query("x > @limit"))
"""


@pytest.mark.parametrize("model", ["threads=2", "procs=2", "procs=2 --start-method spawn", "procs=2 --start-method fork", "serial"])
@pytest.mark.parametrize(
    ("expression", "expected"),
    [("asked(df), held()", (3, ("a value", 6))), ("asks.go(df), less(df)", ((3, "a value"), 6)), ("len(df.query(condition))", 3)],
)
def test_strings_of_what_is_called(ip, model, expression, expected):
    """Those of the notebook's functions, methods and lambdas, and a string that a name of the notebook's holds."""
    ip(DEFINED + HELPERS)
    ip(f"%parallel {model} -q -o there ({expression}) for n in range(2)")
    assert ip.space["there"].results == [expected] * 2


def test_strings_of_a_function_that_is_run(ip):
    """As those of a body: also of a partial function, and a method; a name that it binds itself is not sent."""
    ip(DEFINED + HELPERS + "import parmagic, threading\nlow = threading.Lock()\ndef own(n):\n    low = 2\n    return len(df.query('x > @low'))")
    for function, expected in (("whole", 9), ("partial(given, df)", 3), ("asks.go", None), ("own", 7)):
        items = "range(2)" if expected else "[df] * 2"
        ip(f"there = parmagic.run({function}, {items}, 'procs=2', once=True)")
        assert ip.space["there"].results == [expected or (3, "a value")] * 2


def test_a_run_of_a_function_gets_the_note_as_well(ip):
    """A name that is put together when it runs; and no note where the notebook has no such name."""
    ip(DEFINED + "import __main__, parmagic\ndef joined(n): return globals()['li' + chr(109) + 'it']\ndef main(n): return getattr(__main__, 'limit')\ndef own(n): return {}['k']")
    for function in ("joined", "main"):
        error = ip.fails(f"parmagic.run({function}, [0], 'procs=1', once=True)")
        assert any("`limit` is not: write it there" in note for note in error.__notes__), error.__notes__
    assert not any("write it there" in note for note in ip.fails("parmagic.run(own, [0], 'procs=1', once=True)").__notes__)


def test_what_is_not_seen_gets_a_note(ip):
    """Where a name is put together when the body runs, the error says how it gets to a process."""
    ip(DEFINED)
    ip("spelt = ['lim', 'it']\nimport __main__")
    for expression in ("eval(''.join(spelt))", 'df.query("x > @" + text)', "indirect('shift')", "globals()['lim' + 'it']", "getattr(__main__, text)"):
        error = ip.fails(f"%parallel procs=2 -q --once {expression} for n in range(2)")
        name = "shift" if "indirect" in expression else "limit"
        assert any(f"`{name}` is not: write it there" in note for note in error.__notes__), error.__notes__
        ip(f"%%parallel procs=2 -q --once -o there for n in range(2)\n{name}\n_ = {expression}")
    error = ip.fails("%parallel procs=2 -q --once eval('no_such' + '_name') for n in range(2)")
    assert not any("write it there" in note for note in getattr(error, "__notes__", []))
