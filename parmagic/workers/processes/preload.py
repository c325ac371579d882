"""What the fork server imports ahead, so that workers start with it.

That is what the notebook has imported and what is installed: packages that its names
come from, with those of their modules that are loaded here. Modules of the user's own,
which may change between two runs, are left to the workers.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Mapping
from functools import cache
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from parmagic.model.classes import module_of

NEVER = frozenset({"IPython", "__main__", "builtins", "ipykernel", "parmagic", "viztracer"})


def wanted(space: Mapping[str, Any]) -> list[str]:
    """Return the installed modules that a notebook with these names has imported, in the order in which it did."""
    global _known  # noqa: PLW0603
    packages = {_package(value) for value in list(space.values())} - NEVER
    modules = list(sys.modules.items())
    # assumed: what is imported comes last, also a module that was removed and is imported again
    state = packages, len(modules), modules[-1][0]
    known = _known  # once: a run in another thread may change it meanwhile
    if known[0] != state:
        _known = known = state, [name for name, module in modules if name.partition(".")[0] in packages and _installed(module)]
    return list(known[1])


_known: tuple[Any, list[str]] = None, []  # of thousands of modules, the same ones are wanted run after run


def _package(value: Any) -> str:
    """Return the top-level package that a module, function or class comes from."""
    kind = type(value)
    if kind is ModuleType or kind is FunctionType or kind is BuiltinFunctionType:
        name = value.__name__ if kind is ModuleType else value.__module__
        return name.partition(".")[0] if isinstance(name, str) else ""
    return module_of(value if issubclass(kind, type) else kind).partition(".")[0]  # asking an object would run its own code


def _installed(module: Any) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and _is_installed(os.path.dirname(file))  # noqa: PTH120  (thousands of them)


@cache
def _is_installed(folder: str) -> bool:
    if not os.path.isabs(folder):  # noqa: PTH117  (thousands of them)
        return False  # and it leads to nothing where the working directory is gone
    return (os.path.realpath(folder) + os.sep).startswith(_roots())


@cache
def _roots() -> tuple[str, ...]:
    """Return where packages are installed; the standard library is with the server anyway, or soon loaded."""
    found = [*site.getsitepackages(), site.getusersitepackages(), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    return tuple({os.path.realpath(folder) + os.sep for folder in found})


def changed(loaded: Mapping[str, float]) -> bool:
    """Tell whether a module that was imported ahead has been edited since; ``loaded`` has each one's time of change."""
    return any(stamp(name) != before for name, before in loaded.items() if "." not in name)


def stamp(name: str) -> float:
    """Return when a module's file was changed last; 0 where that is not known."""
    file = getattr(sys.modules.get(name), "__file__", None)
    try:
        return os.stat(file).st_mtime if file else 0.0  # noqa: PTH116  (at each run)
    except OSError:
        return 0.0
