"""The cell becomes a Body: a function made from its tree."""

from __future__ import annotations
import __future__

import ast
import multiprocessing
import queue
import sys
import threading
import traceback
from typing import Any

import pytest

from parmagic.errors import CellError
from parmagic.parse.body import Body, read_body, read_expression, unbound_help

LINE = "%%parallel threads=4 for x in xs"


def read(text: str, target: str | None = "x", line: str = LINE, flags: int = 0, **namespace: Any) -> Body:
    """Read a cell over a notebook with these names."""
    return read_body(text, line=line, target=target, namespace=namespace, filename="<cell-7>", flags=flags)


def run(text: str, item: Any = 3, target: str | None = "x", **namespace: Any) -> Any:
    """Read a cell and run it for one item; the notebook gets no new name."""
    known = set(namespace)
    value = read(text, target, **namespace).function(namespace)(item, "the worker")
    assert set(namespace) == known
    return value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x + 1", 4),
        ("y = x\ny", 3),
        ("y = x", None),
        ("x;", None),
        ("x;  # quiet\n# really", None),
        ("x  # not ; here", 3),
        ("'x;'", "x;"),
        ("y = 'é'\rx", 3),
        ("é = x\r\ré;\r#x", None),
        ("(x)\\\n;", None),
        ("('é',\n x)[-1] # é;\n\n", 3),
        ("1; x", 3),
        ("'''one\n   two'''", "one\n   two"),
        ("s = '''\n a\n\tb'''\ns", "\n a\n\tb"),
        ("for i in range(x): pass\n", None),
        ("if x:\n    y = 1\nelse:\n    y = 2\ny", 1),
    ],
)
def test_value_of_the_last_expression(text: str, expected: object) -> None:
    """The last expression is the result, unless a semicolon silences it; strings stay as they are."""
    assert run(text) == expected
    assert read(text).has_value is (expected is not None)


@pytest.mark.parametrize(
    ("target", "item", "text", "expected"),
    [
        ("(x)", 3, "x", 3),
        ("a, b", (1, 2), "a - b", -1),
        ("(a, (b, *c))", (1, (2, 3, 4)), "a, b, c", (1, 2, [3, 4])),
        ("a,", [5], "a", 5),
        ("()", (), "1", 1),
        (None, 2, "worker", "the worker"),
    ],
)
def test_target_is_bound_to_the_item(target: str | None, item: Any, text: str, expected: object) -> None:
    """Names, nested tuples and stars are bound as in a `for` statement; SPMD binds nothing."""
    assert run(text, item, target) == expected


def test_item_that_does_not_unpack_fails_on_the_magic_line() -> None:
    """The traceback shows the target in the magic line, not a line of the body."""
    line = "%%parallel for a, b in xs"
    body = read("\n\na", "a, b", line)
    with pytest.raises(ValueError, match="not enough values") as caught:
        body.function({})((1,), None)
    place = traceback.extract_tb(caught.tb)[-1]
    assert (place.filename, place.name, place.lineno) == ("<cell-7>", "<cell>", 1)
    assert line[place.colno : place.end_colno] == "a, b"


