"""What the functions and methods that a body calls visibly change, of the notebook's: what they change in a process stays there.

Only functions of the notebook's own are looked at, by their text: what they do to names that they read as globals, and what
methods do to their object.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from parmagic.model.classes import attributes_of, bases_of, module_of, space_of
from parmagic.model.code import assigned_in, chain_of, code_of, globals_of, names_of, read_first
from parmagic.model.plan import Changes
from parmagic.parse.chance import asks_when_or_who, draws, has_a_share
from parmagic.parse.names import mutated_names, tallies_of
from parmagic.parse.text import definition

_MOST = 100
"""Functions that are looked at."""

_DEEPEST = 3
"""How deep things lie in others whose methods are looked at."""


class _Helper(NamedTuple):
    """A function that may be called: what it is called, and the name that its first argument has in the notebook, if any."""

    label: str
    function: Any  # mypy takes a FunctionType in a tuple for its method
    owner: str


class _Changed(NamedTuple):
    """What a function changes: globals by name, whether its first argument, and what it counts in (:func:`tallies_of`)."""

    names: frozenset[str]
    first: bool = False
    tallies: frozenset[str] = frozenset()


def changed_by_helpers(body: Any, names: Iterable[str], space: Mapping[str, Any]) -> dict[str, str]:
    """Return the names that functions change which a function of these names calls, with what each is changed by."""
    return _changed_by(_helpers(code_of(body), names, space))


def changed_by(code: CodeType, names: Iterable[str], space: Mapping[str, Any], known: Changes, *, shared_out: bool) -> Changes:
    """Return what code of these names, or what it calls, visibly changes in its space; ``known`` is what its text says of that.

    Nothing of it where it draws random numbers, and no number where what changes it asks when or who, or, of items that are
    ``shared_out``, does something for each worker: these differ from run to run.
    """
    helpers = [*_helpers(code, names, space)]
    codes = [code, *(helper.function.__code__ for helper in helpers)]
    if draws(codes, space):
        return Changes()
    read = frozenset[str]().union(*map(read_first, codes))
    changed = known.names.union(_changes(code).names, _changed_by(helpers))
    tallies = known.tallies.union(*(_changes(each).tallies for each in codes))
    changing = [each for each in codes if any(_changes(each)) or (each is code and known.names)]
    differ = asks_when_or_who(changing, space) or (shared_out and has_a_share(codes, space))
    return Changes(changed & read, read, tallies, numbers=not differ)


def _changed_by(helpers: Iterable[_Helper]) -> dict[str, str]:
    found: dict[str, str] = {}
    for helper in helpers:
        changed = _changes(helper.function.__code__)
        for name in sorted(changed.names & helper.function.__globals__.keys()):
            found.setdefault(name, helper.label)
        if changed.first and helper.owner:
            found.setdefault(helper.owner, helper.label)
    return found


def _helpers(code: CodeType | None, names: Iterable[str], space: Mapping[str, Any]) -> Iterator[_Helper]:
    """Yield the functions and methods of the notebook's that code of these names may call, and those that these may call."""
    waiting = [(name, code, space) for name in sorted(names)]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST:
        name, caller, around = waiting.pop()
        for helper in _called(name, around, names_of(caller) if caller else frozenset()):
            if id(helper.function) not in seen:
                seen.add(id(helper.function))
                yield helper
                waiting += [(each, helper.function.__code__, helper.function.__globals__) for each in globals_of(helper.function.__code__)]


def _called(name: str, around: Mapping[str, Any], attributes: frozenset[str]) -> Iterator[_Helper]:
    """Yield what a call by a name, or of one of these attributes of it, may run: what is wrapped, and wrappers that are written there."""
    value: Any = around.get(name)
    layers = chain_of(value, lambda each: vars(each).get("__wrapped__") if type(each) is FunctionType else None)
    for function in (each for each in layers if type(each) is FunctionType and each.__module__ == "__main__"):
        if function is layers[-1] or function.__globals__ is around:  # a library's wrapper says that it is of the same module, too
            yield _Helper(f"{name}()", function, "")
    for each in _reached(value, attributes, _DEEPEST):
        yield from _methods(name, each, attributes, itself=each is value)


def _reached(value: Any, attributes: frozenset[str], deep: int) -> Iterator[Any]:
    """Yield a thing, and those that are reached from it by these attributes, or are in it: the first, which stands for all."""
    yield value
    if deep and any(type(value) is each for each in (dict, list, tuple)):
        for each in islice(value.values() if type(value) is dict else value, 1):
            yield from _reached(each, attributes, deep - 1)
    elif deep and module_of(type(value)) == "__main__" and (own := attributes_of(value)):
        for key in sorted(attributes & own.keys()):
            yield from _reached(own[key], attributes, deep - 1)


def _methods(name: str, value: Any, attributes: frozenset[str], *, itself: bool) -> Iterator[_Helper]:
    """Yield methods of a thing of the notebook's that is reached from a name; ``itself``: it has that name, and may be called."""
    kind: Any = value if issubclass(type(value), type) else type(value)
    if module_of(kind) != "__main__":
        return
    own = {key: each for base in reversed(bases_of(kind)) if module_of(base) == "__main__" for key, each in space_of(base).items()}
    hidden = "__init__" if kind is value else "__call__"  # whether the name itself is called is not known: else its attributes are
    for key in sorted(own.keys() & attributes) or sorted(own.keys() & {hidden} if itself else ()):
        for method in _functions_of(own[key]):
            yield _Helper(f"{name}()" if key == hidden else f"{name}.{key}()", method, "" if key == "__init__" else name)


def _functions_of(member: Any) -> list[Any]:
    """Return the functions that a class has by a name: a method, or what gets and sets a property."""
    if type(member) is property:
        parts = [member.fget, member.fset, member.fdel]
    else:
        parts = [member.__func__ if any(type(member) is each for each in (staticmethod, classmethod)) else member]
    return [each for each in parts if type(each) is FunctionType]


@functools.lru_cache(1000)
def _changes(code: CodeType) -> _Changed:
    """Return what a function visibly changes."""
    assigned, node = assigned_in(code), definition(code)
    if node is None:
        return _Changed(assigned)
    first = code.co_varnames[:1] if code.co_argcount else ()
    changed = mutated_names(node.body, globals_of(code) | {*first}, {})
    return _Changed((changed - {*first}) | assigned, bool(changed & {*first}), tallies_of(node.body))
