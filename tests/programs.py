"""Bodies of cells: random programs, and what they do as a cell and as a body."""

from __future__ import annotations

import ast
import contextlib
import io
import random
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from parmagic.errors import CellError
from parmagic.parse.body import Body, read_body

NOTEBOOK = "p = 3\nq = [1, 2, 3]\nr = {'k': 1}\ns = 'text'\na = 10\ng = 0\nclass Box:\n    n = 1\nbox = Box()\n"
"""What the notebook has: ``a`` is a name that bodies bind as well, ``g`` one that they share."""

OWN = ["a", "b", "c", "d", "e"]
OWN_SCOPES = sys.version_info < (3, 12)
"""Comprehensions are inlined since (PEP 709), and hide a name of theirs from other functions beside them: Python's own fault, in functions only."""

READ = ["p", "q", "r", "s", "box.n", "len(q)"]


@dataclass(frozen=True)
class Outcome:
    """What can be seen of a program: value, output, error, warnings, the notebook's names after it."""

    value: str
    printed: str
    error: tuple[str, str, int | None]
    warned: list[tuple[str, str, int]]
    names: dict[str, str]


class Programs:
    """Draws programs. They end, and most of them do something."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.depth = 0

    def program(self) -> str:
        """Return a program; its last line shows all that it bound, where that is still there. Its lines may end as on other systems."""
        first = ["a = 1", "b = [2, 3]", "c = {'k': 4}", "d = 'five'", "e = 6"]
        kept = [line for line in first if self.rng.random() < 0.9]
        end = "\r" if self.rng.random() < 0.02 else "\n"
        return end.join([*kept, *self.block(self.rng.randrange(1, 7)), self.rng.choice(["a, b, c, d, e", "a", "e;", "(a, g)", "*b, a", "x = a"])])

    def block(self, count: int = 0) -> list[str]:
        """Return some statements, indented as at the top."""
        self.depth += 1
        count = count or self.rng.randrange(1, 4)
        kinds = KINDS if self.depth < 3 else KINDS[:12]
        lines = [line for _ in range(count) for line in self.rng.choice(kinds)(self).split("\n")]
        self.depth -= 1
        return lines

    def inner(self) -> str:
        """Return a block as the body of a compound statement."""
        return "\n".join("    " + line for line in self.block())

    def name(self) -> str:
        """Return a name that bodies bind."""
        return self.rng.choice(OWN)

    def expression(self, depth: int = 2) -> str:
        """Return an expression; some raise."""
        if depth <= 0 or self.rng.random() < 0.2:
            return self.rng.choice([*OWN, *READ, "1", "0", "-2", "'x'", "'k'", "[1, 2]", "{'k': 2}", "()", "None", "True", "1.5", "b'y'", "..."])
        holes = {"«e»": lambda: self.expression(depth - 1), "«n»": self.name, "«t»": lambda: self.name() if OWN_SCOPES else "w"}
        return re.sub("«.»", lambda hole: holes[hole[0]](), self.rng.choice(EXPRESSIONS))


EXPRESSIONS = [
    "(«e» + «e»)", "«e», «e»", "[«e», *q]", "{'k': «e», **r}", "(«n» := «e»)", "not «e»", "(«e» if «e» else «e»)", "[y for y in q if «e»]", "{y: «e» for y in 'ab'}",
    "sum(y * z for y in q for z in [y])", "[«e» for «t» in q]", "(lambda y=«e»: y)()", "f'{«e»!r:>{p}} {{}}'", "str(«e»)", "b[«e»]", "c.get(«e»)", "(«e» and «e» or «e»)",
    "(1 < «e» < 3)", "f'''{f\"{«n»}\"}'''", "«e» == «e»", "sorted(«e», key=lambda y: -y)", "[(y, «e») for y in [1] for «t» in [y]]", "[«n» := y for y in q]",
    "{«e»: («n» := 1), «n»: «e»}", "b[(«n» := 0):]", "(lambda: («n» := «e»))()", "{*q, «e»}", "max(*q, key=lambda y: «e»)", "'a' 'b' f'{«n»}'", "[*(y for y in «n»), «e»]",
]  # fmt: skip


Kind = Callable[[Programs], str]


def _assign(p: Programs) -> str:
    return f"{p.name()} = {p.expression()}"


def _targets(p: Programs) -> str:
    return p.rng.choice(["{0} = {1} = {e}", "{0}, {1} = 1, {e}", "{0}, *{1} = q", "[{0}, ({1}, *_)] = 1, q", "({0}) = {e}", "{0}: int = {e}", "({0}): 'no' = {e}"]).format(
        p.name(), p.name(), e=p.expression(1)
    )


def _augmented(p: Programs) -> str:
    return p.rng.choice(["{n} += {e}", "b[0] += {e}", "c['k'] = {e}", "b[({n} := 0)] += {n}", "box.n = {e}", "{n} *= 2", "c[{n}] = ({n} := 'k')"]).format(
        n=p.name(), e=p.expression(1)
    )


def _delete(p: Programs) -> str:
    return p.rng.choice([f"del {p.name()}", "del b[0]", "del c['k'], b[:1]", f"del ({p.name()}, {p.name()})"])


def _small(p: Programs) -> str:
    return p.rng.choice(
        ["pass", "'a string'", "...", f"assert {p.expression()}, {p.expression(1)}", f"raise ValueError({p.expression(1)})", "raise KeyError('k') from None", "1; 2; a = 3",
         "q.append(1)", "r['new'] = 1", "import os.path", "import os.path as a, sys", "from math import floor as b", "1 / 0", "'\\d'", "e is 5", "global g", "g = 1"]
    )  # fmt: skip


def _print(p: Programs) -> str:
    return p.rng.choice([f"print({p.expression()})", f"print('{p.name()}', *q, sep={p.expression(0)})", f"print(f'{{{p.name()}=}}')"])


def _value(p: Programs) -> str:
    return p.expression(3)


def _if(p: Programs) -> str:
    more = p.rng.choice(["", f"\nelif {p.expression()}:\n{p.inner()}", f"\nelse:\n{p.inner()}"])
    return f"if {p.expression()}:\n{p.inner()}{more}"


def _for(p: Programs) -> str:
    end = p.rng.choice(["", "\n    break", "\n    continue", "\n    if e: break"])
    return f"for {p.rng.choice([p.name(), 'a, b', 'i, *c', 'b[0]'])} in {p.rng.choice(['[*q]', 'zip(q, [*q])', f'[*{p.expression(1)}]'])}:\n{p.inner()}{end}{p.rng.choice(['', chr(10) + 'else:' + chr(10) + p.inner()])}"


def _while(p: Programs) -> str:
    count = f"n{p.depth}"  # of its own: a loop in a loop must not set it back
    return f"{count} = 0\nwhile ({count} := {count} + 1) < 4 and {p.expression(1)}:\n{p.inner()}"


def _try(p: Programs) -> str:
    star = p.rng.choice(["", "", "*"])
    caught = f"except{star} {p.rng.choice(['Exception', '(TypeError, KeyError)', 'ValueError'])}{p.rng.choice(['', f' as {p.name()}'])}:\n{p.inner()}"
    last = p.rng.choice(["", f"\nelse:\n{p.inner()}", f"\nfinally:\n{p.inner()}"])
    return f"try:\n{p.inner()}\n{caught}{last}"


def _with(p: Programs) -> str:
    return f"import contextlib\nwith contextlib.nullcontext({p.expression(1)}) as {p.name()}, contextlib.suppress(TypeError):\n{p.inner()}"


def _match(p: Programs) -> str:
    patterns = ["[{0}, *{1}]", "{{'k': {0}, **{1}}}", "int() as {0}", "1 | 2 | 'x'", "str({0})", "Box(n={0})", "({0}, 3)", "None"]
    cases = [f"    case {p.rng.choice(patterns).format(*p.rng.sample(OWN, 2))} if {p.expression(1)}:\n" + _deeper(p.inner()) for _ in range(2)]
    return f"match {p.expression()}:\n" + "\n".join([*cases, f"    case _:\n{_deeper(p.inner())}"])


def _deeper(text: str) -> str:
    return "\n".join("    " + line for line in text.split("\n"))


def _def(p: Programs) -> str:
    declared = p.rng.choice(["", f"    global {p.name()}\n", "    global g\n    g += 1\n", f"    {p.name()} = 0\n"])
    form = p.rng.choice(["def f(x={e}, *args, k={e}, **more):", "def f(x: int = {e}) -> 'none':", "def f(a, /, b=1):", "@(lambda f: f)\ndef f(x=1):", "@staticmethod\ndef f(x=None):"])
    return f"{form.format(e=p.expression(0))}\n{declared}{p.inner()}\n    return {p.expression()}\nprint(f(1))"


def _closure(p: Programs) -> str:
    name = p.name()
    return f"def outer():\n    {name} = 1\n    def change():\n        nonlocal {name}\n        {name} = {p.expression()}\n        return {p.name()}\n    return change(), {name}\nprint(outer())"


def _generator(p: Programs) -> str:
    return f"def many():\n    for y in q:\n        {p.name()} = yield y, {p.expression(1)}\n    yield from b\nprint(list(many()))"


def _async(p: Programs) -> str:
    return f"import asyncio\nasync def late(x={p.expression(0)}):\n{p.inner()}\n    return [y async for y in each()]\nasync def each():\n    yield {p.expression(1)}\nprint(asyncio.run(late()))"


def _class(p: Programs) -> str:
    body = p.rng.choice(
        ["    k = {e}\n    def get(self): return self.k, {n}", "    {n} = {n}", "    {n} = 1\n    def get(self): return {n}", "    x = [y for y in {n}]", "    {n}: int = 5", "{i}",
         "    def __init__(self): self.y = {n}", "    if p: {n} = 7\n    z = {n}", "    class In:\n        z = {n}", "    global g\n    g = {n}", "    __slots__ = ('z',)\n    z2 = lambda self: {n}"]
    )  # fmt: skip
    body = body.format(n=p.name(), e=p.expression(), i=p.inner() if body == "{i}" else "")
    return f"class C{p.rng.choice(['', '(Box)', '(Exception)', '(metaclass=type)'])}:\n{body}\nprint([(n, v) for n, v in sorted(vars(C).items()) if n in 'abcdez'], C.__name__)"


def _newer(p: Programs) -> str:
    if sys.version_info < (3, 12):
        return "pass"
    return p.rng.choice(
        [f"type T = list[{p.name()}]\nprint(T.__value__)", f"def f[T](x: T) -> T: return {p.name()}\nprint(f(1))", f"class G[T]:\n    x = {p.name()}\nprint(G.x)",
         "type T[K] = dict[K, a]\nprint(T.__name__)"]
    )  # fmt: skip


def _call(p: Programs) -> str:
    return f"h = lambda x=1, *, y={p.expression(0)}: (x, y, {p.expression(1)})\nprint(h())"


KINDS: list[Kind] = [
    _assign, _targets, _augmented, _delete, _small, _small, _print, _value, _call, _assign, _print, _augmented,
    _if, _for, _while, _try, _with, _match, _def, _def, _closure, _generator, _async, _class, _class, _class, _newer,
]  # fmt: skip


# --- what they do -------------------------------------------------------------------------


def notebook() -> dict[str, Any]:
    """Return the names of a fresh notebook."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(NOTEBOOK, names)
    return names


