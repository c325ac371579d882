"""Habits of whoever writes loops: ``continue`` and ``break`` in a body, which is a function; a loop where no clause is."""

# ruff: noqa: N815 - ast.NodeVisitor names the methods

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["as_returns", "tell", "whole_loop"]

_FEW = 4
"""Turns of a loop that every worker may well run all of."""


def as_returns(body: Iterable[ast.stmt]) -> tuple[list[ast.stmt], list[ast.Return]]:
    """Return the body with a ``return`` for each ``continue`` and ``break`` of its own; also those that break.

    A ``return`` leaves ``try`` and ``with`` as they do. Those of loops in the body stay.
    """
    habits = _Habits()
    changed = [habits.visit(statement) for statement in body]
    return changed, habits.breaks


def tell(breaks: Iterable[ast.Return], worker: str) -> None:
    """Have these return what says that the loop is broken: an attribute of the ``worker``, by its parameter's name."""
    for node in breaks:
        value = ast.Attribute(ast.Name(worker, ast.Load()), "_broke", ast.Load())
        node.value = ast.fix_missing_locations(ast.copy_location(value, node))


def whole_loop(body: Iterable[ast.stmt], namespace: Mapping[str, Any]) -> str:
    """Return the first loop over many things at the top of a body that never looks at its worker: every worker runs all of it.

    As ``for x in xs``; empty where there is none.
    """
    body = list(body)
    words = {getattr(node, "id", getattr(node, "attr", "")) for statement in body for node in ast.walk(statement)}
    if words & {"worker", "current_worker"}:
        return ""
    for loop in (statement for statement in body if isinstance(statement, ast.For)):
        bound = {node.id for node in ast.walk(loop.target) if isinstance(node, ast.Name)}
        read = {node.id for inner in loop.body for node in ast.walk(inner) if isinstance(node, ast.Name)}
        if bound & read and _turns(loop.iter, namespace) > _FEW:
            target = ast.unparse(loop.target)
            if isinstance(loop.target, ast.Tuple):
                target = target.removeprefix("(").removesuffix(")")
            return f"for {target} in {ast.unparse(loop.iter)}"
    return ""


def _turns(iterable: ast.expr, namespace: Mapping[str, Any]) -> float:
    """Return how often a loop over that goes round, where it is short enough to be seen; infinity elsewhere."""
    if isinstance(iterable, ast.Tuple | ast.List):
        return len(iterable.elts)
    if isinstance(iterable, ast.Call) and ast.unparse(iterable.func) == "range" and len(iterable.args) == 1:
        count = iterable.args[0]
        value = namespace.get(count.id) if isinstance(count, ast.Name) else getattr(count, "value", None)
        return value if type(value) is int else math.inf
    value = namespace.get(iterable.id) if isinstance(iterable, ast.Name) else None
    return len(value) if isinstance(value, (list, tuple, dict, set, str, range)) else math.inf


class _Habits(ast.NodeTransformer):
    """Visits what of a body is in no loop and no function of its own."""

    def __init__(self) -> None:
        self.breaks: list[ast.Return] = []

    def visit_Continue(self, node: ast.Continue) -> ast.Return:
        return ast.copy_location(ast.Return(None), node)

    def visit_Break(self, node: ast.Break) -> ast.Return:
        self.breaks.append(ast.copy_location(ast.Return(None), node))
        return self.breaks[-1]

    def visit_For(self, node: ast.For | ast.AsyncFor | ast.While) -> ast.For | ast.AsyncFor | ast.While:
        node.orelse = [self.visit(statement) for statement in node.orelse]
        return node

    visit_AsyncFor = visit_For
    visit_While = visit_For

    def visit_FunctionDef(self, node: ast.AST) -> ast.AST:
        return node

    visit_AsyncFunctionDef = visit_FunctionDef
    visit_ClassDef = visit_FunctionDef
    visit_Lambda = visit_FunctionDef
