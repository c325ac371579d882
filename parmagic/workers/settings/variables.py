"""ContextVars: where one is found, so that a process finds its own by that, and what it holds."""

from __future__ import annotations

import sys
from contextvars import Context, ContextVar, copy_context
from types import ModuleType
from typing import Any

_NOT_SENT = frozenset(
    {"IPython", "ipykernel", "jupyter_core", "parmagic", "prompt_toolkit"}
    | {"_decimal", "_py_warnings", "_pydecimal", "decimal", "numpy", "warnings"}
)
"""Whose variables are a front end's, or have a setting of their own."""

_places: dict[int, tuple[ContextVar[Any], tuple[str, str] | None]] = {}  # each with its variable, which therefore stays


def of_modules() -> dict[tuple[str, str], Any]:
    """Return what variables of modules hold in the context that runs here."""
    now = list(copy_context().items())
    _look_for([variable for variable, _ in now])
    found = ((_places[id(variable)][1], value) for variable, value in now)
    return {place: value for place, value in found if place and place[0].partition(".")[0] not in _NOT_SENT}


def place_of(variable: ContextVar[Any]) -> tuple[str, str] | None:
    """Return the module, and the name in it, by which a process finds such a variable; None where it is no module's but the notebook's."""
    _look_for([variable])
    return _places[id(variable)][1]


def _look_for(variables: list[ContextVar[Any]]) -> None:
    """Look through all modules, once for each variable."""
    new = {id(each): each for each in variables if id(each) not in _places}
    if not new:
        return
    notebook = sys.modules["__main__"]  # multiprocessing knows it by another name as well
    for name, module in list(sys.modules.items()):
        if module is notebook or not issubclass(type(module), ModuleType):
            continue
        for key, value in list(object.__getattribute__(module, "__dict__").items()):
            if type(value) is ContextVar and id(value) in new:
                _places.setdefault(id(value), (value, (name, key)))
    for number, each in new.items():
        _places.setdefault(number, (each, None))


def reduced(variable: ContextVar[Any]) -> tuple[Any, ...]:
    """Take a variable apart: it is the module's there, or a new one, of the same default, that holds the same."""
    place = place_of(variable)
    if place is not None:
        return find, place
    return _new, (variable.name, *_default(variable)), *_held(variable)


def find(module: str, name: str) -> Any:
    """Return the variable of a module."""
    __import__(module)
    return getattr(sys.modules[module], name)


def _default(variable: ContextVar[Any]) -> tuple[Any, ...]:
    try:
        return (Context().run(variable.get),)
    except LookupError:
        return ()


def _held(variable: ContextVar[Any]) -> tuple[Any, ...]:
    context = copy_context()
    return ((context[variable],), None, None, _hold) if variable in context else ()


def _new(name: str, *default: Any) -> ContextVar[Any]:
    return ContextVar(name, default=default[0]) if default else ContextVar(name)


def _hold(variable: ContextVar[Any], state: tuple[Any]) -> None:
    variable.set(state[0])