def watched(run: Callable[[], Any], names: dict[str, Any]) -> Outcome:
    """Run something that stands for a cell, whose first line is line 2; return what can be seen of it."""
    printed, value, error = io.StringIO(), None, ("", "", None)
    with contextlib.redirect_stdout(printed), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            value = run()
        except Exception as raised:  # noqa: BLE001  (compared)
            rows = [frame.lineno for frame in traceback.extract_tb(raised.__traceback__) if frame.filename == "<cell>"]
            error = (plain(type(raised).__name__), plain(str(raised)), rows[-1] if rows else getattr(raised, "lineno", None))
    shown = {name: plain(repr(names[name])) for name in ("p", "q", "r", "s", "a", "g") if name in names}
    shown["box.n"] = plain(repr(names["box"].n)) if "box" in names else ""
    return Outcome(plain(repr(value)), plain(printed.getvalue()), error, _told(warned), shown)


def _told(warned: list[warnings.WarningMessage]) -> list[tuple[str, str, int]]:
    """Leave out coroutines that nobody awaited: they are missed when they are collected, in whatever runs then."""
    return [(each.category.__name__, str(each.message), each.lineno) for each in warned if each.category is not RuntimeWarning]


def plain(text: str) -> str:
    """Leave out what a function in a function is called, where it is, and how the two ways to have no such name are told."""
    text = re.sub(r"<cell>\.(<locals>\.)?|0x[0-9a-f]+|__main__\.", "", text).replace("UnboundLocalError", "NameError")
    text = re.sub(r"(?:cannot access (?:local|free) variable ('\w+') where it is not associated with a value(?: in enclosing scope)?|name ('\w+') is not defined)", r"\1\2", text)
    return re.sub(r"\. Did you mean: '\w+'\?|\. Did you forget to import '\w+'\??", "", text)


