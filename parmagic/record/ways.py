"""The ways on which code gets from one object to others, each with what a user would write for it; no code of the user's runs for that."""

from __future__ import annotations

import collections
import functools
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from types import BuiltinFunctionType, CodeType, FunctionType, GetSetDescriptorType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, NamedTuple

from parmagic.model.classes import attributes_of, bases_of, module_of, own_name, space_of
from parmagic.model.private import Private, joined, public
from parmagic.model.sources import library_of
from parmagic.model.things import THING_OF

MOST = 10_000
"""No more elements of one container than these are looked at."""

_LOCKS = frozenset({"threading", "queue", "_queue", "_thread", "concurrent.futures", "multiprocessing", "_multiprocessing"})
"""The modules, and packages, whose objects users know as locks and queues: their parts are called as the whole is."""

_PLAIN = frozenset(map(id, (int, float, complex, str, bytes, bytearray, bool, type(None), CodeType, BuiltinFunctionType, range, slice)))
_HOLDERS = frozenset({"builtins", "types", "collections", "functools", "argparse", "weakref", "contextvars"})
"""The modules whose objects only hold what users have put there."""

_CONTAINERS = (list, tuple, collections.deque, set, frozenset, dict)
_SHELL = frozenset({"In", "Out", "get_ipython", "exit", "quit"})
"""Names of the shell's own."""

_module_space: Any = vars(ModuleType)["__dict__"].__get__


class Way(NamedTuple):
    """How a value is reached: the steps of the ``name`` that a user would write (see :func:`spelled`), and what it is part of.

    ``thing`` is the sort of lock whose part it is, ``owner`` is ``library``, or ``pool``, where it is a part of a library's object.
    ``others``: it is none of the names that the body reads, so that libraries' objects are not looked into.
    """

    name: Any
    value: Any
    thing: str = ""
    owner: str = ""
    others: bool = False


class Key(NamedTuple):
    """A step by a key; ``value`` may be private."""

    value: Any


def spelled(name: Any) -> str:
    """Spell a name: a text, or a pair of one and the step behind it: a place, a :class:`Key`, or the name of an attribute."""
    if type(name) is not tuple:
        return str(name)
    before, step = spelled(name[0]), name[1]
    if type(step) is Key:
        return Private(f"{before}[{step.value!r}]", f"{public(before)}[…]")
    if type(step) is int:
        return joined(before, f"[{step}]")
    last = str.__str__(step) if issubclass(type(step), str) else "…"  # what another one says of itself is code of the user's
    return joined(before, f".{last}") if before else last


class Sort(NamedTuple):
    """What a class is to us: its module, the ``thing`` that it is (empty: none), and whether its objects may be waited for.

    ``whole``: it is one of the standard library's locks and queues, ``library``: any other class of a library's.
    """

    module: str
    thing: str
    may_wait: bool
    whole: bool
    library: bool


def _has_locks(module: str) -> bool:
    return module in _LOCKS or module.startswith(("multiprocessing.", "concurrent.futures."))


def _is_library(module: str) -> bool:
    """Tell whether a module is part of a library; one without a file is."""
    found = sys.modules.get(module)
    if module == "__main__" or not issubclass(type(found), ModuleType):
        return module in sys.builtin_module_names
    file = _module_space(found).get("__file__")
    return type(file) is not str or bool(library_of(file)) or file.endswith((".so", ".pyd"))


