"""What the notebook has put into modules: processes import these as they are, and have none of it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from parmagic.model.classes import module_of
from parmagic.model.words import is_plain

_MOST_BYTES = 1_000_000
"""Of a module's text that is read for what was changed in it."""


def replaced(modules: Iterable[ModuleType]) -> list[str]:
    """Return what stands in modules and comes from the notebook: ``json.dumps``, where a cell has put a function there."""
    return [f"{_name(each)}.{name}" for each in modules for name in sorted(_foreign(vars(each)))]


def changed(modules: Iterable[ModuleType]) -> list[str]:
    """Return all that differs from what an import would give, as far as that is seen: also methods of their classes, and plain values."""
    found: list[str] = []
    for module in modules:
        found += replaced([module])
        for name, kind in list(vars(module).items()):
            if issubclass(type(kind), type) and module_of(kind) == _name(module):
                found += [f"{_name(module)}.{name}.{key}" for key in sorted(_foreign(vars(kind)))]
        found += [f"{_name(module)}.{name}" for name in _other_values(module)]
    return list(dict.fromkeys(found))


def around(modules: Iterable[ModuleType]) -> list[ModuleType]:
    """Return these modules, and all that is loaded of their packages."""
    tops = {_name(each).partition(".")[0] for each in modules} - {"__main__"}
    return [each for name, each in list(sys.modules.items()) if type(each) is ModuleType and name.partition(".")[0] in tops]


def _name(module: ModuleType) -> str:
    return str(vars(module).get("__name__", ""))


def _foreign(space: Any) -> Iterator[str]:
    """Yield the names that stand for functions, classes, or instances of classes, of the notebook's, or for mocks."""
    for name, value in list(space.items()):
        kind = type(value)
        if kind is FunctionType or kind is BuiltinFunctionType:
            where = value.__module__
        else:
            where = module_of(value if issubclass(kind, type) else kind)
        if where in {"__main__", "unittest.mock"} and not name.startswith("__"):
            yield name


def _other_values(module: ModuleType) -> Iterator[str]:
    """Yield the names whose plain values are not those that the module's text assigns."""
    file = vars(module).get("__file__")
    if not isinstance(file, str) or not file.endswith(".py"):
        return
    with suppress(OSError, SyntaxError, ValueError, RecursionError):
        text = Path(file).read_bytes()
        if len(text) <= _MOST_BYTES:
            written = _values(ast.parse(text))
            yield from (name for name, value in written.items() if name in vars(module) and _differs(value, vars(module)[name]))


def _values(tree: ast.Module) -> dict[str, Any]:
    """Return the plain values that a module assigns to names, once, and does not change itself."""
    found: dict[str, Any] = {}
    skipped: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            skipped.update(node.names)
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign | ast.AugAssign) else []
        for name in (each.id for each in targets if isinstance(each, ast.Name)):
            skipped |= {name} & found.keys()
            found[name] = ...
            if node in tree.body and isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant):
                found[name] = node.value.value
    return {name: value for name, value in found.items() if value is not ... and name not in skipped}


def _differs(written: Any, now: Any) -> bool:
    """Tell whether a plain value is another one."""
    return is_plain(now) and (type(now) is not type(written) or now != written)
