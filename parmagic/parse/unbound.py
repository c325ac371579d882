"""Names that are read before the body, or a class in it, binds them.

In a notebook cell, ``total += x`` reads the notebook's ``total``. In a body,
which is a function, ``total`` is the item's own and does not exist yet. And in
``class A: size = size`` a cell's ``size`` is found, but a function's is not.
"""

# ruff: noqa: N815 - ast.NodeVisitor names the methods

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

__all__ = ["read_by_class", "read_too_early"]


def read_too_early(body: Iterable[ast.stmt], names: frozenset[str]) -> ast.AST | None:
    """Return the first node that certainly reads one of ``names`` before anything may have bound it.

    Only what runs in every case counts: what a condition guards may bind a
    name, but its reads are left to the run.
    """
    walk = _Walk(names)
    for statement in body:
        walk.visit(statement)
    return walk.found


def read_by_class(body: Iterable[ast.stmt], names: frozenset[str]) -> tuple[ast.ClassDef, ast.expr | ast.stmt, str] | None:
    """Return the first class in the body that may read one of ``names`` before it binds the name itself: class, place, and name."""
    for node in (inner for statement in body for inner in ast.walk(statement)):
        if isinstance(node, ast.ClassDef):
            walk = _ClassWalk(names)
            walk.all(node.body)
            for place, name in walk.reads:
                if name in walk.ever - walk.declared:
                    return node, place, name
    return None


class _Walk(ast.NodeVisitor):
    """Visits nodes in the order in which Python evaluates them."""

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names
        self.bound: set[str] = set()
        self.certain = True
        self.found: ast.AST | None = None

    def bind(self, name: str) -> None:
        self.bound.add(name)

    def all(self, nodes: Iterable[ast.AST | None]) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)

    @contextmanager
    def maybe(self) -> Iterator[None]:
        """Mark what runs in some cases only."""
        certain, self.certain = self.certain, False
        yield
        self.certain = certain

    def read(self, name: str, node: ast.expr | ast.stmt) -> None:
        if self.certain and self.found is None and name in self.names and name not in self.bound:
            self.found = node

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self.bind(node.id)
        else:  # `del x` needs x, as a read does
            self.read(node.id, node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.all([node.value, *node.targets])

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self.read(node.target.id, node)
            self.all([node.value, node.target])
        else:
            self.all([node.target, node.value])

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Annotations are not evaluated in a function; without a value nothing is bound."""
        if node.value is not None:
            self.all([node.value, node.target])

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.all([node.value, node.target])

    def visit_Dict(self, node: ast.Dict) -> None:
        self.all(each for pair in zip(node.keys, node.values, strict=True) for each in pair)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self.visit(node.values[0])
        with self.maybe():
            self.all(node.values[1:])

    def visit_Compare(self, node: ast.Compare) -> None:
        self.all([node.left, node.comparators[0]])
        with self.maybe():
            self.all(node.comparators[1:])

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.visit(node.test)
        with self.maybe():
            self.all([node.body, node.orelse])

    def visit_If(self, node: ast.If | ast.While) -> None:
        self.visit(node.test)
        with self.maybe():
            self.all([*node.body, *node.orelse])

    visit_While = visit_If

    def visit_Assert(self, node: ast.Assert) -> None:
        self.visit(node.test)
        with self.maybe():
            self.all([node.msg])

    def visit_For(self, node: ast.For) -> None:
        self.visit(node.iter)
        with self.maybe():
            self.all([node.target, *node.body, *node.orelse])

    def visit_With(self, node: ast.With) -> None:
        """As for ``try``: what is entered may swallow an exception of the block."""
        self.all([*node.items, node.body[0]])
        with self.maybe():
            self.all(node.body[1:])

    def visit_Try(self, node: ast.Try | ast.TryStar) -> None:
        """Trust only the first statement: a caught exception may skip what follows."""
        self.visit(node.body[0])
        with self.maybe():
            self.all([*node.body[1:], *node.handlers, *node.orelse])
        self.all(node.finalbody)

    visit_TryStar = visit_Try

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self.all([node.type])
        if node.name:
            self.bind(node.name)
        self.all(node.body)

    def visit_Match(self, node: ast.Match) -> None:
        self.visit(node.subject)
        with self.maybe():
            self.all(node.cases)

    def visit_MatchAs(self, node: ast.MatchAs | ast.MatchStar) -> None:
        self.generic_visit(node)
        if node.name:
            self.bind(node.name)

    visit_MatchStar = visit_MatchAs

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        self.generic_visit(node)
        if node.rest:
            self.bind(node.rest)

    def visit_alias(self, node: ast.alias) -> None:
        self.bind(node.asname or node.name.partition(".")[0])

    def visit_Lambda(self, node: ast.Lambda) -> None:
        """Only the defaults are evaluated here and now."""
        self.all([*node.args.defaults, *node.args.kw_defaults])

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """Annotations are left out: whether they are evaluated depends on the version."""
        self.all([*node.decorator_list, *node.args.defaults, *node.args.kw_defaults])
        self.bind(node.name)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Leave out the class body, which is a scope of its own."""
        self.all([*node.decorator_list, *node.bases, *node.keywords])
        self.bind(node.name)

    def visit_comprehension_scope(
        self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
    ) -> None:
        """Only the first iterable is evaluated outside; a walrus inside may bind a name of the body."""
        self.visit(node.generators[0].iter)
        for inner in ast.walk(node):
            if isinstance(inner, ast.NamedExpr):
                self.bind(inner.target.id)

    visit_ListComp = visit_comprehension_scope
    visit_SetComp = visit_comprehension_scope
    visit_DictComp = visit_comprehension_scope
    visit_GeneratorExp = visit_comprehension_scope

    def visit_TypeAlias(self, node: ast.AST) -> None:
        """``type X = ...`` (Python 3.12) evaluates its value when someone asks for it."""
        self.all([getattr(node, "name", None)])


class _ClassWalk(_Walk):
    """Collects what may be read unbound: what a condition guards is bound behind it only within what it guards."""

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__(names)
        self.reads: list[tuple[ast.expr | ast.stmt, str]] = []
        self.ever: set[str] = set()
        self.declared: set[str] = set()

    def bind(self, name: str) -> None:
        self.bound.add(name)
        self.ever.add(name)

    @contextmanager
    def maybe(self) -> Iterator[None]:
        before = set(self.bound)
        yield
        self.bound = before

    def read(self, name: str, node: ast.expr | ast.stmt) -> None:
        if name in self.names and name not in self.bound:
            self.reads.append((node, name))

    def visit_Name(self, node: ast.Name) -> None:
        """A name that a class deletes is its own as well."""
        super().visit_Name(node)
        if isinstance(node.ctx, ast.Del):
            self.ever.add(node.id)

    def visit_Global(self, node: ast.Global | ast.Nonlocal) -> None:
        self.declared.update(node.names)

    visit_Nonlocal = visit_Global