def test_lines_are_counted_as_the_margin_does() -> None:
    """The body's first line is line 2, in the traceback and in what linecache shows."""
    body = read("y = 1\n\nx.missing")
    with pytest.raises(AttributeError) as caught:
        body.function({})(3, None)
    assert traceback.extract_tb(caught.tb)[-1].lineno == 4
    assert body.source.splitlines()[3] == "x.missing"
    assert body.source.splitlines()[0] == LINE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("class A:\n    y = x\n    def f(self): return self.y + x\nA().f()", 6),
        ("def fact(n): return n * fact(n - 1) if n else 1\nfact(x)", 6),
        ("f = lambda n: n and x + f(n - 1)\nf(2)", 6),
        ("[(x, y) for y in range(2) if x]", [(3, 0), (3, 1)]),
        ("{y: z for y in 'a' for z in [x]}", {"a": 3}),
        ("list(y * x for y in (1, 2))", [3, 6]),
        ("n = 0\ndef bump():\n    nonlocal n\n    n += x\nbump()\nbump()\nn", 6),
        ("def double(f): return lambda: 2 * f()\n@double\ndef g(): return x\ng()", 6),
        ("match {'a': x, 'b': 1}:\n    case {'a': int() as c, **rest}: pass\nc, rest", (3, {"b": 1})),
        ("match [1, 2, x]:\n    case [first, *others]: pass\nfirst, others", (1, [2, 3])),
        ("(y := x) + y", 6),
        ("any((seen := i) > 1 for i in range(x))\nseen", 2),
        ("try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    m = str(error)\nm", "division by zero"),
        ("import contextlib\nwith contextlib.nullcontext(x) as y: pass\ny", 3),
        ("y = 1\ndel y\ny = x\ny", 3),
        ("*a, b = range(x)\na, b", ([0, 1], 2)),
        ("import os.path as p, sys\np.basename('a/b'), sys.maxsize > 0", ("b", True)),
        ("def gen():\n    yield x\n    return 1\nlist(gen())", [3]),
        (
            "import asyncio\nasync def f():\n    return [y async for y in g()]\nasync def g():\n    yield x\nasyncio.run(f())",
            [3],
        ),
    ],
)
def test_nested_scopes_see_the_bodys_names(text: str, expected: object) -> None:
    """The body is a function: classes, closures, comprehensions and captures work by Python's rules."""
    assert run(text) == expected


@pytest.mark.parametrize(
    ("text", "namespace", "reads", "writes"),
    [
        ("x + y", {}, "y", "x"),
        ("print(len(x))", {}, "", "x"),
        ("print(x)", {"print": 1}, "print", "x"),
        ("y = [a for a in b]\n{c: d for c in y}\n{e for e in y}", {}, "b d", "x y"),
        ("[a for a in a]", {"a": [1]}, "a", "x"),
        ("def f(a, *b, c=d): return a + e + f.g", {}, "d e", "f x"),
        ("class A:\n    df = df\n    other = 1", {"df": 1}, "df", "A x"),
        ("lambda a: a + b", {}, "b", "x"),
        ("f'{x!r:>{w}} {\"q\"} {v}'", {}, "w v", "x"),
        ("import os.path\nfrom a import b as c", {}, "", "c os x"),
        ("with a as b, c as (d, e): pass", {}, "a c", "b d e x"),
        ("global g\ng += x", {"g": 1}, "g", "x"),
        ("for i, (j, k) in a: del i", {}, "a", "i j k x"),
        ("y.z = 1\ny[w] = 2", {}, "y w", "x"),
    ],
)
def test_whose_names(text: str, namespace: dict[str, Any], reads: str, writes: str) -> None:
    """Reads come from the notebook, writes are the item's; the same in every Python version."""
    body = read(text, **namespace)
    assert body.reads == set(reads.split())
    assert body.writes == set(writes.split())


@pytest.mark.parametrize(
    ("text", "shared"),
    [
        ("global a\na = x", "a"),
        ("global a, b\na += b", "a"),
        ("global a\nimport a", "a"),
        ("global a\nprint(a)", ""),
        ("def f():\n    global a\n    a = 1", "a"),
    ],
)
def test_shared_names(text: str, shared: str) -> None:
    """Names that are declared global count as shared when something binds them."""
    assert read(text).shared == set(shared.split())


def test_global_binds_the_notebooks_name() -> None:
    """`global` is the way to change a name of the notebook."""
    namespace = {"total": 1}
    assert read("global total\ntotal += x\ntotal", **namespace).function(namespace)(3, None) == 4
    assert namespace == {"total": 4}


