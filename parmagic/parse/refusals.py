"""What a parallel body cannot do, each with what to write instead."""

# ruff: noqa: N815 - ast.NodeVisitor names the methods

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

from parmagic.errors import CellError
from parmagic.parse.unbound import read_by_class

__all__ = [
    "IN_A_LINE_MAGIC",
    "OTHER_MAGIC",
        "at_line",
    "depth_refused",
    "go_deeper",
    "refuse",
    "refuse_input",
    "refuse_other_scopes",
    "ways_out",
]

_DEEP = 100_000
"""Calls: the compiler takes some thousand levels, of which each is a handful of calls here."""

INPUT = "workers cannot ask: read the value in a cell above, and use its name here"

OTHER_MAGIC = "another cell magic cannot stand in a parallel body: use a cell of its own for it"

IN_A_LINE_MAGIC = (
    "In a body, a line magic binds no name of the body's, and most of them see the notebook's names only: "
    "call the tool's functions there instead, or put its magic over `%parallel`."
)


def at_line(row: int, message: str) -> CellError:
    """Make the error for a line of the cell, as the margin counts it."""
    return CellError(f"line {row}: {message}")


@contextmanager
def depth_refused() -> Iterator[None]:
    """Turn what Python raises for a text that is nested deeper than it can compile into a CellError."""
    try:
        yield
    except (RecursionError, MemoryError):
        raise CellError("this is nested too deeply to be compiled: give parts of it names, on lines of their own") from None


def go_deeper() -> None:
    """Let functions of ours follow a tree as deep as Python compiles it, which is deeper than it lets functions call each other.

    A thousand terms in a sum are enough. What runs then is Python alone, which takes no C stack for its calls.
    To be undone by ``sys.setrecursionlimit``.
    """
    sys.setrecursionlimit(sys.getrecursionlimit() + _DEEP)


def ways_out(name: str) -> str:
    """Tell what to write when a name was meant to be the notebook's."""
    return (
        "Either use another name for the one that the body binds (it is private to each item), or declare"
        f" `global {name}`: then threads share the notebook's, which needs a lock;"
        " in processes it is of no use, as their changes do not come back."
    )


def refuse(body: Iterable[ast.stmt], target: frozenset[str]) -> None:
    """Raise CellError where the body's own scope has what only a module or a function can."""
    top = _Top(target)
    for statement in body:
        top.visit(statement)


def refuse_input(body: Iterable[ast.stmt], bound: frozenset[str], namespace: Mapping[str, Any]) -> None:
    """Raise CellError for a call to ``input`` or ``getpass.getpass``, unless it means something else."""
    for node in (inner for statement in body for inner in ast.walk(statement)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        ours = name == "input" and name not in bound and namespace.get(name, builtins.input) is builtins.input
        if ours or name in {"getpass", "getpass.getpass"}:
            raise at_line(node.lineno, f"`{name}()` cannot stand in a parallel body: {INPUT}")


def refuse_other_scopes(body: Iterable[ast.stmt], writes: frozenset[str]) -> None:
    """Raise CellError where a name means the cell's in a cell, and the notebook's in a function: ``writes`` are the body's own."""
    body = list(body)
    declared = [node for statement in body for node in ast.walk(statement) if isinstance(node, ast.Global)]
    for place, name in [(node.lineno, name) for node in declared for name in node.names if name in writes]:
        raise at_line(
            place,
            f"`global {name}` means the notebook's `{name}`, but the body binds one of its own (private to each item)."
            f" For that one, write `nonlocal {name}` here;"
            f" to share the notebook's, declare `global {name}` at the top of the body as well.",
        )
    found = read_by_class(body, writes)
    if found is not None:
        cls, node, name = found
        raise at_line(
            node.lineno,
            f"class `{cls.name}` may read the body's `{name}` before it binds a `{name}` of its own,"
            " and does not see it, as the body is a function: use another name for one of them.",
        )


class _Top(ast.NodeVisitor):
    """Visits the body's own scope; functions inside it may do as they like."""

    def __init__(self, target: frozenset[str]) -> None:
        self.target = target

    def no(self, node: ast.stmt | ast.expr, what: str, instead: str) -> NoReturn:
        raise at_line(node.lineno, f"`{what}` cannot stand at the top of a parallel body: {instead}")

    def visit_Return(self, node: ast.Return) -> None:
        self.no(
            node, "return", "put the item's result on the last line, or define a function and call it there"
        )

    def visit_Yield(self, node: ast.Yield | ast.YieldFrom) -> None:
        what = "yield" if isinstance(node, ast.Yield) else "yield from"
        self.no(node, what, "collect the values in a list and put it on the last line")

    visit_YieldFrom = visit_Yield

    def visit_Await(self, node: ast.Await) -> None:
        self.no(node, "await", "workers have no event loop; write `asyncio.run(...)` around the coroutine")

    def visit_AsyncFor(self, node: ast.AsyncFor | ast.AsyncWith) -> None:
        what = "async for" if isinstance(node, ast.AsyncFor) else "async with"
        self.no(node, what, "write an `async def` around it and run that with `asyncio.run(...)`")

    visit_AsyncWith = visit_AsyncFor

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp | ast.DictComp) -> None:
        if any(generator.is_async for generator in node.generators):
            self.no(node, "async for", "write an `async def` around it and run that with `asyncio.run(...)`")
        self.generic_visit(node)

    visit_SetComp = visit_ListComp
    visit_DictComp = visit_ListComp

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        """Only the first iterable belongs to the body's scope."""
        self.visit(node.generators[0].iter)

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        names = ", ".join(node.names)
        self.no(node, f"nonlocal {names}", f"write `global {names}` for the notebook's name")

    def visit_Global(self, node: ast.Global) -> None:
        for name in node.names:
            if name in self.target:
                self.no(
                    node,
                    f"global {name}",
                    f"the `for` clause binds `{name}`; use another name in one of them",
                )

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if any(alias.name == "*" for alias in node.names):
            what = f"from {'.' * node.level}{node.module or ''} import *"
            self.no(node, what, "import it in a cell above, or name what the body needs")

    def visit_Call(self, node: ast.Call) -> None:
        """IPython turns ``%%magic`` into this call before the body is read."""
        if ast.unparse(node.func) == "get_ipython().run_cell_magic":
            raise at_line(node.lineno, OTHER_MAGIC)
        self.generic_visit(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.visit_each([*node.args.defaults, *node.args.kw_defaults])

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.visit_each([*node.decorator_list, *node.args.defaults, *node.args.kw_defaults])

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Python itself refuses these statements in a class."""
        self.visit_each([*node.decorator_list, *node.bases, *node.keywords])

    def visit_each(self, nodes: Iterable[ast.AST | None]) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)
