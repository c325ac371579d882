"""``continue`` and ``break`` at the top of a body, which is a function, and in a loop for whoever wrote it."""

# ruff: noqa: N815 - ast.NodeVisitor names the methods

from __future__ import annotations

import ast
from collections.abc import Iterable

__all__ = ["as_returns", "tell"]


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