@pytest.mark.parametrize(
    ("text", "mutates"),
    [
        ("a.append(x)", "a"),
        ("a.b.append(x)\nc[0].update(x)", "a c"),
        ("a[x] = 1\nb[x] += 1\ndel c[x]", "a b c"),
        ("a.b = 1\nb.c += 1\ndel c.d", "a b c"),
        ("def f(): a.put(x)", "a"),
        ("a = []\na.append(x)\na[0] = 1", ""),
        ("a.index(x)\na[x]\na.b", ""),
        ("numbers.append(x)", ""),
        ("frame.add(x)\nknown.add(x)\nunknown.add(x)", "known unknown"),
        ("for a[0] in b: pass", "a"),
    ],
)
def test_mutated_names(text: str, mutates: str) -> None:
    """What the tree shows being changed counts; a module's function and a frame's `add` change nothing."""
    assert read(text, numbers=sys, frame=1.0, known=set()).mutates == set(mutates.split())


@pytest.mark.parametrize(
    ("text", "value", "blocking"),
    [
        ("a.wait()", threading.Event(), "a"),
        ("a.wait()", threading.Barrier(2), "a"),
        ("with a: pass", threading.Condition(), "a"),
        ("with a: pass", threading.BoundedSemaphore(), "a"),
        ("with a: pass", threading.Lock(), ""),
        ("a.get()", queue.LifoQueue(), "a"),
        ("a.get()", queue.SimpleQueue(), "a"),
        ("a.wait()", multiprocessing.get_context("spawn").Event(), "a"),
        ("a.get()", multiprocessing.get_context("spawn").SimpleQueue(), "a"),
        ("a.recv()", multiprocessing.get_context("spawn").Pipe()[0], "a"),
        ("x", threading.Event(), ""),
        ("a.Barrier(2)", threading, "Barrier"),
        ("from queue import Queue as Q", None, "Queue"),
        ("Pipe()", None, "Pipe"),
    ],
)
def test_blocking_names(text: str, value: object, blocking: str) -> None:
    """Objects and classes by which ranks in turn could wait for each other are named; locks are not."""
    assert read(text, None, a=value).blocking == set(blocking.split())


@pytest.mark.parametrize(
    ("text", "target", "namespace", "injected"),
    [
        ("worker", "x", {}, True),
        ("1", "x", {}, True),
        ("worker", "x", {"worker": 1}, False),
        ("worker", "worker", {}, False),
        ("worker = 1\nworker", "x", {}, False),
        ("import worker", "x", {}, False),
        ("global worker\nworker = 1", "x", {}, False),
        ("def f(worker): return worker", "x", {}, True),
    ],
)
def test_worker_is_injected_unless_taken(
    text: str, target: str, namespace: dict[str, Any], injected: bool
) -> None:
    """The notebook, the target and the body win over our `worker`."""
    body = read(text, target, **namespace)
    assert (body.function({}).__code__.co_varnames[1] == "worker") is injected
    assert ("worker" in body.reads) is ("worker" in namespace)


def test_workers_value() -> None:
    """Ours is the second argument; theirs is the notebook's."""
    assert run("worker") == "the worker"
    assert run("worker", worker="mine") == "mine"
    assert run("def f(): return worker\nf()") == "the worker"


