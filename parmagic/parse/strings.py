"""Names that stand in strings: what code hands to pandas' ``query`` and ``eval``, to ``eval`` and ``exec``, and to ``globals()``.

Python's scoping rules do not see them, and they are looked up all the same when the code runs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from keyword import iskeyword
from types import FunctionType, MappingProxyType
from typing import Any

from parmagic.model.code import bound_in, names_of
from parmagic.parse.text import definition

_OF_FRAMES = frozenset({"eval", "query"})
_OF_MODULES = frozenset({("pd", "eval"), ("pandas", "eval"), ("ne", "evaluate"), ("numexpr", "evaluate")})
_OF_PYTHON = frozenset({"compile", "eval", "exec"})
_SPACES = frozenset({"globals", "vars"})
_TELLING = _OF_FRAMES | _OF_PYTHON | _SPACES | {"evaluate"}
_AT = re.compile(r"@([^\W\d]\w*)")
"""How a name of Python's is written in an expression of pandas'."""

_WORD = re.compile(r"(?<![\w.])[^\W\d]\w*")

_LONGEST = 10_000
"""Characters of a string of the notebook's that is looked at."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def named_in_strings(body: Iterable[ast.stmt], space: Mapping[str, Any] = _NOTHING) -> frozenset[str]:
    """Return the names in strings that the body's text has, or a name of ``space`` holds; what is put together when it runs is not seen."""
    nodes = [node for statement in body for node in ast.walk(statement)]
    texts = _Texts(nodes, space)
    return frozenset(name for node in nodes for name in texts.named(node))


def named_by(function: FunctionType) -> frozenset[str]:
    """Return the globals of a function that strings in its text name, where that text is known."""
    code = function.__code__
    node = definition(code) if _TELLING & names_of(code) else None
    found = frozenset() if node is None else named_in_strings([node], function.__globals__)
    return (found & function.__globals__.keys()) - bound_in(code)


class _Texts:
    """The strings of some code: as they stand there, or by names that it binds to them, or that hold them where it was written."""

    def __init__(self, nodes: Iterable[ast.AST], space: Mapping[str, Any]) -> None:
        self._space = space
        self._bound: dict[str, list[ast.expr]] = {}
        for name, value in (each for node in nodes for each in _bindings(node)):
            self._bound.setdefault(name, []).append(value)

    def named(self, node: ast.AST) -> Iterator[str]:
        """Yield the names that a node looks up by strings, those of what is within it aside."""
        if isinstance(node, ast.Subscript) and self._is_globals(node.value):
            yield from self._of(node.slice)
        elif isinstance(node, ast.Compare) and any(map(self._is_globals, node.comparators)):
            yield from self._of(node.left)
        elif isinstance(node, ast.BinOp) and self._is_globals(node.right):
            yield from self._words(node.left)
        elif isinstance(node, ast.Call):
            yield from self._called(node)

    def _called(self, call: ast.Call) -> Iterator[str]:
        of = call.func.value if isinstance(call.func, ast.Attribute) else None
        name = call.func.attr if isinstance(call.func, ast.Attribute) else _id(call.func)
        given = [*call.args[:1], *(keyword.value for keyword in call.keywords)]
        if of is not None and self._is_globals(of):
            yield from self._of(*call.args[:1])
        elif any(map(self._is_globals, [*call.args, *given])):
            yield from self._words(*call.args, *given, *([of] if of is not None else []))
        elif of is not None and name in _OF_FRAMES and "@" in (text := " ".join(self._of(*given))):
            yield from _AT.findall(text)  # all others are columns
        elif (_id(of), name) in _OF_MODULES or (name in _OF_PYTHON and _id(of) in {"", "builtins"}):
            yield from self._words(*given)
        elif name == "map" and _id(call.args[0] if call.args else None) in _OF_PYTHON:
            yield from self._words(*call.args[1:])

    def _is_globals(self, node: ast.expr | None) -> bool:
        if isinstance(node, ast.Name):
            return any(not isinstance(each, ast.Name) and self._is_globals(each) for each in self._bound.get(node.id, ()))
        return isinstance(node, ast.Call) and _id(node.func) in _SPACES and not node.args

    def _words(self, *nodes: ast.expr) -> Iterator[str]:
        """Yield what may be names in Python's code, which is not parsed: that would warn of it before it runs."""
        return (word for text in self._of(*nodes) for word in _WORD.findall(text) if not iskeyword(word))

    def _of(self, *nodes: ast.expr) -> Iterator[str]:
        """Yield a string, or the parts of one that is put together."""
        waiting: list[ast.expr] = [*nodes]
        seen: set[int] = set()
        while waiting:
            node = waiting.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if isinstance(node, ast.Name) and node.id not in self._bound:
                held = self._space.get(node.id)
                if type(held) is str and len(held) <= _LONGEST:
                    yield held
            elif isinstance(node, ast.Constant):
                yield from [node.value] if isinstance(node.value, str) else ()
            else:
                waiting += self._bound[node.id] if isinstance(node, ast.Name) else _parts(node)


def _bindings(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Yield the names that a node binds, with what they are, or are taken from."""
    if isinstance(node, ast.Assign):
        targets, value = node.targets, node.value
    elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr):
        targets, value = [node.target], node.value or ast.Constant(None)
    elif isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
        targets, value = [node.target], node.iter
    else:
        return
    yield from ((name, value) for name in map(_id, targets) if name)


def _parts(node: ast.expr) -> list[ast.expr]:
    """Return what may be a part of the string that an expression is."""
    if isinstance(node, ast.Call):  # of a string's method, say
        return [*node.args, *(keyword.value for keyword in node.keywords), node.func.value] if isinstance(node.func, ast.Attribute) else []
    fields = [getattr(node, name) for name in _FIELDS.get(type(node), ())]
    return [each for field in fields for each in (field if isinstance(field, list) else [field])]


_FIELDS: dict[type, tuple[str, ...]] = {
    ast.JoinedStr: ("values",), ast.FormattedValue: ("value",), ast.BinOp: ("left", "right"), ast.BoolOp: ("values",),
    ast.IfExp: ("body", "orelse"), ast.NamedExpr: ("value",), ast.Subscript: ("value",), ast.Starred: ("value",),
    ast.List: ("elts",), ast.Tuple: ("elts",), ast.Set: ("elts",), ast.Dict: ("values",),
}  # fmt: skip


def _id(node: ast.AST | None) -> str:
    return node.id if isinstance(node, ast.Name) else ""
