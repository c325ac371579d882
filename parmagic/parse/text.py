"""The text of functions that are there already, as a tree."""

from __future__ import annotations

import ast
import inspect
import linecache
import textwrap
from types import CodeType


def definition(code: CodeType) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """Return the tree of a function's text, where that is known; of a lambda, a function of the statement that it stands in."""
    rows = linecache.getlines(code.co_filename)[code.co_firstlineno - 1 :]
    try:
        tree = ast.parse(textwrap.dedent("".join(inspect.getblock(rows)))) if rows else None
    except (SyntaxError, ValueError, RecursionError):
        return None
    first = tree.body[0] if tree is not None and tree.body else None
    if first is not None and code.co_name == "<lambda>":
        empty = ast.arguments([], [], None, [], [], None, [])
        return ast.FunctionDef(code.co_name, empty, [first], [], None, None)
    return first if isinstance(first, ast.FunctionDef | ast.AsyncFunctionDef) and first.name == code.co_name else None