def test_future_imports_become_flags() -> None:
    """`from __future__` at the top of the body works, below a docstring too, and so do the notebook's flags."""
    function = "def f(a: Undefined): pass\nf.__annotations__"
    assert run(f"from __future__ import annotations\n{function}") == {"a": "Undefined"}
    assert run(f"'doc'\nfrom __future__ import annotations\n{function}") == {"a": "Undefined"}
    body = read(function, flags=__future__.annotations.compiler_flag | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert body.function({})(1, None) == {"a": "Undefined"}


@pytest.mark.parametrize(
    ("text", "row", "words"),
    [
        ("1\nreturn x", 3, "`return` cannot stand at the top of a parallel body: put the item's result"),
        ("if x:\n    return x", 3, "`return` cannot stand"),
        ("await f(x)", 2, "`asyncio.run(...)`"),
        ("y = [await f(x) for x in z]", 2, "`await` cannot stand"),
        ("[y async for y in x]", 2, "`async for` cannot stand"),
        ("async for y in x: pass", 2, "`async for` cannot stand"),
        ("async with x: pass", 2, "`async with` cannot stand"),
        ("yield x", 2, "`yield` cannot stand at the top of a parallel body: collect the values"),
        ("y = yield from x", 2, "`yield from` cannot stand"),
        ("\nfrom os.path import *", 3, "`from os.path import *` cannot stand"),
        ("nonlocal y", 2, "`nonlocal y` cannot stand at the top of a parallel body: write `global y`"),
        ("y = 1\nglobal x", 3, "the `for` clause binds `x`"),
        ("def f(a=(yield)): pass", 2, "`yield` cannot stand"),
        ("class A((yield)): pass", 2, "`yield` cannot stand"),
        ("lambda a=(yield): a", 2, "`yield` cannot stand"),
        ("\n%%time\nx", 3, "another cell magic cannot stand"),
        ("get_ipython().run_cell_magic('time', '', 'x')", 2, "another cell magic cannot stand"),
        ("1\ny = input('?')", 3, "`input()` cannot stand in a parallel body"),
        ("def f(): return input()", 2, "`input()` cannot stand"),
        ("import getpass\ngetpass.getpass()", 3, "`getpass.getpass()` cannot stand"),
        ("from getpass import getpass\ngetpass()", 3, "`getpass()` cannot stand"),
        ("", 2, "the body is empty"),
        ("\n# nothing\n", 2, "the body is empty"),
        ("from __future__ import annotations", 2, "the body is empty"),
    ],
)
def test_refused_bodies(text: str, row: int, words: str) -> None:
    """Each refusal names the line as the margin counts it, and what to write instead."""
    with pytest.raises(CellError) as caught:
        read(text)
    assert str(caught.value).startswith(f"line {row}: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "def f(input): return input()",
        "input = str\ninput()",
        "ask()",
        "get_ipython().run_line_magic('timeit', 'x')",
        "(y async for y in x)",
        "async def f(): await x",
    ],
)
def test_look_alikes_are_not_refused(text: str) -> None:
    """A name of the user's called input, a line magic and async functions are fine."""
    assert read(text).writes >= {"x"}


def test_input_of_the_notebook_is_not_the_builtin() -> None:
    """A notebook that has its own `input` may call it."""
    assert run("input(x)", input=str) == "3"


@pytest.mark.parametrize(
    ("text", "row", "line"),
    [
        ("y = 1\nx = = 2", 3, "x = = 2"),
        ("y = (1,\n", 2, "y = (1,"),
        ("def f():\n    break", 3, "    break"),
        ("def f():\n    nonlocal zz", 3, "    nonlocal zz"),
        ("y = 1\nglobal y", 3, "global y"),
        ("y = 1\nfrom __future__ import annotations", 3, "from __future__ import annotations"),
        ("from __future__ import braces_", 2, "from __future__ import braces_"),
    ],
)
def test_syntax_errors_are_pythons_own(text: str, row: int, line: str) -> None:
    """The file name, the margin's line number and the line's text let the notebook show it as usual."""
    with pytest.raises(SyntaxError) as caught:
        read(text)
    error = caught.value
    assert (error.filename, error.lineno) == ("<cell-7>", row)
    assert (error.text or "").rstrip() == line


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("y += x", 2),
        ("y = y + x", 2),
        ("1\nprint(y)\ny = 1", 3),
        ("if y: pass\ny = 1", 2),
        ("while y: y = 0", 2),
        ("for i in y: y = i", 2),
        ("with open(y) as y: pass", 2),
        ("with x as a:\n    y = y", 3),
        ("try:\n    y\nexcept ValueError: y = 1", 3),
        ("try: pass\nfinally:\n    y += 1", 4),
        ("del y", 2),
        ("y.a = 1\ny = 2", 2),
        ("x and 1 or 2\ny and 1\ny = 2", 3),
        ("y if x else 1\n(y := 1) if y else 2", 3),
        ("0 < y < 1\ny = 1", 2),
        ("[a for a in y]\ny = 1", 2),
        ("def f(a=y): pass\ny = 1", 2),
        ("lambda a=y: a\ny = 1", 2),
        ("@y\ndef y(): pass", 2),
        ("class y(y): pass", 2),
        ("match y:\n    case 1: y = 2", 2),
        ("assert y\ny = 1", 2),
        ("f'{y}'\ny = 1", 2),
        ("import a.b as c\ny = y.z", 3),
        ("y: int\ny += 1", 3),
    ],
)
def test_name_read_before_it_is_bound(text: str, row: int) -> None:
    """A read that happens in every case, of a name that the notebook has, is refused with both ways out."""
    with pytest.raises(CellError) as caught:
        read(text, y=1)
    message = str(caught.value)
    assert message.startswith(f"line {row}: `y` is read here before the body binds it.")
    assert "use another name" in message
    assert "`global y`" in message


