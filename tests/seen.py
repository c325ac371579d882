"""What can be seen of a value: its types, its contents, which of its parts are one object, and where it leads back to itself.

Two values look the same here if no plain code could tell them apart, but for addresses, for the order in a set, for what a
cache has in it, and for memory that two arrays share.
"""

from __future__ import annotations

import dis
import enum
import functools
import logging
import os
import pathlib
import re
import sys
import types
import warnings
import weakref
from array import array
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

ATOMS = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented))
"""Of these, nobody asks whether they are one object."""

_OF_ALL_CLASSES = {
    "__dict__", "__weakref__", "_abc_impl", "__slotnames__", "_value2member_map_", "_unhashable_values_", "_hashable_values_", "_unhashable_values_map_", "_use_args_",
}  # fmt: skip
"""Which of a class's own are not told: some are noted by Python when an instance was pickled, or a flag was asked for."""

_CACHE = type(functools.lru_cache(len))
sys.setrecursionlimit(20_000)  # one thing leads to another
_ITERATORS = tuple(type(each) for each in (iter([]), iter(()), iter(""), iter(range(0)), reversed([]), enumerate([]), zip(), map(len, [])))
_SLOT = types.MemberDescriptorType


def seen(value: Any, named: Mapping[str, Any] | None = None, *, into_classes: bool = True) -> str:
    """Tell what a value is; of an object that one of the names holds, only which, and of classes only the names, where these are not looked into."""
    return Eye({id(each): name for name, each in (named or {}).items() if not isinstance(each, (*ATOMS, array))}, into_classes).look(value)


class Eye:
    """Looks at one thing after another; what it has met already has a number."""

    def __init__(self, named: Mapping[int, str], into_classes: bool) -> None:
        self._named = named
        self._into_classes = into_classes
        self._met: dict[int, int] = {}
        self._held: list[Any] = []

    def look(self, value: Any) -> str:
        """Tell what a value is."""
        kind = type(value)
        if kind in ATOMS:
            return f"{kind.__name__} {repr(value) if kind is not int or abs(value) < 1 << 99 else hash(value)}"
        if value is os.environ:
            return f"environment of {len(value) > 0}"
        if kind.__module__ == "typing":
            return self._parts("typing", kind.__name__, getattr(value, "__name__", None), getattr(value, "__module__", None), *getattr(value, "__args__", ()))
        if kind is types.MappingProxyType:
            return f"proxy of {self._parts(*(each for pair in value.items() for each in pair))}"
        if id(value) in self._named:
            return f"<{self._named[id(value)]}>"
        if id(value) in self._met:
            return f"#{self._met[id(value)]}"
        self._met[id(value)] = len(self._met)
        self._held.append(value)
        return f"#{self._met[id(value)]} {self._way(value)(value)}"

    def _way(self, value: Any) -> Callable[[Any], str]:
        """Return how such a thing is told."""
        for kinds, way in self._ways():
            if isinstance(value, kinds):
                return way
        module = type(value).__module__.partition(".")[0]
        if module in {"numpy", "pandas"} and hasattr(value, "__array__"):
            return self._table
        return self._object

    def _ways(self) -> list[tuple[Any, Callable[[Any], str]]]:
        return [
            (type, self._class),
            (logging.Logger, lambda logger: self._parts("logger", logger.name)),
            (types.ModuleType, lambda module: f"module {module.__name__}"),
            (types.FunctionType, self._function),
            (types.BuiltinFunctionType, lambda function: self._parts("builtin", function.__name__, function.__self__)),
            (types.MethodType, lambda method: self._parts("method", method.__func__, None if method.__name__ == "clear" else method.__self__)),
            (types.CellType, self._cell),
            (functools.partial, lambda part: self._parts(type(part), part.func, part.args, part.keywords, vars(part))),
            (_CACHE, lambda cache: self._parts("cache", cache.__wrapped__, sorted(cache.cache_parameters().items()), _dict(cache))),
            (functools.cached_property, lambda each: self._parts("cached property", each.func, each.attrname, each.__doc__)),
            (property, lambda each: self._parts(type(each), each.fget, each.fset, each.fdel, each.__doc__)),
            ((classmethod, staticmethod), lambda each: self._parts(type(each), each.__func__)),
            (_SLOT, lambda slot: f"slot {slot.__name__}"),
            (pathlib.PurePath, lambda path: self._parts(type(path), str(path))),  # else: what it has worked out so far
            (enum.Enum, lambda member: self._parts(type(member), member._name_, member._value_)),
            ((weakref.WeakKeyDictionary, weakref.WeakValueDictionary), lambda weak: self._parts(type(weak), dict(weak))),
            (weakref.WeakSet, lambda weak: self._parts(type(weak), set(weak))),
            (_ITERATORS, lambda each: self._parts(type(each), *_reduced(each))),
            ((bytearray, array), lambda data: self._parts(type(data), bytes(data), getattr(data, "typecode", ""))),
            (memoryview, lambda view: self._parts("view", view.format, repr(view.shape), view.readonly, view.tobytes())),
            (BaseException, lambda error: self._parts(type(error), error.args, error.__cause__, error.__context__, vars(error))),
            (dict, lambda table: self._parts(type(table), *(x for pair in dict.items(table) for x in pair), *_rest(table))),
            ((list, tuple, deque), lambda row: self._parts(type(row), *_all(row), getattr(row, "maxlen", 0), *_rest(row))),
            ((set, frozenset), lambda some: self._parts(type(some), *sorted(some, key=_key), *_rest(some))),
        ]

    def _parts(self, *parts: Any) -> str:
        return f"({', '.join(map(self.look, parts))})"

    def _cell(self, cell: Any) -> str:
        try:
            return self._parts("cell", cell.cell_contents)
        except ValueError:
            return "an empty cell"

    def _class(self, kind: Any) -> str:
        if not self._into_classes or (kind.__module__ != "__main__" and kind.__module__ in sys.modules):
            return f"class {kind.__module__}.{kind.__qualname__}"
        space = {name: value for name, value in sorted(vars(kind).items()) if name not in _OF_ALL_CLASSES}
        return self._parts("class", kind.__name__, kind.__qualname__, type(kind), kind.__bases__, space)

    def _function(self, function: Any) -> str:
        if function.__module__ != "__main__" and function.__module__ in sys.modules:
            return f"function {function.__module__}.{function.__qualname__}"
        code, space = function.__code__, function.__globals__
        reads = {name: space[name] for name in sorted(_globals(code)) if name in space}
        told = function.__name__, function.__qualname__, repr(function.__module__), repr(function.__doc__), _code(code)
        given = function.__defaults__, function.__kwdefaults__, function.__closure__, function.__annotations__, vars(function)
        return self._parts("function", *told, *given, getattr(function, "__type_params__", ()), reads)

    def _table(self, value: Any) -> str:
        """Tell of an array or a frame: its type, its numbers; not how it lies in memory, nor whether it may be written to."""
        numpy = sys.modules["numpy"]
        if isinstance(value, numpy.ndarray):
            own = [getattr(value, "_mask", None), value.fill_value] if isinstance(value, numpy.ma.MaskedArray) else []
            data = value.ravel().tolist() if value.dtype.kind == "O" else value.tobytes().hex()[:1000]
            return self._parts(type(value), str(value.dtype), repr(value.shape), data, *own)
        if isinstance(value, numpy.generic):
            return self._parts(type(value), str(value.dtype), repr(value))
        dtypes = getattr(value, "dtypes", getattr(value, "dtype", None))
        columns = [numpy.asarray(value[name], dtype=object).tolist() for name in value] if hasattr(value, "columns") else list(value)
        axes = [(str(axis.dtype), list(axis), list(axis.names)) for axis in getattr(value, "axes", [])]
        return self._parts(type(value), str(dtypes), columns, axes, getattr(value, "attrs", None), getattr(value, "name", None))

    def _object(self, value: Any) -> str:
        """Tell of any other: its attributes and slots; where it has none, its text."""
        if isinstance(value, functools.singledispatchmethod):
            return self._parts(type(value), value.func)
        slots = [(name, each) for base in type(value).__mro__ for name, each in vars(base).items() if type(each) is _SLOT and "offset" not in name]
        held = {name: each.__get__(value) for name, each in slots if _is_set(each, value)}
        space = _dict(value)
        text = "" if slots or space is not None or type(value) is object else re.sub("0x[0-9a-fA-F]+", "0x", repr(value))
        for kind in (int, float, complex, str, bytes):
            if isinstance(value, kind):
                text = kind.__repr__(value)
        state = getattr(value, "getstate", getattr(value, "get_state", lambda: getattr(getattr(value, "bit_generator", None), "state", None)))()
        if hasattr(type(value), "getvalue"):
            text = f"{value.getvalue()!r} at {value.tell()}"
        return self._parts(type(value), space, held, text, repr(state))