class Ways:
    """The ways from what a body has, and from what lies around it."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self._here: Any = None
        plain = function.func if type(function) is functools.partial else function
        self._plain = plain.__func__ if type(plain) is MethodType else plain
        if type(self._plain) is FunctionType:
            self._here = self._plain.__globals__
        self._sorts: dict[int, tuple[type, Sort]] = {}  # by identity: the hash of a class may be code of the user's

    def sort_of(self, kind: type) -> Sort:
        """Return what a class is to us."""
        known = self._sorts.get(id(kind))
        if known is None:
            known = self._sorts[id(kind)] = kind, _sort_of(kind)
        return known[1]

    def begin(self) -> Iterator[Way]:
        """Yield what the body has: what it closes over, its defaults, the object that it is a method of, the names that it reads."""
        function = self._function
        if type(function) is functools.partial:
            yield from _of_partial(Way("", None), function)
            function = function.func
        if type(function) is MethodType:
            yield Way("self", function.__self__)
        if type(self._plain) is not FunctionType:
            yield Way("self", self._plain)
            return
        yield from _brought_along(self._plain, "")
        yield from self._read(self._plain)

    def around(self) -> Iterator[Way]:
        """Yield the other names of the notebook, or of the module, that the body was written in."""
        for name, value in list(dict.items(self._here or {})):
            if type(name) is str and name not in _SHELL and not name.startswith("_") and type(value) is not ModuleType:
                yield Way(name, value, others=True)

    def parts(self, way: Way) -> Iterator[Way]:
        """Yield what lies in a thing."""
        value, kind = way.value, type(way.value)
        if id(kind) in _PLAIN or issubclass(kind, ModuleType):
            return
        if issubclass(kind, _CONTAINERS):
            yield from _elements(way)
        if kind is FunctionType:
            yield from self._of_function(way, value)
        elif kind is MethodType:
            yield way._replace(name=(way.name, "__self__"), value=value.__self__)
            yield way._replace(value=value.__func__)
        elif kind is functools.partial:
            yield way._replace(name=(way.name, "func"), value=value.func)
            yield from _of_partial(way, value)
        elif kind is staticmethod or kind is classmethod:
            yield way._replace(value=value.__func__)
        elif kind is property:
            yield way._replace(value=value.fget)
        elif issubclass(kind, type):
            yield from self._of_class(way, value)
        else:
            yield from self._of_object(way, value)

    def _of_function(self, way: Way, function: FunctionType) -> Iterator[Way]:
        """Yield what a function of the user's has; what a library's has is its own affair."""
        if library_of(function.__code__.co_filename):
            return
        yield from _brought_along(function, way.name)
        for name, each in list(function.__dict__.items()):
            yield Way((way.name, name), each)
        yield from self._read(function)

    def _of_class(self, way: Way, kind: type) -> Iterator[Way]:
        for base in bases_of(kind):
            sort = self.sort_of(base)
            if sort.library or sort.whole or sort.module in _HOLDERS:
                continue
            for name, each in list(space_of(base).items()):
                if type(each) is not MemberDescriptorType and type(each) is not GetSetDescriptorType:
                    yield Way((way.name, name), each, way.thing, way.owner, way.others)

    def _of_object(self, way: Way, value: Any) -> Iterator[Way]:
        """Yield an object's attributes, and what its class has; parts of a Condition are what the user knows as the Condition."""
        kind = type(value)
        sort = self.sort_of(kind)
        if sort.library and way.others:
            return
        if sort.whole:
            way = way._replace(thing=way.thing or sort.thing)
        elif sort.library:
            way = way._replace(owner="pool" if "pool" in own_name(kind).lower() else way.owner or "library")
        elif sort.module not in _HOLDERS:
            way = way._replace(thing="", owner="")  # what it has is the user's again
        for name, each in _attributes(value):
            yield Way(way.name if sort.whole else (way.name, name), each, way.thing, way.owner, way.others)
        if not sort.whole and not sort.library:
            yield from self._of_class(way, kind)

    def _read(self, function: FunctionType) -> Iterator[Way]:
        """Yield the names that a function's code reads around it, or imports, and of modules what it reads of these.

        Names of another module than the body's begin with the module's.
        """
        names = list(dict.fromkeys(_names_in(function.__code__)))
        space: Any = function.__globals__
        module = dict.get(space, "__name__")
        prefix = "" if space is self._here or module == "__main__" or type(module) is not str else f"{module}."
        for name in names:
            if dict.__contains__(space, name):
                yield from _in_modules(f"{prefix}{name}", dict.get(space, name), names)
            elif name in sys.modules:
                yield from _in_modules(name, sys.modules[name], names)


def _sort_of(kind: type) -> Sort:
    module = module_of(kind)
    thing = next((THING_OF[own_name(base)] for base in bases_of(kind) if own_name(base) in THING_OF and _has_locks(module_of(base))), "")
    whole = _has_locks(module)
    return Sort(module, thing, bool(thing) or whole, whole, not whole and module not in _HOLDERS and _is_library(module))


def _elements(way: Way) -> Iterator[Way]:
    """Yield a container's elements, but for those in which nothing lies; its own methods are not asked, which may be the user's."""
    name, value = way.name, way.value
    kind, rest = type(value), way[2:]
    try:
        if issubclass(kind, dict):
            for key, each in list(islice(dict.items(value), MOST)):
                if id(type(each)) not in _PLAIN:
                    yield Way((name, Key(key)) if type(key) is str or type(key) is int else name, each, *rest)
            return
        sequence = next(base for base in _CONTAINERS if issubclass(kind, base))
        ordered = not issubclass(sequence, (set, frozenset))
        for place, each in enumerate(list(islice(sequence.__iter__(value), MOST))):
            if id(type(each)) not in _PLAIN:
                yield Way((name, place) if ordered else name, each, *rest)
    except RuntimeError:
        return  # another thread changes it


def _of_partial(way: Way, value: Any) -> Iterator[Way]:
    """Yield a partial's arguments; those of the body have the names that it knows them by."""
    code = value.func.__code__ if type(value.func) is FunctionType else None
    for place, each in enumerate(value.args):
        own = code.co_varnames[place] if code and place < code.co_argcount else f"args[{place}]"
        yield way._replace(name=(way.name, own), value=each)
    for name, each in dict.items(value.keywords):
        yield way._replace(name=(way.name, name), value=each)


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    attributes = attributes_of(value)
    if type(attributes) is dict:
        yield from list(islice(attributes.items(), MOST))
    for base in bases_of(type(value)):
        slots = space_of(base).get("__slots__")
        for name, slot in list(space_of(base).items()) if slots is not None else ():
            if type(slot) is MemberDescriptorType:
                try:
                    yield name, slot.__get__(value)
                except AttributeError:
                    continue  # nothing has been bound to it yet


def _brought_along(function: FunctionType, name: Any) -> Iterator[Way]:
    """Yield what a function closes over, and its defaults, by their names in it; ``name`` is its own (empty: it is the body)."""
    code = function.__code__
    for cell_name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield Way((name, cell_name), cell.cell_contents)
        except ValueError:
            continue  # nothing has been bound to it yet
    defaults = function.__defaults__ or ()
    positional = code.co_varnames[: code.co_argcount]
    for each_name, value in zip(positional[len(positional) - len(defaults) :], defaults, strict=False):
        yield Way((name, each_name), value)
    for each_name, value in dict.items(function.__kwdefaults__ or {}):
        yield Way((name, each_name), value)


def _in_modules(name: str, value: Any, names: Iterable[str], depth: int = 0) -> Iterator[Way]:
    if not issubclass(type(value), ModuleType):
        yield Way(name, value)
        return
    space = _module_space(value)
    if depth < 3 and type(space) is dict:  # noqa: PLR2004  (package.part.module)
        for each in names:
            if each in space and space[each] is not value:
                yield from _in_modules(f"{name}.{each}", space[each], names, depth + 1)


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)