@pytest.mark.parametrize(
    "text",
    [
        "y = x\ny += 1",
        "if x: y = 1\ny",
        "for y in x: y",
        "with x as y: y",
        "try: y = 1\nexcept ValueError: pass\ny",
        "try: 1\nexcept ValueError as y: y\nelse: y",
        "x and y\ny = 1",
        "1 if x else y\ny = 1",
        "x < 1 < y\ny = 1",
        "assert x, y\ny = 1",
        "if x: print(y)\ny = 1",
        "def f(): return y\ny = 1",
        "lambda: y\ny = 1",
        "[y for a in x]\ny = 1",
        "any(y := a for a in x)\ny",
        "import y\ny",
        "import y.z\ny",
        "def y(): y\ny",
        "class y: pass\ny",
        "match x:\n    case y: y",
        "match x:\n    case [*y]: y",
        "match x:\n    case {**y}: y",
        "[y for y in x]",
        "y: int = 1\ny",
        "(y := 1) + y",
        "try:\n    1\n    y\nexcept ValueError: y = 1",
    ],
)
def test_name_that_may_be_bound_is_left_to_the_run(text: str) -> None:
    """What a condition guards, or what is bound first, is no reason to refuse the cell."""
    assert "x" in read(text, y=1).writes


def test_builtin_read_before_it_is_bound() -> None:
    """`list = list(x)` works in a cell, so the body must say why it does not work there."""
    with pytest.raises(CellError, match="`list` is read here"):
        read("list = list(x)")


def test_unknown_name_read_before_it_is_bound_is_left_to_the_run() -> None:
    """A name that the notebook does not have fails as it would in any cell."""
    assert "y" in read("y += x").writes


@pytest.mark.skipif(sys.version_info < (3, 12), reason="`type` statements are new in Python 3.12")
def test_type_alias_is_lazy() -> None:
    """The value of a `type` statement is not a read."""
    assert "A" in read("type A = list[A]", A=1).writes


@pytest.mark.parametrize("text", ["if not x: y = 1\ny", "def f(): return y\nif not x: y = 1\nf()"])
def test_help_for_a_name_unbound_at_run_time(text: str) -> None:
    """The run-time error gets the same two ways out, when the notebook has the name."""
    body = read(text, y=1)
    with pytest.raises(NameError) as caught:
        body.function({"y": 1})(3, None)
    note = unbound_help(caught.value, body, {"y": 1}) or ""
    assert note.startswith("The body binds `y`")
    assert "`global y`" in note
    assert unbound_help(caught.value, body, {}) is None


def test_no_help_for_other_errors() -> None:
    """An undefined name, a local of another function and a plain message get no note."""
    body = read("if not x: y = 1\nundefined", y=1)
    with pytest.raises(NameError) as caught:
        body.function({"y": 1})(3, None)
    assert unbound_help(caught.value, body, {"y": 1}) is None

    def other() -> None:
        len(y)  # noqa: F821
        y = 1  # noqa: F841

    with pytest.raises(UnboundLocalError) as elsewhere:
        other()
    assert unbound_help(elsewhere.value, body, {"y": 1}) is None


