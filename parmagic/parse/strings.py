"""Names that stand in strings: what a body hands to pandas' ``query`` and ``eval``, to ``eval`` and ``exec``, and to ``globals()``.

Python's scoping rules do not see them, and they are looked up all the same when the body runs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from keyword import iskeyword

_OF_FRAMES = frozenset({"eval", "query"})
_OF_MODULES = frozenset({("pd", "eval"), ("pandas", "eval"), ("ne", "evaluate"), ("numexpr", "evaluate")})
_OF_PYTHON = frozenset({"compile", "eval", "exec"})
_AT = re.compile(r"@([^\W\d]\w*)")
"""How a name of Python's is written in an expression of pandas'."""

_WORD = re.compile(r"(?<![\w.])[^\W\d]\w*")


def named_in_strings(body: Iterable[ast.stmt]) -> frozenset[str]:
    """Return the names in those strings that the body's text has; what it puts together when it runs is not seen."""
    nodes = [node for statement in body for node in ast.walk(statement)]
    return frozenset(name for node in nodes for name in _named(node))


def _named(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Subscript) and _is_globals(node.value):
        yield from _texts(node.slice)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        of, method = node.func.value, node.func.attr
        if method == "get" and _is_globals(of):
            yield from _given(node)
        elif method in _OF_FRAMES and "@" in (text := " ".join(_given(node))):
            yield from _AT.findall(text)  # all others are columns
        elif isinstance(of, ast.Name) and (of.id, method) in _OF_MODULES:
            yield from _words(node)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _OF_PYTHON:
        yield from _words(node)


def _is_globals(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"globals", "vars"} and not node.args


def _texts(node: ast.expr) -> Iterator[str]:
    """Yield a string, or the parts of one that is put together."""
    if not isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp):
        return iter(())
    return (each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str))


def _given(call: ast.Call) -> Iterator[str]:
    """Yield the strings that a call is given first, or by name."""
    return (text for each in [*call.args[:1], *(keyword.value for keyword in call.keywords)] for text in _texts(each))


def _words(call: ast.Call) -> Iterator[str]:
    """Yield what may be names in Python's code that a call is given, which is not parsed: that would warn of it before it runs."""
    return (word for text in _given(call) for word in _WORD.findall(text) if not iskeyword(word))
