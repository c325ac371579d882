"""Names of a body: which are the item's own, which the notebook's.

Python's own scoping rules decide, through ``symtable``. It reads text only, so
the body's tree is written out again for it, as an outline: without strings,
whose quotes ``ast.unparse`` cannot always keep.
"""

# ruff: noqa: N815 - ast.NodeVisitor names the methods

from __future__ import annotations

import ast
import builtins
import symtable
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from parmagic.model.classes import module_of

__all__ = ["Names", "blocking_names", "mutated_names", "read_names", "tallies_of"]

MUTATORS = frozenset(
    {"add", "append", "appendleft", "clear", "discard", "extend", "extendleft", "insert", "pop", "popitem"}
    | {"popleft", "put", "put_nowait", "remove", "reverse", "setdefault", "sort", "update"}
)
# Serial ranks, which run one after another, could wait for these forever.
BLOCKING = frozenset(
    {
        "Barrier",
        "BoundedSemaphore",
        "Condition",
        "Event",
        "JoinableQueue",
        "LifoQueue",
        "Pipe",
        "PriorityQueue",
    }
    | {"Queue", "Semaphore", "SimpleQueue"}
)
BLOCKING_MODULES = frozenset(
    {"threading", "queue", "_queue", "multiprocessing.synchronize", "multiprocessing.queues"}
    | {"multiprocessing.connection", "multiprocessing.managers"}
)
BLOCKING_CLASSES = BLOCKING | {
    "Connection",
    "PipeConnection",
    "EventProxy",
    "ConditionProxy",
    "BarrierProxy",
    "AutoProxy[Queue]",
    "AutoProxy[JoinableQueue]",
}