def expression(text: str, line: str, target: str = "x", **namespace: Any) -> Body:
    """Read the expression of a line magic."""
    return read_expression(text, line=line, target=target, namespace=namespace, filename="<line-1>")


def test_expression_runs_on_the_magic_line() -> None:
    """The line form's function returns the value; its errors point at the expression in the line."""
    line = "%parallel -q é(x) + x.a for x in xs"
    body = expression("é(x) + x.a", line)
    assert (body.source, body.reads, body.writes, body.has_value) == (line, {"é"}, {"x"}, True)
    with pytest.raises(AttributeError) as caught:
        body.function({"é": abs})(3, None)
    place = traceback.extract_tb(caught.tb)[-1]
    assert place.lineno == 1
    assert line.encode()[place.colno : place.end_colno] == b"x.a"


@pytest.mark.parametrize(
    ("text", "target", "item", "expected"),
    [
        ("y := x", "x", 3, 3),
        ("(a, b)", "a, b", (1, 2), (1, 2)),
        ("lambda: x", "x", 3, 3),
        ("worker", "x", 3, "w"),
    ],
)
def test_expressions(text: str, target: str, item: Any, expected: object) -> None:
    """Whatever a comprehension can have before its `for` gives the item's result."""
    value = expression(text, f"%parallel {text} for {target} in xs", target).function({})(item, "w")
    assert (value() if callable(value) else value) == expected


def test_expression_is_found_where_it_stands() -> None:
    """A short expression that also occurs in the magic's own name gets its own place."""
    body = expression("a", "%parallel -- a for a in xs", "a")
    function = next(const for const in body.code.co_consts if hasattr(const, "co_positions"))
    places = {
        place[2:]
        for place in function.co_positions()
        if place[2] is not None and place[0] == 1 and place[3] != 0
    }
    assert (13, 14) in places


@pytest.mark.parametrize(
    ("text", "words"), [("await f(x)", "`await`"), ("(yield)", "`yield`"), ("input(x)", "`input()`")]
)
def test_refused_expressions(text: str, words: str) -> None:
    """The line form refuses what a body refuses, on line 1."""
    with pytest.raises(CellError, match=r"^line 1: ") as caught:
        expression(text, f"%parallel {text} for x in xs")
    assert words in str(caught.value)


def test_syntax_error_in_an_expression() -> None:
    """The error shows the magic line as its text."""
    line = "%parallel f(x) + for x in xs"
    with pytest.raises(SyntaxError) as caught:
        expression("f(x) +", line)
    assert (caught.value.lineno, caught.value.text) == (1, line)


def test_expression_reads_before_binding() -> None:
    """A walrus makes a name the item's own in the line form as well."""
    with pytest.raises(CellError, match="line 1: `y` is read here"):
        expression("y + (y := x)", "%parallel y + (y := x) for x in xs", y=1)


@pytest.mark.parametrize(
    "text",
    [
        "+".join(["x"] * 400) + " == 1200",
        "y = 0\nif x == 0: pass\n" + "".join(f"elif x == {1000 + number}: pass\n" for number in range(400)) + "else: y = True\ny",
        "str(x)" + ".strip()" * 200 + " == '3'",
    ],
    ids=["a sum", "elif", "calls"],
)
def test_what_python_compiles_is_not_too_deep(text):
    """A tree may be as deep as the compiler allows, not only as deep as functions may call each other; the limit is put back."""
    limit = sys.getrecursionlimit()
    assert run(text) is True
    assert sys.getrecursionlimit() == limit


