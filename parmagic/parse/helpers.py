"""What the functions and methods that a body calls visibly change, of the notebook's: what they change in a process stays there.

Only functions of the notebook's own are looked at, by their text: what they do to names that they read as globals, and what
methods do to their object.
"""

from __future__ import annotations

import dis
import functools
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from parmagic.model.classes import module_of
from parmagic.model.code import globals_of, last_of, names_of
from parmagic.parse.names import mutated_names
from parmagic.parse.text import definition

_MOST = 100
"""Functions that are looked at."""


class _Helper(NamedTuple):
    """A function that may be called: what it is called, and the name that its first argument has in the notebook, if any."""

    label: str
    function: Any  # mypy takes a FunctionType in a tuple for its method
    owner: str


def changed_by_helpers(body: Any, names: Iterable[str], space: Mapping[str, Any]) -> dict[str, str]:
    """Return the names that functions change which a function of these names calls, with what each is changed by."""
    found: dict[str, str] = {}
    for helper in _helpers(getattr(body, "__code__", None), names, space):
        changed, itself = _changes(helper.function.__code__)
        for name in sorted(changed & helper.function.__globals__.keys()):
            found.setdefault(name, helper.label)
        if itself and helper.owner:
            found.setdefault(helper.owner, helper.label)
    return found


def _helpers(code: CodeType | None, names: Iterable[str], space: Mapping[str, Any]) -> Iterator[_Helper]:
    """Yield the functions and methods of the notebook's that code of these names may call, and those that these may call."""
    waiting = [(name, code, space) for name in sorted(names)]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST:
        name, caller, around = waiting.pop()
        for helper in _called(name, around.get(name), names_of(caller) if caller else frozenset()):
            if id(helper.function) not in seen:
                seen.add(id(helper.function))
                yield helper
                waiting += [(each, helper.function.__code__, helper.function.__globals__) for each in globals_of(helper.function.__code__)]


def _called(name: str, value: Any, attributes: frozenset[str]) -> Iterator[_Helper]:
    """Yield what a call by a name, or of one of these attributes of it, may run."""
    function: Any = last_of(value, lambda each: vars(each).get("__wrapped__") if type(each) is FunctionType else None)
    if type(function) is FunctionType and function.__module__ == "__main__":
        yield _Helper(f"{name}()", function, "")
    kind: Any = value if issubclass(type(value), type) else type(value)
    if module_of(kind) != "__main__":
        return
    own = {key: each for base in reversed(kind.__mro__) if module_of(base) == "__main__" for key, each in vars(base).items()}
    hidden = "__init__" if kind is value else "__call__"  # whether the name itself is called is not known: else its attributes are
    for key in sorted(own.keys() & attributes) or sorted(own.keys() & {hidden}):
        method: Any = getattr(own[key], "__func__", own[key])
        if type(method) is FunctionType:
            yield _Helper(f"{name}()" if key == hidden else f"{name}.{key}()", method, "" if key == "__init__" else name)


@functools.lru_cache(1000)
def _changes(code: CodeType) -> tuple[frozenset[str], bool]:
    """Return the globals that a function visibly changes, and whether it changes its first argument."""
    assigned = {each.argval for each in dis.get_instructions(code) if each.opname in {"STORE_GLOBAL", "DELETE_GLOBAL"}}
    node = definition(code)
    if node is None:
        return frozenset(assigned), False
    first = code.co_varnames[:1] if code.co_argcount else ()
    changed = mutated_names(node.body, globals_of(code) | {*first}, {})
    return frozenset((changed - {*first}) | assigned), bool(changed & {*first})