_FIELDS = (ast.FormattedValue, getattr(ast, "Interpolation", ast.FormattedValue))  # of f-strings, and of t-strings (Python 3.14)


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a body.

    ``reads`` come from the notebook (or would: they may not exist there yet),
    ``writes`` are bound in the body's own scope, ``shared`` are declared
    ``global`` and bound, ``declared`` are declared ``global`` at the top,
    ``bound`` are bound in any scope.
    """

    reads: frozenset[str]
    writes: frozenset[str]
    shared: frozenset[str]
    declared: frozenset[str]
    bound: frozenset[str]


def read_names(body: Iterable[ast.stmt], namespace: Mapping[str, Any]) -> Names:
    """Classify the names of a function with this body. Raises SyntaxError as Python does."""
    outline = _Outline()
    statements = [outline.visit(_copy(statement)) for statement in body]
    text = "def body():\n" + "\n".join(
        _indented(ast.unparse(ast.fix_missing_locations(s))) for s in statements
    )
    scopes = symtable.symtable(text, "<outline>", "exec").get_children()
    scope = next(s for s in scopes if s.get_name() == "body")  # 3.14 has one for annotations beside it
    symbols = [(table, symbol) for table in _tables(scope) for symbol in _symbols(table)]
    reads = {
        symbol.get_name()
        for table, symbol in symbols
        if symbol.is_referenced() and _from_notebook(table, symbol)
    }
    own = list(_symbols(scope))
    return Names(
        reads=frozenset(name for name in reads if name in namespace or not hasattr(builtins, name)),
        writes=frozenset(symbol.get_name() for symbol in own if symbol.is_local()),
        shared=frozenset(s.get_name() for _, s in symbols if s.is_declared_global() and _is_bound(s)),
        declared=frozenset(symbol.get_name() for symbol in own if symbol.is_declared_global()),
        bound=frozenset(s.get_name() for _, s in symbols if _is_bound(s) or s.is_parameter()),
    )


def mutated_names(
    body: Iterable[ast.stmt], reads: Iterable[str], namespace: Mapping[str, Any]
) -> frozenset[str]:
    """Return those of ``reads`` that the body visibly changes, as in ``x.append(1)`` or ``x[k] += 1``."""
    found = set()
    for node in _walk(body):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
            root = _root(node.func)
            if root and _may_mutate(node.func, namespace.get(root)):
                found.add(root)
        elif isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            found.add(_root(node))
    return frozenset(found & set(reads))


def tallies_of(body: Iterable[ast.stmt]) -> frozenset[str]:
    """Return the names and attributes whose elements the body updates: ``x[k] += 1``, or ``x[k] = x.get(k, 0) + 1``.

    Also where it keeps for a while what the element was: ``old = x[k]; x[k] = old + 1``.
    """
    nodes = list(_walk(body))
    assigned = [(node.targets, _used(node.value)) for node in nodes if isinstance(node, ast.Assign)]
    made_of: dict[str, set[str]] = {}
    for targets, used in assigned:
        for name in (target.id for target in targets if isinstance(target, ast.Name)):
            made_of.setdefault(name, set()).update(used)
    found = {_whose(node.target) for node in nodes if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Subscript)}
    for targets, used in assigned:
        sources = used.union(*(made_of.get(name, ()) for name in used))
        found |= {_whose(target) for target in targets if isinstance(target, ast.Subscript)} & sources
    return frozenset(found - {""})


def blocking_names(
    body: Iterable[ast.stmt], reads: Iterable[str], namespace: Mapping[str, Any]
) -> frozenset[str]:
    """Return names by which workers wait for each other: notebook objects, or classes named in the body."""
    found = {name for name in reads if _blocks(namespace.get(name))}
    for node in _walk(body):
        if isinstance(node, ast.Name):
            found |= {node.id} & BLOCKING
        elif isinstance(node, ast.Attribute):
            found |= {node.attr} & BLOCKING
        elif isinstance(node, ast.alias):
            found |= {node.name.rpartition(".")[2]} & BLOCKING
    return frozenset(found)


def _copy(value: Any) -> Any:
    """Copy a tree by its fields alone.

    Others hang more on nodes: IPython's tracebacks a parent on each, also on the one ``Load()`` that all trees share, and with it
    the source of whole modules.
    """
    if isinstance(value, ast.AST):
        return type(value)(**{name: _copy(each) for name, each in ast.iter_fields(value)})
    return [_copy(each) for each in value] if isinstance(value, list) else value


class _Outline(ast.NodeTransformer):
    """Keep what binds and reads names; leave out what only makes text."""

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        """Strings and numbers name nothing."""
        return ast.Constant(value=0) if isinstance(node.value, str | bytes) else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.expr:
        """Read the names of the replacement fields, nested ones as well."""
        fields = [n for n in ast.walk(node) if isinstance(n, _FIELDS)]
        values = [self.visit(field.value) for field in fields]
        return ast.Tuple(elts=values, ctx=ast.Load())

    visit_TemplateStr = visit_JoinedStr

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp) -> ast.expr:
        """Write a generator: it is a scope in every version; lists are inlined since 3.12 (PEP 709)."""
        self.generic_visit(node)
        return ast.GeneratorExp(elt=node.elt, generators=node.generators)

    visit_SetComp = visit_ListComp

    def visit_DictComp(self, node: ast.DictComp) -> ast.expr:
        """As for lists."""
        self.generic_visit(node)
        pair = ast.Tuple(elts=[node.key, node.value], ctx=ast.Load())
        return ast.GeneratorExp(elt=pair, generators=node.generators)

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.stmt:
        """``x += 1`` reads x as well, which symtable does not say."""
        self.generic_visit(node)
        if not isinstance(node.target, ast.Name):
            return node
        pair = ast.Tuple(elts=[ast.Name(node.target.id, ast.Load()), node.value], ctx=ast.Load())
        return ast.Assign(targets=[node.target], value=pair)


def _indented(text: str) -> str:
    """Indent, which is safe for an outline: it has no string that a line break could stand in."""
    return "\n".join(f" {line}" for line in text.splitlines())


def _tables(scope: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    """Yield the scope and all scopes inside it."""
    yield scope
    for child in scope.get_children():
        yield from _tables(child)


def _symbols(table: symtable.SymbolTable) -> Iterator[symtable.Symbol]:
    """Yield a table's names; those with a dot are the compiler's own."""
    return (symbol for symbol in table.get_symbols() if "." not in symbol.get_name())


def _from_notebook(table: symtable.SymbolTable, symbol: symtable.Symbol) -> bool:
    """In a class body, ``x = x`` reads the global x, although x is local there."""
    return symbol.is_global() or (table.get_type() == "class" and symbol.is_local())


def _is_bound(symbol: symtable.Symbol) -> bool:
    return symbol.is_assigned() or symbol.is_imported()


def _walk(body: Iterable[ast.stmt]) -> Iterator[ast.AST]:
    for statement in body:
        yield from ast.walk(statement)


def _root(node: ast.expr) -> str:
    """Return the name that ``name.a[b].c`` starts from, else nothing."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _used(value: ast.expr) -> set[str]:
    return {_whose(each) for each in ast.walk(value) if isinstance(each, ast.Name | ast.Attribute)}


def _whose(node: ast.expr) -> str:
    """Return the name, or the attribute, that ``name[a][b]`` is of, else nothing."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _may_mutate(method: ast.Attribute, value: Any) -> bool:
    """``np.append(a, b)`` and ``frame.add(1)`` return something new."""
    if not isinstance(method.value, ast.Name):
        return True
    if isinstance(value, ModuleType):
        return False
    return method.attr != "add" or value is None or hasattr(type(value), "discard")


def _blocks(value: Any) -> bool:
    """Classes are compared by name: to import multiprocessing only for that would be slow."""
    return any(
        module_of(cls) in BLOCKING_MODULES and cls.__qualname__ in BLOCKING_CLASSES
        for cls in type(value).__mro__
    )