@pytest.mark.parametrize("text", ["x + " * 20_000 + "x", "-" * 50_000 + "x"], ids=["a sum", "minus"])
def test_what_is_too_deep_is_refused(text):
    """What Python itself gives up on, each version with errors of its own, is refused with what to write."""
    with pytest.raises(CellError, match="nested too deeply to be compiled: give parts of it names"):
        read(text)
    with pytest.raises(CellError, match="nested too deeply to be compiled: give parts of it names"):
        read_expression(text, line=f"%parallel {text} for x in xs", target="x", namespace={}, filename="<cell-7>")


@pytest.mark.parametrize(
    "text",
    [
        "n = 0\ndef bump():\n    global n\n    n += 1\nbump()\nn",
        "n = 0\nclass A:\n    global n\n    n = 1\nn",
        "for n in 'ab':\n    def f(): \n        def g():\n            global n\n            n = 3",
    ],
)
def test_global_in_a_function_of_the_body(text):
    """In a cell it is the cell's name, in a body it would be the notebook's, silently: refused, with both ways out."""
    row = next(row for row, line in enumerate(text.split("\n"), 2) if "global" in line)
    with pytest.raises(CellError, match=rf"^line {row}: `global n` means the notebook's `n`, but .* write `nonlocal n` here; .* `global n` at the top"):
        read(text, n=7)
    assert run("n = 0\ndef bump():\n    nonlocal n\n    n += 1\nbump()\nn") == 1
    namespace = {"n": 7}
    assert read("global n\nn = 0\n" + "def bump():\n    global n\n    n += x\nbump()\nn", **namespace).function(namespace)(3, None) == 3


@pytest.mark.parametrize(
    "body",
    ["n = n", "m = n; n = 1", "if x:\n        n = 1\n    m = n", "for n in m: pass\n    n", "m = [y for y in n]\n    n = m", "n += 1", "def f(self, n=n): pass\n    n = f", "m = n\n    del n"],
)
def test_class_that_reads_what_it_binds(body):
    """A class in a cell finds the cell's name, one in a body would find the notebook's or nothing: refused, with what to write."""
    for text in (f"n = m = 'ab'\nclass A:\n    {body}", f"n = m = 'ab'\ndef f():\n  class A:\n    {body}"):
        with pytest.raises(CellError, match=r"class `A` may read the body's `n` before it binds a `n` of its own, .* use another name for one of them"):
            read(text, n=7)


@pytest.mark.parametrize(
    "body",
    ["n = 1\n    m = n", "m = n", "for n in 'ab': m = n", "def f(self): n = 1; return n", "m = [n for n in 'ab']\n    n = 1", "m = lambda: n\n    n = 1", "n: int\n    m = 1"],
)
def test_class_that_reads_no_name_of_the_body_that_it_binds(body):
    """What a class binds before it reads it, and what it only reads, is left alone."""
    assert run(f"n = 'ab'\nclass A:\n    {body}\nA.__name__", n=7) == "A"


@pytest.mark.skipif(sys.version_info < (3, 14), reason="t-strings came with Python 3.14")
def test_template_string():
    """The names in a t-string are read, also those of a format, as in an f-string."""
    body = read("t'a{y!r:{z}} {x}'", y=1, z=2)
    assert body.reads == {"y", "z"}
    assert run("t'a{x}'.values") == (3,)


@pytest.mark.parametrize("text", ["{0: (n := 1), n: 2}", "import contextlib\nwith contextlib.suppress(KeyError):\n    {}[1]\n    n\nn = 1", "m = [1]\nm[(n := 0)] += n", "{(n := 'k'): n}"])
def test_order_of_evaluation(text):
    """In a dict, key and value alternate; the place of `+=` is evaluated before what is added; `with` may skip its block: none reads too early."""
    read(text, n=7)


def test_what_others_hang_on_nodes_is_not_copied():
    """IPython's tracebacks give nodes a parent, also the one `Load()` of all trees: it is left alone, however much it is."""

    class Parent:
        def __reduce_ex__(self, _protocol):
            raise AssertionError

    shared = ast.parse("x").body[0].value.ctx
    shared.parent = Parent()
    try:
        assert run("x + 1") == 4
    finally:
        del shared.parent