def _key(value: Any) -> str:
    """Return where something stands in a set that is told."""
    if isinstance(value, (tuple, frozenset)):
        return f"{type(value)} of {sorted(map(_key, value))}"
    own = [f"{name} {_text(each)}" for name, each in (_dict(value) or {}).items() if isinstance(each, ATOMS)]
    return f"{type(value)} {getattr(value, '__qualname__', '')} {re.sub('0x[0-9a-f]+', '', _text(value))} {own}"


def _text(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # a number of more digits than Python shows
        return type(value).__name__


def _all(row: Any) -> Any:
    return next(kind for kind in (list, tuple, deque) if isinstance(row, kind)).__iter__(row)


def _dict(value: Any) -> dict[str, Any] | None:
    try:
        return object.__getattribute__(value, "__dict__")
    except AttributeError:
        return None


def _rest(value: Any) -> tuple[Any, ...]:
    """Return what a container of a class of its own has beside its contents."""
    return (_dict(value), getattr(value, "default_factory", None)) if type(value) not in {dict, list, tuple, set, frozenset} else ()


def _reduced(value: Any) -> tuple[Any, ...]:
    """Return what is left in an iterator, and in those that it takes from."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return value.__reduce__()[1:]


def _is_set(slot: Any, value: Any) -> bool:
    try:
        slot.__get__(value)
    except AttributeError:
        return False
    return True


def _globals(code: Any) -> set[str]:
    """Return the names that a function, or one within it, reads where it was defined."""
    found = {each.argval for each in dis.get_instructions(code) if each.opname in {"LOAD_GLOBAL", "LOAD_NAME"}}
    return found.union(*(_globals(each) for each in code.co_consts if isinstance(each, types.CodeType)))


def _code(code: Any) -> str:
    """Tell what a function does, and where it stands."""
    constants = [_code(each) if isinstance(each, types.CodeType) else repr(sorted(each, key=repr) if isinstance(each, frozenset) else each) for each in code.co_consts]
    where = code.co_filename.partition("ipykernel")[0], code.co_firstlineno, code.co_flags
    return repr((code.co_name, where, code.co_code.hex(), constants, code.co_names, code.co_varnames, code.co_freevars))