def as_cell(text: str, names: dict[str, Any]) -> Any:
    """Run a cell as the notebook does: the value of its last expression counts."""
    tree = ast.parse("\n" + text)
    tail = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = compile("\n" + text, "<cell>", "exec", dont_inherit=True)
    del whole
    exec(compile(tree, "<cell>", "exec", dont_inherit=True), names)
    if tail is None:
        return None
    value = eval(compile(ast.Expression(tail.value), "<cell>", "eval", dont_inherit=True), names)
    return None if text.rstrip().endswith(";") else value


def as_body(text: str, names: dict[str, Any]) -> Body:
    """Read a cell as the body of ``%%parallel threads=1``."""
    return read_body(text, line="%%parallel threads=1", target=None, namespace=names, filename="<cell>")


def difference(text: str) -> str:
    """Run a program as a cell and as a body; return what differs, else nothing.

    A body's own names are private to it: the cell runs where the notebook does not have
    them. It runs once more over what it says it reads, which is what a process gets.
    """
    ours, theirs = notebook(), notebook()
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            body = as_body(text, ours)
    except (CellError, SyntaxError) as refused:
        return _refusal(text, refused)
    for name in body.writes & theirs.keys():
        del theirs[name]
    expected = watched(lambda: as_cell(text, theirs), theirs)
    keeps = {name: ours[name] for name in body.writes & ours.keys()}
    function = body.function(ours)
    found = watched(lambda: function(0, None), ours)
    found.warned[:0] = _told(told)
    changed = [name for name, value in keeps.items() if ours.get(name) is not value]
    if changed:
        return f"changed the notebook's {changed}"
    for name in body.writes:
        expected.names.pop(name, None)
        found.names.pop(name, None)
    if expected != found:
        return f"\n  cell {expected}\n  body {found}"
    fresh = notebook()
    sent = {name: fresh[name] for name in body.reads | {"__name__", "__builtins__"} if name in fresh}
    shipped = watched(lambda: body.function(sent)(0, None), sent)
    if (shipped.value, shipped.printed, shipped.error) != (found.value, found.printed, found.error):
        return f"\n  threads   {found}\n  processes {shipped}, which read {sorted(body.reads)}"
    return ""


def _refusal(text: str, refused: Exception) -> str:
    """Return what is wrong with a refusal: a cell that would have run as it is."""
    names = notebook()
    early = re.search(r"`(\w+)` is read here before", str(refused))
    if early:
        names.pop(early[1], None)
    if re.search(r"`global \w+` means the notebook's|class `\w+` may read", str(refused)):
        return ""
    outcome = watched(lambda: as_cell(text, names), names)
    row = int(re.match(r"line (\d+)", str(refused))[1]) if early else 0
    alike = outcome.error[0] == type(refused).__name__ or (early and outcome.error[0] and (outcome.error[2] or 0) <= row)
    return "" if alike else f"refused: {refused}\n  cell {outcome}"
